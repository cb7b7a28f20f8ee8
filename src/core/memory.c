/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest physical memory: see memory.h. */
#include "core/memory.h"

#include "base/error.h"
#include "base/util.h"
#include "os/sys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define RAM_HOLE_START (2 * GIB) /* RAM above this goes above 4 GiB */
#define RAM_HIGH_START (4 * GIB)
#define RAM_SIZE_MAX   (1024 * GIB)
#define ADDRESS_LIMIT  ((uint64_t)1 << 52)
#define HUGE_PAGE      (2 * MIB)

/*
 * Maps `size` bytes at an address that is a multiple of 2 MiB, so that huge pages are possible: of `fd`,
 * shared, or private memory when it is -1.
 */
static uint8_t *map_aligned(int fd, uint64_t size)
{
    int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    uint64_t span = size + HUGE_PAGE;
    uint8_t *area = sys.mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return NULL;
    uint8_t *start = area + (round_up((uintptr_t)area, HUGE_PAGE) - (uintptr_t)area);
    uint8_t *end = start + round_up(size, GUEST_PAGE_SIZE);
    if (sys.mmap(start, size, PROT_READ | PROT_WRITE, kind | MAP_NORESERVE | MAP_FIXED, fd, 0) ==
        MAP_FAILED) {
        int code = errno;
        sys.munmap(area, span);
        errno = code;
        return NULL;
    }
    if (start > area)
        sys.munmap(area, (size_t)(start - area));
    if (area + span > end)
        sys.munmap(end, (size_t)(area + span - end));
    /* Both are wishes: without huge pages the machine is slower, with guest memory in a core dump the dump is
     * larger. Private memory is there to be sparse. */
    if (fd >= 0)
        madvise(start, size, MADV_HUGEPAGE);
    madvise(start, size, MADV_DONTDUMP);
    return start;
}

static bool region_overlaps(const struct guest_memory *mem, uint64_t gpa, uint64_t size)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_region *r = &mem->region[i];
        if (gpa < r->gpa + r->size && r->gpa < gpa + size)
            return true;
    }
    return false;
}

uint8_t *guest_memory_add(struct guest_memory *mem, const char *name, uint64_t gpa, uint64_t size,
                          enum guest_region_flags flags, struct error **err)
{
    if (mem->region_count == GUEST_REGION_MAX || !size || (gpa | size) % GUEST_PAGE_SIZE ||
        !range_fits(gpa, size, ADDRESS_LIMIT) || region_overlaps(mem, gpa, size)) {
        error_set(err, EINVAL, "cannot add memory region %s at 0x%llx: bad range", name,
                  (unsigned long long)gpa);
        return NULL;
    }
    struct guest_region *r = &mem->region[mem->region_count];
    int fd = mem->private ? -1 : memfd_create(name, MFD_CLOEXEC);
    if (!mem->private && (fd < 0 || sys.ftruncate(fd, (off_t)size) < 0))
        goto fail;
    uint8_t *host = map_aligned(fd, size);
    if (!host)
        goto fail;
    *r = (struct guest_region){.gpa = gpa, .size = size, .host = host, .fd = fd, .flags = flags};
    snprintf(r->name, sizeof(r->name), "%s", name);
    if (fd >= 0) /* without it all is well, only slower */
        r->touched = calloc(size / GUEST_PIECE / 64 + 1, sizeof(*r->touched));
    mem->region_count++;
    return host;

fail:
    error_set_errno(err, errno, "cannot allocate %llu MiB of guest memory (%s)",
                    (unsigned long long)(size / MIB), name);
    if (fd >= 0)
        sys.close(fd);
    return NULL;
}

static struct guest_memory *make(uint64_t size, bool private, struct error **err)
{
    if (size < MIB || size > RAM_SIZE_MAX || size % GUEST_PAGE_SIZE) {
        error_set(err, EINVAL, "cannot make %llu bytes of RAM: not a multiple of 4 KiB from 1 MiB to 1 TiB",
                  (unsigned long long)size);
        return NULL;
    }
    struct guest_memory *mem = calloc(1, sizeof(*mem));
    if (!mem) {
        error_set_errno(err, ENOMEM, "cannot make guest memory");
        return NULL;
    }
    mem->private = private;
    mem->ram_size = size;
    mem->ram_low = MIN(size, RAM_HOLE_START);
    if (!guest_memory_add(mem, "ram-low", 0, mem->ram_low, REGION_RAM, err))
        goto fail;
    if (size > mem->ram_low &&
        !guest_memory_add(mem, "ram-high", RAM_HIGH_START, size - mem->ram_low, REGION_RAM, err))
        goto fail;
    return mem;

fail:
    guest_memory_free(mem);
    return NULL;
}

struct guest_memory *guest_memory_new(uint64_t size, struct error **err)
{
    return make(size, false, err);
}

struct guest_memory *guest_memory_new_private(uint64_t size, struct error **err)
{
    return make(size, true, err);
}

bool guest_memory_map_private(struct guest_memory *mem, unsigned region, uint64_t offset, uint64_t len,
                              int fd, uint64_t file_offset, struct error **err)
{
    const struct guest_region *r = &mem->region[region];

    if (!mem->private || !range_fits(offset, len, r->size) ||
        (offset | len | file_offset) % GUEST_PAGE_SIZE || file_offset > INT64_MAX) {
        error_set(err, EINVAL, "cannot map a part of a file onto %s: bad range", r->name);
        return false;
    }
    if (sys.mmap(r->host + offset, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd,
                 (off_t)file_offset) == MAP_FAILED) {
        error_set_errno(err, errno, "cannot map a part of a file onto %s", r->name);
        return false;
    }
    madvise(r->host + offset, len, MADV_DONTDUMP);
    return true;
}

void guest_memory_free(struct guest_memory *mem)
{
    if (!mem)
        return;
    for (unsigned i = 0; i < mem->region_count; i++) {
        sys.munmap(mem->region[i].host, mem->region[i].size);
        free(mem->region[i].touched);
        if (mem->region[i].fd >= 0)
            sys.close(mem->region[i].fd);
    }
    free(mem);
}

const struct guest_region *guest_region_find(const struct guest_memory *mem, uint64_t gpa)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_region *r = &mem->region[i];
        if (gpa - r->gpa < r->size)
            return r;
    }
    return NULL;
}

void guest_memory_touch(const struct guest_memory *mem, uint64_t gpa)
{
    const struct guest_region *r = guest_region_find(mem, gpa);
    if (!r || !r->touched)
        return;
    uint64_t piece = (gpa - r->gpa) / GUEST_PIECE, bit = BIT(piece % 64), start = piece * GUEST_PIECE;
    if (!(__atomic_fetch_or(&r->touched[piece / 64], bit, __ATOMIC_RELAXED) & bit))
        madvise(r->host + start, MIN((uint64_t)GUEST_PIECE, r->size - start), MADV_POPULATE_WRITE);
}

void *guest_ptr(const struct guest_memory *mem, uint64_t gpa, uint64_t len, bool write)
{
    const struct guest_region *r = guest_region_find(mem, gpa);
    if (!r || (write && r->flags == REGION_ROM) || !range_fits(gpa - r->gpa, len, r->size))
        return NULL;
    return r->host + (gpa - r->gpa);
}

bool guest_read(const struct guest_memory *mem, uint64_t gpa, void *buf, uint64_t len)
{
    if (!len)
        return true;
    const void *p = guest_ptr(mem, gpa, len, false);
    if (p)
        memcpy(buf, p, len);
    return p != NULL;
}

bool guest_write(struct guest_memory *mem, uint64_t gpa, const void *buf, uint64_t len)
{
    if (!len)
        return true;
    void *p = guest_ptr(mem, gpa, len, true);
    if (!p)
        return false;
    memcpy(p, buf, len);
    guest_mark_written(mem, gpa, len);
    return true;
}
