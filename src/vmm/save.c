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
    uint64_t *dirty; /* bits of the region being looked at */
    bool (*take)(struct board *b, struct error **err);
    sem_t taken; /* `take` has returned, or nothing runs any more that could call it */
    void (*done)(struct board *b, const struct error *failure);
    pthread_t thread;
    bool logging;          /* the engine's dirty log is on */
    bool running;          /* the thread is to be joined */
    bool cancel;           /* atomic */
    uint64_t bytes, total; /* atomic */
    struct error *failure;
};

struct save_job *save_prepare(struct board *b, const char *path, struct error **err)
{
    if (!save_disks_check(b, err))
        return NULL;
    struct save_job *job = calloc(1, sizeof(*job));
    if (!job) {
        error_set_errno(err, ENOMEM, "cannot save the machine");
        return NULL;
    }
    job->board = b;
    sem_init(&job->taken, 0, 0);
    if (!save_writer_open(&job->writer, path, err)) {
        free(job);
        return NULL;
    }
    return job;
}

static bool describe(struct save_job *job, struct error **err)
{
    struct board *b = job->board;
    struct saved_identity id = {.cpu = b->cpu};
    const char *format[OPTIONS_LIST_MAX];

    memcpy(id.uuid, b->m.uuid, sizeof(id.uuid));
    if (!save_disks_settle(b, &id, err))
        return false;
    for (unsigned i = 0; i < id.disk_count; i++) {
        struct block_info info;
        block_get_info(b->disk[i].block, &info);
        format[i] = info.format;
    }
    job->description = save_describe(b->config, &id, format, err);
    return job->description != NULL;
}

/* Writes the pages that were written to since the last call; *pages is their number. */
static bool write_dirty(struct save_job *job, uint64_t *pages, struct error **err)
{
    const struct board *b = job->board;

    *pages = 0;
    for (unsigned i = 0; i < b->m.memory->region_count; i++) {
        size_t words = (b->m.memory->region[i].size / SAVE_PAGE + 63) / 64;
        b->ops->dirty_fetch(b->engine, i, job->dirty, words);
        for (size_t k = 0; k < words; k++)
            *pages += (uint64_t)__builtin_popcountll(job->dirty[k]);
        if (!save_memory_pages(&job->memory, i, job->dirty, err))
            return false;
    }
    return true;
}

/* All of memory, and what the guest writes meanwhile until that is little, or does not become less. */
static bool write_memory(struct save_job *job, struct error **err)
{
    uint64_t pages;

    if (!save_memory_all(&job->memory, err))
        return false;
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        if (!write_dirty(job, &pages, err))
            return false;
        if (pages < FEW_PAGES)
            break;
    }
    return true;
}

bool save_take(struct save_job *job, struct error **err)
{
    uint64_t pages;

    return describe(job, err) && save_state(job->board, &job->state, err) && write_dirty(job, &pages, err);
}

static void post_take(void *opaque)
{
    struct save_job *job = opaque;

    job->take(job->board, &job->failure);
    sem_post(&job->taken);
}

static void post_done(void *opaque)
{
    struct save_job *job = opaque;

    pthread_join(job->thread, NULL);
    job->running = false;
    job->done(job->board, job->failure);
}

/* The main loop has its part in the middle. */
static bool wait_taken(struct save_job *job, struct error **err)
{
    loop_post(job->board->m.loop, post_take, job);
    while (sem_wait(&job->taken) < 0)
        ;
    if (job->failure)
        return false;
    if (__atomic_load_n(&job->cancel, __ATOMIC_RELAXED))
        return error_set(err, ECANCELED, "it was cancelled"), false;
    return true;
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

    if (write_memory(job, &job->failure) && wait_taken(job, &job->failure))
        finish_file(job, &job->failure);
    loop_post(job->board->m.loop, post_done, job);
    return NULL;
}

static uint64_t *new_dirty_bits(const struct guest_memory *mem, struct error **err)
{
    uint64_t largest = 0;

    for (unsigned i = 0; i < mem->region_count; i++)
        largest = MAX(largest, mem->region[i].size);
    uint64_t *bits = calloc(largest / SAVE_PAGE / 64 + 1, sizeof(*bits));
    if (!bits)
        error_set_errno(err, ENOMEM, "cannot save the machine");
    return bits;
}

bool save_start(struct save_job *job, bool (*take)(struct board *b, struct error **err),
                void (*done)(struct board *b, const struct error *failure), struct error **err)
{
    struct board *b = job->board;

    job->dirty = new_dirty_bits(b->m.memory, err);
    if (!job->dirty || !save_memory_init(&job->memory, b->m.memory, &job->writer, err))
        return false;
    job->memory.base = b->saved ? &b->saved->table : NULL;
    job->memory.cancel = &job->cancel;
    job->memory.done = &job->bytes;
    job->memory.total = &job->total;
    job->take = take;
    job->done = done;
    if (!b->ops->dirty_start(b->engine, err))
        return false;
    job->logging = true;
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
    sem_post(&job->taken);
    if (job->running)
        pthread_join(job->thread, NULL);
    if (job->logging)
        job->board->ops->dirty_stop(job->board->engine);
    sem_destroy(&job->taken);
    free(job->dirty);
    save_writer_close(&job->writer);
    save_memory_free(&job->memory);
    state_buf_free(&job->state);
    free(job->description);
    error_free(job->failure);
    free(job);
}
