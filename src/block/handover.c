/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An image that another process goes on writing: see block.h. While it is away a layer that reads only, and
 * holds no lock, stands in for the top, so that the image still has a size and a name.
 */
#include <errno.h>
#include <stddef.h>
#include <sys/stat.h>

#include "base/error.h"
#include "block/block_int.h"

/* Exchanges the top, once nothing of it is left to be written, and *opaque. I/O thread. */
static int exchange_top(struct block *b, void *opaque)
{
    struct layer **next = opaque, *top = b->top;
    int r = b->broken ? -EIO : !top->readonly && top->ops->settle ? top->ops->settle(top) : 0;
    if (r < 0)
        return r;
    b->top = *next;
    *next = top;
    return 0;
}

/* Puts `next` in the place of the top, which is closed. On failure `next` is. */
static bool exchange(struct block *b, struct layer *next, const char *what, struct error **err)
{
    block_drain(b);
    int result = block_call(b, exchange_top, &next);
    if (result < 0)
        error_set_errno(err, -result, "cannot %s '%s'", what, b->top->path);
    layer_close(next);
    return result == 0;
}

/* The top's file anew. */
static struct layer *open_again(struct block *b, unsigned flags, struct error **err)
{
    const struct layer *top = b->top;
    return layer_open(b, top->path, top->probed ? NULL : top->ops->name, flags, NULL, err);
}

static struct timespec last_write(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? st.st_mtim : (struct timespec){0};
}

/* File systems keep that time by the tick of a clock; to the nanosecond no later write will have it. */
static struct timespec mark_last_write(int fd)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
    clock_gettime(CLOCK_REALTIME, &times[1]);
    futimens(fd, times); /* for the owner only; others have the coarser time */
    return last_write(fd);
}

/* What is known of an image that was written to meanwhile, such as a guest's memory, is not true any more. */
static bool check_unwritten(const struct block *b, const struct layer *next, struct error **err)
{
    struct timespec now = last_write(next->fd);
    if (!b->left.tv_sec || (now.tv_sec == b->left.tv_sec && now.tv_nsec == b->left.tv_nsec))
        return true;
    error_set(err, ESTALE, "'%s' was written to while another program had it", next->path);
    return false;
}

bool block_release(struct block *b, struct error **err)
{
    if (b->top->readonly)
        return true;
    struct layer *next = open_again(b, BLOCK_READONLY | BLOCK_NO_LOCK, err);
    b->away = next && exchange(b, next, "let go of", err);
    b->left = b->away ? mark_last_write(b->top->fd) : (struct timespec){0};
    return b->away;
}

bool block_take(struct block *b, struct error **err)
{
    if (!b->away)
        return true;
    struct layer *next = open_again(b, 0, err);
    if (!next)
        return false;
    if (!check_unwritten(b, next, err) || !layer_open_for_write(next, err)) {
        layer_close(next);
        return false;
    }
    b->away = !exchange(b, next, "take", err);
    return !b->away;
}

bool block_is_away(const struct block *b)
{
    return b->away;
}
