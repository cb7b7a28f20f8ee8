/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ELF kernels with a PVH entry (Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h): a note
 * names a 32-bit entry point; EBX points to a start-info structure with modules, command line, RSDP and
 * memory map.
 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "vmm/boot/boot.h"
#include "vmm/boot/elf.h"

#define NOTE_PHYS32_ENTRY 18
#define NOTES_MAX         (64 * KIB)
#define START_MAGIC       0x336ec578u
#define START_VERSION     1

struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, cmdline, rsdp, memory_map;
    uint32_t memory_map_count, reserved;
};

struct start_module {
    uint64_t address, size, cmdline, reserved;
};

struct start_memory {
    uint64_t start, size;
    uint32_t type, reserved;
};

/* Walks the notes in p[0, len) for the entry point. */
static bool find_entry_note(const uint8_t *p, uint64_t len, uint64_t *entry)
{
    while (len >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr n;
        memcpy(&n, p, sizeof(n));
        uint64_t name_len = round_up(n.n_namesz, 4);
        uint64_t whole = sizeof(n) + name_len + round_up(n.n_descsz, 4);
        if (whole > len)
            return false;
        const uint8_t *desc = p + sizeof(n) + name_len;
        if (n.n_type == NOTE_PHYS32_ENTRY && n.n_namesz == 4 && !memcmp(p + sizeof(n), "Xen", 4) &&
            n.n_descsz >= 4) {
            *entry = n.n_descsz >= 8 ? load_le64(desc) : load_le32(desc);
            return true;
        }
        p += whole;
        len -= whole;
    }
    return false;
}

static bool find_entry(const struct boot_file *f, const struct elf_image *elf, uint64_t *entry,
                       struct error **err)
{
    for (unsigned i = 0; i < elf->count; i++) {
        const struct elf_segment *g = &elf->segment[i];
        if (g->load || g->file_size > NOTES_MAX)
            continue;
        cleanup(mem) uint8_t *notes = malloc(g->file_size);
        if (!notes) {
            error_set_errno(err, ENOMEM, "cannot read %s", f->name);
            return false;
        }
        if (!boot_file_read(f, g->offset, notes, g->file_size, err))
            return false;
        if (find_entry_note(notes, g->file_size, entry))
            return true;
    }
    error_set(err, ENOEXEC, "cannot boot %s: an ELF file with neither a Multiboot header nor a PVH entry",
              f->name);
    return false;
}

/* Loads one module on a page boundary; `string` may be NULL. */
static bool put_module(struct boot_job *job, const struct boot_file *f, const char *string,
                       struct start_module *m, struct error **err)
{
    uint64_t at =
        boot_space_find(&job->space, f->size, GUEST_PAGE_SIZE, BOOT_HIGH_START, 4 * GIB, true, "module", err);

    if (at == BOOT_NOWHERE || !boot_space_load(&job->space, at, f, 0, f->size, err))
        return false;
    *m = (struct start_module){.address = at, .size = f->size};
    if (string) {
        m->cmdline = boot_put_string(job, string, "module's command line", err);
        return m->cmdline != BOOT_NOWHERE;
    }
    return true;
}

static bool put_modules(struct boot_job *job, struct start_info *info, struct error **err)
{
    struct start_module list[BOOT_MODULE_MAX + 1];
    unsigned n = 0;

    if (job->src->initrd.name && !put_module(job, &job->src->initrd, NULL, &list[n++], err))
        return false;
    for (unsigned i = 0; i < job->src->module_count; i++)
        if (!put_module(job, &job->src->module[i].file, job->src->module[i].string, &list[n++], err))
            return false;
    if (n == 0)
        return true;
    info->module_count = n;
    info->modules =
        boot_space_find(&job->space, n * sizeof(list[0]), 16, 0, 4 * GIB, false, "module list", err);
    if (info->modules == BOOT_NOWHERE)
        return false;
    boot_space_write(&job->space, info->modules, list, n * sizeof(list[0]));
    return true;
}

static bool put_memory_map(struct boot_job *job, struct start_info *info, struct error **err)
{
    struct boot_memory_range map[BOOT_MEMORY_MAP_MAX];
    struct start_memory list[BOOT_MEMORY_MAP_MAX];
    unsigned n = boot_memory_map(job->space.mem, map);

    for (unsigned i = 0; i < n; i++)
        list[i] =
            (struct start_memory){.start = map[i].start, .size = map[i].size, .type = (uint32_t)map[i].type};
    info->memory_map_count = n;
    info->memory_map =
        boot_space_find(&job->space, n * sizeof(list[0]), 16, 0, 4 * GIB, false, "memory map", err);
    if (info->memory_map == BOOT_NOWHERE)
        return false;
    boot_space_write(&job->space, info->memory_map, list, n * sizeof(list[0]));
    return true;
}

static bool put_start_info(struct boot_job *job, struct error **err)
{
    struct start_info info = {.magic = START_MAGIC, .version = START_VERSION, .rsdp = job->rsdp};
    uint64_t at = boot_space_find(&job->space, sizeof(info), 16, 0, 4 * GIB, false, "start info", err);

    if (at == BOOT_NOWHERE)
        return false;
    info.cmdline = boot_put_string(job, job->src->cmdline ? job->src->cmdline : "", "command line", err);
    if (info.cmdline == BOOT_NOWHERE || !put_memory_map(job, &info, err) || !put_modules(job, &info, err))
        return false;
    boot_space_write(&job->space, at, &info, sizeof(info));
    job->entry->rbx = at;
    return true;
}

bool pvh_load(struct boot_job *job, struct error **err)
{
    const struct boot_file *f = &job->src->kernel;
    struct elf_image elf;
    uint64_t entry;

    if (!elf_parse(&elf, job->head, job->head_len, f->size, f->name, err) ||
        !find_entry(f, &elf, &entry, err))
        return false;
    if (entry > UINT32_MAX || !elf_covers(&elf, entry)) {
        error_set(err, EINVAL, "cannot boot %s: its PVH entry point 0x%llx is outside of it", f->name,
                  (unsigned long long)entry);
        return false;
    }
    if (!elf_load(&elf, &job->space, f, err) ||
        !boot_entry_prepare(job->entry, &job->space, BOOT_MODE_PROTECTED, err))
        return false;
    job->entry->rip = entry;
    return put_start_info(job, err);
}
