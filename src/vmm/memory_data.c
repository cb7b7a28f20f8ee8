/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which pages of guest memory hold something: see memory_data.h. */
#include "vmm/memory_data.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"

#define PAGEMAP_IN_USE (BIT(63) | BIT(62)) /* present or swapped out */
#define PAGEMAP_FILE   BIT(61)             /* as the file has it */

size_t guest_pages(const struct guest_memory *mem)
{
    return guest_first_page(mem, mem->region_count);
}

size_t guest_first_page(const struct guest_memory *mem, unsigned region)
{
    size_t pages = 0;

    for (unsigned i = 0; i < region; i++)
        pages += mem->region[i].size / GUEST_PAGE_SIZE;
    return pages;
}

size_t guest_page_words(const struct guest_memory *mem, unsigned region)
{
    return (mem->region[region].size / GUEST_PAGE_SIZE + 63) / 64;
}

bool page_is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, GUEST_PAGE_SIZE - 1) == 0;
}

uint64_t page_bits_set(const uint64_t *bits, size_t words)
{
    uint64_t n = 0;

    for (size_t i = 0; i < words; i++)
        n += (uint64_t)__builtin_popcountll(bits[i]);
    return n;
}

static void set_bits(uint64_t *bits, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        bits[i / 64] |= BIT(i % 64);
}

/* The parts of a memory file that were ever touched. */
static bool find_file_data(const struct guest_region *r, uint64_t *bits, struct error **err)
{
    for (off_t at = 0; (uint64_t)at < r->size;) {
        off_t from = lseek(r->fd, at, SEEK_DATA);
        if (from < 0 && errno == ENXIO)
            return true;
        off_t to = from < 0 ? -1 : lseek(r->fd, from, SEEK_HOLE);
        if (to < 0)
            return error_set_errno(err, errno, "cannot find what memory %s holds", r->name), false;
        set_bits(bits, (size_t)from / GUEST_PAGE_SIZE,
                 (size_t)(round_up((uint64_t)to, GUEST_PAGE_SIZE) / GUEST_PAGE_SIZE));
        at = to;
    }
    return true;
}

/* The pages of private memory that hold something: those that the file it began as has, and those that were
 * touched. Without /proc all of them, and none surely is as it was. */
static void find_private_data(const struct guest_memory *mem, unsigned region, const uint32_t *base,
                              uint64_t *bits, uint64_t *unchanged)
{
    const struct guest_region *r = &mem->region[region];
    size_t pages = r->size / GUEST_PAGE_SIZE, first = guest_first_page(mem, region);
    cleanup(fd) int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t entry[512];

    for (size_t at = 0; at < pages; at += ARRAY_SIZE(entry)) {
        size_t n = MIN(pages - at, ARRAY_SIZE(entry));
        off_t where = (off_t)(((uintptr_t)r->host / GUEST_PAGE_SIZE + at) * sizeof(entry[0]));
        bool known =
            fd >= 0 && pread(fd, entry, n * sizeof(entry[0]), where) == (ssize_t)(n * sizeof(entry[0]));
        for (size_t i = 0; i < n; i++) {
            bool used = !known || entry[i] & PAGEMAP_IN_USE;
            bool old = base && base[first + at + i];
            if (used || old)
                set_bits(bits, at + i, at + i + 1);
            if (unchanged && old && known && (!(entry[i] & PAGEMAP_IN_USE) || entry[i] & PAGEMAP_FILE))
                set_bits(unchanged, at + i, at + i + 1);
        }
    }
}

bool memory_data_find(const struct guest_memory *mem, unsigned region, const uint32_t *base, uint64_t *bits,
                      uint64_t *unchanged, struct error **err)
{
    if (mem->region[region].fd >= 0)
        return find_file_data(&mem->region[region], bits, err);
    find_private_data(mem, region, base, bits, unchanged);
    return true;
}
