/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A set of cluster numbers: open addressing, linear probing, deletion by moving back. */
#include <stdlib.h>

#include "block/qcow2.h"

static size_t home(const struct cluster_set *s, uint64_t key)
{
    return (size_t)((key * 0x9e3779b97f4a7c15ull) >> 20) & (s->slots - 1);
}

static size_t find(const struct cluster_set *s, uint64_t key)
{
    size_t i = home(s, key);
    while (s->slot[i] && s->slot[i] != key)
        i = (i + 1) & (s->slots - 1);
    return i;
}

static bool grow(struct cluster_set *s)
{
    struct cluster_set bigger = {.slots = s->slots ? s->slots * 2 : 64, .used = s->used};
    bigger.slot = calloc(bigger.slots, sizeof(*bigger.slot));
    if (!bigger.slot)
        return false;
    for (size_t i = 0; i < s->slots; i++)
        if (s->slot[i])
            bigger.slot[find(&bigger, s->slot[i])] = s->slot[i];
    free(s->slot);
    *s = bigger;
    return true;
}

bool set_add(struct cluster_set *s, uint64_t cluster)
{
    if (s->used >= s->slots / 2 && !grow(s))
        return false;
    size_t i = find(s, cluster + 1);
    if (!s->slot[i]) {
        s->slot[i] = cluster + 1;
        s->used++;
    }
    return true;
}

bool set_add_range(struct cluster_set *s, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (!set_add(s, first + i))
            return false;
    return true;
}

bool set_has(const struct cluster_set *s, uint64_t cluster)
{
    return s->slots && s->slot[find(s, cluster + 1)];
}

void set_remove(struct cluster_set *s, uint64_t cluster)
{
    if (!set_has(s, cluster))
        return;
    size_t hole = find(s, cluster + 1);
    s->slot[hole] = 0;
    s->used--;
    /* Entries behind the hole that would no longer be found move into it. */
    for (size_t i = (hole + 1) & (s->slots - 1); s->slot[i]; i = (i + 1) & (s->slots - 1)) {
        size_t from_home = (i - home(s, s->slot[i])) & (s->slots - 1);
        size_t from_hole = (i - hole) & (s->slots - 1);
        if (from_home < from_hole)
            continue;
        s->slot[hole] = s->slot[i];
        s->slot[i] = 0;
        hole = i;
    }
}

void set_remove_range(struct cluster_set *s, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        set_remove(s, first + i);
}

void set_free(struct cluster_set *s)
{
    free(s->slot);
    *s = (struct cluster_set){0};
}
