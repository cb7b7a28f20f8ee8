/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Persistent dirty bitmaps, ours and QEMU's: what one of the two writes the other reads, whatever random
 * requests come in between; what is left by a crash is known to be out of date; malformed ones are refused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "block/block_int.h"
#include "support.h"

#define GRANULE 65536

static uint8_t buf[MIB];

static void must_add(struct block *b, const char *name, uint64_t granularity)
{
    struct error *err = NULL;
    if (!block_bitmap_add(b, name, granularity, &err))
        fail_msg("%s", error_text(err));
}

static struct dirty_bits bits_of(struct block *b, const char *name, uint64_t size, unsigned granularity)
{
    struct dirty_bits d;
    assert_true(dirty_bits_init(&d, size, granularity));
    assert_int_equal(block_bitmap_copy(b, name, &d), 0);
    return d;
}

static void must_equal(const struct dirty_bits *a, const struct dirty_bits *b)
{
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->word, b->word, (a->count + 63) / 64 * 8);
}

/* --- bits --- */

/* Against a byte for each bit. */
static void test_bits(void **state)
{
    struct random random;
    (void)state;
    random_init(&random, "dirty bits");
    for (int round = 0; round < 200; round++) {
        uint64_t size = 512 * (1 + random_below(&random, 3000)), units;
        struct dirty_bits d;
        uint8_t model[6001] = {0};
        assert_true(dirty_bits_init(&d, size, 9 + (unsigned)random_below(&random, 4)));
        for (int i = 0; i < 20; i++) {
            units = size >> 9;
            uint64_t from = random_below(&random, units), n = 1 + random_below(&random, units - from);
            uint64_t step = BIT(d.granularity - 9);
            bool set = random_below(&random, 2);
            (set ? dirty_bits_set : dirty_bits_clear)(&d, from << 9, n << 9);
            for (uint64_t u = round_down(from, step); u < MIN(round_up(from + n, step), units); u++)
                model[u] = set;
            if (i == 10) {
                uint64_t grown = 512 * (1 + random_below(&random, 6000));
                assert_true(dirty_bits_resize(&d, grown));
                for (uint64_t u = round_down(MIN(units, grown >> 9), step); u < grown >> 9; u++)
                    model[u] = u >= units || model[u] ||
                               (grown > size && u >= round_down(units, step) && units % step);
                for (uint64_t u = grown >> 9; u < ARRAY_SIZE(model); u++)
                    model[u] = 0;
                size = grown;
            }
        }
        uint64_t at = 0, offset = 0, length = 0, bytes = 0;
        for (; dirty_bits_next(&d, at, size, &offset, &length); at = offset + length) {
            for (uint64_t u = at >> 9; u < offset >> 9; u++)
                assert_int_equal(model[u], 0);
            for (uint64_t u = offset >> 9; u < (offset + length) >> 9; u++)
                assert_int_equal(model[u], 1);
            bytes += length;
        }
        for (uint64_t u = at >> 9; u < size >> 9; u++)
            assert_int_equal(model[u], 0);
        assert_int_equal(dirty_bits_bytes(&d), bytes);
        dirty_bits_free(&d);
    }
}

/* --- random requests --- */

struct shape {
    const char *options;
    uint64_t size, cluster;
    unsigned granularity;
    bool backing;
};

static const struct shape shapes[] = {
    {"", 40 * MIB + 512, 65536, 16, false},
    {"-o cluster_size=512", 3 * MIB + 512, 512, 9, false},
    {"-o cluster_size=4096,refcount_bits=64", 24 * MIB, 4096, 12, true},
    {"-o cluster_size=2M", 200 * MIB, 2 * MIB, 17, false},
    {"-o lazy_refcounts=on,cluster_size=32K", 64 * MIB, 32768, 9, true},
};

static void change_at_random(struct block *b, struct random *random, struct dirty_bits *model)
{
    uint64_t sectors = model->size / 512;
    for (int i = 0; i < 60; i++) {
        static const enum block_op ops[] = {BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE_ZEROES, BLOCK_DISCARD};
        enum block_op op = ops[random_below(random, 4)];
        uint64_t n = 1 + random_below(random, random_below(random, 2) ? 8 : 1024);
        n = MIN(n, sectors);
        uint64_t at = random_below(random, sectors - n + 1);
        random_fill(random, buf, 512 * n);
        assert_int_equal(
            do_io(b, op, at * 512, op == BLOCK_WRITE ? buf : NULL, n * 512, random_below(random, 2)), 0);
        dirty_bits_set(model, at * 512, n * 512);
    }
}

static void resize_at_random(struct block *b, struct random *random, struct dirty_bits *model)
{
    struct error *err = NULL;
    uint64_t size = round_down(model->size / 2, 512) + 512 * random_below(random, model->size / 512);
    if (!block_resize(b, size, &err))
        fail_msg("%s", error_text(err));
    assert_true(dirty_bits_resize(model, size));
}

/* QEMU reads the bits and writes them to a bitmap of its own. */
static void copy_by_qemu(const char *from, const char *to, unsigned granularity)
{
    must_run("qemu-img bitmap --add -g %u --merge %s img %s", 1u << granularity, from, to);
}

static void check_shape(const struct shape *s, struct random *random)
{
    struct dirty_bits model;
    must_run("rm -f img base; %s qemu-img create -q -f qcow2 %s %s img %llu",
             s->backing ? "qemu-img create -q -f raw base 10M;" : "", s->options,
             s->backing ? "-b base -F raw" : "", (unsigned long long)s->size);
    assert_true(dirty_bits_init(&model, s->size, s->granularity));
    for (int round = 0; round < 4; round++) {
        struct block *b = must_open("img", "qcow2", 0);
        if (round == 0)
            must_add(b, "ours", BIT(s->granularity));
        else
            assert_true(block_bitmap_check(b, "ours", NULL));
        if (round == 2) {
            assert_true(block_bitmap_clear(b, "ours", NULL));
            dirty_bits_clear(&model, 0, model.size);
        }
        change_at_random(b, random, &model);
        struct dirty_bits live = bits_of(b, "ours", model.size, s->granularity);
        must_equal(&live, &model);
        if (round == 1)
            resize_at_random(b, random, &model);
        dirty_bits_free(&live);
        block_close(b);
        must_run("qemu-img check img");
        copy_by_qemu("ours", "qemus", s->granularity);
        must_run("qemu-img check img");
        b = must_open("img", "qcow2", 0);
        struct dirty_bits ours = bits_of(b, "ours", model.size, s->granularity);
        struct dirty_bits qemus = bits_of(b, "qemus", model.size, s->granularity);
        must_equal(&ours, &model);
        must_equal(&qemus, &model);
        dirty_bits_free(&ours);
        dirty_bits_free(&qemus);
        struct error *err = NULL;
        if (!block_bitmap_remove(b, "qemus", &err))
            fail_msg("%s", error_text(err));
        block_close(b);
        must_run("qemu-img check img && ! qemu-img info img | grep -q qemus");
    }
    dirty_bits_free(&model);
}

static void test_random(void **state)
{
    struct random random;
    (void)state;
    random_init(&random, "bitmaps");
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        check_shape(&shapes[i], &random);
}

/* What QEMU records is ours to read, and QEMU shows ours. */
static void test_qemus(void **state)
{
    (void)state;
    must_run("rm -f img; qemu-img create -q -f qcow2 img 64M && qemu-img bitmap --add img one && "
             "qemu-img bitmap --add --disable img two && qemu-io -c 'write 3M 100k' -c 'discard 40M 1M' img");
    struct block *b = must_open("img", NULL, 0);
    struct block_bitmap info;
    assert_true(block_bitmap_info(b, 0, &info));
    assert_string_equal(info.name, "one");
    assert_int_equal(info.granularity, 65536);
    assert_int_equal(info.dirty, 128 * KIB + MIB);
    assert_true(info.recording && !info.inconsistent);
    assert_true(block_bitmap_info(b, 1, &info));
    assert_string_equal(info.name, "two");
    assert_true(!info.recording && info.dirty == 0);
    assert_false(block_bitmap_info(b, 2, &info));
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, buf, 512, false), 0);
    assert_true(block_bitmap_info(b, 0, &info));
    assert_int_equal(info.dirty, 192 * KIB + MIB);
    assert_true(block_bitmap_info(b, 1, &info));
    assert_int_equal(info.dirty, 0);
    block_close(b);
    must_run("qemu-img check img && [ $(qemu-img info img | grep -c 'auto') = 1 ]");
    must_run("! qemu-img info img | grep -q in-use");
}

/* --- names and refusals --- */

static void test_refusals(void **state)
{
    struct error *err = NULL;
    (void)state;
    must_run("rm -f img raw old; qemu-img create -q -f qcow2 img 1M; qemu-img create -q -f raw raw 1M; "
             "qemu-img create -q -f qcow2 -o compat=0.10 old 1M");
    struct block *b = must_open("img", NULL, 0);
    must_add(b, "a", GRANULE);
    static const struct {
        const char *name;
        uint64_t granularity;
        int code;
    } bad[] = {{"a", GRANULE, EEXIST}, {"", GRANULE, EINVAL},  {"b", 256, EINVAL},
               {"b", 1000, EINVAL},    {"b", 4 * GIB, EINVAL}, {"b", 0, EINVAL}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_false(block_bitmap_add(b, bad[i].name, bad[i].granularity, &err));
        assert_int_equal(err->code, bad[i].code);
        error_free(err);
        err = NULL;
    }
    assert_false(block_bitmap_remove(b, "b", &err));
    assert_string_equal(error_text(err), "bitmap 'b' of 'img': there is none of that name");
    error_free(err);
    block_close(b);
    const char *const without[] = {"raw", "old"};
    for (size_t i = 0; i < ARRAY_SIZE(without); i++) {
        b = must_open(without[i], i == 0 ? "raw" : NULL, 0);
        err = NULL;
        assert_false(block_bitmap_add(b, "a", GRANULE, &err));
        assert_non_null(strstr(error_text(err), "only qcow2 images of version 3"));
        error_free(err);
        block_close(b);
    }
}

/* A header cluster that is full has no room for the extension: the image stays sound. */
static void test_no_room(void **state)
{
    char name[401];
    (void)state;
    memset(name, 'x', 400);
    name[400] = 0;
    must_run("rm -f img; qemu-img create -q -f qcow2 -u -o cluster_size=512 -b ./%.200s -F raw img 1M", name);
    struct block *b = block_open("img", "qcow2", BLOCK_NO_BACKING, NULL, NULL);
    assert_non_null(b);
    must_add(b, "a", GRANULE);
    block_close(b);
    must_run("qemu-img check -r all -q img; qemu-img info --image-opts "
             "driver=qcow2,file.driver=file,file.filename=img,backing= | grep -q 'image: '");
}

/* --- a process that is killed --- */

static void test_crash(void **state)
{
    (void)state;
    must_run("rm -f img; qemu-img create -q -f qcow2 img 8M");
    struct block *b = must_open("img", NULL, 0);
    must_add(b, "a", GRANULE);
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, buf, 4096, false), 0);
    block_close(b);
    /* To open it, or to read, does no harm. */
    for (int wrote = 0; wrote < 2; wrote++) {
        pid_t pid = fork();
        if (pid == 0) {
            b = must_open("img", NULL, 0);
            int r = do_io(b, wrote ? BLOCK_WRITE : BLOCK_READ, MIB, buf, 4096, false);
            _exit(r == 0 ? 0 : 1);
        }
        int status = 0;
        waitpid(pid, &status, 0);
        assert_int_equal(status, 0);
        must_run("[ $(qemu-img info img | grep -c in-use) = %d ]", wrote);
    }
    struct block_bitmap info;
    struct error *err = NULL;
    b = must_open("img", NULL, 0);
    assert_true(block_bitmap_info(b, 0, &info) && info.inconsistent && !info.recording);
    assert_false(block_bitmap_check(b, "a", &err));
    assert_int_equal(err->code, ESTALE);
    assert_non_null(strstr(error_text(err), "was not closed properly"));
    error_free(err);
    assert_int_equal(do_io(b, BLOCK_WRITE, 2 * MIB, buf, 4096, false), 0);
    block_close(b);
    /* It stays so until it is removed. */
    must_run("qemu-img check img && qemu-img info img | grep -q in-use");
    b = must_open("img", NULL, 0);
    assert_true(block_bitmap_remove(b, "a", NULL));
    must_add(b, "a", GRANULE);
    block_close(b);
    must_run("qemu-img check img && ! qemu-img info img | grep -q in-use");
}

/* --- layers --- */

static void test_layers(void **state)
{
    struct error *err = NULL;
    (void)state;
    must_run(
        "rm -f img top; qemu-img create -q -f qcow2 img 8M; qemu-img create -q -f qcow2 -b img -F qcow2 top");
    struct block *b = must_open("img", NULL, 0);
    must_add(b, "a", GRANULE);
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, buf, 4096, false), 0);
    struct layer *overlay = block_overlay_open(b, "top", &err);
    assert_non_null(overlay);
    assert_true(block_overlay_put(b, overlay, &err));
    assert_int_equal(do_io(b, BLOCK_WRITE, MIB, buf, 4096, false), 0);
    block_close(b);
    static const struct {
        const char *image;
        uint64_t dirty;
    } expected[] = {{"img", GRANULE}, {"top", 2 * GRANULE}, {"new", GRANULE}};
    must_run("qemu-img check img && qemu-img check top");
    /* A disk that nobody has written to shows what is below, so the same was written. */
    must_run("rm -f new; qemu-img create -q -f qcow2 -b img -F qcow2 new");
    for (size_t i = 2; i < 3; i--) {
        struct block_bitmap info;
        b = must_open(expected[i].image, NULL, 0);
        assert_true(block_bitmap_info(b, 0, &info));
        assert_string_equal(info.name, "a");
        assert_false(info.inconsistent);
        assert_int_equal(info.dirty, expected[i].dirty);
        block_close(b);
    }
    /* One that was written to without them has none. */
    must_run("rm -f new; qemu-img create -q -f qcow2 -b img -F qcow2 new && qemu-io -c 'write 0 4k' new");
    b = must_open("new", NULL, 0);
    assert_false(block_bitmap_check(b, "a", NULL));
    block_close(b);
}

/* --- malformed --- */

enum { ENTRY = 32 }; /* of the directory: one bitmap with the name "a" */

static uint64_t directory_at(void)
{
    for (uint64_t at = 112; at < 4096;) {
        uint64_t word = peek_be64("img", at);
        if (word >> 32 == 0x23852875)
            return at + 8;
        at += 8 + round_up(word & 0xFFFFFFFF, 8);
    }
    fail_msg("there is no bitmaps extension");
    return 0;
}

/* Has its refusal, but can be read. */
static void refuse_changed(uint64_t at, uint64_t value, unsigned bytes, const char *part)
{
    uint8_t before[8], big[8];
    peek("img", at, before, bytes);
    store_be64(big, value);
    poke("img", at, big + 8 - bytes, bytes);
    must_refuse("img", "qcow2", 0, part);
    block_close(must_open("img", "qcow2", BLOCK_READONLY));
    poke("img", at, before, bytes);
}

static void test_malformed(void **state)
{
    (void)state;
    must_run("rm -f img; qemu-img create -q -f qcow2 img 8M");
    struct block *b = must_open("img", NULL, 0);
    must_add(b, "a", GRANULE);
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, buf, 4096, false), 0);
    block_close(b);
    uint64_t extension = directory_at(), directory = peek_be64("img", extension + 16);
    uint64_t table = peek_be64("img", directory);
    assert_int_equal(peek_be64("img", extension + 8), ENTRY);
    refuse_changed(extension, 0, 4, "the bitmap directory is not in the file");
    refuse_changed(extension, 2, 4, "the bitmap directory is cut off");
    refuse_changed(extension, 70000, 4, "the bitmap directory is not in the file");
    refuse_changed(extension + 4, 1, 4, "the bitmaps extension is malformed");
    refuse_changed(extension - 4, 23, 4, "the bitmaps extension is malformed");
    refuse_changed(extension + 8, ENTRY + 8, 8, "longer than its entries");
    refuse_changed(extension + 8, ENTRY - 8, 8, "does not fit in it");
    refuse_changed(extension + 8, UINT64_MAX, 8, "the bitmap directory is not in the file");
    refuse_changed(extension + 16, directory + 512, 8, "the bitmap directory is not in the file");
    refuse_changed(extension + 16, BIT(50), 8, "the bitmap directory is not in the file");
    refuse_changed(extension + 16, 65536, 8, "two of its tables lie in the same place");
    refuse_changed(directory, 0, 8, "the table of a bitmap is not in the file");
    refuse_changed(directory, table + 1, 8, "the table of a bitmap is not in the file");
    refuse_changed(directory, BIT(50), 8, "the table of a bitmap is not in the file");
    refuse_changed(directory, directory, 8, "");
    refuse_changed(directory + 8, 2, 4, "a bitmap is not of the disk's size");
    refuse_changed(directory + 8, UINT32_MAX, 4, "the table of a bitmap is not in the file");
    refuse_changed(directory + 12, 8, 4, "it has a bitmap of an unknown kind");
    refuse_changed(directory + 16, 2, 1, "it has a bitmap of an unknown kind");
    refuse_changed(directory + 17, 8, 1, "it has a bitmap of an unknown kind");
    refuse_changed(directory + 17, 32, 1, "it has a bitmap of an unknown kind");
    refuse_changed(directory + 18, 0, 2, "does not fit in it");
    refuse_changed(directory + 18, 9, 2, "does not fit in it");
    refuse_changed(directory + 20, UINT32_MAX, 4, "does not fit in it");
    refuse_changed(directory + 24, 0, 1, "the name of a bitmap is not text");
    refuse_changed(table, 2, 8, "the table of a bitmap is malformed");
    refuse_changed(table, directory + 512, 8, "the table of a bitmap is malformed");
    refuse_changed(table, BIT(50), 8, "the table of a bitmap is malformed");
    refuse_changed(table, directory | 1, 8, "the table of a bitmap is malformed");
    refuse_changed(table, table, 8, "two of its tables lie in the same place");
    must_run("qemu-img check img");
}

/* Somebody who knows nothing of bitmaps has written to it: they are not believed, nor kept. */
static void test_autoclear(void **state)
{
    (void)state;
    must_run("rm -f img; qemu-img create -q -f qcow2 img 8M && qemu-img bitmap --add img a");
    poke_be64("img", 88, 0);
    struct block *b = must_open("img", NULL, 0);
    assert_false(block_bitmap_check(b, "a", NULL));
    must_add(b, "a", GRANULE);
    block_close(b);
    b = must_open("img", NULL, 0);
    assert_true(block_bitmap_check(b, "a", NULL));
    block_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits),     cmocka_unit_test(test_random),    cmocka_unit_test(test_qemus),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_no_room),   cmocka_unit_test(test_crash),
        cmocka_unit_test(test_layers),   cmocka_unit_test(test_malformed), cmocka_unit_test(test_autoclear),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
