/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Units of the catalogue: checksums, names, removal of folders, overlays. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/kept.h"
#include "catalog/overlay.h"
#include "catalog/sha256.h"

static char folder[] = "/tmp/ruche-catalog-XXXXXX";

/* FIPS 180-4 examples, and a million letters. */
static void check_sha256(bool plain)
{
    static const struct {
        const char *text, *sum;
    } vectors[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char hex[SHA256_HEX_SIZE];
    struct sha256 s;
    for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
        (plain ? sha256_init_plain : sha256_init)(&s);
        sha256_update(&s, vectors[i].text, strlen(vectors[i].text));
        sha256_final(&s, hex);
        assert_string_equal(hex, vectors[i].sum);
    }
    /* In pieces of every size around the block's. */
    for (size_t piece = 1; piece < 200; piece += 3) {
        static const char letters[200] = {[0 ... 199] = 'a'};
        (plain ? sha256_init_plain : sha256_init)(&s);
        for (size_t left = 1000000; left; left -= MIN(left, piece))
            sha256_update(&s, letters, MIN(left, piece));
        sha256_final(&s, hex);
        assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}

/* By the processor's instructions, where it has them, and without. */
static void test_sha256(void **state)
{
    (void)state;
    check_sha256(false);
    check_sha256(true);
}

static void test_names(void **state)
{
    static const char *const good[] = {"a", "debian", "debian-12.1_x", "0",
                                       "123456789012345678901234567890123456789012345678901234567890123"};
    static const char *const bad[] = {
        "",    ".",   "..",  "-x",       "_x",
        "a/b", "a b", "a\n", "\xc3\xa9", "1234567890123456789012345678901234567890123456789012345678901234"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_true(catalog_name_check(good[i], NULL));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error *err = NULL;
        assert_false(catalog_name_check(bad[i], &err));
        assert_non_null(err);
        error_free(err);
    }
}

static char *touch(const char *name)
{
    char *path = catalog_format("%s/%s", folder, name);
    cleanup(fd) int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    return path;
}

static void test_remove_tree_stays_inside(void **state)
{
    cleanup(mem) char *outside = touch("outside");
    cleanup(mem) char *tree = catalog_format("%s/tree", folder);
    cleanup(mem) char *sub = catalog_format("%s/sub", tree);
    cleanup(mem) char *link_up = catalog_format("%s/up", sub);
    assert_int_equal(mkdir(tree, 0700), 0);
    assert_int_equal(mkdir(sub, 0700), 0);
    free(touch("tree/sub/file"));
    assert_int_equal(symlink(folder, link_up), 0);
    assert_true(catalog_remove_tree(tree, NULL));
    assert_int_equal(access(tree, F_OK), -1);
    assert_int_equal(access(outside, F_OK), 0);
    assert_true(catalog_remove_tree(tree, NULL));
}

/* qemu-img finds our empty overlays sound and of the right size. */
static void test_overlay_sizes(void **state)
{
    static const uint64_t sizes[] = {0,       512,        65536,          512 * MIB, 512 * MIB + 512,
                                     8 * GIB, 1024 * GIB, 64 * 1024 * GIB};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        cleanup(mem) char *base = catalog_format("%s/base%zu.qcow2", folder, i);
        cleanup(mem) char *top = catalog_format("%s/top%zu.qcow2", folder, i);
        cleanup(mem) char *make =
            catalog_format("qemu-img create -q -f qcow2 %s %llu", base, (unsigned long long)sizes[i]);
        cleanup(mem) char *check =
            catalog_format("qemu-img check -q %s && qemu-img compare -q %s %s", top, base, top);
        assert_int_equal(system(make), 0);
        struct error *err = NULL;
        if (!overlay_create(top, base, &err))
            fail_msg("%s", error_text(err));
        uint64_t size = 1;
        assert_true(qcow2_virtual_size(top, &size, NULL));
        assert_int_equal(size, sizes[i]);
        assert_int_equal(system(check), 0);
        /* It is never overwritten. */
        assert_false(overlay_create(top, base, NULL));
    }
}

static void test_overlay_refusals(void **state)
{
    cleanup(mem) char *base = touch("short.qcow2");
    cleanup(mem) char *top = catalog_format("%s/never.qcow2", folder);
    static const char *const missing = "/nonexistent.qcow2";
    assert_false(overlay_create(top, base, NULL));
    assert_false(overlay_create(top, missing, NULL));
    uint8_t header[104] = {'Q', 'F', 'I', 0xfb};
    store_be64(header + 24, UINT64_MAX);
    FILE *f = fopen(base, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(header, 1, sizeof(header), f), sizeof(header));
    fclose(f);
    struct error *err = NULL;
    assert_false(overlay_create(top, base, &err));
    assert_non_null(strstr(error_text(err), "too large"));
    error_free(err);
    assert_int_equal(access(top, F_OK), -1);
}

/* A kept disk that was made for nothing goes again, but not when another machine took it. */
static void test_kept_discard(void **state)
{
    cleanup(mem) char *base = catalog_format("%s/base.qcow2", folder);
    uint8_t header[104] = {'Q', 'F', 'I', 0xfb};
    store_be64(header + 24, MIB);
    FILE *f = fopen(base, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(header, 1, sizeof(header), f), sizeof(header));
    fclose(f);
    char name[] = "small", sum[] = "0";
    const struct image image = {.name = name, .disk = base, .disk_sha256 = sum};
    bool made;
    setenv("XDG_DATA_HOME", folder, 1);
    cleanup(mem) char *disk = kept_disk("pet", &image, &made, NULL);
    assert_non_null(disk);
    assert_true(made);
    cleanup(mem) char *again = kept_disk("pet", &image, &made, NULL);
    assert_string_equal(again, disk);
    assert_false(made);
    int fd = open(disk, O_RDWR | O_CLOEXEC);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1};
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
    kept_discard(disk);
    assert_int_equal(access(disk, F_OK), 0);
    close(fd);
    kept_discard(disk);
    assert_int_equal(access(disk, F_OK), -1);
    cleanup(mem) char *user = kept_user_of(name);
    assert_null(user);
}

static int make_folder(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    return catalog_remove_tree(folder, NULL) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_remove_tree_stays_inside),
        cmocka_unit_test(test_overlay_sizes),
        cmocka_unit_test(test_overlay_refusals),
        cmocka_unit_test(test_kept_discard),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
