/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bounded logs: see text_log.h. */
#include "os/text_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "os/sys.h"

#define GATHER 4096

struct text_log {
    char *path, *older;
    int fd;
    uint64_t size; /* of the file */
    bool losing;   /* something was lost, and that has been said */
    size_t used;
    uint8_t gathered[GATHER];
};

static bool open_file(struct text_log *log, struct error **err)
{
    struct stat st;
    log->fd = sys.open(log->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log->fd < 0 || fstat(log->fd, &st) < 0)
        return error_set_errno(err, errno, "open log '%s'", log->path), false;
    log->size = (uint64_t)st.st_size;
    return true;
}

struct text_log *text_log_open(const char *path, struct error **err)
{
    struct text_log *log = calloc(1, sizeof(*log));
    if (!log || !(log->path = strdup(path)) || asprintf(&log->older, "%s.1", path) < 0) {
        error_set_errno(err, ENOMEM, "open log '%s'", path);
        free(log ? log->path : NULL);
        free(log);
        return NULL;
    }
    if (open_file(log, err))
        return log;
    text_log_close(log);
    return NULL;
}

static void lost(struct text_log *log)
{
    if (!log->losing)
        log_line(LOG_WARN, "cannot write to log '%s', so output is lost: %s", log->path, strerror(errno));
    log->losing = true;
}

static void write_out(struct text_log *log, const uint8_t *data, size_t len)
{
    while (len) {
        struct iovec piece = {(void *)(uintptr_t)data, len};
        ssize_t n = sys.pwritev(log->fd, &piece, 1, (off_t)log->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            lost(log);
            return;
        }
        log->size += (uint64_t)n;
        data += n;
        len -= (size_t)n;
    }
}

/* Where a new file cannot be made, the old one goes on from its beginning, so that the limit holds. */
static void rotate(struct text_log *log)
{
    int old = log->fd;
    if (sys.rename(log->path, log->older) == 0 && open_file(log, NULL)) {
        sys.close(old);
        return;
    }
    lost(log);
    log->fd = old;
    if (sys.ftruncate(old, 0) == 0)
        log->size = 0;
}

void text_log_flush(struct text_log *log)
{
    if (log->used && log->size + log->used > TEXT_LOG_MAX / 2)
        rotate(log);
    write_out(log, log->gathered, log->used);
    log->used = 0;
}

void text_log_write(struct text_log *log, const uint8_t *data, size_t len)
{
    while (len) {
        size_t n = MIN(len, GATHER - log->used);
        memcpy(log->gathered + log->used, data, n);
        log->used += n;
        data += n;
        len -= n;
        if (log->used == GATHER)
            text_log_flush(log);
    }
}

size_t text_log_tail(struct text_log *log, uint8_t *data, size_t size)
{
    text_log_flush(log);
    size_t want = (size_t)MIN(log->size, (uint64_t)size), have = 0;
    while (have < want) {
        ssize_t n = pread(log->fd, data + have, want - have, (off_t)(log->size - want + have));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    return have;
}

void text_log_close(struct text_log *log)
{
    if (!log)
        return;
    if (log->fd >= 0) {
        text_log_flush(log);
        sys.close(log->fd);
    }
    free(log->path);
    free(log->older);
    free(log);
}
