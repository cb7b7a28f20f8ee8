/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The loaders on images that exist: Debian's kernel, and memtest86+, which is no Linux. Started by
 * boot_kernels.sh. */
#include <asm/bootparam.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/util.h"
#include "vmm/boot/boot.h"
#include "vmm/boot/elf.h"

static const char *linux_path, *memtest64_path, *memtest32_path;

static bool load_file(struct boot_file *f, struct guest_memory *mem, bool fresh, struct boot_entry *entry,
                      struct error **err)
{
    struct boot_source src;

    boot_source_init(&src);
    src.kernel = *f;
    bool ok = boot_load(&src, mem, fresh, BOOT_FIRMWARE, entry, err);
    boot_source_free(&src);
    return ok;
}

static struct boot_entry load(const char *path, struct guest_memory *mem, bool fresh)
{
    struct boot_file f;
    struct boot_entry entry = {0};
    struct error *err = NULL;

    if (!boot_file_open(&f, path, &err) || !load_file(&f, mem, fresh, &entry, &err))
        fail_msg("%s", error_text(err));
    return entry;
}

static void debian(void **state)
{
    struct guest_memory *mem = guest_memory_new(256 * MIB, NULL);
    struct boot_entry entry = load(linux_path, mem, true);

    assert_int_equal(entry.mode, BOOT_MODE_LONG);
    assert_int_equal(entry.rip, 16 * MIB);
    const struct boot_params *bp = guest_ptr(mem, entry.rsi, sizeof(*bp), false);
    assert_non_null(bp);
    assert_int_equal(bp->hdr.header, 0x53726448);
    /* The unpacked kernel says its version in its read-only data. */
    const char *image = guest_ptr(mem, 16 * MIB, 64 * MIB, false);
    const char *banner = memmem(image, 64 * MIB, "Linux version ", 14);
    assert_non_null(banner);
    assert_true(banner[14] >= '0' && banner[14] <= '9');
    guest_memory_free(mem);
}

/* Loaded again over used memory, as at a reset, the result is the same to the byte. */
static void debian_again(void **state)
{
    struct guest_memory *one = guest_memory_new(256 * MIB, NULL), *two = guest_memory_new(256 * MIB, NULL);
    struct boot_entry entry = load(linux_path, one, true);

    memset(guest_ptr(two, 16 * MIB, 64 * MIB, true), 0xa5, 64 * MIB);
    assert_int_equal(load(linux_path, two, false).rip, entry.rip);
    /* Compared as far as the segments go without gaps: text, data, percpu and init in Debian's kernels. */
    const uint8_t *a = guest_ptr(one, 16 * MIB, 64 * MIB, false),
                  *b = guest_ptr(two, 16 * MIB, 64 * MIB, false);
    assert_memory_equal(a, b, 24 * MIB);
    guest_memory_free(one);
    guest_memory_free(two);
}

static void memtest(void **state)
{
    struct guest_memory *mem = guest_memory_new(64 * MIB, NULL);
    struct boot_entry entry = load(memtest64_path, mem, true);

    assert_int_equal(entry.mode, BOOT_MODE_LONG);
    assert_int_equal(entry.rip, 0x100200);
    guest_memory_free(mem);
    mem = guest_memory_new(64 * MIB, NULL);
    entry = load(memtest32_path, mem, true);
    assert_int_equal(entry.mode, BOOT_MODE_PROTECTED);
    assert_int_equal(entry.rip, 0x100000);
    guest_memory_free(mem);
}

/* A copy of the file's first `keep` bytes, with the byte at `damage` (if any) changed. */
static struct boot_file altered(const char *path, off_t keep, off_t damage)
{
    struct boot_file f;
    struct error *err = NULL;
    int in = open(path, O_RDONLY), out = memfd_create("copy", 0);
    uint8_t byte;

    for (off_t left = keep; left > 0;) {
        ssize_t n = sendfile(out, in, NULL, (size_t)left);
        assert_true(n > 0);
        left -= n;
    }
    close(in);
    if (damage) {
        assert_int_equal(pread(out, &byte, 1, damage), 1);
        byte ^= 0xff;
        assert_int_equal(pwrite(out, &byte, 1, damage), 1);
    }
    assert_true(boot_file_adopt(&f, "copy", out, &err));
    return f;
}

static void expect_refusal(struct boot_file f, struct guest_memory *mem, const char *words)
{
    struct boot_entry entry;
    struct error *err = NULL;

    assert_false(load_file(&f, mem, false, &entry, &err));
    if (!strstr(error_text(err), words) || !strstr(error_text(err), "copy"))
        fail_msg("'%s' lacks '%s'", error_text(err), words);
    error_free(err);
}

static off_t file_size(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void debian_altered(void **state)
{
    struct guest_memory *mem = guest_memory_new(256 * MIB, NULL);
    static const off_t cuts[] = {600, 20000, 21000, 1000000, 10000000};

    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++)
        expect_refusal(altered(linux_path, cuts[i], 0), mem, cuts[i] < 1000 ? "neither" : "truncated");
    /* The first chunk's packed size in the LZ4 stream. */
    struct boot_file f = altered(linux_path, file_size(linux_path), 0);
    uint32_t payload = 0;
    assert_true(boot_file_read(&f, 0x248, &payload, sizeof(payload), NULL));
    uint8_t sectors;
    assert_true(boot_file_read(&f, 0x1f1, &sectors, 1, NULL));
    boot_file_close(&f);
    off_t chunk = ((off_t)sectors + 1) * 512 + payload + 4;
    expect_refusal(altered(linux_path, file_size(linux_path), chunk + 2), mem, "damaged");
    guest_memory_free(mem);
    mem = guest_memory_new(32 * MIB, NULL);
    struct boot_file whole;
    assert_true(boot_file_open(&whole, linux_path, NULL));
    free(whole.name);
    whole.name = strdup("copy");
    expect_refusal(whole, mem, "the machine has 32 MiB");
    guest_memory_free(mem);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(debian),
        cmocka_unit_test(debian_again),
        cmocka_unit_test(memtest),
        cmocka_unit_test(debian_altered),
    };

    if (argc != 4) {
        fprintf(stderr, "usage: boot_kernels VMLINUZ MEMTEST64 MEMTEST32\n");
        return 1;
    }
    linux_path = argv[1];
    memtest64_path = argv[2];
    memtest32_path = argv[3];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
