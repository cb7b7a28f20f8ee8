/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Dirty bitmaps as the users of images see them: see block.h. The format does the work, on the I/O thread. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "block/block_int.h"

static int run(struct block *b, void *opaque)
{
    struct layer *top = b->top;
    if (!top->ops->bitmap)
        return -ENOTSUP;
    if (top->readonly)
        return -EROFS;
    return b->broken ? -EIO : top->ops->bitmap(top, opaque);
}

static bool say(const struct block *b, const char *name, int result, struct error **err)
{
    const char *why = result == -ENOENT    ? "there is none of that name"
                      : result == -EEXIST  ? "there is one of that name"
                      : result == -ESTALE  ? "it is inconsistent: the image was not closed properly"
                      : result == -ENOTSUP ? "only qcow2 images of version 3 can have any"
                                           : strerror(-result);
    if (result < 0)
        error_set(err, -result, "bitmap '%s' of '%s': %s", name, b->top->path, why);
    return result == 0;
}

bool block_bitmap_add(struct block *b, const char *name, uint64_t granularity, struct error **err)
{
    bool possible = is_pow2(granularity) && granularity >= BIT(GRANULARITY_MIN) &&
                    granularity <= BIT(GRANULARITY_MAX) && *name && strlen(name) <= BLOCK_BITMAP_NAME_MAX;
    struct bitmap_call call = {.action = BITMAP_ADD, .name = name};
    if (!possible)
        return error_set(
                   err, EINVAL,
                   "bitmap '%.80s' of '%s': a name is from 1 to %d bytes long, a granularity a power of "
                   "two from 512 bytes to 2 GiB",
                   name, b->top->path, BLOCK_BITMAP_NAME_MAX),
               false;
    call.granularity = (unsigned)__builtin_ctzll(granularity);
    return say(b, name, block_call(b, run, &call), err);
}

static bool act(struct block *b, enum bitmap_action action, const char *name, struct error **err)
{
    struct bitmap_call call = {.action = action, .name = name};
    return say(b, name, block_call(b, run, &call), err);
}

bool block_bitmap_remove(struct block *b, const char *name, struct error **err)
{
    return act(b, BITMAP_REMOVE, name, err);
}

bool block_bitmap_clear(struct block *b, const char *name, struct error **err)
{
    return act(b, BITMAP_CLEAR, name, err);
}

bool block_bitmap_exists(struct block *b, const char *name, struct error **err)
{
    return act(b, BITMAP_FIND, name, err);
}

bool block_bitmap_check(struct block *b, const char *name, struct error **err)
{
    return act(b, BITMAP_COPY, name, err);
}

int block_bitmap_copy(struct block *b, const char *name, struct dirty_bits *bits)
{
    struct bitmap_call call = {.action = BITMAP_COPY, .name = name, .bits = bits};
    return block_call(b, run, &call);
}

bool block_bitmap_info(struct block *b, unsigned index, struct block_bitmap *info)
{
    struct bitmap_call call = {.action = BITMAP_INFO, .index = index, .info = info};
    return block_call(b, run, &call) == 0;
}
