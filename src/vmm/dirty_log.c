/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Written pages: see dirty_log.h. */
#include "vmm/dirty_log.h"

#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "vmm/board.h"
#include "vmm/memory_data.h"

bool dirty_log_start(struct dirty_log *log, struct board *b, struct error **err)
{
    const struct guest_memory *mem = b->m.memory;

    *log = (struct dirty_log){.board = b};
    for (unsigned i = 0; i < mem->region_count; i++) {
        log->bits[i] = calloc(guest_page_words(mem, i), sizeof(*log->bits[i]));
        if (!log->bits[i])
            error_set_errno(err, ENOMEM, "cannot tell which memory is written");
        if (!log->bits[i])
            return dirty_log_stop(log), false;
    }
    log->on = b->ops->dirty_start(b->engine, err);
    if (!log->on)
        dirty_log_stop(log);
    return log->on;
}

void dirty_log_fetch(struct dirty_log *log)
{
    const struct board *b = log->board;

    log->pages = 0;
    for (unsigned i = 0; i < b->m.memory->region_count; i++) {
        size_t words = guest_page_words(b->m.memory, i);
        b->ops->dirty_fetch(b->engine, i, log->bits[i], words);
        log->pages += page_bits_set(log->bits[i], words);
    }
}

void dirty_log_stop(struct dirty_log *log)
{
    if (log->on)
        log->board->ops->dirty_stop(log->board->engine);
    for (unsigned i = 0; i < GUEST_REGION_MAX; i++)
        free(log->bits[i]);
    *log = (struct dirty_log){0};
}
