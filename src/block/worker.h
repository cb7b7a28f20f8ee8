/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The I/O thread of an open block: takes requests from the loop's thread, runs formats and aio, hands results
 * back. */
#ifndef BLOCK_WORKER_H
#define BLOCK_WORKER_H

#include "block/block_int.h"

struct worker;

/* Starts the thread; sets block->aio. */
struct worker *worker_new(struct block *block, struct error **err);
/* Nothing is in flight. Ends the thread. `w` may be NULL. */
void worker_free(struct worker *w);
/* Any thread. */
void worker_push(struct worker *w, struct block_request *req);
/* A finished request with its result, or NULL when there is none. Any thread. */
struct block_request *worker_pop_done(struct worker *w, int *result);
/* Waits until worker_pop_done has something. */
void worker_wait_done(struct worker *w);

#endif
