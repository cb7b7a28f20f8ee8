/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Saving a machine: see save.h. */
#include "vmm/save.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "block/block.h"
#include "vmm/board.h"
#include "vmm/dirty_log.h"
#include "vmm/save_state.h"
#include "vmm/turns.h"

#define ROUNDS_MAX 12
#define FEW_PAGES  512u /* take a millisecond or two */

struct save_job {
    struct board *board;
    struct save_writer writer;
    struct save_memory memory;
    struct state_buf state;
    char *description;
    struct dirty_log log;
    const struct save_ops *ops;
    struct turns turns;
    pthread_t thread;
    bool running;          /* the thread is to be joined */
    bool cancel;           /* atomic */
    uint64_t bytes, total; /* atomic */
    struct error *failure;
};

struct save_job *save_prepare(struct board *b, const struct control_save_order *order, struct error **err)
{
    if (!save_disks_check(b, err))
        return NULL;
    struct save_job *job = calloc(1, sizeof(*job));
    if (!job) {
        error_set_errno(err, ENOMEM, "cannot save the machine");
        return NULL;
    }
    job->board = b;
    turns_init(&job->turns, b->m.loop);
    if (save_writer_open(&job->writer, order->path, err)) {
        if (save_overlays_open(b, order, err))
            return job;
        save_writer_close(&job->writer);
    }
    turns_destroy(&job->turns);
    free(job);
    return NULL;
}

static bool describe(struct save_job *job, struct error **err)
{
    struct board *b = job->board;
    struct saved_identity id = {.cpu = b->cpu};
    struct block_info disk[OPTIONS_LIST_MAX];

    memcpy(id.uuid, b->m.uuid, sizeof(id.uuid));
    if (!save_disks_settle(b, &id, err))
        return false;
    for (unsigned i = 0; i < id.disk_count; i++)
        block_get_info(b->disk[i].block, &disk[i]);
    job->description = save_describe(b->config, &id, disk, err);
    return job->description != NULL;
}

static bool write_dirty(struct save_job *job, struct error **err)
{
    for (unsigned i = 0; i < job->board->m.memory->region_count; i++)
        if (!save_memory_pages(&job->memory, i, job->log.bits[i], err))
            return false;
    return true;
}

static void post_fetch(void *opaque)
{
    struct save_job *job = opaque;

    job->ops->hold(job->board);
    dirty_log_fetch(&job->log);
    job->ops->let_go(job->board);
}

/* Has the main loop do its part. False and *err when the save is to end instead. */
static bool main_loops_turn(struct save_job *job, void (*part)(void *opaque), struct error **err)
{
    bool done = turns_take(&job->turns, part, job);

    if (job->failure)
        return false;
    if (!done || __atomic_load_n(&job->cancel, __ATOMIC_RELAXED))
        return error_set(err, ECANCELED, "it was cancelled"), false;
    return true;
}

/* All of memory, and what the guest writes meanwhile until that is little, or does not become less. */
static bool write_memory(struct save_job *job, struct error **err)
{
    if (!save_memory_all(&job->memory, err))
        return false;
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        if (!main_loops_turn(job, post_fetch, err) || !write_dirty(job, err))
            return false;
        if (job->log.pages < FEW_PAGES)
            break;
    }
    return true;
}

bool save_take(struct save_job *job, struct error **err)
{
    if (!describe(job, err) || !save_state(job->board, &job->state, err))
        return false;
    dirty_log_fetch(&job->log);
    return write_dirty(job, err) && save_overlays_put(job->board, err);
}

static void post_take(void *opaque)
{
    struct save_job *job = opaque;

    job->ops->take(job->board, &job->failure);
}

static void post_done(void *opaque)
{
    struct save_job *job = opaque;

    pthread_join(job->thread, NULL);
    job->running = false;
    job->ops->done(job->board, job->failure);
}

static bool finish_file(struct save_job *job, struct error **err)
{
    struct save_writer *w = &job->writer;

    return save_memory_finish(&job->memory, err) &&
           save_writer_append(w, SAVE_STATE, job->state.data, job->state.len, err) &&
           save_writer_append(w, SAVE_DESCRIPTION, job->description, strlen(job->description), err) &&
           save_writer_commit(w, err);
}

static void *save_main(void *opaque)
{
    struct save_job *job = opaque;

    if (write_memory(job, &job->failure) && main_loops_turn(job, post_take, &job->failure))
        finish_file(job, &job->failure);
    loop_post(job->board->m.loop, post_done, job);
    return NULL;
}

static bool start_log(struct save_job *job, struct error **err)
{
    struct board *b = job->board;

    job->ops->hold(b);
    bool ok = dirty_log_start(&job->log, b, err);
    job->ops->let_go(b);
    return ok;
}

bool save_start(struct save_job *job, const struct save_ops *ops, struct error **err)
{
    struct board *b = job->board;

    job->ops = ops;
    if (!save_memory_init(&job->memory, b->m.memory, &job->writer, err))
        return false;
    job->memory.base = b->saved ? &b->saved->table : NULL;
    job->memory.cancel = &job->cancel;
    job->memory.done = &job->bytes;
    job->memory.total = &job->total;
    if (!start_log(job, err))
        return false;
    int code = pthread_create(&job->thread, NULL, save_main, job);
    if (code != 0)
        return error_set_errno(err, code, "cannot start a thread to save the machine"), false;
    job->running = true;
    return true;
}

void save_cancel(struct save_job *job)
{
    __atomic_store_n(&job->cancel, true, __ATOMIC_RELAXED);
}

void save_progress(const struct save_job *job, struct control_save *out)
{
    out->bytes = __atomic_load_n(&job->bytes, __ATOMIC_RELAXED);
    out->total = __atomic_load_n(&job->total, __ATOMIC_RELAXED);
}

void save_free(struct save_job *job)
{
    if (!job)
        return;
    save_cancel(job);
    turns_close(&job->turns);
    if (job->running)
        pthread_join(job->thread, NULL);
    dirty_log_stop(&job->log);
    turns_destroy(&job->turns);
    save_overlays_close(job->board);
    save_writer_close(&job->writer);
    save_memory_free(&job->memory);
    state_buf_free(&job->state);
    free(job->description);
    error_free(job->failure);
    free(job);
}
