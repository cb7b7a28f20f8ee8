/* SPDX-License-Identifier: GPL-2.0-or-later */
/* New top layers for the disks of a machine that is saved: see save.h. Until all else has been taken they are
 * only open. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "block/block.h"
#include "core/device.h"
#include "vmm/board.h"
#include "vmm/save.h"

static struct board_disk *find_disk(struct board *b, const char *device)
{
    for (unsigned i = 0; i < b->config->disk_count; i++)
        if (strcmp(b->disk[i].device->id, device) == 0)
            return &b->disk[i];
    return NULL;
}

static bool open_one(struct board *b, const struct control_overlay *o, struct error **err)
{
    struct board_disk *disk = find_disk(b, o->device);

    if (!disk || disk->overlay)
        return error_set(err, EINVAL, "cannot save the machine: %s '%s'",
                         disk ? "two new layers are given for disk" : "it has no disk", o->device),
               false;
    disk->overlay = block_overlay_open(disk->block, o->file, err);
    return disk->overlay != NULL;
}

bool save_overlays_open(struct board *b, const struct control_save_order *order, struct error **err)
{
    for (unsigned i = 0; i < order->overlay_count; i++) {
        if (open_one(b, &order->overlay[i], err))
            continue;
        save_overlays_close(b);
        return false;
    }
    return true;
}

bool save_overlays_put(struct board *b, struct error **err)
{
    for (unsigned i = 0; i < b->config->disk_count; i++) {
        struct board_disk *disk = &b->disk[i];
        if (!disk->overlay)
            continue;
        if (!block_overlay_put(disk->block, disk->overlay, err))
            return false;
        disk->overlay = NULL;
        disk->mark = 0; /* it was the other image's */
    }
    return true;
}

void save_overlays_close(struct board *b)
{
    for (unsigned i = 0; i < ARRAY_SIZE(b->disk); i++) {
        block_overlay_close(b->disk[i].overlay);
        b->disk[i].overlay = NULL;
    }
}
