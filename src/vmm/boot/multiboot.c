/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Multiboot 1 (specification 0.6.96): a header in the first 8 KiB says what the image wants. It is loaded by
 * its ELF headers (either class), or by the addresses in the Multiboot header itself (the "a.out kludge"),
 * and entered in 32-bit protected mode with EBX pointing to an information structure.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/boot/boot.h"
#include "vmm/boot/elf.h"

#define SEARCH_LEN    8192u
#define HEADER_MAGIC  0x1badb002u
#define ENTRY_MAGIC   0x2badb002u
#define WANT_ALIGN    BIT(0)
#define WANT_MEMORY   BIT(1)
#define WANT_VIDEO    BIT(2)
#define WANT_MASK     0xffffu /* bits that must be understood */
#define HAS_ADDRESSES BIT(16)

#define INFO_MEMORY  BIT(0)
#define INFO_CMDLINE BIT(2)
#define INFO_MODULES BIT(3)
#define INFO_MAP     BIT(6)
#define INFO_LOADER  BIT(9)

/* All 32-bit little-endian, packed by nature. */
struct header {
    uint32_t magic, flags, checksum;
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

struct info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name, apm_table,
        vbe[4];
};

struct module {
    uint32_t start, end, string, reserved;
};

struct map_entry {
    uint32_t size; /* of what follows */
    uint64_t start, length;
    uint32_t type;
} __attribute__((packed));

/* Finds the header; returns its offset or -1. The address fields are zero where the file ends before them. */
static long find_header(const struct boot_job *job, struct header *h)
{
    size_t limit = MIN(job->head_len, SEARCH_LEN);

    for (size_t at = 0; at + 12 <= limit; at += 4) {
        *h = (struct header){0};
        memcpy(h, job->head + at, MIN(sizeof(*h), job->head_len - at));
        if (h->magic == HEADER_MAGIC && h->magic + h->flags + h->checksum == 0)
            return (long)at;
    }
    return -1;
}

bool multiboot_probe(const struct boot_job *job)
{
    struct header h;
    return find_header(job, &h) >= 0;
}

static bool refuse(const struct boot_job *job, const char *why, struct error **err)
{
    error_set(err, EINVAL, "cannot boot %s: %s", job->src->kernel.name, why);
    return false;
}

/* Loads by the header's own addresses. */
static bool load_by_addresses(struct boot_job *job, const struct header *h, uint64_t header_offset,
                              struct error **err)
{
    const struct boot_file *f = &job->src->kernel;
    uint32_t before =
        h->header_addr - h->load_addr; /* bytes from the loaded part's beginning to the header */

    if (h->load_addr > h->header_addr || before > header_offset)
        return refuse(job, "its Multiboot load addresses lie before the file's beginning", err);
    uint64_t offset = header_offset - before;
    uint64_t len = h->load_end_addr ? (uint64_t)h->load_end_addr - h->load_addr : f->size - offset;
    if (h->load_end_addr && h->load_end_addr < h->load_addr)
        return refuse(job, "its Multiboot load addresses make no sense", err);
    if (!range_fits(offset, len, f->size))
        return refuse(job, "the file is truncated: it is shorter than its Multiboot header says", err);
    uint64_t end = MAX(h->load_addr + len, (uint64_t)h->bss_end_addr);
    if (h->entry_addr < h->load_addr || h->entry_addr >= end)
        return refuse(job, "its entry point is outside of it", err);
    if (!boot_space_claim(&job->space, h->load_addr, end - h->load_addr, "image", f->name, err) ||
        !boot_space_load(&job->space, h->load_addr, f, offset, len, err))
        return false;
    boot_space_zero(&job->space, h->load_addr + len, end - h->load_addr - len);
    job->entry->rip = h->entry_addr;
    return true;
}

/* ELF entry points may be given as virtual addresses; the processor starts at the physical one. */
static uint64_t physical_entry(const struct elf_image *elf)
{
    if (elf_covers(elf, elf->entry))
        return elf->entry;
    for (unsigned i = 0; i < elf->count; i++) {
        const struct elf_segment *g = &elf->segment[i];
        if (g->load && elf->entry >= g->virtual_address && elf->entry - g->virtual_address < g->size)
            return g->address + (elf->entry - g->virtual_address);
    }
    return UINT64_MAX;
}

static bool load_by_elf(struct boot_job *job, struct error **err)
{
    const struct boot_file *f = &job->src->kernel;
    struct elf_image elf;

    if (!elf_parse(&elf, job->head, job->head_len, f->size, f->name, err))
        return false;
    uint64_t entry = physical_entry(&elf);
    if (entry > UINT32_MAX)
        return refuse(job, "its entry point is outside of it", err);
    if (!elf_load(&elf, &job->space, f, err))
        return false;
    job->entry->rip = entry;
    return true;
}

static bool put_module(struct boot_job *job, const struct boot_file *f, const char *string, struct module *m,
                       struct error **err)
{
    uint64_t at = boot_space_find(&job->space, f->size, GUEST_PAGE_SIZE, BOOT_HIGH_START, 4 * GIB, false,
                                  "module", err);

    if (at == BOOT_NOWHERE || !boot_space_load(&job->space, at, f, 0, f->size, err))
        return false;
    uint64_t text = boot_put_string(job, string, "module's command line", err);
    *m = (struct module){.start = (uint32_t)at, .end = (uint32_t)(at + f->size), .string = (uint32_t)text};
    return text != BOOT_NOWHERE;
}

/* An initrd is the first module, as other loaders have it. */
static bool put_modules(struct boot_job *job, struct info *info, struct error **err)
{
    struct module list[BOOT_MODULE_MAX + 1];
    const struct boot_source *src = job->src;
    unsigned n = 0;

    if (src->initrd.name && !put_module(job, &src->initrd, src->initrd.name, &list[n++], err))
        return false;
    for (unsigned i = 0; i < src->module_count; i++)
        if (!put_module(job, &src->module[i].file, src->module[i].string, &list[n++], err))
            return false;
    info->flags |= INFO_MODULES;
    if (n == 0)
        return true;
    uint64_t at =
        boot_space_find(&job->space, n * sizeof(list[0]), 16, 0, 4 * GIB, false, "module list", err);
    if (at == BOOT_NOWHERE)
        return false;
    boot_space_write(&job->space, at, list, n * sizeof(list[0]));
    info->mods_count = n;
    info->mods_addr = (uint32_t)at;
    return true;
}

static bool put_memory_map(struct boot_job *job, struct info *info, struct error **err)
{
    struct boot_memory_range map[BOOT_MEMORY_MAP_MAX];
    struct map_entry list[BOOT_MEMORY_MAP_MAX];
    unsigned n = boot_memory_map(job->space.mem, map);
    uint64_t low = job->space.mem->ram_low;

    for (unsigned i = 0; i < n; i++)
        list[i] = (struct map_entry){.size = sizeof(list[0]) - 4,
                                     .start = map[i].start,
                                     .length = map[i].size,
                                     .type = (uint32_t)map[i].type};
    uint64_t at = boot_space_find(&job->space, n * sizeof(list[0]), 16, 0, 4 * GIB, false, "memory map", err);
    if (at == BOOT_NOWHERE)
        return false;
    boot_space_write(&job->space, at, list, n * sizeof(list[0]));
    info->flags |= INFO_MEMORY | INFO_MAP;
    info->mmap_addr = (uint32_t)at;
    info->mmap_length = (uint32_t)(n * sizeof(list[0]));
    info->mem_lower = BOOT_LOW_END / KIB;
    info->mem_upper = (uint32_t)((low - MIN(low, BOOT_HIGH_START)) / KIB);
    return true;
}

/* By convention the first word of the command line is the image's name. */
static bool put_cmdline(struct boot_job *job, struct info *info, struct error **err)
{
    const char *name = job->src->kernel.name;
    const char *rest = job->src->cmdline;
    bool more = rest && *rest;
    size_t len = strlen(name) + (more ? 1 + strlen(rest) : 0) + 1;
    cleanup(mem) char *text = malloc(len);

    if (!text)
        return refuse(job, "out of memory", err);
    snprintf(text, len, "%s%s%s", name, more ? " " : "", more ? rest : "");
    uint64_t at = boot_put_string(job, text, "command line", err);
    info->flags |= INFO_CMDLINE;
    info->cmdline = (uint32_t)at;
    return at != BOOT_NOWHERE;
}

static bool put_info(struct boot_job *job, struct error **err)
{
    struct info info = {0};
    uint64_t at = boot_space_find(&job->space, sizeof(info), 16, 0, 4 * GIB, false, "boot information", err);

    if (at == BOOT_NOWHERE)
        return false;
    uint64_t loader = boot_put_string(job, "Ruche", "loader's name", err);
    if (loader == BOOT_NOWHERE || !put_cmdline(job, &info, err) || !put_memory_map(job, &info, err) ||
        !put_modules(job, &info, err))
        return false;
    info.flags |= INFO_LOADER;
    info.boot_loader_name = (uint32_t)loader;
    boot_space_write(&job->space, at, &info, sizeof(info));
    job->entry->rax = ENTRY_MAGIC;
    job->entry->rbx = at;
    return true;
}

bool multiboot_load(struct boot_job *job, struct error **err)
{
    struct header h;
    long offset = find_header(job, &h);

    if (offset < 0)
        return refuse(job, "it has no Multiboot header", err);
    if (h.flags & WANT_MASK & ~(WANT_ALIGN | WANT_MEMORY | WANT_VIDEO))
        return refuse(job, "it asks for Multiboot features that do not exist here", err);
    if (h.flags & WANT_VIDEO)
        log_line(LOG_INFO, "%s asks for a video mode, which the machine does not have",
                 job->src->kernel.name);
    bool ok =
        h.flags & HAS_ADDRESSES ? load_by_addresses(job, &h, (uint64_t)offset, err) : load_by_elf(job, err);
    if (!ok)
        return false;
    uint64_t rip = job->entry->rip;
    if (!boot_entry_prepare(job->entry, &job->space, BOOT_MODE_PROTECTED, err))
        return false;
    job->entry->rip = rip;
    return put_info(job, err);
}
