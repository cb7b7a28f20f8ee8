/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pages that were written since one last looked, by the engine's log. Only one at a time can look. */
#ifndef VMM_DIRTY_LOG_H
#define VMM_DIRTY_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "core/memory.h"

struct board;
struct error;

struct dirty_log {
    struct board *board;
    uint64_t *bits[GUEST_REGION_MAX]; /* of each region the pages, as last fetched */
    uint64_t pages;                   /* as many of them are set */
    bool on;
};

/* No vCPU runs, machine lock held: at these two. One that has looked whether it may write has then written.
 */
bool dirty_log_start(struct dirty_log *log, struct board *b, struct error **err);
void dirty_log_fetch(struct dirty_log *log);

/* Lock held. Harmless when it is not on. */
void dirty_log_stop(struct dirty_log *log);

#endif
