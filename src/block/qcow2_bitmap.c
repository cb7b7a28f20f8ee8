/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Persistent dirty bitmaps (qcow2.txt, "Bitmaps extension"). The header points to a directory; each entry of
 * it to a table, whose entries are clusters of bits, or say that all bits of a cluster are 0 or 1.
 *
 * While the image is open for writing the bits are in memory. Before the image changes, the entries in the
 * file get the flag IN_USE, which says to whoever opens it after a crash that the bits there are out of date.
 * Storing writes bits, tables and directory to new clusters; the header then switches over to them, and only
 * then the old clusters are given up. So the file always has a whole directory.
 *
 * What others have made and we do not understand stays in the file as it is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/qcow2.h"
#include "os/sys.h"

/* A directory entry: fixed part, extra data, name; padded to 8 bytes. */
enum {
    ENTRY_TABLE_OFFSET = 0,
    ENTRY_TABLE_SIZE = 8,
    ENTRY_FLAGS = 12,
    ENTRY_TYPE = 16,
    ENTRY_GRANULARITY = 17,
    ENTRY_NAME_SIZE = 18,
    ENTRY_EXTRA_SIZE = 20,
    ENTRY_FIXED = 24,
};

enum { TYPE_DIRTY = 1 };

#define FLAG_IN_USE           BIT(0)
#define FLAG_AUTO             BIT(1) /* it records */
#define FLAG_EXTRA_COMPATIBLE BIT(2) /* it may be used whatever the extra data means */
#define FLAGS_KNOWN           (FLAG_IN_USE | FLAG_AUTO | FLAG_EXTRA_COMPATIBLE)

#define TABLE_ALL_ONES BIT(0)
#define TABLE_RESERVED (~(ENTRY_OFFSET | TABLE_ALL_ONES))

/* What we take on; QEMU goes further. */
#define DIRECTORY_BYTES_MAX (4 * MIB)
#define BITMAPS_MAX         4096u
#define TABLE_BYTES_MAX     (8 * MIB)
#define BITS_BYTES_MAX      (256 * MIB) /* of all bitmaps together */

/* A table in the file. */
struct bitmap_table {
    uint64_t offset; /* 0: there is none */
    uint32_t size;   /* entries */
};

struct qcow2_bitmap {
    struct qcow2_bitmap *next;
    char *name;
    uint8_t *extra;
    uint32_t extra_size;
    uint32_t flags;                   /* without IN_USE, unless it is inconsistent */
    unsigned granularity;             /* log2 of bytes */
    struct bitmap_table table, fresh; /* the one of the file's directory; the one that takes its place */
    struct dirty_bits bits;           /* no words: it cannot be used */
    bool changed;                     /* the bits in the file are others */
};

static bool refuse(const struct qcow2 *q, const char *why, struct error **err)
{
    error_set(err, EINVAL, "cannot open qcow2 image '%s': %s", q->layer->path, why);
    return false;
}

static bool usable(const struct qcow2_bitmap *b)
{
    return b->bits.word != NULL;
}

static bool recording(const struct qcow2_bitmap *b)
{
    return usable(b) && b->flags & FLAG_AUTO;
}

static void bitmap_free(struct qcow2_bitmap *b)
{
    free(b->name);
    free(b->extra);
    dirty_bits_free(&b->bits);
    free(b);
}

static void list_free(struct qcow2_bitmap **list)
{
    while (*list) {
        struct qcow2_bitmap *b = *list;
        *list = b->next;
        bitmap_free(b);
    }
}

void qcow2_bitmaps_free(struct qcow2 *q)
{
    list_free(&q->bitmaps);
    list_free(&q->gone_bitmaps);
}

static struct qcow2_bitmap *find(const struct qcow2 *q, const char *name)
{
    struct qcow2_bitmap *b = q->bitmaps;
    while (b && strcmp(b->name, name) != 0)
        b = b->next;
    return b;
}

static void append(struct qcow2_bitmap **list, struct qcow2_bitmap *b)
{
    while (*list)
        list = &(*list)->next;
    b->next = NULL;
    *list = b;
}

/* Table entries that the bits of a disk of this size take. */
static uint64_t table_entries(const struct qcow2 *q, uint64_t bits)
{
    uint64_t bytes = bits / 8 + !!(bits % 8);
    return round_up(bytes, q->cluster_size) >> q->cluster_bits;
}

static uint64_t bits_of(uint64_t size, unsigned granularity)
{
    return (size >> granularity) + !!(size & (BIT(granularity) - 1));
}

/* --- Reading. --- */

/* The bytes of the bitmap that its table's entry `i` stands for; the last may be short. */
static uint8_t *part_of(const struct qcow2 *q, struct qcow2_bitmap *b, uint64_t i, uint64_t *length)
{
    uint64_t bytes = (b->bits.count + 63) / 64 * 8, at = i << q->cluster_bits;
    *length = at < bytes ? MIN(q->cluster_size, bytes - at) : 0;
    return (uint8_t *)b->bits.word + at;
}

static bool read_table(struct qcow2 *q, struct bitmap_table at, uint64_t **table, struct error **err)
{
    uint64_t *t = malloc((size_t)at.size * 8 + 1);
    if (!t || file_read(q->fd, t, (uint64_t)at.size * 8, at.offset) < 0) {
        free(t);
        return refuse(q, "the table of a bitmap cannot be read", err);
    }
    for (uint32_t i = 0; i < at.size; i++) {
        t[i] = load_be64(&t[i]);
        uint64_t offset = t[i] & ENTRY_OFFSET;
        bool flawed =
            t[i] & TABLE_RESERVED || offset & (q->cluster_size - 1) ||
            (offset && (t[i] & TABLE_ALL_ONES || !range_fits(offset, q->cluster_size, q->file_end)));
        if (flawed) {
            free(t);
            return refuse(q, "the table of a bitmap is malformed", err);
        }
    }
    *table = t;
    return true;
}

/* The bits; those past the disk's end mean nothing. */
static bool read_bits(struct qcow2 *q, struct qcow2_bitmap *b, const uint64_t *table, struct error **err)
{
    if (!dirty_bits_init(&b->bits, q->layer->size, b->granularity))
        return refuse(q, "no memory for a bitmap", err);
    for (uint32_t i = 0; i < b->table.size; i++) {
        uint64_t length, offset = table[i] & ENTRY_OFFSET;
        uint8_t *part = part_of(q, b, i, &length);
        if (offset && file_read(q->fd, part, length, offset) < 0)
            return refuse(q, "a bitmap cannot be read", err);
        if (!offset && table[i])
            memset(part, 0xFF, length);
    }
    if (b->bits.count % 64)
        b->bits.word[b->bits.count / 64] &= BIT(b->bits.count % 64) - 1;
    return true;
}

/* Whether the bits mean something to us. */
static bool understood(const struct qcow2_bitmap *b)
{
    return !(b->flags & FLAG_IN_USE) && (!b->extra_size || b->flags & FLAG_EXTRA_COMPATIBLE);
}

/* The fixed part of an entry, of which `left` bytes may follow; its whole length goes to *length. */
static bool read_entry(struct qcow2 *q, const uint8_t *e, uint64_t left, struct qcow2_bitmap *b,
                       uint64_t *length, struct error **err)
{
    uint64_t name_size = load_be16(e + ENTRY_NAME_SIZE);
    b->extra_size = load_be32(e + ENTRY_EXTRA_SIZE);
    *length = round_up(ENTRY_FIXED + (uint64_t)b->extra_size + name_size, 8);
    if (*length > left || !name_size || name_size > BLOCK_BITMAP_NAME_MAX)
        return refuse(q, "an entry of the bitmap directory does not fit in it", err);
    const uint8_t *name = e + ENTRY_FIXED + b->extra_size;
    b->table.offset = load_be64(e + ENTRY_TABLE_OFFSET);
    b->table.size = load_be32(e + ENTRY_TABLE_SIZE);
    b->flags = load_be32(e + ENTRY_FLAGS);
    b->granularity = e[ENTRY_GRANULARITY];
    b->name = memchr(name, 0, name_size) ? NULL : strndup((const char *)name, name_size);
    b->extra = malloc(b->extra_size + 1);
    if (!b->name || !b->extra)
        return refuse(q, "the name of a bitmap is not text", err);
    memcpy(b->extra, e + ENTRY_FIXED, b->extra_size);
    if (find(q, b->name))
        return refuse(q, "two of its bitmaps have one name", err);
    if (e[ENTRY_TYPE] != TYPE_DIRTY || b->flags & ~FLAGS_KNOWN || b->granularity < GRANULARITY_MIN ||
        b->granularity > GRANULARITY_MAX)
        return refuse(q, "it has a bitmap of an unknown kind", err);
    if (!b->table.offset || b->table.offset & (q->cluster_size - 1) || !b->table.size ||
        (uint64_t)b->table.size * 8 > TABLE_BYTES_MAX ||
        !range_fits(b->table.offset, (uint64_t)b->table.size * 8, q->file_end))
        return refuse(q, "the table of a bitmap is not in the file", err);
    return true;
}

static bool load_bitmap(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t *room, struct error **err)
{
    cleanup(mem) uint64_t *table = NULL;
    uint64_t bits = bits_of(q->layer->size, b->granularity);
    if (!read_table(q, b->table, &table, err) ||
        !qcow2_claim(q, b->table.offset, (uint64_t)b->table.size * 8, err))
        return false;
    for (uint32_t i = 0; i < b->table.size; i++)
        if (table[i] & ENTRY_OFFSET && !qcow2_claim(q, table[i] & ENTRY_OFFSET, q->cluster_size, err))
            return false;
    if (!understood(b))
        return true;
    if (b->table.size != table_entries(q, bits))
        return refuse(q, "a bitmap is not of the disk's size", err);
    if (bits / 8 > *room)
        return refuse(q, "its bitmaps are too large", err);
    *room -= bits / 8;
    return read_bits(q, b, table, err);
}

static bool load_all(struct qcow2 *q, const uint8_t *data, struct error **err)
{
    const struct bitmap_directory *d = &q->bitmap_directory;
    uint64_t at = 0, length = 0, room = BITS_BYTES_MAX;
    for (uint32_t i = 0; i < d->count; i++, at += length) {
        struct qcow2_bitmap *b = calloc(1, sizeof(*b));
        if (!b)
            return refuse(q, "no memory for a bitmap", err);
        bool ok = d->size - at >= ENTRY_FIXED ? read_entry(q, data + at, d->size - at, b, &length, err)
                                              : refuse(q, "the bitmap directory is cut off", err);
        if (!ok) {
            bitmap_free(b);
            return false;
        }
        append(&q->bitmaps, b);
        if (!load_bitmap(q, b, &room, err))
            return false;
    }
    return at == d->size || refuse(q, "the bitmap directory is longer than its entries", err);
}

bool qcow2_bitmaps_load(struct qcow2 *q, struct error **err)
{
    const struct bitmap_directory *d = &q->bitmap_directory;
    if (!d->size && !d->count)
        return true;
    if (!d->count || d->count > BITMAPS_MAX || d->size < ENTRY_FIXED || d->size > DIRECTORY_BYTES_MAX ||
        !d->offset || d->offset & (q->cluster_size - 1) || !range_fits(d->offset, d->size, q->file_end))
        return refuse(q, "the bitmap directory is not in the file", err);
    cleanup(mem) uint8_t *data = malloc(d->size);
    if (!data || file_read(q->fd, data, d->size, d->offset) < 0)
        return refuse(q, "the bitmap directory cannot be read", err);
    if (qcow2_claim(q, d->offset, d->size, err) && load_all(q, data, err))
        return true;
    list_free(&q->bitmaps);
    return false;
}

/* The table and the clusters of bits of one that is in the file. */
static bool each_piece(struct qcow2 *q, const struct qcow2_bitmap *b,
                       bool (*fn)(struct qcow2 *q, uint64_t offset, uint64_t bytes, void *opaque,
                                  struct error **err),
                       void *opaque, struct error **err)
{
    cleanup(mem) uint64_t *table = NULL;
    if (!b->table.offset)
        return true;
    if (!read_table(q, b->table, &table, err) ||
        !fn(q, b->table.offset, (uint64_t)b->table.size * 8, opaque, err))
        return false;
    for (uint32_t i = 0; i < b->table.size; i++)
        if (table[i] & ENTRY_OFFSET && !fn(q, table[i] & ENTRY_OFFSET, q->cluster_size, opaque, err))
            return false;
    return true;
}

bool qcow2_each_bitmap_piece(struct qcow2 *q,
                             bool (*fn)(struct qcow2 *q, uint64_t offset, uint64_t bytes, void *opaque,
                                        struct error **err),
                             void *opaque, struct error **err)
{
    if (q->bitmap_directory.size && !fn(q, q->bitmap_directory.offset, q->bitmap_directory.size, opaque, err))
        return false;
    for (const struct qcow2_bitmap *b = q->bitmaps; b; b = b->next)
        if (!each_piece(q, b, fn, opaque, err))
            return false;
    for (const struct qcow2_bitmap *b = q->gone_bitmaps; b; b = b->next)
        if (!each_piece(q, b, fn, opaque, err))
            return false;
    return true;
}

/* --- Writing. --- */

static uint64_t entry_length(const struct qcow2_bitmap *b)
{
    return round_up(ENTRY_FIXED + (uint64_t)b->extra_size + strlen(b->name), 8);
}

static struct bitmap_table current_table(const struct qcow2_bitmap *b)
{
    return b->table;
}

static struct bitmap_table next_table(const struct qcow2_bitmap *b)
{
    return b->fresh.offset ? b->fresh : b->table;
}

/* The directory of all that have a table; `in_use` is the flag of those that record. NULL: no memory. */
static uint8_t *make_directory(const struct qcow2 *q,
                               struct bitmap_table (*table_of)(const struct qcow2_bitmap *b), bool in_use,
                               struct bitmap_directory *d)
{
    *d = (struct bitmap_directory){0};
    for (const struct qcow2_bitmap *b = q->bitmaps; b; b = b->next) {
        d->size += table_of(b).offset ? entry_length(b) : 0;
        d->count += table_of(b).offset != 0;
    }
    uint8_t *data = calloc(1, d->size + 1), *e = data;
    for (const struct qcow2_bitmap *b = data ? q->bitmaps : NULL; b; b = b->next) {
        if (!table_of(b).offset)
            continue;
        store_be64(e + ENTRY_TABLE_OFFSET, table_of(b).offset);
        store_be32(e + ENTRY_TABLE_SIZE, table_of(b).size);
        store_be32(e + ENTRY_FLAGS, b->flags | (in_use && recording(b) ? (uint32_t)FLAG_IN_USE : 0));
        e[ENTRY_TYPE] = TYPE_DIRTY;
        e[ENTRY_GRANULARITY] = (uint8_t)b->granularity;
        store_be16(e + ENTRY_NAME_SIZE, (uint16_t)strlen(b->name));
        store_be32(e + ENTRY_EXTRA_SIZE, b->extra_size);
        if (b->extra_size)
            memcpy(e + ENTRY_FIXED, b->extra, b->extra_size);
        memcpy(e + ENTRY_FIXED + b->extra_size, b->name, strlen(b->name));
        e += entry_length(b);
    }
    return data;
}

/* Writes the flags of those that are in the file; all else of the directory stays as it is. */
static int write_flags(struct qcow2 *q, bool in_use)
{
    struct bitmap_directory d;
    if (!q->bitmap_directory.size)
        return 0;
    cleanup(mem) uint8_t *data = make_directory(q, current_table, in_use, &d);
    return data ? file_write(q->fd, data, d.size, q->bitmap_directory.offset) : -ENOMEM;
}

int qcow2_bitmaps_begin(struct qcow2 *q)
{
    return write_flags(q, true);
}

/* Writes bytes to new clusters, all in one run; *offset is where. */
static int write_new(struct qcow2 *q, const void *data, uint64_t length, uint64_t *offset)
{
    struct reservation r;
    uint64_t count = round_up(length, q->cluster_size) >> q->cluster_bits;
    int e = count == 1 ? clusters_reserve(q, 1, &r) : clusters_reserve_all(q, count, &r);
    if (e < 0)
        return e;
    uint64_t first = r.first;
    *offset = first << q->cluster_bits;
    e = file_write(q->fd, data, length, *offset);
    if (e == 0 && !set_add_range(&q->metadata, first, count))
        e = -ENOMEM;
    if (e == 0)
        e = refcount_add(q, first, count, 1);
    clusters_release(q, &r, e == 0);
    if (e < 0)
        set_remove_range(&q->metadata, first, count);
    return e;
}

/* All bits of the part have the same value, which goes to *entry. */
static bool is_uniform(const uint8_t *part, uint64_t length, uint64_t *entry)
{
    if ((part[0] != 0 && part[0] != 0xFF) || memcmp(part, part + 1, length - 1) != 0)
        return false;
    *entry = part[0] ? TABLE_ALL_ONES : 0;
    return true;
}

/* Bits and table go to new clusters. */
static int write_bitmap(struct qcow2 *q, struct qcow2_bitmap *b)
{
    uint64_t entries = table_entries(q, b->bits.count), offset = 0;
    cleanup(mem) uint8_t *table = calloc(entries, 8);
    cleanup(mem) uint8_t *cluster = malloc(q->cluster_size);
    if (!table || !cluster)
        return -ENOMEM;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t length, entry = 0;
        const uint8_t *part = part_of(q, b, i, &length);
        if (!is_uniform(part, length, &entry)) {
            memset(cluster, 0, q->cluster_size);
            memcpy(cluster, part, length);
            int r = write_new(q, cluster, q->cluster_size, &entry);
            if (r < 0)
                return r;
        }
        store_be64(table + 8 * i, entry);
    }
    int r = write_new(q, table, entries * 8, &offset);
    if (r == 0)
        b->fresh = (struct bitmap_table){offset, (uint32_t)entries};
    return r;
}

bool qcow2_bitmaps_unsaved(const struct qcow2 *q)
{
    bool unsaved = q->gone_bitmaps != NULL;
    for (const struct qcow2_bitmap *b = q->bitmaps; b && !unsaved; b = b->next)
        unsaved = b->changed;
    return unsaved;
}

/* The header switches over to a new directory. */
static int write_directory(struct qcow2 *q)
{
    struct bitmap_directory d;
    cleanup(mem) uint8_t *data = make_directory(q, next_table, false, &d);
    int r = data ? 0 : -ENOMEM;
    if (r == 0 && d.size)
        r = write_new(q, data, d.size, &d.offset);
    if (r == 0 && !file_is_nameless(q->fd) && sys.fdatasync(q->fd) < 0)
        r = -errno;
    return r < 0 ? r : qcow2_write_bitmap_directory(q, &d);
}

static bool give_up(struct qcow2 *q, uint64_t offset, uint64_t bytes, void *opaque, struct error **err)
{
    uint64_t first = cluster_of(q, offset), count = round_up(bytes, q->cluster_size) >> q->cluster_bits;
    (void)opaque;
    (void)err;
    set_remove_range(&q->metadata, first, count);
    return refcount_add(q, first, count, -1) == 0;
}

/* What the directory before this one led to. What cannot be given up is counted and not used: lost space,
 * nothing worse. */
static void give_up_old(struct qcow2 *q, const struct bitmap_directory *before)
{
    if (before->size)
        give_up(q, before->offset, before->size, NULL, NULL);
    for (const struct qcow2_bitmap *b = q->gone_bitmaps; b; b = b->next)
        each_piece(q, b, give_up, NULL, NULL);
    list_free(&q->gone_bitmaps);
    for (struct qcow2_bitmap *b = q->bitmaps; b; b = b->next) {
        if (!b->changed)
            continue;
        each_piece(q, b, give_up, NULL, NULL);
        b->table = b->fresh;
        b->changed = false;
    }
}

int qcow2_bitmaps_store(struct qcow2 *q)
{
    struct bitmap_directory before = q->bitmap_directory;
    int r = 0;
    if (!qcow2_bitmaps_unsaved(q))
        return write_flags(q, false);
    for (struct qcow2_bitmap *b = q->bitmaps; b && r == 0; b = b->next)
        r = b->changed ? write_bitmap(q, b) : 0;
    if (r == 0)
        r = write_directory(q);
    if (r == 0)
        give_up_old(q, &before);
    /* After a failure the new tables are counted and used by nobody, until the image, which is still dirty,
     * is repaired. */
    for (struct qcow2_bitmap *b = q->bitmaps; b; b = b->next)
        b->fresh = (struct bitmap_table){0};
    return r;
}

/* --- While the image is open. --- */

void qcow2_bitmaps_mark(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    for (struct qcow2_bitmap *b = q->bitmaps; b; b = b->next) {
        if (!recording(b))
            continue;
        dirty_bits_set(&b->bits, offset, length);
        b->changed = true;
    }
}

bool qcow2_bitmaps_rigid(const struct qcow2 *q)
{
    bool rigid = false;
    for (const struct qcow2_bitmap *b = q->bitmaps; b && !rigid; b = b->next)
        rigid = !usable(b) && !(b->flags & FLAG_IN_USE);
    return rigid;
}

void qcow2_bitmaps_resized(struct qcow2 *q, uint64_t size)
{
    for (struct qcow2_bitmap *b = q->bitmaps; b; b = b->next) {
        if (!usable(b))
            continue;
        b->changed = true;
        if (dirty_bits_resize(&b->bits, size))
            continue;
        /* Without memory it is lost, and nobody must take it for right. */
        dirty_bits_free(&b->bits);
        b->flags |= FLAG_IN_USE;
        b->changed = false;
    }
}

void qcow2_bitmaps_hand_over(struct layer *from, struct layer *to)
{
    struct qcow2 *below = from->format, *q = to->format;
    struct qcow2_bitmap *all = below->bitmaps;
    below->bitmaps = NULL;
    while (all) {
        struct qcow2_bitmap *b = all;
        all = b->next;
        if (!usable(b) || q->version < 3 || find(q, b->name)) {
            bitmap_free(b);
            continue;
        }
        b->table = (struct bitmap_table){0};
        b->changed = true;
        append(&q->bitmaps, b);
    }
}

static int add(struct qcow2 *q, const struct bitmap_call *c)
{
    uint64_t bits = bits_of(q->layer->size, c->granularity);
    if (find(q, c->name))
        return -EEXIST;
    if (q->version < 3)
        return -ENOTSUP;
    if (table_entries(q, bits) * 8 > TABLE_BYTES_MAX || bits / 8 > BITS_BYTES_MAX)
        return -EFBIG;
    struct qcow2_bitmap *b = calloc(1, sizeof(*b));
    if (!b || !(b->name = strdup(c->name)) || !dirty_bits_init(&b->bits, q->layer->size, c->granularity)) {
        if (b)
            bitmap_free(b);
        return -ENOMEM;
    }
    b->granularity = c->granularity;
    b->flags = FLAG_AUTO;
    b->changed = true;
    append(&q->bitmaps, b);
    return 0;
}

static int remove_bitmap(struct qcow2 *q, struct qcow2_bitmap *b)
{
    struct qcow2_bitmap **link = &q->bitmaps;
    while (*link != b)
        link = &(*link)->next;
    *link = b->next;
    if (b->table.offset)
        append(&q->gone_bitmaps, b);
    else
        bitmap_free(b);
    return 0;
}

static int info(const struct qcow2 *q, const struct bitmap_call *c)
{
    const struct qcow2_bitmap *b = q->bitmaps;
    for (unsigned i = 0; b && i < c->index; i++)
        b = b->next;
    if (!b)
        return -ENOENT;
    *c->info = (struct block_bitmap){.granularity = BIT(b->granularity),
                                     .dirty = usable(b) ? dirty_bits_bytes(&b->bits) : 0,
                                     .recording = recording(b),
                                     .inconsistent = !usable(b)};
    memcpy(c->info->name, b->name, strlen(b->name) + 1); /* at most BLOCK_BITMAP_NAME_MAX long */
    return 0;
}

/* To a bitmap that is there. */
static int act(struct qcow2 *q, struct qcow2_bitmap *b, const struct bitmap_call *c)
{
    if (c->action == BITMAP_REMOVE)
        return remove_bitmap(q, b);
    if (!usable(b))
        return -ESTALE;
    if (c->action == BITMAP_CLEAR) {
        dirty_bits_clear(&b->bits, 0, b->bits.size);
        b->changed = true;
    } else if (c->bits) {
        dirty_bits_add(c->bits, &b->bits);
    }
    return 0;
}

int qcow2_bitmap(struct layer *l, struct bitmap_call *c)
{
    struct qcow2 *q = l->format;
    if (c->action == BITMAP_INFO)
        return info(q, c);
    struct qcow2_bitmap *b = find(q, c->name);
    if (!b && c->action != BITMAP_ADD)
        return -ENOENT;
    if (c->action == BITMAP_FIND)
        return 0;
    /* The flags in the file come before what is changed in memory. */
    int r = c->action == BITMAP_COPY ? 0 : qcow2_begin_change(q);
    if (r < 0)
        return r;
    return c->action == BITMAP_ADD ? add(q, c) : act(q, b, c);
}
