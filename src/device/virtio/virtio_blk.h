/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The disk that other parts of the machine give a virtio-blk device. */
#ifndef DEVICE_VIRTIO_VIRTIO_BLK_H
#define DEVICE_VIRTIO_VIRTIO_BLK_H

struct block;
struct device;

/*
 * Gives a "virtio-blk" device its disk, before it is realized; without, it opens what its property "file"
 * says. `block` was opened with the machine's loop; it is not owned and stays open until the device is freed.
 */
void virtio_blk_set_block(struct device *dev, struct block *block);

#endif
