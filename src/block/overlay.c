/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A new top layer for an image in use: see block.h. What can fail for long is done when the overlay is
 * opened; to put it on top takes a moment. */
#include <errno.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/block_int.h"

/* Whether the overlay is one of the image as it is now. */
static bool check_fit(const struct block *b, const struct layer *overlay, struct error **err)
{
    const struct layer *top = b->top;
    struct stat st;
    unsigned depth = 1;
    if (!overlay->backing_name)
        return error_set(err, EINVAL, "cannot put '%s' on top of '%s': it has no backing file", overlay->path,
                         top->path),
               false;
    cleanup(mem) char *below = layer_backing_path(overlay->path, overlay->backing_name, err);
    if (!below)
        return false;
    if (stat(below, &st) < 0 || st.st_dev != top->dev || st.st_ino != top->ino)
        return error_set(err, EINVAL, "cannot put '%s' on top of '%s': its backing file is '%s'",
                         overlay->path, top->path, below),
               false;
    if (overlay->size != top->size)
        return error_set(err, EINVAL, "cannot put '%s' on top of '%s': their sizes differ", overlay->path,
                         top->path),
               false;
    for (const struct layer *l = top; l; l = l->backing)
        depth++;
    if (depth > BLOCK_CHAIN_MAX)
        return error_set(err, ELOOP,
                         "cannot put '%s' on top of '%s': more than %d layers would not be opened",
                         overlay->path, top->path, BLOCK_CHAIN_MAX),
               false;
    return true;
}

struct layer *block_overlay_open(struct block *b, const char *path, struct error **err)
{
    if (b->top->readonly)
        return error_set(err, EROFS, "cannot put '%s' on top of '%s': that is open read-only", path,
                         b->top->path),
               NULL;
    struct layer *overlay = layer_open(b, path, "qcow2", BLOCK_NO_BACKING, NULL, err);
    if (!overlay || (check_fit(b, overlay, err) && layer_open_for_write(overlay, err)))
        return overlay;
    layer_close(overlay);
    return NULL;
}

void block_overlay_close(struct layer *overlay)
{
    layer_close(overlay);
}

static int put(struct block *b, void *opaque)
{
    struct layer *top = b->top, *overlay = opaque;
    int r = b->broken ? -EIO : top->ops->settle ? top->ops->settle(top) : 0;
    if (r < 0)
        return r;
    top->readonly = true;
    image_lock_to_readonly(top->fd);
    top->above = overlay;
    overlay->backing = top;
    b->top = overlay;
    if (top->ops->hand_over)
        top->ops->hand_over(top, overlay);
    return 0;
}

bool block_overlay_put(struct block *b, struct layer *overlay, struct error **err)
{
    block_drain(b);
    int result = block_call(b, put, overlay);
    if (result < 0)
        error_set_errno(err, -result, "cannot put '%s' on top of '%s'", overlay->path, b->top->path);
    return result == 0;
}
