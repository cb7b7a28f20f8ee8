/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cache of L2 tables and refcount blocks: a hash by file offset and a list by age. Written through, so
 * that what it drops needs no further care.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"

enum { CACHE_BYTES = 32 << 20, CACHE_TABLES_MIN = 16, CACHE_TABLES_MAX = 16384 };

struct cached_table {
    uint64_t offset;
    struct cached_table *hash_next, *newer, *older;
    uint8_t data[];
};

bool cache_init(struct qcow2 *q)
{
    q->cached_max = MIN(MAX(CACHE_BYTES / q->cluster_size, CACHE_TABLES_MIN), CACHE_TABLES_MAX);
    q->hash_size = 64;
    while (q->hash_size < q->cached_max)
        q->hash_size *= 2;
    q->hash = calloc(q->hash_size, sizeof(void *));
    return q->hash != NULL;
}

static struct cached_table **bucket(struct qcow2 *q, uint64_t offset)
{
    return &q->hash[(cluster_of(q, offset) * 0x9e3779b97f4a7c15ull >> 32) & (q->hash_size - 1)];
}

static struct cached_table *find(struct qcow2 *q, uint64_t offset)
{
    struct cached_table *t = *bucket(q, offset);
    while (t && t->offset != offset)
        t = t->hash_next;
    return t;
}

static void age_unlink(struct qcow2 *q, struct cached_table *t)
{
    *(t->newer ? &t->newer->older : &q->newest) = t->older;
    *(t->older ? &t->older->newer : &q->oldest) = t->newer;
}

static void age_front(struct qcow2 *q, struct cached_table *t)
{
    t->newer = NULL;
    t->older = q->newest;
    *(q->newest ? &q->newest->newer : &q->oldest) = t;
    q->newest = t;
}

/* Takes a table out of the cache; it becomes the caller's. */
static struct cached_table *take_out(struct qcow2 *q, struct cached_table *t)
{
    struct cached_table **link = bucket(q, t->offset);
    while (*link != t)
        link = &(*link)->hash_next;
    *link = t->hash_next;
    age_unlink(q, t);
    q->cached--;
    return t;
}

static struct cached_table *table_new(struct qcow2 *q, uint64_t offset)
{
    struct cached_table *t =
        q->cached >= q->cached_max ? take_out(q, q->oldest) : malloc(sizeof(*t) + q->cluster_size);
    if (t)
        t->offset = offset;
    return t;
}

static void insert(struct qcow2 *q, struct cached_table *t)
{
    struct cached_table **b = bucket(q, t->offset);
    t->hash_next = *b;
    *b = t;
    age_front(q, t);
    q->cached++;
}

uint8_t *cache_get(struct qcow2 *q, uint64_t offset, int *error)
{
    struct cached_table *t = find(q, offset);
    if (t) {
        if (t != q->newest) {
            age_unlink(q, t);
            age_front(q, t);
        }
        return t->data;
    }
    t = table_new(q, offset);
    if (!t) {
        *error = -ENOMEM;
        return NULL;
    }
    *error = file_read(q->fd, t->data, q->cluster_size, offset);
    if (*error < 0) {
        free(t);
        return NULL;
    }
    insert(q, t);
    return t->data;
}

int cache_write(struct qcow2 *q, uint64_t offset, const uint8_t *table, size_t from, size_t len)
{
    int r = file_write(q->fd, table + from, len, offset + from);
    if (r < 0)
        cache_drop(q, offset);
    return r;
}

int cache_put(struct qcow2 *q, uint64_t offset, const uint8_t *data)
{
    int r = file_write(q->fd, data, q->cluster_size, offset);
    if (r < 0)
        return r;
    cache_drop(q, offset);
    struct cached_table *t = table_new(q, offset);
    if (!t)
        return 0; /* it is in the file; the cache is only a copy */
    memcpy(t->data, data, q->cluster_size);
    insert(q, t);
    return 0;
}

void cache_drop(struct qcow2 *q, uint64_t offset)
{
    struct cached_table *t = find(q, offset);
    if (t)
        free(take_out(q, t));
}

void cache_free(struct qcow2 *q)
{
    while (q->oldest)
        cache_drop(q, q->oldest->offset);
    free(q->hash);
    q->hash = NULL;
}
