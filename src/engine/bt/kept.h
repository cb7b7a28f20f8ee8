/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Translations that outlive their machine: a file in which the machines of a user find what others have
 * translated before them.
 *
 * A block is a function of its bytes, its offset in the page, its mode and the processor's model, and of the
 * program that translates: so it is found by the former, and model and program are the file's. Its code jumps
 * to the code between C and translated code, which lies at the beginning of every cache, and names its own
 * record: these places are listed, and made good wherever the block comes to lie.
 *
 * What is in a file is believed only as far as its checksum goes, and a file only when nobody but its owner
 * can write it. Nothing of this ever fails a machine: without a file, or with a bad one, it translates.
 *
 * All functions want engine->lock held.
 */
#ifndef BT_KEPT_H
#define BT_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/cpuid.h"

struct bt_kept;

/* A block as it is kept. Offsets in its code and record are from their beginnings. */
struct bt_kept_block {
    uint16_t mode, page_off;
    uint16_t bytes_len; /* guest bytes */
    uint16_t code_len, record_len;
    uint16_t far_count;     /* displacements of jumps, kept as their targets' offsets in the cache */
    uint16_t pointer_count; /* addresses, kept as offsets in the record */
    const uint8_t *bytes, *code, *record;
    const uint16_t *far, *pointer;
};

/*
 * Opens the file for this program, model and place of what code jumps to (`layout`, a hash) in `folder`,
 * which is made if need be, or makes it. The first to open it adds to it, the others only read. NULL: there
 * is none to be had.
 */
struct bt_kept *bt_kept_open(const char *folder, const struct cpuid_model *model, uint32_t layout);
/* Writes what is new. NULL: nothing to do. */
void bt_kept_close(struct bt_kept *k);
/* The same, and gives memory back until there are more than a few look-ups again: the machine idles. */
void bt_kept_rest(struct bt_kept *k);

/*
 * The block of which bytes[0, avail) begin with its bytes. *out points into memory of k's, until the next
 * call. False: there is none.
 */
bool bt_kept_find(struct bt_kept *k, uint32_t mode, unsigned page_off, const uint8_t *bytes, unsigned avail,
                  struct bt_kept_block *out);
/* Adds a block that was not found by `bytes`, of which `avail` are known. Not after a rest. */
void bt_kept_add(struct bt_kept *k, const struct bt_kept_block *block, unsigned avail);

#endif
