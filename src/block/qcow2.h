/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The qcow2 format, versions 2 and 3 (QEMU's docs/interop/qcow2.txt). Inside the block layer only.
 *
 * A guest offset is looked up in two steps: L1 table (in memory) -> L2 table (one cluster, cached) -> host
 * cluster. Every host cluster has a reference count in a refcount block (one cluster, cached), found by the
 * refcount table (in memory).
 *
 * What keeps the image right when the process is killed at any time: every change is written at once, in the
 * order that can at worst leave a cluster counted but not used: data, then the new cluster's refcount, then
 * the L2 entry that points there (for a new L2 table: the table, its refcount, the L1 entry), then the old
 * cluster's refcount. Clusters promised to requests in flight are only in `reserved` until then. When the
 * host fails, writes may be lost in any order; therefore a version 3 image carries the dirty bit, durably,
 * from before its first metadata change until it is closed, and opening a dirty image for writing recomputes
 * all refcounts (qcow2_repair.c).
 */
#ifndef BLOCK_QCOW2_H
#define BLOCK_QCOW2_H

#include "base/util.h"
#include "block/block_int.h"
#include "block/io.h"

#define QCOW2_MAGIC 0x514649fbu

/* Header fields by their place. */
enum {
    HEADER_MAGIC = 0,
    HEADER_VERSION = 4,
    HEADER_BACKING_OFFSET = 8,
    HEADER_BACKING_SIZE = 16,
    HEADER_CLUSTER_BITS = 20,
    HEADER_SIZE = 24,
    HEADER_CRYPT = 32,
    HEADER_L1_SIZE = 36,
    HEADER_L1_OFFSET = 40,
    HEADER_REFTABLE_OFFSET = 48,
    HEADER_REFTABLE_CLUSTERS = 56,
    HEADER_SNAPSHOTS = 60,
    HEADER_SNAPSHOTS_OFFSET = 64,
    HEADER_V2_LENGTH = 72,
    HEADER_INCOMPATIBLE = 72,
    HEADER_COMPATIBLE = 80,
    HEADER_AUTOCLEAR = 88,
    HEADER_REFCOUNT_ORDER = 96,
    HEADER_LENGTH = 100,
    HEADER_COMPRESSION = 104,
    HEADER_V3_LENGTH = 104,
    HEADER_FULL_LENGTH = 112,
};

enum {
    EXTENSION_END = 0,
    EXTENSION_BACKING_FORMAT = 0xe2792aca,
    EXTENSION_FEATURES = 0x6803f857,
    EXTENSION_BITMAPS = 0x23852875,
};

#define INCOMPAT_DIRTY       BIT(0)
#define INCOMPAT_CORRUPT     BIT(1)
#define INCOMPAT_DATA_FILE   BIT(2)
#define INCOMPAT_COMPRESSION BIT(3)
#define INCOMPAT_EXTENDED_L2 BIT(4)
#define INCOMPAT_KNOWN       (INCOMPAT_DIRTY | INCOMPAT_CORRUPT | INCOMPAT_COMPRESSION)

/* Set by whoever keeps the bitmaps up to date, cleared by whoever does not know them. */
#define AUTOCLEAR_BITMAPS BIT(0)

/* Table entries. */
#define ENTRY_COPIED     BIT(63) /* the refcount is one: may be written in place */
#define ENTRY_COMPRESSED BIT(62)
#define ENTRY_ZERO       BIT(0)
#define ENTRY_OFFSET     0x00fffffffffffe00ull
#define L1_RESERVED      (~(ENTRY_OFFSET | ENTRY_COPIED))
#define L2_RESERVED      (~(ENTRY_OFFSET | ENTRY_COPIED | ENTRY_ZERO))
#define REFTABLE_OFFSET  0xfffffffffffffe00ull

/* What we take on: the format's own bounds would let a small file demand any amount of memory. */
#define L1_BYTES_MAX       (32 * MIB)
#define REFTABLE_BYTES_MAX (8 * MIB)
#define SNAPSHOTS_MAX      65536u

enum { COMPRESSION_ZLIB = 0, COMPRESSION_ZSTD = 1 };

struct cached_table;

/* A set of cluster numbers (qcow2_set.c). */
struct cluster_set {
    uint64_t *slot; /* number + 1, or 0; a power of two of slots, at most half of them used */
    size_t slots, used;
};

/* Clusters that are promised to a request in flight and not yet counted on disk. */
struct reservation {
    uint64_t first, count; /* clusters */
    bool fresh;            /* they were never used: they read as zeroes */
    struct reservation *next, **prev;
};

struct decompressed {
    uint64_t entry; /* 0: empty */
    uint8_t *data;  /* one cluster */
    uint64_t used;  /* for least recently used */
};

enum { DECOMPRESSED_MAX = 8 };

/* The bitmaps extension: where the directory of bitmaps is. */
struct bitmap_directory {
    uint64_t offset, size; /* bytes; 0: there is none */
    uint32_t count;
};

struct qcow2_bitmap;
struct qcow2_op;

struct qcow2 {
    struct layer *layer;
    int fd;
    unsigned version, cluster_bits, l2_bits; /* l2_bits: log2 of entries of an L2 table */
    uint64_t cluster_size;
    unsigned refcount_order, refblock_bits; /* refblock_bits: log2 of entries of a refcount block */
    unsigned compression;
    uint64_t incompatible, autoclear;
    uint32_t header_length;

    uint64_t l1_offset;
    uint32_t l1_size; /* entries */
    uint64_t *l1;     /* host byte order */

    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint64_t *reftable;     /* host byte order */
    uint64_t reftable_size; /* entries */

    uint32_t snapshots;
    uint64_t snapshots_offset, snapshots_length;

    struct bitmap_directory bitmap_directory; /* as it is in the file */
    struct qcow2_bitmap *bitmaps;             /* as they are now; none when open for reading only */
    struct qcow2_bitmap *gone_bitmaps;        /* removed, but still in the file */

    /* Cluster-sized tables (L2, refcount blocks) by host offset; what is in it equals the file. */
    struct cached_table **hash;
    struct cached_table *newest, *oldest;
    size_t hash_size, cached, cached_max;

    struct cluster_set metadata; /* clusters that guest data must never be written to */
    struct reservation *reserved;
    uint64_t free_hint; /* no cluster below it is free, but for some that reservations gave back */
    uint64_t fresh;     /* clusters from here on were never used: they read as zeroes */
    uint64_t file_end;  /* bytes: the file is at least that long */

    struct decompressed decompressed[DECOMPRESSED_MAX];
    uint64_t decompress_clock;
    uint8_t *compressed; /* input buffer */

    struct qcow2_op *active, *waiting, **waiting_tail;
    bool recheck; /* an operation ended: waiting ones may go on */
    bool stale;   /* opened for writing with clusters in use that are not counted */
    bool changed; /* qcow2_begin_change was done */
};

static inline uint64_t l2_entries(const struct qcow2 *q)
{
    return BIT(q->l2_bits);
}

static inline uint64_t cluster_of(const struct qcow2 *q, uint64_t offset)
{
    return offset >> q->cluster_bits;
}

/* Bytes of guest data under one L2 table; up to 2^39. */
static inline unsigned l1_shift(const struct qcow2 *q)
{
    return q->cluster_bits + q->l2_bits;
}

/* --- qcow2_header.c: reading and checking what precedes the tables. --- */
bool qcow2_read_header(struct qcow2 *q, struct error **err);
/* Sets or clears incompatible feature bits in memory and in the file (version 3). 0 or a negative errno. */
int qcow2_write_features(struct qcow2 *q, uint64_t incompatible);
/* Has the header point to another directory of bitmaps (`size` 0: to none), in one write. 0 or a negative
 * errno, -ENOSPC when the header has no room for it. */
int qcow2_write_bitmap_directory(struct qcow2 *q, const struct bitmap_directory *directory);

/* --- qcow2_set.c --- */
/* False: no memory. */
bool set_add(struct cluster_set *set, uint64_t cluster);
bool set_add_range(struct cluster_set *set, uint64_t first, uint64_t count);
bool set_has(const struct cluster_set *set, uint64_t cluster);
void set_remove(struct cluster_set *set, uint64_t cluster);
void set_remove_range(struct cluster_set *set, uint64_t first, uint64_t count);
void set_free(struct cluster_set *set);

/* --- qcow2_cache.c: tables of one cluster, written through. --- */
bool cache_init(struct qcow2 *q);
void cache_free(struct qcow2 *q);
/* The table at `offset` (big-endian entries); valid until the next cache call. NULL and *error (negative
 * errno). */
uint8_t *cache_get(struct qcow2 *q, uint64_t offset, int *error);
/* Writes part of a table to the file after it was changed in the cache; on failure the cache forgets the
 * table. */
int cache_write(struct qcow2 *q, uint64_t offset, const uint8_t *table, size_t from, size_t len);
/* Writes a whole new table to the file and keeps it. Data is copied. */
int cache_put(struct qcow2 *q, uint64_t offset, const uint8_t *data);
void cache_drop(struct qcow2 *q, uint64_t offset);

/* --- qcow2_refcount.c: counting and finding clusters. All: 0 or a negative errno. --- */
int refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count);
/* Adds `delta` to each of a run of clusters, on disk. Makes the refcount blocks it needs. */
int refcount_add(struct qcow2 *q, uint64_t first, uint64_t count, int delta);
int refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value);
/* Finds 1..want adjacent free clusters and reserves them. */
int clusters_reserve(struct qcow2 *q, uint64_t want, struct reservation *r);
/* As clusters_reserve, but all of `want`, at the end of what is used. */
int clusters_reserve_all(struct qcow2 *q, uint64_t want, struct reservation *r);
/* Ends a reservation: `used` says that the clusters are counted now, else they are free again. */
void clusters_release(struct qcow2 *q, struct reservation *r, bool used);
/* Keeps clusters that were just freed from being used until clusters_release(.., false). */
void clusters_hold(struct qcow2 *q, uint64_t first, uint64_t count, struct reservation *r);
/* To be called before the first change of metadata: sets the dirty bit durably. */
int qcow2_begin_change(struct qcow2 *q);

/* --- qcow2_map.c: from guest offsets to clusters. --- */
enum cluster_kind {
    CLUSTER_ABSENT,
    CLUSTER_ZERO,
    CLUSTER_ZERO_ALLOCATED,
    CLUSTER_NORMAL,
    CLUSTER_COMPRESSED
};
enum cluster_kind entry_kind(const struct qcow2 *q, uint64_t entry);
/* Why an entry of an L2 table cannot be; NULL: it can. */
const char *entry_fault(const struct qcow2 *q, uint64_t entry);
/* The host bytes that a compressed cluster lies in. */
void compressed_span(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length);
/* The L2 entry for a guest offset, and how many clusters from there on share the table (may be NULL). */
int qcow2_lookup(struct qcow2 *q, uint64_t offset, uint64_t *entry, uint64_t *left_in_table);
int qcow2_map(struct layer *l, uint64_t offset, uint64_t length, struct extent *out);
/*
 * Makes `count` entries, all under one L2 table, from the guest offset on: `entry`, plus `step` for each
 * further one. `fresh` is the reservation whose clusters the entries are (counted here, before they become
 * visible), or NULL. What the old entries held is given up; runs of normal clusters that became free that way
 * are passed to `freed` (may be NULL).
 */
struct entry_change {
    uint64_t offset, count, entry, step;
    struct reservation *fresh;
    bool keep_host; /* the new entries keep the old entries' clusters */
    void (*freed)(void *opaque, uint64_t first, uint64_t count);
    void *opaque;
};
int qcow2_change_entries(struct qcow2 *q, const struct entry_change *c);
/* Damage was found while running: says so, marks the image, stops writes. Gives -EIO. */
int qcow2_damaged(struct qcow2 *q, const char *what, uint64_t where);

/* --- qcow2_compress.c --- */
int qcow2_decompress(struct layer *l, uint64_t entry, const uint8_t **data);
void qcow2_decompress_free(struct qcow2 *q);

/* --- qcow2_io.c: requests. --- */
void qcow2_read(struct layer *l, struct block_request *req);
void qcow2_submit(struct layer *l, struct block_request *req);
bool qcow2_poll(struct layer *l);

/* --- qcow2_write.c: writing guest data, with copy-on-write. --- */

/* A run of clusters of a write: adjacent in the guest, in the file, and under one L2 table. */
struct write_run {
    uint64_t offset;                /* guest, cluster aligned */
    uint64_t count;                 /* clusters */
    uint64_t host;                  /* file offset of the first cluster */
    bool link;                      /* the L2 entries change */
    bool fresh;                     /* the clusters read as zeroes now */
    struct reservation reservation; /* count 0: the clusters were there */
    struct write_run *next;
};

struct qcow2_write {
    struct io_group group;
    struct qcow2 *q;
    uint64_t offset, length;
    const struct iovec *iov; /* the data */
    int iov_count;
    uint8_t *head,
        *tail; /* what surrounds it in its first and last cluster; NULL: nothing, or zeroes already there */
    uint64_t head_length, tail_length;
    struct write_run *runs;
    void (*done)(struct qcow2_write *w, int result);
};

/* Would writing there change metadata? 1, 0 or a negative errno. */
int qcow2_write_allocates(struct qcow2 *q, uint64_t offset, uint64_t length);
/* 1: the range reads as zeroes, by the tables alone; 0, or a negative errno. */
int qcow2_reads_zero(struct qcow2 *q, uint64_t offset, uint64_t length);
/* Starts a write; the range is locked by the caller. Ends with w->done, maybe at once. */
void qcow2_write_start(struct qcow2_write *w);

/* --- qcow2_repair.c --- */
/* Recomputes all refcounts and COPIED flags; the image is not in use. */
bool qcow2_repair(struct qcow2 *q, struct error **err);
/* Checks every table the active disk uses, as far as they are of reasonable size. */
bool qcow2_check_tables(struct qcow2 *q, struct error **err);

/* --- qcow2_snapshot.c: what internal snapshots hold. --- */
struct qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_size;
};
/* Checks the snapshot table and enters its clusters in `metadata`; sets snapshots_length. */
bool qcow2_read_snapshots(struct qcow2 *q, struct error **err);
/* Calls fn for each snapshot; stops at its first failure. */
bool qcow2_each_snapshot(struct qcow2 *q,
                         bool (*fn)(struct qcow2 *q, const struct qcow2_snapshot *s, void *opaque,
                                    struct error **err),
                         void *opaque, struct error **err);

/* --- qcow2_bitmap.c: persistent dirty bitmaps. --- */
/* Reads and checks those that the header points to, and enters their clusters in `metadata`. */
bool qcow2_bitmaps_load(struct qcow2 *q, struct error **err);
void qcow2_bitmaps_free(struct qcow2 *q);
/* The image is going to change: says in the file that the bitmaps there are out of date. 0 or a negative
 * errno. */
int qcow2_bitmaps_begin(struct qcow2 *q);
/* Notes a change of guest data. */
void qcow2_bitmaps_mark(struct qcow2 *q, uint64_t offset, uint64_t length);
/* The disk has got another size. */
void qcow2_bitmaps_resized(struct qcow2 *q, uint64_t size);
/* Whether there is one that could not follow another size. */
bool qcow2_bitmaps_rigid(const struct qcow2 *q);
/* Writes them to the file. 0 or a negative errno: then those in the file are out of date. */
int qcow2_bitmaps_store(struct qcow2 *q);
bool qcow2_bitmaps_unsaved(const struct qcow2 *q);
/* Calls fn with each piece of the file that belongs to bitmaps; stops at its first failure. */
bool qcow2_each_bitmap_piece(struct qcow2 *q,
                             bool (*fn)(struct qcow2 *q, uint64_t offset, uint64_t bytes, void *opaque,
                                        struct error **err),
                             void *opaque, struct error **err);
/* What is true of a disk's contents is true of an untouched disk on top: takes over what can be used. */
void qcow2_bitmaps_hand_over(struct layer *from, struct layer *to);
/* For struct block_ops. */
int qcow2_bitmap(struct layer *l, struct bitmap_call *c);

/* --- qcow2.c --- */
/* Enters clusters that guest data must stay away from; two tables in one place are an error. */
bool qcow2_claim(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct error **err);

/* --- qcow2_resize.c, qcow2_create.c --- */
bool qcow2_resize(struct layer *l, uint64_t size, struct error **err);
bool qcow2_create(int fd, const char *path, uint64_t size, const char *backing, const char *backing_format,
                  struct error **err);

#endif
