/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writing, mapping and checking the memory of a saved machine: see save_memory.h. */
#include "vmm/save_memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/util.h"
#include "vmm/memory_data.h"

#define BATCH_PAGES  256u /* written or read by one call */
#define CHUNK_PAGES  512u /* a chunk of 2 MiB is mapped as a whole, or not at all */
#define MAPPINGS_MAX 8192u

static uint32_t page_sum(const uint8_t *page)
{
    if (page_is_zero(page))
        return 0;
    uint32_t crc = crc32c(0, page, SAVE_PAGE);
    return crc ? crc : 1;
}

static bool cancelled(const bool *cancel, struct error **err)
{
    if (!cancel || !__atomic_load_n(cancel, __ATOMIC_RELAXED))
        return false;
    error_set(err, ECANCELED, "it was cancelled");
    return true;
}

/* Writing. */

bool save_memory_init(struct save_memory *s, const struct guest_memory *mem, struct save_writer *writer,
                      struct error **err)
{
    *s = (struct save_memory){.mem = mem, .writer = writer, .table.count = guest_pages(mem)};
    s->table.sum = calloc(s->table.count, sizeof(*s->table.sum));
    if (!s->table.sum)
        return error_set_errno(err, ENOMEM, "cannot save %zu pages", s->table.count), false;
    s->offset = save_writer_reserve_memory(writer, s->table.count * SAVE_PAGE);
    return true;
}

void save_memory_free(struct save_memory *s)
{
    free(s->table.sum);
    s->table.sum = NULL;
    for (unsigned i = 0; i < GUEST_REGION_MAX; i++)
        free(s->unchanged[i]);
}

/* What the file had must not be passed on under a new checksum when it has gone bad meanwhile. */
static bool check_unchanged(const struct save_memory *s, unsigned region, struct error **err)
{
    size_t pages = s->mem->region[region].size / SAVE_PAGE, first = guest_first_page(s->mem, region);

    for (size_t i = 0; s->unchanged[region] && i < pages; i++) {
        if (page_bit(s->unchanged[region], i) && s->table.sum[first + i] != s->base->sum[first + i])
            return error_set(err, EIO,
                             "the saved machine that this one began as is damaged at page %zu of its memory",
                             first + i),
                   false;
    }
    return true;
}

/* The page at `from` and those after it that are to be written in one piece; *n is 0 when there is nothing.
 */
static const uint8_t *gather(struct save_memory *s, unsigned region, const uint64_t *bits, size_t from,
                             size_t to, size_t *n, size_t *looked_at)
{
    const struct guest_region *r = &s->mem->region[region];
    uint32_t *sum = s->table.sum + guest_first_page(s->mem, region);
    size_t i = from;

    for (*n = 0; i < to && *n < BATCH_PAGES && page_bit(bits, i); i++, ++*n) {
        uint32_t old = sum[i];
        sum[i] = page_sum(r->host + i * SAVE_PAGE);
        if (!sum[i] && !old)
            break; /* a hole already */
    }
    *looked_at = MAX(i - from, (size_t)1);
    return r->host + from * SAVE_PAGE;
}

bool save_memory_pages(struct save_memory *s, unsigned region, const uint64_t *bits, struct error **err)
{
    size_t pages = s->mem->region[region].size / SAVE_PAGE;
    uint64_t base = s->offset + guest_first_page(s->mem, region) * SAVE_PAGE;

    for (size_t i = 0; s->unchanged[region] && i < (pages + 63) / 64; i++)
        s->unchanged[region][i] &= ~bits[i];
    for (size_t i = 0; i < pages;) {
        if (!bits[i / 64]) {
            i = round_down(i, 64) + 64;
            continue;
        }
        if (!page_bit(bits, i)) {
            i++;
            continue;
        }
        size_t n, looked_at;
        const uint8_t *from = gather(s, region, bits, i, pages, &n, &looked_at);
        if (n && !save_writer_write(s->writer, base + i * SAVE_PAGE, from, n * SAVE_PAGE, err))
            return false;
        if (s->done)
            __atomic_fetch_add(s->done, looked_at * SAVE_PAGE, __ATOMIC_RELAXED);
        if (cancelled(s->cancel, err))
            return false;
        i += looked_at;
    }
    return true;
}

static bool write_region(struct save_memory *s, unsigned region, struct error **err)
{
    size_t words = guest_page_words(s->mem, region);
    cleanup(mem) uint64_t *bits = calloc(words, sizeof(*bits));
    cleanup(mem) uint64_t *unchanged = calloc(words, sizeof(*unchanged));

    if (!bits || !unchanged)
        return error_set_errno(err, ENOMEM, "cannot save memory"), false;
    if (!memory_data_find(s->mem, region, s->base ? s->base->sum : NULL, bits, unchanged, err))
        return false;
    if (s->total)
        __atomic_fetch_add(s->total, page_bits_set(bits, words) * SAVE_PAGE, __ATOMIC_RELAXED);
    if (!save_memory_pages(s, region, bits, err))
        return false;
    s->unchanged[region] = steal_ptr(&unchanged);
    return true;
}

bool save_memory_all(struct save_memory *s, struct error **err)
{
    for (unsigned i = 0; i < s->mem->region_count; i++)
        if (!write_region(s, i, err))
            return false;
    return true;
}

bool save_memory_finish(struct save_memory *s, struct error **err)
{
    for (unsigned i = 0; i < s->mem->region_count; i++)
        if (!check_unchanged(s, i, err))
            return false;
    return save_writer_append(s->writer, SAVE_PAGES, s->table.sum, s->table.count * sizeof(*s->table.sum),
                              err);
}

/* Reading. */

bool saved_pages_read(const struct save_file *f, struct save_page_table *table, struct error **err)
{
    uint64_t pages = f->section[SAVE_MEMORY].length / SAVE_PAGE;

    if (f->section[SAVE_PAGES].length != pages * sizeof(*table->sum))
        return error_set(err, EINVAL, "saved machine '%s' is damaged: its page table does not fit its memory",
                         f->path),
               false;
    table->sum = (uint32_t *)(void *)save_file_read(f, SAVE_PAGES, err);
    table->count = pages;
    return table->sum != NULL;
}

static bool chunk_in_use(const uint32_t *sum, size_t pages, size_t at)
{
    for (size_t i = at; i < MIN(at + CHUNK_PAGES, pages); i++)
        if (sum[i])
            return true;
    return false;
}

/* Maps the runs of chunks that hold something. When that would take too many mappings the last one goes to
 * the end. */
static bool map_region(const struct save_file *f, const uint32_t *sum, struct guest_memory *mem,
                       unsigned region, uint64_t file_offset, struct error **err)
{
    size_t pages = mem->region[region].size / SAVE_PAGE, to;
    unsigned mappings = 0;

    for (size_t at = 0; at < pages; at = to) {
        bool used = chunk_in_use(sum, pages, at);
        for (to = at + CHUNK_PAGES; to < pages && chunk_in_use(sum, pages, to) == used; to += CHUNK_PAGES)
            ;
        to = used && ++mappings == MAPPINGS_MAX ? pages : MIN(to, pages);
        if (used && !guest_memory_map_private(mem, region, at * SAVE_PAGE, (to - at) * SAVE_PAGE, f->fd,
                                              file_offset + at * SAVE_PAGE, err))
            return false;
    }
    return true;
}

bool saved_memory_map(const struct save_file *f, const struct save_page_table *table,
                      struct guest_memory *mem, struct error **err)
{
    uint64_t file_offset = f->section[SAVE_MEMORY].offset;

    if (table->count != guest_pages(mem))
        return error_set(err, EINVAL, "saved machine '%s' has %zu pages of memory instead of %zu", f->path,
                         table->count, guest_pages(mem)),
               false;
    for (unsigned i = 0; i < mem->region_count; i++) {
        size_t first = guest_first_page(mem, i);
        if (!map_region(f, table->sum + first, mem, i, file_offset + first * SAVE_PAGE, err))
            return false;
    }
    return true;
}

/* Pages without content next to those with some are mapped too, so they must be zeros. */
static bool verify_batch(const struct save_file *f, const struct save_page_table *table, size_t first,
                         size_t n, uint8_t *buf, struct error **err)
{
    if (!save_file_read_at(f, f->section[SAVE_MEMORY].offset + first * SAVE_PAGE, buf, n * SAVE_PAGE, err))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (page_sum(buf + i * SAVE_PAGE) != table->sum[first + i])
            return error_set(err, EIO,
                             "saved machine '%s' is damaged: the checksum of page %zu of its memory is wrong",
                             f->path, first + i),
                   false;
    }
    return true;
}

bool saved_memory_verify(const struct save_file *f, const struct save_page_table *table, const bool *cancel,
                         struct error **err)
{
    cleanup(mem) uint8_t *buf = malloc((size_t)BATCH_PAGES * SAVE_PAGE);

    if (!buf)
        return error_set_errno(err, ENOMEM, "cannot verify saved machine '%s'", f->path), false;
    for (size_t chunk = 0; chunk < table->count; chunk += CHUNK_PAGES) {
        size_t end = MIN(chunk + CHUNK_PAGES, table->count);
        if (!chunk_in_use(table->sum, table->count, chunk))
            continue;
        for (size_t at = chunk; at < end; at += BATCH_PAGES)
            if (cancelled(cancel, err) ||
                !verify_batch(f, table, at, MIN((size_t)BATCH_PAGES, end - at), buf, err))
                return false;
    }
    return true;
}
