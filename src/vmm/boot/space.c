/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Accounting for guest RAM while a machine is loaded, and the memory map that follows from it. */
#include "vmm/boot/space.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "device/pci/pci.h"

static void reserve(struct boot_space *s, uint64_t start, uint64_t end, const char *what)
{
    s->claim[s->count++] = (struct boot_claim){start, end, what};
}

void boot_space_init(struct boot_space *s, struct guest_memory *mem, bool fresh)
{
    s->mem = mem;
    s->fresh = fresh;
    s->count = 0;
    reserve(s, 0, BOOT_LOW_START, "the first page");
    reserve(s, BOOT_LOW_END, BOOT_HIGH_START, "video memory and firmware below 1 MiB");
}

static const struct boot_claim *overlap(const struct boot_space *s, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < s->count; i++)
        if (start < s->claim[i].end && s->claim[i].start < end)
            return &s->claim[i];
    return NULL;
}

static bool add_claim(struct boot_space *s, uint64_t start, uint64_t len, const char *what,
                      struct error **err)
{
    if (s->count == BOOT_CLAIM_MAX) {
        error_set(err, E2BIG, "cannot place the %s: too many pieces", what);
        return false;
    }
    reserve(s, start, start + len, what);
    return true;
}

bool boot_space_claim(struct boot_space *s, uint64_t gpa, uint64_t len, const char *what, const char *who,
                      struct error **err)
{
    if (len == 0)
        return true;
    if (!guest_ptr(s->mem, gpa, len, true)) {
        error_set(err, ENOMEM,
                  "%s: its %s needs memory from 0x%llx to 0x%llx, but the machine has %llu MiB (0x%llx below "
                  "4 GiB)",
                  who, what, (unsigned long long)gpa, (unsigned long long)gpa + len,
                  (unsigned long long)(s->mem->ram_size / MIB), (unsigned long long)s->mem->ram_low);
        return false;
    }
    const struct boot_claim *other = overlap(s, gpa, gpa + len);
    if (other) {
        error_set(err, EINVAL, "%s: its %s at 0x%llx (0x%llx bytes) overlaps %s", who, what,
                  (unsigned long long)gpa, (unsigned long long)len, other->what);
        return false;
    }
    return add_claim(s, gpa, len, what, err);
}

/* The place nearest to the wished-for end of [min, max), or BOOT_NOWHERE. Each turn steps past one claim. */
static uint64_t search(const struct boot_space *s, uint64_t len, uint64_t align, uint64_t min, uint64_t max,
                       bool top)
{
    if (max < len || min > max - len)
        return BOOT_NOWHERE;
    uint64_t at = top ? round_down(max - len, align) : round_up(min, align);

    while (at >= min && range_fits(at, len, max)) {
        const struct boot_claim *other = overlap(s, at, at + len);
        if (!other)
            return guest_ptr(s->mem, at, len, true) ? at : BOOT_NOWHERE;
        if (!top)
            at = round_up(other->end, align);
        else if (other->start < len)
            break;
        else
            at = round_down(other->start - len, align);
    }
    return BOOT_NOWHERE;
}

uint64_t boot_space_find(struct boot_space *s, uint64_t len, uint64_t align, uint64_t min, uint64_t max,
                         bool top, const char *what, struct error **err)
{
    uint64_t high_end = s->mem->ram_size - s->mem->ram_low + 4 * GIB;
    uint64_t at = BOOT_NOWHERE;

    if (len <= s->mem->ram_size) {
        at = search(s, len, align, min, MIN(max, s->mem->ram_low), top);
        if (at == BOOT_NOWHERE && max > 4 * GIB && s->mem->ram_size > s->mem->ram_low)
            at = search(s, len, align, MAX(min, 4 * GIB), MIN(max, high_end), top);
    }
    if (at == BOOT_NOWHERE) {
        error_set(err, ENOMEM, "no room for the %s (%llu KiB): the machine has %llu MiB of memory", what,
                  (unsigned long long)(len / KIB), (unsigned long long)(s->mem->ram_size / MIB));
        return BOOT_NOWHERE;
    }
    return add_claim(s, at, len, what, err) ? at : BOOT_NOWHERE;
}

static bool all_zero(const uint8_t *p, uint64_t len)
{
    return len == 0 || (p[0] == 0 && !memcmp(p, p + 1, len - 1));
}

void boot_space_write(struct boot_space *s, uint64_t gpa, const void *data, uint64_t len)
{
    const uint8_t *from = data;
    uint8_t *to = len ? guest_ptr(s->mem, gpa, len, true) : NULL;

    if (!to)
        return;
    if (!s->fresh) {
        memcpy(to, from, len);
    } else {
        for (uint64_t done = 0, n; done < len; done += n) {
            n = MIN(len - done, GUEST_PAGE_SIZE - ((gpa + done) & (GUEST_PAGE_SIZE - 1)));
            if (!all_zero(from + done, n))
                memcpy(to + done, from + done, n);
        }
    }
    guest_mark_written(s->mem, gpa, len);
}

void boot_space_zero(struct boot_space *s, uint64_t gpa, uint64_t len)
{
    uint8_t *to = len && !s->fresh ? guest_ptr(s->mem, gpa, len, true) : NULL;

    if (!to)
        return;
    memset(to, 0, len);
    guest_mark_written(s->mem, gpa, len);
}

bool boot_space_load(struct boot_space *s, uint64_t gpa, const struct boot_file *f, uint64_t offset,
                     uint64_t len, struct error **err)
{
    uint8_t *to = guest_ptr(s->mem, gpa, len, true);

    if (len == 0)
        return true;
    if (!to) {
        error_set(err, EINVAL, "%s: nowhere to load 0x%llx bytes at 0x%llx", f->name, (unsigned long long)len,
                  (unsigned long long)gpa);
        return false;
    }
    if (!boot_file_read(f, offset, to, len, err))
        return false;
    guest_mark_written(s->mem, gpa, len);
    return true;
}

unsigned boot_memory_map(const struct guest_memory *mem, struct boot_memory_range map[BOOT_MEMORY_MAP_MAX])
{
    unsigned n = 0;

    map[n++] = (struct boot_memory_range){0, BOOT_LOW_END, BOOT_MEM_RAM};
    map[n++] = (struct boot_memory_range){BOOT_LOW_END, 0xa0000 - BOOT_LOW_END, BOOT_MEM_RESERVED};
    map[n++] = (struct boot_memory_range){BOOT_FIRMWARE, BOOT_FIRMWARE_SIZE, BOOT_MEM_RESERVED};
    if (mem->ram_low > BOOT_HIGH_START)
        map[n++] = (struct boot_memory_range){BOOT_HIGH_START, mem->ram_low - BOOT_HIGH_START, BOOT_MEM_RAM};
    map[n++] = (struct boot_memory_range){PCI_ECAM_BASE, PCI_ECAM_SIZE, BOOT_MEM_RESERVED};
    if (mem->ram_size > mem->ram_low)
        map[n++] = (struct boot_memory_range){4 * GIB, mem->ram_size - mem->ram_low, BOOT_MEM_RAM};
    return n;
}
