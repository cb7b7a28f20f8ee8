/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file of kept translations: what goes in comes out, damage does not, and whom it is taken from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/bt/kept.h"

#define BLOCKS 3000u

static struct cpuid_model model;
static char folder[] = "/tmp/ruche-kept-XXXXXX";
static uint8_t code[4096], record[256];
static const uint16_t far[] = {1, 100, 200}, pointer[] = {8};

static struct bt_kept *open_it(void)
{
    return bt_kept_open(folder, &model, 7);
}

static char *path(void)
{
    static char name[256];
    char pattern[256];
    glob_t found;
    snprintf(pattern, sizeof(pattern), "%s/bt-*", folder);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    snprintf(name, sizeof(name), "%s", found.gl_pathv[0]);
    globfree(&found);
    return name;
}

static void bytes_of(unsigned n, uint8_t bytes[64])
{
    for (unsigned i = 0; i < 64; i++)
        bytes[i] = (uint8_t)(n >> (i & 1 ? 8 : 0)) ^ (uint8_t)i;
}

static struct bt_kept_block block_of(unsigned n, const uint8_t bytes[64])
{
    return (struct bt_kept_block){.mode = 0x12,
                                  .page_off = (uint16_t)(n & 0xfff),
                                  .bytes_len = (uint16_t)(1 + n % 40),
                                  .code_len = (uint16_t)(204 + n % 1000),
                                  .record_len = (uint16_t)(n % 256),
                                  .far_count = 3,
                                  .pointer_count = 1,
                                  .bytes = bytes,
                                  .code = code + n % 1000,
                                  .record = record,
                                  .far = far,
                                  .pointer = pointer};
}

static void add(struct bt_kept *k, unsigned n)
{
    uint8_t bytes[64];
    bytes_of(n, bytes);
    struct bt_kept_block b = block_of(n, bytes);
    bt_kept_add(k, &b, sizeof(bytes));
}

/* Whether it is there; then it must be as it was. */
static bool find(struct bt_kept *k, unsigned n)
{
    uint8_t bytes[64];
    struct bt_kept_block got;
    bytes_of(n, bytes);
    struct bt_kept_block want = block_of(n, bytes);
    if (!bt_kept_find(k, want.mode, want.page_off, bytes, sizeof(bytes), &got))
        return false;
    assert_int_equal(got.bytes_len, want.bytes_len);
    assert_int_equal(got.code_len, want.code_len);
    assert_int_equal(got.record_len, want.record_len);
    assert_memory_equal(got.code, want.code, want.code_len);
    assert_memory_equal(got.record, want.record, want.record_len);
    assert_int_equal(got.far_count, 3);
    assert_memory_equal(got.far, far, sizeof(far));
    assert_int_equal(got.pointer_count, 1);
    assert_int_equal(got.pointer[0], pointer[0]);
    return true;
}

static unsigned found(struct bt_kept *k)
{
    unsigned count = 0;
    for (unsigned n = 0; n < BLOCKS; n++)
        count += find(k, n);
    return count;
}

static void fill(void)
{
    struct bt_kept *k = open_it();
    assert_non_null(k);
    for (unsigned n = 0; n < BLOCKS; n++) {
        assert_false(find(k, n));
        add(k, n);
        assert_true(find(k, n)); /* written or not */
    }
    bt_kept_close(k);
}

static int empty_folder(void **state)
{
    char command[64];
    snprintf(command, sizeof(command), "rm -rf --one-file-system %s", folder);
    return system(command);
}

static void test_found_again(void **state)
{
    fill();
    struct bt_kept *k = open_it(), *reader = open_it();
    assert_int_equal(found(k), BLOCKS);
    bt_kept_rest(k);
    assert_int_equal(found(k), 0); /* it rests, until it is asked often */
    found(k);
    assert_int_equal(found(k), BLOCKS);
    assert_int_equal(found(reader), BLOCKS);
    add(reader, BLOCKS); /* only reads */
    assert_false(find(reader, BLOCKS));
    add(k, BLOCKS);
    bt_kept_close(k);
    bt_kept_close(reader);
    k = open_it();
    assert_true(find(k, BLOCKS));
    /* Another program, model or layout has another file. */
    struct bt_kept *other = bt_kept_open(folder, &model, 8);
    assert_non_null(other);
    assert_int_equal(found(other), 0);
    bt_kept_close(other);
    bt_kept_close(k);
}

static void flip(int fd, off_t at, unsigned bit)
{
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= (uint8_t)(1u << bit);
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

/* A bit flipped anywhere: the block that it is in is not found, all others are as they were. */
static void test_damage(void **state)
{
    fill();
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    int fd = open(path(), O_RDWR | O_CLOEXEC);
    off_t size = lseek(fd, 0, SEEK_END), log = 4096 + (4 << 20);
    assert_true(size > log);
    for (unsigned i = 0; i < 60; i++) {
        off_t at = i % 3 == 0   ? rand() % 56 /* what of the header means something */
                   : i % 3 == 1 ? 4096 + rand() % (4 << 20)
                                : log + rand() % (size - log);
        unsigned bit = (unsigned)rand() & 7;
        flip(fd, at, bit);
        struct bt_kept *k = open_it();
        if (i % 3 == 0) { /* begins anew */
            assert_int_equal(found(k), 0);
            bt_kept_close(k);
            fill();
            continue;
        }
        assert_true(found(k) >= BLOCKS - 1);
        bt_kept_close(k);
        flip(fd, at, bit);
    }
    for (off_t cut = size - 1; cut > 0; cut -= size / 11) {
        assert_int_equal(ftruncate(fd, cut), 0);
        struct bt_kept *k = open_it();
        found(k);
        bt_kept_close(k);
    }
    close(fd);
}

/* What was added up to a kill may be lost, and nothing else. */
static void test_killed(void **state)
{
    fill();
    pid_t pid = fork();
    if (pid == 0) {
        struct bt_kept *k = open_it();
        for (unsigned n = BLOCKS; n < 2 * BLOCKS; n++)
            add(k, n);
        _exit(0); /* without closing it */
    }
    waitpid(pid, NULL, 0);
    struct bt_kept *k = open_it();
    assert_int_equal(found(k), BLOCKS);
    for (unsigned n = BLOCKS; n < 2 * BLOCKS; n++)
        add(k, n);
    bt_kept_close(k);
    k = open_it();
    for (unsigned n = 0; n < 2 * BLOCKS; n++)
        assert_true(find(k, n));
    bt_kept_close(k);
}

static void test_full_disk(void **state)
{
    struct rlimit before, small = {(4 << 20) + (1 << 19), RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    struct bt_kept *k = open_it();
    for (unsigned n = 0; n < BLOCKS; n++)
        add(k, n);
    found(k);
    bt_kept_close(k);
    setrlimit(RLIMIT_FSIZE, &before);
    k = open_it();
    assert_non_null(k);
    found(k);
    bt_kept_close(k);
}

static void test_trust(void **state)
{
    fill();
    char *name = path();
    assert_int_equal(chmod(name, 0620), 0);
    assert_null(open_it());
    assert_int_equal(chmod(name, 0602), 0);
    assert_null(open_it());
    assert_int_equal(chmod(name, 0600), 0);
    assert_int_equal(chmod(folder, 0770), 0);
    assert_null(open_it());
    assert_int_equal(chmod(folder, 0700), 0);
    char moved[300];
    snprintf(moved, sizeof(moved), "%s/elsewhere", folder);
    assert_int_equal(rename(name, moved), 0);
    assert_int_equal(symlink(moved, name), 0);
    assert_null(open_it());
    assert_int_equal(unlink(name), 0);
    assert_int_equal(rename(moved, name), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(name, 1, 1), 0);
        assert_null(open_it());
        assert_int_equal(chown(name, 0, 0), 0);
    }
    struct bt_kept *k = open_it();
    assert_int_equal(found(k), BLOCKS);
    bt_kept_close(k);
    assert_null(bt_kept_open("/dev/null/here", &model, 7));
    assert_null(bt_kept_open("/proc", &model, 7));
}

/* Nobody has used it for long, but for the one that is asked for. */
static void test_old(void **state)
{
    const struct timespec old[2] = {{.tv_sec = time(NULL) - 40 * 24 * 3600},
                                    {.tv_sec = time(NULL) - 40 * 24 * 3600}};
    char recent[64], aged[64];
    bt_kept_close(open_it());
    snprintf(recent, sizeof(recent), "%s/bt-recent", folder);
    snprintf(aged, sizeof(aged), "%s/bt-aged", folder);
    close(open(recent, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    close(open(aged, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(utimensat(AT_FDCWD, aged, old, 0), 0);
    bt_kept_close(open_it());
    assert_int_equal(access(recent, F_OK), 0);
    assert_int_equal(access(aged, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_found_again, empty_folder),
        cmocka_unit_test_teardown(test_damage, empty_folder),
        cmocka_unit_test_teardown(test_killed, empty_folder),
        cmocka_unit_test_teardown(test_full_disk, empty_folder),
        cmocka_unit_test_teardown(test_trust, empty_folder),
        cmocka_unit_test_teardown(test_old, empty_folder),
    };
    struct error *err = NULL;
    if (!mkdtemp(folder) || !cpuid_model_build(&model, "v1", 1, &err))
        return 1;
    for (unsigned i = 0; i < sizeof(code); i++)
        code[i] = (uint8_t)(i * 7 + (i >> 8));
    for (unsigned i = 0; i < sizeof(record); i++)
        record[i] = (uint8_t)~i;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
