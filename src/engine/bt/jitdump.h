/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of translated code for Linux `perf`, in its jitdump format (tools/perf/Documentation/
 * jitdump-specification.txt in the kernel's sources): after `perf inject --jit` samples in the code cache
 * belong to guest code. Blocks of the kernel have its function's name when the folder holds the guest's
 * /proc/kallsyms.
 *
 * Guarded by engine->lock, which translating holds.
 */
#ifndef BT_JITDUMP_H
#define BT_JITDUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bt_jitdump;
struct error;

/* Writes jit-PID.dump into the folder. NULL and *err on failure. */
struct bt_jitdump *bt_jitdump_open(const char *folder, struct error **err);
void bt_jitdump_close(struct bt_jitdump *dump);

/* Code at executable address `exec`, readable at `code`, is what linear address `lin` was translated to. */
void bt_jitdump_block(struct bt_jitdump *dump, uint64_t lin, bool user, const uint8_t *exec,
                      const uint8_t *code, size_t len);

#endif
