/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs on disks: see disk_jobs.h. The instant of a change is when all disks concerned have been drained: the
 * main loop takes no requests of the guest until the change is made, so all disks show what was done before,
 * and nothing of what comes after. What can fail is done before, or can be undone.
 */
#include "vmm/disk_jobs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "block/block.h"
#include "block/copy.h"
#include "core/device.h"
#include "vmm/board.h"
#include "vmm/qmp.h"

struct disk_job {
    struct disk_job *next;
    struct board *board;
    char *id;
    struct block *source;
    struct block_copy *copy; /* NULL: it has ended */
    uint64_t done, total, speed;
    bool keep, begun;
    char *error;
};

static struct block *find_disk(const struct board *b, const char *device, struct error **err)
{
    if (b->migration || b->state == RUN_POSTMIGRATE)
        return error_set(err, EBUSY, "the machine is moving to another host"), NULL;
    for (unsigned i = 0; i < b->config->disk_count; i++)
        if (strcmp(b->disk[i].device->id, device) == 0)
            return b->disk[i].block;
    error_set(err, ENOENT, "there is no disk '%s'", device);
    return NULL;
}

static struct disk_job **find_job(struct board *b, const char *id)
{
    struct disk_job **link = &b->disk_jobs;
    while (*link && strcmp((*link)->id, id) != 0)
        link = &(*link)->next;
    return link;
}

static struct disk_job *need_job(struct board *b, const char *id, struct error **err)
{
    struct disk_job *job = *find_job(b, id);
    if (!job)
        error_set(err, ENOENT, "there is no job '%s'", id);
    return job;
}

/* Takes it off the list. */
static void job_free(struct disk_job *job)
{
    struct disk_job **link = find_job(job->board, job->id);
    *link = job->next;
    block_copy_free(job->copy);
    free(job->error);
    free(job->id);
    free(job);
}

void disk_jobs_free(struct board *b)
{
    while (b->disk_jobs)
        job_free(b->disk_jobs);
}

/* --- one job --- */

static void copied(void *opaque, int result)
{
    struct disk_job *job = opaque;
    block_copy_progress(job->copy, &job->done, &job->total);
    block_copy_free(job->copy);
    job->copy = NULL;
    if (result < 0)
        job->error = strdup(strerror(-result));
    if (result < 0 && result != -ECANCELED)
        log_line(LOG_WARN, "job '%s' failed: %s", job->id, strerror(-result));
    json_t *data =
        json_pack("{s:s, s:s, s:I, s:I, s:I}", "type", "backup", "device", job->id, "len",
                  (json_int_t)job->total, "offset", (json_int_t)job->done, "speed", (json_int_t)job->speed);
    if (result < 0 && result != -ECANCELED)
        json_object_set_new(data, "error", json_string(strerror(-result)));
    qmp_event(job->board->qmp, result == -ECANCELED ? "BLOCK_JOB_CANCELLED" : "BLOCK_JOB_COMPLETED", data);
    if (!job->keep)
        job_free(job);
}

static bool job_prepare(struct board *b, const struct control_disk_change *c, struct error **err)
{
    struct block *source = find_disk(b, c->device, err);
    if (!source)
        return false;
    for (const struct disk_job *job = b->disk_jobs; job; job = job->next)
        if (job->copy && job->source == source)
            return error_set(err, EBUSY, "disk '%s' is being copied already", c->device), false;
    if (*find_job(b, c->job))
        return error_set(err, EEXIST, "there is a job '%s'", c->job), false;
    struct disk_job *job = calloc(1, sizeof(*job));
    if (!job || !(job->id = strdup(c->job))) {
        free(job);
        return error_set_errno(err, ENOMEM, "cannot begin job '%s'", c->job), false;
    }
    struct block_copy_order order = {.source = source,
                                     .target = c->target,
                                     .bitmap = c->bitmap,
                                     .speed = c->speed,
                                     .done = copied,
                                     .opaque = job};
    job->board = b;
    job->source = source;
    job->keep = c->keep;
    job->speed = c->speed;
    job->next = b->disk_jobs;
    b->disk_jobs = job;
    job->copy = block_copy_open(&order, err);
    if (!job->copy)
        job_free(job);
    return b->disk_jobs == job;
}

/* --- several changes at one instant --- */

/* What has to be so for `make` not to fail. */
static bool prepare(struct board *b, const struct control_disk_change *c, struct error **err)
{
    struct block *disk = find_disk(b, c->device, err);
    if (!disk)
        return false;
    switch (c->action) {
    case CONTROL_BITMAP_ADD:
        return block_bitmap_add(disk, c->bitmap, c->granularity, err);
    case CONTROL_BITMAP_CLEAR:
        return block_bitmap_check(disk, c->bitmap, err);
    case CONTROL_BITMAP_REMOVE:
        return block_bitmap_exists(disk, c->bitmap, err);
    case CONTROL_BACKUP:
        return job_prepare(b, c, err);
    }
    return false;
}

static void undo(struct board *b, const struct control_disk_change *c)
{
    if (c->action == CONTROL_BITMAP_ADD)
        block_bitmap_remove(find_disk(b, c->device, NULL), c->bitmap, NULL);
    else if (c->action == CONTROL_BACKUP)
        job_free(*find_job(b, c->job));
}

static void make(struct board *b, const struct control_disk_change *c)
{
    struct block *disk = find_disk(b, c->device, NULL);
    if (c->action == CONTROL_BITMAP_REMOVE)
        block_bitmap_remove(disk, c->bitmap, NULL);
    else if (c->action != CONTROL_BACKUP)
        block_bitmap_clear(disk, c->bitmap, NULL); /* also what was written since it was added */
}

bool disk_jobs_change(void *opaque, const struct control_disk_change *changes, unsigned count,
                      struct error **err)
{
    struct board *b = opaque;
    unsigned done = 0;
    while (done < count && prepare(b, &changes[done], err))
        done++;
    if (done < count) {
        while (done-- > 0)
            undo(b, &changes[done]);
        return false;
    }
    for (unsigned i = 0; i < count; i++)
        block_drain(find_disk(b, changes[i].device, NULL));
    /* First what is copied by a bitmap, then what becomes of the bitmap. */
    for (struct disk_job *job = b->disk_jobs; job; job = job->next) {
        if (job->begun)
            continue;
        job->begun = true;
        block_copy_begin(job->copy);
    }
    for (unsigned i = 0; i < count; i++)
        make(b, &changes[i]);
    return true;
}

/* --- all jobs --- */

bool disk_jobs_active(const struct board *b)
{
    for (const struct disk_job *job = b->disk_jobs; job; job = job->next)
        if (job->copy)
            return true;
    return false;
}

bool disk_jobs_info(void *opaque, unsigned index, struct control_job *info)
{
    struct disk_job *job = ((struct board *)opaque)->disk_jobs;
    for (unsigned i = 0; job && i < index; i++)
        job = job->next;
    if (!job)
        return false;
    if (job->copy)
        block_copy_progress(job->copy, &job->done, &job->total);
    *info = (struct control_job){.id = job->id,
                                 .error = job->error,
                                 .done = job->done,
                                 .total = job->total,
                                 .speed = job->speed,
                                 .ended = !job->copy};
    return true;
}

bool disk_jobs_cancel(void *opaque, const char *id, struct error **err)
{
    const struct disk_job *job = need_job(opaque, id, err);
    if (job && job->copy)
        block_copy_cancel(job->copy);
    return job != NULL;
}

bool disk_jobs_dismiss(void *opaque, const char *id, struct error **err)
{
    struct disk_job *job = need_job(opaque, id, err);
    if (!job)
        return false;
    if (job->copy)
        return error_set(err, EBUSY, "job '%s' has not ended", id), false;
    job_free(job);
    return true;
}

bool disk_jobs_set_speed(void *opaque, const char *id, uint64_t speed, struct error **err)
{
    struct disk_job *job = need_job(opaque, id, err);
    if (!job)
        return false;
    job->speed = speed;
    if (job->copy)
        block_copy_set_speed(job->copy, speed);
    return true;
}
