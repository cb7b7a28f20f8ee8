/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading ELF headers into one form for both classes, and placing segments. */
#include "vmm/boot/elf.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"

bool elf_is_elf(const uint8_t *head, size_t len)
{
    return len >= EI_NIDENT && !memcmp(head, ELFMAG, SELFMAG);
}

static bool bad(const char *name, const char *why, struct error **err)
{
    error_set(err, EINVAL, "%s is not a bootable ELF file: %s", name, why);
    return false;
}

/* Where the program headers are. */
struct header_table {
    uint64_t offset;
    unsigned count, entry_size;
};

static bool parse_file_header(struct elf_image *elf, const uint8_t *head, size_t len, struct header_table *t,
                              const char *name, struct error **err)
{
    if (!elf_is_elf(head, len))
        return bad(name, "wrong magic", err);
    if (head[EI_DATA] != ELFDATA2LSB || head[EI_VERSION] != EV_CURRENT)
        return bad(name, "not little-endian", err);
    if (head[EI_CLASS] == ELFCLASS64) {
        Elf64_Ehdr h;
        if (len < sizeof(h))
            return bad(name, "the file header is truncated", err);
        memcpy(&h, head, sizeof(h));
        if (h.e_machine != EM_X86_64)
            return bad(name, "it is for another processor", err);
        elf->is_64 = true;
        elf->entry = h.e_entry;
        *t = (struct header_table){h.e_phoff, h.e_phnum, h.e_phentsize};
        return t->entry_size == sizeof(Elf64_Phdr) || bad(name, "program headers of unknown size", err);
    }
    if (head[EI_CLASS] == ELFCLASS32) {
        Elf32_Ehdr h;
        if (len < sizeof(h))
            return bad(name, "the file header is truncated", err);
        memcpy(&h, head, sizeof(h));
        if (h.e_machine != EM_386 && h.e_machine != EM_X86_64)
            return bad(name, "it is for another processor", err);
        elf->is_64 = false;
        elf->entry = h.e_entry;
        *t = (struct header_table){h.e_phoff, h.e_phnum, h.e_phentsize};
        return t->entry_size == sizeof(Elf32_Phdr) || bad(name, "program headers of unknown size", err);
    }
    return bad(name, "neither 32- nor 64-bit", err);
}

static Elf64_Phdr read_program_header(const struct elf_image *elf, const uint8_t *at)
{
    Elf64_Phdr p;

    if (elf->is_64) {
        memcpy(&p, at, sizeof(p));
    } else {
        Elf32_Phdr q;
        memcpy(&q, at, sizeof(q));
        p = (Elf64_Phdr){.p_type = q.p_type,
                         .p_offset = q.p_offset,
                         .p_vaddr = q.p_vaddr,
                         .p_paddr = q.p_paddr,
                         .p_filesz = q.p_filesz,
                         .p_memsz = q.p_memsz};
    }
    return p;
}

static bool add_segment(struct elf_image *elf, const Elf64_Phdr *p, uint64_t file_size, const char *name,
                        struct error **err)
{
    if (!range_fits(p->p_offset, p->p_filesz, file_size))
        return bad(name, "a segment lies beyond the end of the file (truncated?)", err);
    if (p->p_type == PT_LOAD && (p->p_filesz > p->p_memsz || p->p_paddr + p->p_memsz < p->p_paddr))
        return bad(name, "a segment's sizes make no sense", err);
    if (elf->count == ELF_SEGMENT_MAX)
        return bad(name, "too many segments", err);
    elf->segment[elf->count++] = (struct elf_segment){.offset = p->p_offset,
                                                      .file_size = p->p_filesz,
                                                      .address = p->p_paddr,
                                                      .size = p->p_memsz,
                                                      .virtual_address = p->p_vaddr,
                                                      .load = p->p_type == PT_LOAD};
    return true;
}

bool elf_parse(struct elf_image *elf, const uint8_t *head, size_t len, uint64_t file_size, const char *name,
               struct error **err)
{
    struct header_table t;
    bool loads = false;

    *elf = (struct elf_image){0};
    if (!parse_file_header(elf, head, len, &t, name, err))
        return false;
    if (!range_fits(t.offset, (uint64_t)t.count * t.entry_size, len))
        return bad(name, "the program headers lie beyond its beginning (truncated?)", err);
    for (unsigned i = 0; i < t.count; i++) {
        Elf64_Phdr p = read_program_header(elf, head + t.offset + (uint64_t)i * t.entry_size);
        bool wanted = (p.p_type == PT_LOAD && p.p_memsz > 0) || (p.p_type == PT_NOTE && p.p_filesz > 0);
        if (wanted && !add_segment(elf, &p, file_size, name, err))
            return false;
        loads |= wanted && p.p_type == PT_LOAD;
    }
    return loads || bad(name, "nothing to load", err);
}

bool elf_claim(const struct elf_image *elf, struct boot_space *s, const char *name, struct error **err)
{
    for (unsigned i = 0; i < elf->count; i++) {
        const struct elf_segment *g = &elf->segment[i];
        if (g->load && !boot_space_claim(s, g->address, g->size, "kernel segment", name, err))
            return false;
    }
    for (unsigned i = 0; i < elf->count; i++) {
        const struct elf_segment *g = &elf->segment[i];
        if (g->load)
            boot_space_zero(s, g->address + g->file_size, g->size - g->file_size);
    }
    return true;
}

void elf_scatter(const struct elf_image *elf, struct boot_space *s, uint64_t offset, const uint8_t *data,
                 size_t len)
{
    for (unsigned i = 0; i < elf->count; i++) {
        const struct elf_segment *g = &elf->segment[i];
        uint64_t from = MAX(offset, g->offset);
        uint64_t to = MIN(offset + len, g->offset + g->file_size);
        if (g->load && from < to)
            boot_space_write(s, g->address + (from - g->offset), data + (from - offset), to - from);
    }
}

bool elf_load(const struct elf_image *elf, struct boot_space *s, const struct boot_file *f,
              struct error **err)
{
    if (!elf_claim(elf, s, f->name, err))
        return false;
    for (unsigned i = 0; i < elf->count; i++) {
        const struct elf_segment *g = &elf->segment[i];
        if (g->load && !boot_space_load(s, g->address, f, g->offset, g->file_size, err))
            return false;
    }
    return true;
}

bool elf_covers(const struct elf_image *elf, uint64_t address)
{
    for (unsigned i = 0; i < elf->count; i++) {
        const struct elf_segment *g = &elf->segment[i];
        if (g->load && address >= g->address && address - g->address < g->size)
            return true;
    }
    return false;
}
