/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disks of a saved machine. The file holds no disk contents, so memory and disks fit together only while
 * nobody writes to the images. What tells is the time of the last write: saving sets it to the moment, to the
 * nanosecond, which no later write will have. Closing an image writes its metadata back, so the time is set
 * again after that.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "block/block.h"
#include "vmm/board.h"
#include "vmm/save.h"

#define NS_PER_SECOND 1000000000

static int64_t to_ns(struct timespec t)
{
    return (int64_t)t.tv_sec * NS_PER_SECOND + t.tv_nsec;
}

/* Of the image that disk `i` writes to now. Until that is closed or gets a new layer. */
static const char *disk_path(const struct board *b, unsigned i)
{
    struct block_info info;

    block_get_info(b->disk[i].block, &info);
    return info.path;
}

bool save_disks_check(struct board *b, struct error **err)
{
    for (unsigned i = 0; i < b->config->disk_count; i++) {
        const char *path = disk_path(b, i);
        struct stat st;
        if (stat(path, &st) < 0)
            return error_set_errno(err, errno,
                                   "cannot save the machine: its disk '%s' would not be found again", path),
                   false;
    }
    for (unsigned i = 0; i < b->config->device_count; i++)
        if (!strcmp(b->config->device[i].cls, "virtio-blk"))
            return error_set(err, ENOTSUP,
                             "cannot save the machine: it has a disk that was given by --device, not --disk"),
                   false;
    return true;
}

static void flushed(struct block_request *req, int result)
{
    *(int *)req->opaque = result;
}

static bool flush(struct block *block, const char *path, struct error **err)
{
    int result = 0;
    struct block_request req = {.op = BLOCK_FLUSH, .done = flushed, .opaque = &result, .block = block};

    block_submit(&req);
    block_drain(block);
    if (result < 0)
        return error_set_errno(err, -result, "cannot write back disk '%s'", path), false;
    return true;
}

/* Of a device the time of the last write is not known. */
static int64_t last_change(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? to_ns(st.st_mtim) : 0;
}

static void set_last_change(const char *path, int64_t ns)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                      {.tv_sec = ns / NS_PER_SECOND, .tv_nsec = ns % NS_PER_SECOND}};

    utimensat(AT_FDCWD, path, times,
              0); /* for the owner only; others have the coarser time of the last write */
}

bool save_disks_flush(struct board *b, struct error **err)
{
    for (unsigned i = 0; i < b->config->disk_count; i++)
        if (!flush(b->disk[i].block, disk_path(b, i), err))
            return false;
    return true;
}

bool save_disks_settle(struct board *b, struct saved_identity *id, struct error **err)
{
    if (!save_disks_flush(b, err))
        return false;
    id->disk_count = b->config->disk_count;
    for (unsigned i = 0; i < id->disk_count; i++) {
        const char *path = disk_path(b, i);
        struct board_disk *disk = &b->disk[i];
        struct block_info info;
        struct timespec now;
        block_get_info(disk->block, &info);
        clock_gettime(CLOCK_REALTIME, &now);
        if (!info.readonly && last_change(path))
            set_last_change(path, to_ns(now));
        disk->mark = last_change(path);
        id->disk[i] = (struct saved_disk){.size = info.size, .changed = disk->mark};
    }
    return true;
}

void save_disks_remember(struct board *b)
{
    for (unsigned i = 0; i < b->config->disk_count; i++)
        b->disk[i].mark = last_change(disk_path(b, i));
}

void save_disks_identify(const struct board *b, struct saved_identity *id)
{
    id->disk_count = b->config->disk_count;
    for (unsigned i = 0; i < id->disk_count; i++) {
        struct block_info info;
        block_get_info(b->disk[i].block, &info);
        id->disk[i] =
            (struct saved_disk){.size = info.size, .changed = info.readonly ? last_change(info.path) : 0};
    }
}

void save_disks_forget(struct board *b)
{
    for (unsigned i = 0; i < b->config->disk_count; i++)
        b->disk[i].mark = 0;
}

void save_disks_close(struct board *b)
{
    for (unsigned i = 0; i < ARRAY_SIZE(b->disk) && b->disk[i].block; i++) {
        struct board_disk *disk = &b->disk[i];
        cleanup(mem) char *path = strdup(disk_path(b, i));
        block_close(disk->block);
        if (disk->mark && path && !b->config->disk[i].readonly)
            set_last_change(path, disk->mark);
    }
}
