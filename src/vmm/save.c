/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Saving a machine: see save.h. */
#include "vmm/save.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "block/block.h"
#include "vmm/board.h"
#include "vmm/save_state.h"

#define ROUNDS_MAX 12
#define FEW_PAGES  512u /* take a millisecond or two */

struct save_job {
    struct board *board;
    struct save_writer writer;
    struct save_memory memory;
    struct state_buf state;
    char *description;
    uint64_t *dirty[GUEST_REGION_MAX]; /* bits, as last fetched */
    uint64_t pages;                    /* as many of them are set */
    const struct save_ops *ops;
    sem_t turn; /* the main loop has done its part, or nothing runs any more that could */
    pthread_t thread;
    bool logging;          /* the engine's dirty log is on */
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
    sem_init(&job->turn, 0, 0);
    if (save_writer_open(&job->writer, order->path, err)) {
        if (save_overlays_open(b, order, err))
            return job;
        save_writer_close(&job->writer);
    }
    sem_destroy(&job->turn);
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

static size_t region_words(const struct save_job *job, unsigned region)
{
    return (job->board->m.memory->region[region].size / SAVE_PAGE + 63) / 64;
}

/* Takes the engine's log of what was written since the last call; *pages is the number of pages. No vCPU
 * runs. */
static void fetch_dirty(struct save_job *job, uint64_t *pages)
{
    const struct board *b = job->board;

    *pages = 0;
    for (unsigned i = 0; i < b->m.memory->region_count; i++) {
        size_t words = region_words(job, i);
        b->ops->dirty_fetch(b->engine, i, job->dirty[i], words);
        for (size_t k = 0; k < words; k++)
            *pages += (uint64_t)__builtin_popcountll(job->dirty[i][k]);
    }
}

static bool write_dirty(struct save_job *job, struct error **err)
{
    for (unsigned i = 0; i < job->board->m.memory->region_count; i++)
        if (!save_memory_pages(&job->memory, i, job->dirty[i], err))
            return false;
    return true;
}

static void post_fetch(void *opaque)
{
    struct save_job *job = opaque;

    job->ops->hold(job->board);
    fetch_dirty(job, &job->pages);
    job->ops->let_go(job->board);
    sem_post(&job->turn);
}

/* Has the main loop do its part. False and *err when the save is to end instead. */
static bool main_loops_turn(struct save_job *job, void (*part)(void *opaque), struct error **err)
{
    loop_post(job->board->m.loop, part, job);
    while (sem_wait(&job->turn) < 0)
        ;
    if (job->failure)
        return false;
    if (__atomic_load_n(&job->cancel, __ATOMIC_RELAXED))
        return error_set(err, ECANCELED, "it was cancelled"), false;
    return true;
}

/*
 * All of memory, and what the guest writes meanwhile until that is little, or does not become less. The log
 * is taken while no vCPU runs: one that has looked whether it may write to a page has then written.
 */
static bool write_memory(struct save_job *job, struct error **err)
{
    if (!save_memory_all(&job->memory, err))
        return false;
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        if (!main_loops_turn(job, post_fetch, err) || !write_dirty(job, err))
            return false;
        if (job->pages < FEW_PAGES)
            break;
    }
    return true;
}

bool save_take(struct save_job *job, struct error **err)
{
    if (!describe(job, err) || !save_state(job->board, &job->state, err))
        return false;
    fetch_dirty(job, &job->pages);
    return write_dirty(job, err) && save_overlays_put(job->board, err);
}

static void post_take(void *opaque)
{
    struct save_job *job = opaque;

    job->ops->take(job->board, &job->failure);
    sem_post(&job->turn);
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

static bool make_dirty_bits(struct save_job *job, struct error **err)
{
    for (unsigned i = 0; i < job->board->m.memory->region_count; i++) {
        job->dirty[i] = calloc(region_words(job, i), sizeof(*job->dirty[i]));
        if (!job->dirty[i])
            return error_set_errno(err, ENOMEM, "cannot save the machine"), false;
    }
    return true;
}

static bool start_log(struct save_job *job, struct error **err)
{
    struct board *b = job->board;

    job->ops->hold(b);
    job->logging = b->ops->dirty_start(b->engine, err);
    job->ops->let_go(b);
    return job->logging;
}

bool save_start(struct save_job *job, const struct save_ops *ops, struct error **err)
{
    struct board *b = job->board;

    job->ops = ops;
    if (!make_dirty_bits(job, err) || !save_memory_init(&job->memory, b->m.memory, &job->writer, err))
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
    sem_post(&job->turn);
    if (job->running)
        pthread_join(job->thread, NULL);
    if (job->logging)
        job->board->ops->dirty_stop(job->board->engine);
    sem_destroy(&job->turn);
    for (unsigned i = 0; i < GUEST_REGION_MAX; i++)
        free(job->dirty[i]);
    save_overlays_close(job->board);
    save_writer_close(&job->writer);
    save_memory_free(&job->memory);
    state_buf_free(&job->state);
    free(job->description);
    error_free(job->failure);
    free(job);
}
