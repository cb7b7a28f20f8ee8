/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The boot loaders on made-up images: what ends up in memory and in registers, and that no truncation or
 * damage does more than give an error.
 */
#include <asm/bootparam.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "boot_images.h"

#define RSDP 0xe0000u

static struct image image;

struct result {
    struct guest_memory *mem;
    struct boot_entry entry;
    struct error *err;
    bool ok;
};

/* Loads into fresh memory of `mib` MiB. `src` may have more than the kernel, which comes from data[0, len).
 */
static struct result load(struct boot_source *src, const void *data, size_t len, uint64_t mib)
{
    struct result r = {.mem = guest_memory_new(mib * MIB, NULL)};

    assert_non_null(r.mem);
    boot_file_close(&src->kernel);
    src->kernel = image_file(data, len);
    r.ok = src->kernel.name && boot_load(src, r.mem, true, RSDP, &r.entry, &r.err);
    return r;
}

static void done(struct result *r)
{
    error_free(r->err);
    guest_memory_free(r->mem);
}

static void assert_loaded(const struct result *r)
{
    if (!r->ok)
        fail_msg("%s", error_text(r->err));
}

/* The code at IMAGE_BASE, except [skip, skip + skip_len), and zeroes behind it. */
static void assert_code(const struct result *r, size_t skip, size_t skip_len)
{
    const uint8_t *p = guest_ptr(r->mem, IMAGE_BASE, IMAGE_MEM, false);

    for (size_t i = 0; i < IMAGE_CODE; i++)
        if ((i < skip || i >= skip + skip_len) && p[i] != image_pattern(i))
            fail_msg("byte %zu is %02x, not %02x", i, p[i], image_pattern(i));
    for (size_t i = IMAGE_CODE; i < IMAGE_MEM; i++)
        assert_int_equal(p[i], 0);
}

static const char *text_at(const struct result *r, uint64_t gpa)
{
    const char *p = guest_ptr(r->mem, gpa, 1, false);
    assert_non_null(p);
    return p;
}

/* --- Linux --- */

static const struct boot_params *params(const struct result *r)
{
    const struct boot_params *bp = guest_ptr(r->mem, r->entry.rsi, sizeof(*bp), false);
    assert_non_null(bp);
    return bp;
}

static void check_long_mode(const struct result *r)
{
    struct x86_state *s = aligned_alloc(64, sizeof(*s));
    uint64_t pml4, pdpt, pd;

    memset(s, 0xff, sizeof(*s));
    boot_entry_apply(&r->entry, s);
    assert_int_equal(s->cr0 & (CR0_PE | CR0_PG), CR0_PE | CR0_PG);
    assert_int_equal(s->cr4, CR4_PAE);
    assert_int_equal(s->efer, EFER_LME | EFER_LMA);
    assert_int_equal(s->rflags, 2);
    assert_int_equal(s->seg[SEG_CS].selector, 0x10);
    assert_int_equal(s->seg[SEG_CS].attr & (ATTR_L | ATTR_DB), ATTR_L);
    assert_int_equal(s->seg[SEG_DS].selector, 0x18);
    /* The descriptor in memory says what the segment cache says. */
    uint64_t descriptor;
    assert_true(guest_read(r->mem, s->gdtr.base + 0x10, &descriptor, 8));
    assert_int_equal(descriptor, 0x00af9b000000ffff);
    assert_true(guest_read(r->mem, s->gdtr.base + 0x18, &descriptor, 8));
    assert_int_equal(descriptor, 0x00cf93000000ffff);
    /* One to one at 3 GiB + 6 MiB. */
    assert_true(guest_read(r->mem, s->cr3, &pml4, 8));
    assert_true(guest_read(r->mem, (pml4 & ~0xfffULL) + 3 * 8, &pdpt, 8));
    assert_true(guest_read(r->mem, (pdpt & ~0xfffULL) + 3 * 8, &pd, 8));
    assert_int_equal(pd, (3 * GIB + 6 * MIB) | 0x83);
    free(s);
}

static void linux_formats(void **state)
{
    for (enum unpack_format f = UNPACK_GZIP; f <= UNPACK_ZSTD; f++) {
        struct boot_source src;
        boot_source_init(&src);
        src.cmdline = strdup("console=ttyS0 quiet");
        src.initrd = image_file("initial ram disk", 16);
        image_bzimage(&image, f);
        struct result r = load(&src, image.data, image.len, 64);
        if (!r.ok)
            fail_msg("%s: %s", unpack_format_name(f), error_text(r.err));
        assert_int_equal(r.entry.mode, BOOT_MODE_LONG);
        assert_int_equal(r.entry.rip, IMAGE_ENTRY);
        assert_code(&r, 0, 0);
        check_long_mode(&r);
        const struct boot_params *bp = params(&r);
        assert_string_equal(text_at(&r, bp->hdr.cmd_line_ptr), "console=ttyS0 quiet");
        assert_int_equal(bp->hdr.type_of_loader, 0xff);
        assert_int_equal(bp->acpi_rsdp_addr, RSDP);
        assert_int_equal(bp->hdr.ramdisk_size, 16);
        assert_memory_equal(text_at(&r, bp->hdr.ramdisk_image), "initial ram disk", 16);
        assert_int_equal(bp->hdr.ramdisk_image, 64 * MIB - 4096);
        done(&r);
        boot_source_free(&src);
    }
}

static void linux_memory_map(void **state)
{
    struct boot_source src;
    boot_source_init(&src);
    image_bzimage(&image, UNPACK_LZ4);
    struct result r = load(&src, image.data, image.len, 3072);
    assert_loaded(&r);
    const struct boot_params *bp = params(&r);
    uint64_t ram = 0, end = 0;
    for (int i = 0; i < bp->e820_entries; i++) {
        assert_true(bp->e820_table[i].addr >= end);
        end = bp->e820_table[i].addr + bp->e820_table[i].size;
        ram += bp->e820_table[i].type == 1 ? bp->e820_table[i].size : 0;
    }
    assert_int_equal(end, 5 * GIB);
    assert_int_equal(ram, 3 * GIB - (MIB - 0x9fc00));
    /* A different seed for the kernel's random numbers each time. */
    const struct setup_data *seed = guest_ptr(r.mem, bp->hdr.setup_data, sizeof(*seed) + 32, false);
    assert_int_equal(seed->type, 9);
    assert_int_equal(seed->len, 32);
    struct result again = load(&src, image.data, image.len, 3072);
    assert_loaded(&again);
    const struct setup_data *other =
        guest_ptr(again.mem, params(&again)->hdr.setup_data, sizeof(*seed) + 32, false);
    assert_memory_not_equal(seed->data, other->data, 32);
    done(&again);
    done(&r);
    boot_source_free(&src);
}

/* An image without payload is entered by its own 64- or 32-bit entry. */
static void linux_by_its_own_entry(void **state)
{
    struct boot_source src;
    boot_source_init(&src);
    image_bzimage(&image, UNPACK_UNKNOWN);
    struct result r = load(&src, image.data, image.len, 64);
    assert_loaded(&r);
    assert_int_equal(r.entry.mode, BOOT_MODE_LONG);
    assert_int_equal(r.entry.rip, IMAGE_BASE + 0x200);
    assert_code(&r, 0, 0);
    assert_int_equal(params(&r)->hdr.code32_start, IMAGE_BASE);
    done(&r);

    struct setup_header *h = (struct setup_header *)(void *)(image.data + 0x1f1);
    h->xloadflags = 0;
    h->relocatable_kernel = 0;
    h->code32_start = IMAGE_BASE;
    r = load(&src, image.data, image.len, 64);
    assert_loaded(&r);
    assert_int_equal(r.entry.mode, BOOT_MODE_PROTECTED);
    assert_int_equal(r.entry.rip, IMAGE_BASE);
    done(&r);
    boot_source_free(&src);
}

/* --- PVH --- */

static void pvh(void **state)
{
    for (int is_64 = 0; is_64 < 2; is_64++) {
        struct boot_source src;
        boot_source_init(&src);
        src.cmdline = strdup("a=b");
        src.initrd = image_file("disk", 4);
        image_elf(&image, is_64, ELF_PVH);
        struct result r = load(&src, image.data, image.len, 16);
        assert_loaded(&r);
        assert_int_equal(r.entry.mode, BOOT_MODE_PROTECTED);
        assert_int_equal(r.entry.rip, IMAGE_ENTRY);
        assert_code(&r, 0, 0);
        const uint8_t *info = guest_ptr(r.mem, r.entry.rbx, 56, false);
        assert_int_equal(load_le32(info), 0x336ec578);
        assert_int_equal(load_le32(info + 4), 1);
        assert_int_equal(load_le32(info + 12), 1);
        assert_string_equal(text_at(&r, load_le64(info + 24)), "a=b");
        assert_int_equal(load_le64(info + 32), RSDP);
        const uint8_t *module = guest_ptr(r.mem, load_le64(info + 16), 32, false);
        assert_int_equal(load_le64(module + 8), 4);
        assert_memory_equal(text_at(&r, load_le64(module)), "disk", 4);
        const uint8_t *map = guest_ptr(r.mem, load_le64(info + 40), 24, false);
        assert_int_equal(load_le64(map + 8), 0x9fc00);
        assert_int_equal(load_le32(map + 16), 1);
        done(&r);
        boot_source_free(&src);
    }
}

/* --- Multiboot --- */

static void add_module(struct boot_source *src, const char *contents, const char *string)
{
    struct boot_module *m = &src->module[src->module_count++];
    m->file = image_file(contents, strlen(contents));
    m->string = strdup(string);
}

static void check_multiboot(struct boot_source *src, struct result *r)
{
    assert_loaded(r);
    assert_int_equal(r->entry.mode, BOOT_MODE_PROTECTED);
    assert_int_equal(r->entry.rip, IMAGE_ENTRY);
    assert_int_equal(r->entry.rax, 0x2badb002);
    const uint8_t *info = guest_ptr(r->mem, r->entry.rbx, 88, false);
    assert_int_equal(load_le32(info), 0x24d);
    assert_int_equal(load_le32(info + 4), 639);
    assert_int_equal(load_le32(info + 8), 15 * 1024);
    assert_string_equal(text_at(r, load_le32(info + 16)), "image one two");
    assert_int_equal(load_le32(info + 20), 2);
    const uint8_t *module = guest_ptr(r->mem, load_le32(info + 24), 32, false);
    assert_int_equal(load_le32(module) % 4096, 0);
    assert_int_equal(load_le32(module + 4) - load_le32(module), 5);
    assert_memory_equal(text_at(r, load_le32(module)), "first", 5);
    assert_string_equal(text_at(r, load_le32(module + 8)), "mod1 x=1");
    assert_memory_equal(text_at(r, load_le32(module + 16)), "second one", 10);
    assert_string_equal(text_at(r, load_le32(module + 24)), "mod2");
    /* The memory map's entries begin with their size, not counting it. */
    const uint8_t *map = guest_ptr(r->mem, load_le32(info + 48), 24, false);
    assert_int_equal(load_le32(info + 44) % 24, 0);
    assert_int_equal(load_le32(map), 20);
    assert_int_equal(load_le64(map + 12), 0x9fc00);
    assert_string_equal(text_at(r, load_le32(info + 64)), "Ruche");
    (void)src;
}

static void multiboot(void **state)
{
    for (int kind = 0; kind < 4; kind++) {
        struct boot_source src;
        boot_source_init(&src);
        src.cmdline = strdup("one two");
        add_module(&src, "first", "mod1 x=1");
        add_module(&src, "second one", "mod2");
        if (kind < 2)
            image_elf(&image, kind, ELF_MULTIBOOT);
        else
            image_kludge(&image, kind == 2 ? 0 : 0x400);
        struct result r = load(&src, image.data, image.len, 16);
        check_multiboot(&src, &r);
        assert_code(&r, kind < 2 ? 0 : 0x10, kind < 2 ? 0 : 32);
        done(&r);
        boot_source_free(&src);
    }
}

static void module_names(void **state)
{
    struct boot_source src;
    struct error *err = NULL;
    char dir[] = "/tmp/ruche-boot-XXXXXX", path[64], spec[96];

    boot_source_init(&src);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/a b", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("x", f);
    fclose(f);
    assert_true(boot_source_add_module(&src, path, &err));
    assert_string_equal(src.module[0].string, path);
    snprintf(spec, sizeof(spec), "%s/a", dir);
    assert_int_equal(rename(path, spec), 0);
    strcat(spec, " with words");
    assert_true(boot_source_add_module(&src, spec, &err));
    assert_string_equal(src.module[1].string, spec);
    assert_false(boot_source_add_module(&src, "/nonexistent/x y", &err));
    assert_non_null(strstr(error_text(err), "/nonexistent/x: No such file"));
    error_free(err);
    boot_source_free(&src);
    spec[strlen(spec) - strlen(" with words")] = '\0';
    unlink(spec);
    rmdir(dir);
}

/* --- what is refused --- */

static void expect_refusal(const void *data, size_t len, uint64_t mib, const char *words)
{
    struct boot_source src;
    boot_source_init(&src);
    struct result r = load(&src, data, len, mib);
    if (r.ok || !strstr(error_text(r.err), words) || !strstr(error_text(r.err), "image"))
        fail_msg("'%s' lacks '%s'", r.ok ? "success" : error_text(r.err), words);
    done(&r);
    boot_source_free(&src);
}

static void refusals(void **state)
{
    struct setup_header *h = (struct setup_header *)(void *)(image.data + 0x1f1);

    expect_refusal("#!/bin/sh\n", 10, 16, "neither a Linux bzImage nor a Multiboot or PVH kernel");
    image_bzimage(&image, UNPACK_XZ);
    expect_refusal(image.data, image.len - 16, 16, "truncated");
    expect_refusal(image.data, image.len, 1, "the machine has 1 MiB");
    image.data[1024 + 0x300 + 200] ^= 0x55;
    expect_refusal(image.data, image.len, 16, "damaged");
    image_bzimage(&image, UNPACK_GZIP);
    h->version = 0x0205;
    expect_refusal(image.data, image.len, 16, "older than 2.06");
    image_bzimage(&image, UNPACK_UNKNOWN);
    h->pref_address = 0xe0000;
    expect_refusal(image.data, image.len, 16, "overlaps video memory and firmware");
    h->pref_address = UINT64_MAX;
    expect_refusal(image.data, image.len, 16, "above 4 GiB");
    image_elf(&image, true, ELF_PLAIN);
    expect_refusal(image.data, image.len, 16, "neither a Multiboot header nor a PVH entry");
    image_elf(&image, true, ELF_PVH);
    expect_refusal(image.data, image.len - 100, 16, "beyond the end of the file");
    expect_refusal(image.data, image.len, 2, "needs memory from 0x200000");
    image_kludge(&image, 0);
    expect_refusal(image.data, image.len - 100, 16, "truncated");
}

static void long_command_line(void **state)
{
    struct boot_source src;
    boot_source_init(&src);
    src.cmdline = malloc(3000);
    memset(src.cmdline, 'x', 2999);
    src.cmdline[2999] = '\0';
    image_bzimage(&image, UNPACK_GZIP);
    struct result r = load(&src, image.data, image.len, 16);
    assert_false(r.ok);
    assert_non_null(strstr(error_text(r.err), "2999 characters, the kernel takes 2047"));
    done(&r);
    boot_source_free(&src);
}

static void initrd_too_large(void **state)
{
    struct boot_source src;
    boot_source_init(&src);
    uint8_t *big = calloc(1, 20 * MIB);
    src.initrd = image_file(big, 20 * MIB);
    free(big);
    image_bzimage(&image, UNPACK_GZIP);
    struct result r = load(&src, image.data, image.len, 16);
    assert_false(r.ok);
    assert_non_null(strstr(error_text(r.err), "no room for the initrd (20480 KiB)"));
    done(&r);
    boot_source_free(&src);
}

/* Makes the image that number `kind` stands for. */
static void make_kind(int kind)
{
    switch (kind) {
    case 0:
        image_elf(&image, true, ELF_PVH);
        break;
    case 1:
        image_elf(&image, false, ELF_MULTIBOOT);
        break;
    case 2:
        image_kludge(&image, 64);
        break;
    default:
        image_bzimage(&image, (enum unpack_format)(kind - 3));
    }
}
#define KINDS 10

static void try_load(const void *data, size_t len, struct guest_memory *mem)
{
    struct boot_source src;
    struct boot_entry entry;
    struct error *err = NULL;

    boot_source_init(&src);
    src.kernel = image_file(data, len);
    if (src.kernel.name && boot_load(&src, mem, false, RSDP, &entry, &err))
        assert_null(err);
    else
        assert_true(!src.kernel.name || err);
    error_free(err);
    boot_source_free(&src);
}

/* Every image cut short at many places: an error or a load, never more. */
static void truncated(void **state)
{
    struct guest_memory *mem = guest_memory_new(8 * MIB, NULL);

    for (int kind = 0; kind < KINDS; kind++) {
        make_kind(kind);
        for (size_t len = 1; len < image.len; len += len < 700 ? 13 : 211)
            try_load(image.data, len, mem);
    }
    guest_memory_free(mem);
}

static void damaged(void **state)
{
    struct guest_memory *mem = guest_memory_new(8 * MIB, NULL);
    unsigned seed = (unsigned)getpid();

    print_message("seed %u\n", seed);
    for (int round = 0; round < 1500; round++) {
        make_kind((int)((unsigned)rand_r(&seed) % KINDS));
        for (int n = 1 + rand_r(&seed) % 4; n > 0; n--) {
            size_t where = (size_t)rand_r(&seed) % (rand_r(&seed) % 2 ? image.len : MIN(image.len, 1100u));
            image.data[where] = (uint8_t)rand_r(&seed);
        }
        try_load(image.data, image.len, mem);
    }
    guest_memory_free(mem);
}

static int quiet(void **state)
{
    log_set_level(LOG_ERROR);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linux_formats),
        cmocka_unit_test(linux_memory_map),
        cmocka_unit_test(linux_by_its_own_entry),
        cmocka_unit_test(pvh),
        cmocka_unit_test(multiboot),
        cmocka_unit_test(module_names),
        cmocka_unit_test(refusals),
        cmocka_unit_test(long_command_line),
        cmocka_unit_test(initrd_too_large),
        cmocka_unit_test(truncated),
        cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, quiet, NULL);
}
