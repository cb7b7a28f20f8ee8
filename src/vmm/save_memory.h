/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory in a saved machine's file: region after region, page after page, with holes for pages of
 * zeros, and a table with a checksum for each page.
 */
#ifndef VMM_SAVE_MEMORY_H
#define VMM_SAVE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/memory.h"
#include "vmm/save_file.h"

struct error;

/* Of each page its CRC-32C, with 1 in place of 0; 0 for a page of zeros. In the order of the regions. */
struct save_page_table {
    uint32_t *sum; /* owned */
    size_t count;
};

/* Writing memory: one pass over what may hold something, then any number over what was written since. */
struct save_memory {
    const struct guest_memory *mem;
    struct save_writer *writer;
    uint64_t offset; /* of the section */
    struct save_page_table table;
    const struct save_page_table *base; /* of the file that private memory began as; NULL: none */
    /* Of each region of private memory the pages that must still be what the base has: bits, or NULL. */
    uint64_t *unchanged[GUEST_REGION_MAX];
    bool *cancel;           /* atomic; set: give up soon */
    uint64_t *done, *total; /* atomic; bytes looked at, of those to be looked at */
};

/* `writer` has no sections yet. False and *err when memory is short. */
bool save_memory_init(struct save_memory *s, const struct guest_memory *mem, struct save_writer *writer,
                      struct error **err);
void save_memory_free(struct save_memory *s);
/*
 * Writes every page that may hold something. The guest may run: what it writes from before this call on has
 * to be written again by save_memory_pages. False and *err, ECANCELED when it was told to give up.
 */
bool save_memory_all(struct save_memory *s, struct error **err);
/* Writes the pages of `region` whose bit is set, lowest first. */
bool save_memory_pages(struct save_memory *s, unsigned region, const uint64_t *bits, struct error **err);
/* Checks that what no one wrote is what the base has, and appends the table. */
bool save_memory_finish(struct save_memory *s, struct error **err);

/* Reads the table, which must fit the section of memory. The caller frees table->sum. */
bool saved_pages_read(const struct save_file *f, struct save_page_table *table, struct error **err);
/* Maps the pages onto private memory of the same layout; nothing is read yet. */
bool saved_memory_map(const struct save_file *f, const struct save_page_table *table,
                      struct guest_memory *mem, struct error **err);
/* Reads all pages and compares their checksums. Any thread. *cancel (atomic, may be NULL) ends it early:
 * false and ECANCELED. */
bool saved_memory_verify(const struct save_file *f, const struct save_page_table *table, const bool *cancel,
                         struct error **err);

#endif
