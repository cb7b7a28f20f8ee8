/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file of a saved machine: sections and checksums, guest memory written, mapped and written again, and
 * system calls that fail one after the other: what was under the name before stays whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/util.h"
#include "os/sys.h"
#include "vmm/save_file.h"
#include "vmm/save_memory.h"

#define MEMORY    (16 * MIB)
#define PAGE_USED 7u        /* each seventh page ... */
#define USED      (1 * MIB) /* ... of the beginning */

static char dir[] = "/tmp/ruche-save-XXXXXX";
static char path[64], part[80];
static struct sys_table real;

static int make_folder(void **state)
{
    real = sys;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/saved", dir);
    snprintf(part, sizeof(part), "%s.part", path);
    return 0;
}

static int remove_folder(void **state)
{
    unlink(path);
    return rmdir(dir);
}

static int calls_left; /* until one fails; negative: none does */

static bool fails(void)
{
    if (calls_left < 0 || calls_left-- > 0)
        return false;
    errno = ENOSPC;
    return true;
}

static ssize_t failing_pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
    return fails() ? -1 : real.pwritev(fd, iov, n, off);
}

static int failing_fsync(int fd)
{
    return fails() ? -1 : real.fsync(fd);
}

static int failing_fdatasync(int fd)
{
    return fails() ? -1 : real.fdatasync(fd);
}

static int failing_ftruncate(int fd, off_t len)
{
    return fails() ? -1 : real.ftruncate(fd, len);
}

static int failing_rename(const char *from, const char *to)
{
    return fails() ? -1 : real.rename(from, to);
}

static int failing_open(const char *name, int flags, mode_t mode)
{
    return fails() ? -1 : real.open(name, flags, mode);
}

static void let_fail(int after)
{
    calls_left = after;
    sys.pwritev = failing_pwritev;
    sys.fsync = failing_fsync;
    sys.fdatasync = failing_fdatasync;
    sys.ftruncate = failing_ftruncate;
    sys.rename = failing_rename;
    sys.open = failing_open;
}

static bool write_memory(const struct guest_memory *mem, const struct save_page_table *base,
                         const char *description, struct error **err)
{
    struct save_writer w;
    struct save_memory m;

    if (!save_writer_open(&w, path, err))
        return false;
    bool ok = save_memory_init(&m, mem, &w, err);
    m.base = base;
    ok = ok && save_memory_all(&m, err) && save_memory_finish(&m, err) &&
         save_writer_append(&w, SAVE_STATE, "state", 5, err) &&
         save_writer_append(&w, SAVE_DESCRIPTION, description, strlen(description), err) &&
         save_writer_commit(&w, err);
    save_memory_free(&m);
    save_writer_close(&w);
    return ok;
}

static void write_good(const struct guest_memory *mem, const struct save_page_table *base,
                       const char *description)
{
    struct error *err = NULL;

    if (!write_memory(mem, base, description, &err))
        fail_msg("%s", error_text(err));
}

static struct guest_memory *new_memory(void)
{
    struct guest_memory *mem = guest_memory_new(MEMORY, NULL);

    assert_non_null(mem);
    for (size_t i = 0; i < USED / SAVE_PAGE; i += PAGE_USED)
        memset(mem->region[0].host + i * SAVE_PAGE, (int)(i % 255 + 1), SAVE_PAGE);
    /* Touched, and zeros again. */
    mem->region[0].host[SAVE_PAGE] = 1;
    mem->region[0].host[SAVE_PAGE] = 0;
    return mem;
}

struct opened {
    struct save_file file;
    struct save_page_table table;
    struct guest_memory *mem;
};

static struct opened open_good(void)
{
    struct opened o;
    struct error *err = NULL;

    if (!save_file_open(&o.file, path, &err) || !saved_pages_read(&o.file, &o.table, &err))
        fail_msg("%s", error_text(err));
    assert_true(saved_memory_verify(&o.file, &o.table, NULL, NULL));
    o.mem = guest_memory_new_private(MEMORY, NULL);
    assert_non_null(o.mem);
    assert_true(saved_memory_map(&o.file, &o.table, o.mem, NULL));
    return o;
}

static void close_opened(struct opened *o)
{
    guest_memory_free(o->mem);
    free(o->table.sum);
    save_file_close(&o->file);
}

static void checksum_of_the_standard(void **state)
{
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
}

static void memory_comes_back(void **state)
{
    struct guest_memory *mem = new_memory();
    struct stat st;

    write_good(mem, NULL, "{}");
    assert_int_equal(access(part, F_OK), -1);
    struct opened o = open_good();
    assert_memory_equal(o.mem->region[0].host, mem->region[0].host, MEMORY);
    assert_int_equal(fstat(o.file.fd, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 < USED / PAGE_USED + 64 * SAVE_PAGE); /* holes */
    uint8_t *text = save_file_read(&o.file, SAVE_STATE, NULL);
    assert_string_equal(text, "state");
    free(text);
    close_opened(&o);
    guest_memory_free(mem);
}

/* What is written after restoring is in the next file, and not in this one. */
static void saved_again(void **state)
{
    struct guest_memory *mem = new_memory();

    write_good(mem, NULL, "one");
    struct opened one = open_good();
    uint8_t *host = one.mem->region[0].host;
    memset(host + PAGE_USED * SAVE_PAGE, 0, SAVE_PAGE);    /* had contents */
    memset(host + 2 * (size_t)SAVE_PAGE, 0x55, SAVE_PAGE); /* had none */
    assert_true(saved_memory_verify(&one.file, &one.table, NULL, NULL));
    write_good(one.mem, &one.table, "two");
    struct opened two = open_good();
    assert_memory_equal(two.mem->region[0].host, host, MEMORY);
    assert_int_equal(two.table.sum[PAGE_USED], 0);
    assert_memory_equal(one.mem->region[0].host, host,
                        MEMORY); /* its file was replaced, and is still there */
    close_opened(&two);
    close_opened(&one);
    guest_memory_free(mem);
}

/* Damage in the first file is not handed on under a new checksum. */
static void damage_is_not_handed_on(void **state)
{
    struct guest_memory *mem = new_memory();
    struct error *err = NULL;

    write_good(mem, NULL, "one");
    struct opened one = open_good();
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "x", 1, (off_t)one.file.section[SAVE_MEMORY].offset + 100), 1);
    close(fd);
    assert_false(saved_memory_verify(&one.file, &one.table, NULL, &err));
    assert_non_null(strstr(error_text(err), path));
    error_free(err);
    err = NULL;
    assert_false(write_memory(one.mem, &one.table, "two", &err));
    assert_non_null(strstr(error_text(err), "damaged"));
    error_free(err);
    close_opened(&one);
    guest_memory_free(mem);
}

static void every_failing_call(void **state)
{
    struct guest_memory *mem = new_memory();
    unsigned failures = 0;

    write_good(mem, NULL, "before");
    for (int after = 0;; after++) {
        struct error *err = NULL;
        let_fail(after);
        bool ok = write_memory(mem, NULL, "after", &err);
        sys = real;
        struct opened o = open_good();
        uint8_t *text = save_file_read(&o.file, SAVE_DESCRIPTION, NULL);
        close_opened(&o);
        if (ok) {
            assert_string_equal(text, "after");
            free(text);
            break;
        }
        /* Only the folder's fsync comes after the new file took the name. */
        assert_true(!strcmp((const char *)text, "before") || strstr(error_text(err), "durable"));
        assert_non_null(strstr(error_text(err), path));
        assert_int_equal(access(part, F_OK), -1);
        error_free(err);
        free(text);
        failures++;
    }
    assert_true(failures > 8);
    guest_memory_free(mem);
}

static void one_writer_at_a_time(void **state)
{
    struct save_writer one, two;
    struct error *err = NULL;

    assert_true(save_writer_open(&one, path, NULL));
    assert_false(save_writer_open(&two, path, &err));
    assert_int_equal(err->code, EBUSY);
    error_free(err);
    save_writer_close(&one);
    assert_true(save_writer_open(&two, path, NULL));
    save_writer_close(&two);
}

static void cancelled(void **state)
{
    struct guest_memory *mem = new_memory();
    struct save_writer w;
    struct save_memory m;
    struct error *err = NULL;
    bool cancel = true;

    assert_true(save_writer_open(&w, path, NULL));
    assert_true(save_memory_init(&m, mem, &w, NULL));
    m.cancel = &cancel;
    assert_false(save_memory_all(&m, &err));
    assert_int_equal(err->code, ECANCELED);
    error_free(err);
    save_memory_free(&m);
    save_writer_close(&w);
    guest_memory_free(mem);
}

/* A section that wraps, overlaps the header, or is longer than the file. */
static void sections_that_lie_nowhere(void **state)
{
    static const uint64_t spans[][2] = {
        {UINT64_MAX - 4095, 8192}, {0, 4096}, {4096, INT64_MAX}, {4096, 0}, {UINT64_MAX, 1}};
    struct guest_memory *mem = new_memory();
    uint8_t header[SAVE_PAGE];

    write_good(mem, NULL, "x");
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, header, sizeof(header), 0), sizeof(header));
    for (size_t i = 0; i < ARRAY_SIZE(spans); i++) {
        for (size_t section = 0; section < 4; section++) {
            uint8_t bad[SAVE_PAGE];
            struct save_file f;
            struct error *err = NULL;
            memcpy(bad, header, sizeof(bad));
            store_le64(bad + 32 + 24 * section + 8, spans[i][0]);
            store_le64(bad + 32 + 24 * section + 16, spans[i][1]);
            store_le32(bad + 4092, crc32c(0, bad, 4092));
            assert_int_equal(pwrite(fd, bad, sizeof(bad), 0), sizeof(bad));
            assert_false(save_file_open(&f, path, &err));
            assert_non_null(strstr(error_text(err), path));
            error_free(err);
        }
    }
    close(fd);
    guest_memory_free(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksum_of_the_standard),
        cmocka_unit_test(memory_comes_back),
        cmocka_unit_test(saved_again),
        cmocka_unit_test(damage_is_not_handed_on),
        cmocka_unit_test(every_failing_call),
        cmocka_unit_test(one_writer_at_a_time),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(sections_that_lie_nowhere),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
