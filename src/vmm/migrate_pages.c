/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory on its way: see migrate_stream.h. A frame of pages is: region, number of pages, length of the pages'
 * contents, flags, 32 bits each; of each page its number within the region, with the top bit for one of
 * zeros; the contents of the others one after the other, packed as a whole if the flag says so. A page is
 * copied before its checksum is made, since the guest may be writing to it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/error.h"
#include "base/util.h"
#include "vmm/memory_data.h"
#include "vmm/migrate_stream.h"

#define ZERO_PAGE  BIT(31)
#define BATCH_SIZE ((size_t)MIGRATE_BATCH * GUEST_PAGE_SIZE)
#define PACK_LEVEL 1 /* others cost more time than they save on a line worth migrating over */

enum { AT_REGION = 0, AT_COUNT = 4, AT_LENGTH = 8, AT_FLAGS = 12, HEAD_SIZE = 16 };
enum { FLAG_ZSTD = 1 };

bool page_writer_init(struct page_writer *w, struct frame_stream *s, const struct guest_memory *mem,
                      struct error **err)
{
    *w = (struct page_writer){.stream = s, .mem = mem};
    w->data = malloc(BATCH_SIZE);
    w->packed = malloc(ZSTD_compressBound(BATCH_SIZE));
    w->zstd = ZSTD_createCCtx();
    if (w->data && w->packed && w->zstd)
        return true;
    page_writer_release(w);
    error_set_errno(err, ENOMEM, "cannot send memory");
    return false;
}

void page_writer_release(struct page_writer *w)
{
    ZSTD_freeCCtx(w->zstd);
    free(w->data);
    free(w->packed);
    w->zstd = w->data = w->packed = NULL;
}

/* Packs the batch's contents; their new length, 0 when that does not make them smaller. */
static size_t pack(struct page_writer *w)
{
    if (!w->len)
        return 0;
    size_t n =
        ZSTD_compressCCtx(w->zstd, w->packed, ZSTD_compressBound(BATCH_SIZE), w->data, w->len, PACK_LEVEL);
    return ZSTD_isError(n) || n >= w->len ? 0 : n;
}

bool page_writer_flush(struct page_writer *w, bool compress, struct error **err)
{
    uint8_t head[HEAD_SIZE + sizeof(w->index)];

    if (!w->count)
        return true;
    size_t packed = compress ? pack(w) : 0;
    store_le32(head + AT_REGION, w->region);
    store_le32(head + AT_COUNT, w->count);
    store_le32(head + AT_LENGTH, (uint32_t)w->len);
    store_le32(head + AT_FLAGS, packed ? FLAG_ZSTD : 0);
    for (unsigned i = 0; i < w->count; i++)
        store_le32(head + HEAD_SIZE + 4 * (size_t)i, w->index[i]);
    const struct iovec piece[2] = {{head, HEAD_SIZE + 4 * (size_t)w->count},
                                   {packed ? w->packed : w->data, packed ? packed : w->len}};
    w->count = 0;
    w->len = 0;
    return frame_send(w->stream, MIGRATE_PAGES, piece, 2, err);
}

bool page_writer_add(struct page_writer *w, unsigned region, size_t page, bool known, bool compress,
                     struct error **err)
{
    if ((w->count == MIGRATE_BATCH || w->region != region) && !page_writer_flush(w, compress, err))
        return false;
    uint8_t *copy = w->data + w->len;
    memcpy(copy, w->mem->region[region].host + page * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
    bool zero = page_is_zero(copy);
    __atomic_fetch_add(zero ? &w->zero : &w->full, 1, __ATOMIC_RELAXED);
    if (zero && !known)
        return true;
    w->region = region;
    w->index[w->count++] = (uint32_t)(page | (zero ? ZERO_PAGE : 0));
    w->len += zero ? 0 : GUEST_PAGE_SIZE;
    return true;
}

static bool malformed(const char *what, struct error **err)
{
    error_set(err, EBADMSG, "a frame of memory is malformed: %s", what);
    return false;
}

static bool make_room(struct page_reader *r, struct error **err)
{
    if (!r->data)
        r->data = malloc(BATCH_SIZE);
    if (!r->zstd)
        r->zstd = ZSTD_createDCtx();
    return (r->data && r->zstd) || (error_set_errno(err, ENOMEM, "cannot unpack memory"), false);
}

/* The contents, unpacked if they have to be: `length` bytes. */
static const uint8_t *contents(struct page_reader *r, const uint8_t *from, size_t len, size_t length,
                               uint32_t flags, struct error **err)
{
    if (!(flags & FLAG_ZSTD))
        return len == length || malformed("its length", err) ? from : NULL;
    if (!make_room(r, err))
        return NULL;
    size_t n = ZSTD_decompressDCtx(r->zstd, r->data, BATCH_SIZE, from, len);
    return (!ZSTD_isError(n) && n == length) || malformed("what is packed in it", err) ? r->data : NULL;
}

static void put_zeros(const struct guest_region *region, size_t page)
{
    uint8_t *to = region->host + page * GUEST_PAGE_SIZE;

    if (!page_is_zero(to)) /* most are untouched, and stay so */
        memset(to, 0, GUEST_PAGE_SIZE);
}

/* The pages named from `index` on, out of [from, end). */
static bool put_pages(const struct guest_memory *mem, const struct guest_region *region, const uint8_t *index,
                      uint32_t count, const uint8_t *from, const uint8_t *end, struct error **err)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t word = load_le32(index + 4 * (size_t)i);
        size_t page = word & ~(uint32_t)ZERO_PAGE;
        if (page >= region->size / GUEST_PAGE_SIZE)
            return malformed("there is no such page", err);
        if (word & ZERO_PAGE) {
            put_zeros(region, page);
            continue;
        }
        if (from == end)
            return malformed("pages are missing", err);
        guest_memory_touch(mem, region->gpa + page * GUEST_PAGE_SIZE);
        memcpy(region->host + page * GUEST_PAGE_SIZE, from, GUEST_PAGE_SIZE);
        from += GUEST_PAGE_SIZE;
    }
    return from == end || malformed("there is more than its pages", err);
}

bool page_reader_apply(struct page_reader *r, const struct guest_memory *mem, const uint8_t *data, size_t len,
                       struct error **err)
{
    if (len < HEAD_SIZE)
        return malformed("its head", err);
    uint32_t number = load_le32(data + AT_REGION), count = load_le32(data + AT_COUNT);
    uint32_t length = load_le32(data + AT_LENGTH), flags = load_le32(data + AT_FLAGS);
    if (number >= mem->region_count || count > MIGRATE_BATCH || len - HEAD_SIZE < 4 * (size_t)count ||
        length > BATCH_SIZE || length % GUEST_PAGE_SIZE || flags & ~(uint32_t)FLAG_ZSTD)
        return malformed("its head", err);
    const uint8_t *index = data + HEAD_SIZE, *rest = index + 4 * (size_t)count;
    const uint8_t *from = contents(r, rest, len - (size_t)(rest - data), length, flags, err);
    return from && put_pages(mem, &mem->region[number], index, count, from, from + length, err);
}

void page_reader_release(struct page_reader *r)
{
    ZSTD_freeDCtx(r->zstd);
    free(r->data);
    *r = (struct page_reader){0};
}
