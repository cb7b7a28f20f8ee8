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
#include "vmm/save_state.h"

struct save_job {
    struct board *board;
    struct save_writer writer;
    struct save_memory memory;
    struct state_buf state;
    char *description;
    void (*taken)(struct board *b);
    void (*done)(struct board *b, const struct error *failure);
    pthread_t thread;
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

static void post_taken(void *opaque)
{
    struct save_job *job = opaque;

    job->taken(job->board);
}

static void post_done(void *opaque)
{
    struct save_job *job = opaque;

    pthread_join(job->thread, NULL);
    job->running = false;
    job->done(job->board, job->failure);
}

static bool take_memory(struct save_job *job, struct error **err)
{
    return save_memory_all(&job->memory, err) && save_memory_finish(&job->memory, err);
}

static bool finish_file(struct save_job *job, struct error **err)
{
    struct save_writer *w = &job->writer;

    return save_writer_append(w, SAVE_STATE, job->state.data, job->state.len, err) &&
           save_writer_append(w, SAVE_DESCRIPTION, job->description, strlen(job->description), err) &&
           save_writer_commit(w, err);
}

static void *save_main(void *opaque)
{
    struct save_job *job = opaque;
    struct loop *loop = job->board->m.loop;

    bool ok = take_memory(job, &job->failure);
    loop_post(loop, post_taken, job);
    if (ok)
        finish_file(job, &job->failure);
    loop_post(loop, post_done, job);
    return NULL;
}

bool save_start(struct save_job *job, void (*taken)(struct board *b),
                void (*done)(struct board *b, const struct error *failure), struct error **err)
{
    struct board *b = job->board;

    if (!describe(job, err) || !save_state(b, &job->state, err) ||
        !save_memory_init(&job->memory, b->m.memory, &job->writer, err))
        return false;
    job->memory.base = b->saved ? &b->saved->table : NULL;
    job->memory.cancel = &job->cancel;
    job->memory.done = &job->bytes;
    job->memory.total = &job->total;
    job->taken = taken;
    job->done = done;
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
    if (job->running)
        pthread_join(job->thread, NULL);
    save_writer_close(&job->writer);
    save_memory_free(&job->memory);
    state_buf_free(&job->state);
    free(job->description);
    error_free(job->failure);
    free(job);
}
