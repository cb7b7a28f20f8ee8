/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk (virtio 1.2, section 5.2): disks. A request goes to the block layer with iovecs that point into
 * guest RAM, is carried out by the block's I/O thread, and comes back on the main loop. What the guest says
 * is checked in full before that; the block layer checks offsets and lengths against the disk again.
 */
#include "device/virtio/virtio_blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "block/block.h"
#include "device/virtio/virtio.h"

#define SECTOR               512u
#define QUEUES_MAX           32
#define SEGMENT_BYTES_MAX    (1u << 20)
#define REQUEST_BYTES_MAX    (256u << 20) /* no more than our limits on segments allow a driver anyway */
#define RANGES_MAX           16           /* of one DISCARD or WRITE_ZEROES */
#define DISCARD_SECTORS_MAX  (1u << 21)
#define ZEROES_SECTORS_MAX   (1u << 19)
#define PHYSICAL_BLOCK_SHIFT 3 /* 4 KiB: what host file systems like */
#define NO_STATUS            0xFF

struct virtio_blk {
    struct virtio_device virtio;
    struct block *block;
    bool own_block;
    char *file, *format;        /* properties, for when nobody has set a block */
    char *serial;               /* property */
    bool readonly;              /* property */
    bool discard;               /* property */
    uint64_t queues;            /* property; 0: one for each vCPU */
    uint64_t queue_size;        /* property */
    uint64_t capacity;          /* sectors */
    uint32_t discard_alignment; /* sectors: smaller pieces free nothing */

    uint8_t write_cache; /* the driver's choice: 0: a write is durable when it is done */
    unsigned in_flight;  /* elements in hand */
};

/* One element of a queue while the block layer works on it. */
struct blk_request {
    struct virtio_blk *blk;
    struct virtqueue_element *element;
    unsigned pending;     /* block requests not done */
    uint8_t status;       /* worst of them */
    bool flush;           /* a flush must follow: there is no write cache */
    struct iovec *iov;    /* the data's part of the element, when that had to be cut out */
    unsigned range_count; /* of `part` */
    struct block_request part[];
};

void virtio_blk_set_block(struct device *dev, struct block *block)
{
    DEVICE_OF(struct virtio_blk, dev)->block = block;
}

/* --- answering --- */

/* Gives an element back: the status is its last writable byte. */
static void answer(struct virtqueue_element *e, uint8_t status)
{
    struct virtqueue *vq = e->vq;
    iov_write(e->in, e->in_count, e->in_len - 1, &status, 1);
    /* Also after a failure: some of the data may have arrived. */
    virtqueue_push(e, (uint32_t)e->in_len);
    virtqueue_notify(vq);
}

static void finish(struct blk_request *r)
{
    struct virtio_blk *blk = r->blk;
    blk->in_flight--;
    if (blk->virtio.resetting)
        virtqueue_discard(r->element);
    else
        answer(r->element, r->status);
    free(r->iov);
    free(r);
    if (!blk->in_flight)
        virtio_reset_done(&blk->virtio);
}

static uint8_t status_of(int result)
{
    return result == 0 ? VIRTIO_BLK_S_OK : result == -ENOTSUP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

/* The guest only learns that it failed; why is for whoever looks after the host. */
static void report_failure(const struct block_request *req, int result)
{
    static const char *const what[] = {
        [BLOCK_READ] = "reading",       [BLOCK_WRITE] = "writing",        [BLOCK_FLUSH] = "flushing",
        [BLOCK_DISCARD] = "discarding", [BLOCK_WRITE_ZEROES] = "zeroing",
    };
    struct block_info info;
    block_get_info(req->block, &info);
    log_guest(LOG_WARN, "disk '%s': %s %llu bytes at %llu: %s", info.path, what[req->op],
              (unsigned long long)req->length, (unsigned long long)req->offset, strerror(-result));
}

static void part_done(struct block_request *req, int result)
{
    struct blk_request *r = req->opaque;
    if (result < 0) {
        r->status = status_of(result);
        report_failure(req, result);
    }
    if (--r->pending)
        return;
    if (r->flush && r->status == VIRTIO_BLK_S_OK) {
        r->flush = false;
        r->pending = 1;
        r->part[0] =
            (struct block_request){.op = BLOCK_FLUSH, .done = part_done, .opaque = r, .block = r->blk->block};
        block_submit(&r->part[0]);
        return;
    }
    finish(r);
}

/* --- requests --- */

static struct blk_request *request_new(struct virtio_blk *blk, struct virtqueue_element *e, unsigned parts)
{
    struct blk_request *r = calloc(1, sizeof(*r) + parts * sizeof(r->part[0]));
    if (!r)
        return NULL;
    r->blk = blk;
    r->element = e;
    r->pending = r->range_count = parts;
    for (unsigned i = 0; i < parts; i++)
        r->part[i] = (struct block_request){.done = part_done, .opaque = r, .block = blk->block};
    return r;
}

static void start(struct blk_request *r)
{
    r->blk->in_flight++;
    /* The last one may not be done before this loop ends: `done` only ever comes from the main loop. */
    for (unsigned i = 0; i < r->range_count; i++)
        block_submit(&r->part[i]);
}

/* Copies the list without its first `skip` and beyond `length` bytes. The list is long enough. */
static unsigned cut_iov(struct iovec *to, const struct iovec *from, size_t skip, size_t length)
{
    unsigned n = 0;
    for (; length; from++) {
        if (skip >= from->iov_len) {
            skip -= from->iov_len;
            continue;
        }
        size_t take = MIN(from->iov_len - skip, length);
        to[n++] = (struct iovec){(uint8_t *)from->iov_base + skip, take};
        length -= take;
        skip = 0;
    }
    return n;
}

/* READ and WRITE. Returns a status to answer with at once, or NO_STATUS. */
static uint8_t transfer(struct virtio_blk *blk, struct virtqueue_element *e, bool write, uint64_t sector)
{
    size_t skip = write ? sizeof(struct virtio_blk_outhdr) : 0;
    size_t length = write ? e->out_len - skip : e->in_len - 1;
    if (length == 0 || length % SECTOR || length > REQUEST_BYTES_MAX ||
        !range_fits(sector, length / SECTOR, blk->capacity) || (write && blk->readonly))
        return VIRTIO_BLK_S_IOERR;
    unsigned count = write ? e->out_count : e->in_count;
    struct blk_request *r = request_new(blk, e, 1);
    struct iovec *iov = malloc(count * sizeof(*iov));
    if (!r || !iov) {
        free(iov);
        free(r);
        return VIRTIO_BLK_S_IOERR;
    }
    r->iov = iov;
    r->flush = write && !blk->write_cache;
    r->part[0].op = write ? BLOCK_WRITE : BLOCK_READ;
    r->part[0].offset = sector * SECTOR;
    r->part[0].length = length;
    r->part[0].iov = iov;
    r->part[0].iov_count = (int)cut_iov(iov, write ? e->out : e->in, skip, length);
    start(r);
    return NO_STATUS;
}

static uint8_t flush(struct virtio_blk *blk, struct virtqueue_element *e)
{
    struct blk_request *r = request_new(blk, e, 1);
    if (!r)
        return VIRTIO_BLK_S_IOERR;
    r->part[0].op = BLOCK_FLUSH;
    start(r);
    return NO_STATUS;
}

/* One range of a DISCARD or WRITE_ZEROES: VIRTIO_BLK_S_OK when it can be done. */
static uint8_t check_range(const struct virtio_blk *blk, bool zeroes,
                           const struct virtio_blk_discard_write_zeroes *range)
{
    uint32_t known = zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    if (range->flags & ~known)
        return VIRTIO_BLK_S_UNSUPP;
    if (range->num_sectors > (zeroes ? ZEROES_SECTORS_MAX : DISCARD_SECTORS_MAX) ||
        !range_fits(range->sector, range->num_sectors, blk->capacity))
        return VIRTIO_BLK_S_IOERR;
    return VIRTIO_BLK_S_OK;
}

static uint8_t deallocate(struct virtio_blk *blk, struct virtqueue_element *e, bool zeroes)
{
    struct virtio_blk_discard_write_zeroes range[RANGES_MAX];
    size_t length = e->out_len - sizeof(struct virtio_blk_outhdr);
    if (!blk->discard)
        return VIRTIO_BLK_S_UNSUPP;
    if (blk->readonly || length == 0 || length % sizeof(range[0]) || length > sizeof(range))
        return VIRTIO_BLK_S_IOERR;
    iov_read(e->out, e->out_count, sizeof(struct virtio_blk_outhdr), range, length);
    unsigned count = (unsigned)(length / sizeof(range[0]));
    for (unsigned i = 0; i < count; i++) {
        uint8_t status = check_range(blk, zeroes, &range[i]);
        if (status != VIRTIO_BLK_S_OK)
            return status;
    }
    struct blk_request *r = request_new(blk, e, count);
    if (!r)
        return VIRTIO_BLK_S_IOERR;
    r->flush = zeroes && !blk->write_cache;
    for (unsigned i = 0; i < count; i++) {
        r->part[i].op = zeroes ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD;
        r->part[i].may_unmap = range[i].flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        r->part[i].offset = range[i].sector * SECTOR;
        r->part[i].length = (uint64_t)range[i].num_sectors * SECTOR;
    }
    start(r);
    return NO_STATUS;
}

static uint8_t get_id(const struct virtio_blk *blk, struct virtqueue_element *e)
{
    char id[VIRTIO_BLK_ID_BYTES] = {0};
    memcpy(id, blk->serial, strnlen(blk->serial, sizeof(id)));
    iov_write(e->in, e->in_count, 0, id, MIN(sizeof(id), e->in_len - 1));
    return VIRTIO_BLK_S_OK;
}

static uint8_t carry_out(struct virtio_blk *blk, struct virtqueue_element *e,
                         const struct virtio_blk_outhdr *h)
{
    switch (h->type) {
    case VIRTIO_BLK_T_IN:
        return transfer(blk, e, false, h->sector);
    case VIRTIO_BLK_T_OUT:
        return transfer(blk, e, true, h->sector);
    case VIRTIO_BLK_T_FLUSH:
        return flush(blk, e);
    case VIRTIO_BLK_T_GET_ID:
        return get_id(blk, e);
    case VIRTIO_BLK_T_DISCARD:
        return deallocate(blk, e, false);
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return deallocate(blk, e, true);
    default:
        return VIRTIO_BLK_S_UNSUPP;
    }
}

static void blk_notify(struct virtio_device *v, struct virtqueue *vq)
{
    struct virtio_blk *blk = DEVICE_OF(struct virtio_blk, v);
    do {
        virtqueue_disable_kicks(vq);
        struct virtqueue_element *e;
        while (!v->resetting && (e = virtqueue_pop(vq))) {
            struct virtio_blk_outhdr h;
            if (e->in_len < 1 || iov_read(e->out, e->out_count, 0, &h, sizeof(h)) != sizeof(h)) {
                virtio_broken(v, "queue %u: a request without header or status", vq->index);
                virtqueue_discard(e);
                return;
            }
            uint8_t status = carry_out(blk, e, &h);
            if (status != NO_STATUS)
                answer(e, status);
        }
    } while (!v->resetting && virtqueue_enable_kicks(vq));
}

/* --- configuration (section 5.2.4) --- */

static void blk_config(struct virtio_device *v, uint8_t *config)
{
    const struct virtio_blk *blk = DEVICE_OF(struct virtio_blk, v);
    struct virtio_blk_config c = {
        .capacity = blk->capacity,
        .size_max = SEGMENT_BYTES_MAX,
        .seg_max = (uint32_t)MIN(blk->queue_size - 2, 254),
        .blk_size = SECTOR,
        .physical_block_exp = PHYSICAL_BLOCK_SHIFT,
        .min_io_size = 1,
        .wce = blk->write_cache,
        .num_queues = (uint16_t)blk->queues,
        .max_discard_sectors = DISCARD_SECTORS_MAX,
        .max_discard_seg = RANGES_MAX,
        .discard_sector_alignment = blk->discard_alignment,
        .max_write_zeroes_sectors = ZEROES_SECTORS_MAX,
        .max_write_zeroes_seg = RANGES_MAX,
        .write_zeroes_may_unmap = 1,
    };
    memcpy(config, &c, v->vcls->config_size);
}

static void blk_config_write(struct virtio_device *v, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_blk *blk = DEVICE_OF(struct virtio_blk, v);
    if (offset == offsetof(struct virtio_blk_config, wce) && size == 1 &&
        virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE))
        blk->write_cache = value & 1;
}

/* A driver that knows neither flushes nor the cache setting gets none (section 5.2.5.2). */
static void blk_features_set(struct virtio_device *v)
{
    DEVICE_OF(struct virtio_blk, v)->write_cache =
        virtio_has(v, VIRTIO_BLK_F_FLUSH) || virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE);
}

static bool blk_driver_reset(struct virtio_device *v, bool wait)
{
    struct virtio_blk *blk = DEVICE_OF(struct virtio_blk, v);
    if (blk->in_flight && !wait)
        return false;    /* `finish` says when */
    v->resetting = true; /* nothing more for the old driver */
    block_drain(blk->block);
    return true;
}

static const struct virtio_class blk_class = {
    .name = "virtio-blk",
    .id = VIRTIO_ID_BLOCK,
    .pci_class = 0x010000,
    .config_size = offsetof(struct virtio_blk_config, unused1),
    .features_set = blk_features_set,
    .config_read = blk_config,
    .config_write = blk_config_write,
    .queue_notify = blk_notify,
    .reset = blk_driver_reset,
};

/* --- life cycle --- */

static uint64_t blk_features(const struct virtio_blk *blk)
{
    uint64_t f = BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
                 BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE);
    if (blk->queues > 1)
        f |= BIT(VIRTIO_BLK_F_MQ);
    if (blk->readonly)
        f |= BIT(VIRTIO_BLK_F_RO);
    else if (blk->discard)
        f |= BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES);
    return f;
}

static bool take_block(struct virtio_blk *blk, struct error **err)
{
    const struct device *dev = &blk->virtio.pci.dev;
    struct block_info info;
    if (!blk->block) {
        if (!blk->file) {
            error_set(err, EINVAL, "%s: it has no disk; name an image with file=PATH", dev->id);
            return false;
        }
        unsigned flags = blk->readonly ? BLOCK_READONLY : 0;
        blk->block = block_open(blk->file, blk->format, flags, dev->machine->loop, err);
        if (!blk->block)
            return false;
        blk->own_block = true;
    }
    block_get_info(blk->block, &info);
    blk->capacity = info.size / SECTOR;
    blk->discard_alignment = MAX(info.cluster_size / SECTOR, 1u << PHYSICAL_BLOCK_SHIFT);
    blk->readonly |= info.readonly;
    return true;
}

static void drop_block(struct virtio_blk *blk)
{
    if (blk->own_block)
        block_close(blk->block);
    blk->block = NULL;
}

static bool blk_realize(struct device *dev, struct error **err)
{
    struct virtio_blk *blk = DEVICE_OF(struct virtio_blk, dev);
    if (!is_pow2(blk->queue_size)) {
        error_set(err, EINVAL, "%s: queue-size is not a power of two", dev->id);
        return false;
    }
    if (!blk->queues)
        blk->queues = MIN(dev->machine->cpu_count, QUEUES_MAX);
    if (!take_block(blk, err))
        return false;
    if (!virtio_init(&blk->virtio, &blk_class, blk_features(blk), err)) {
        drop_block(blk);
        return false;
    }
    for (unsigned i = 0; i < blk->queues; i++)
        virtio_add_queue(&blk->virtio, (uint16_t)blk->queue_size);
    virtio_ready(&blk->virtio);
    return true;
}

static void blk_reset(struct device *dev)
{
    virtio_device_reset(DEVICE_OF(struct virtio_device, dev));
}

static void blk_quiesce(struct device *dev)
{
    struct virtio_blk *blk = DEVICE_OF(struct virtio_blk, dev);
    block_drain(blk->block);
    virtio_quiesce(&blk->virtio);
}

static void blk_resume(struct device *dev)
{
    virtio_resume(DEVICE_OF(struct virtio_device, dev));
}

static void blk_unrealize(struct device *dev)
{
    struct virtio_blk *blk = DEVICE_OF(struct virtio_blk, dev);
    block_drain(blk->block);
    virtio_exit(&blk->virtio);
    drop_block(blk);
}

/* --- saved state --- */

static bool blk_post_load(void *object, struct error **err)
{
    struct virtio_blk *blk = object;
    if (blk->write_cache > 1) {
        error_set(err, 0, "the saved state of the disk has impossible values");
        return false;
    }
    virtio_loaded(&blk->virtio);
    return true;
}

static const struct state_field blk_fields[] = {
    STATE_FIELD_STRUCT(struct virtio_blk, virtio, 1, &virtio_device_state),
    STATE_FIELD_U8(struct virtio_blk, write_cache),
    STATE_FIELD_END,
};

static const struct state_desc blk_state = {
    .name = "virtio-blk",
    .version = 1,
    .min_version = 1,
    .fields = blk_fields,
    .post_load = blk_post_load,
};

static const struct prop blk_props[] = {
    VIRTIO_PROPS,
    {.name = "file",
     .type = PROP_STRING,
     .offset = offsetof(struct virtio_blk, file),
     .help = "disk image (or use --disk)"},
    {.name = "format",
     .type = PROP_STRING,
     .offset = offsetof(struct virtio_blk, format),
     .help = "of the image: raw or qcow2 (default: found out)"},
    {.name = "readonly",
     .type = PROP_BOOL,
     .offset = offsetof(struct virtio_blk, readonly),
     .default_value = "off",
     .help = "the guest cannot write"},
    {.name = "serial",
     .type = PROP_STRING,
     .offset = offsetof(struct virtio_blk, serial),
     .default_value = "",
     .help = "serial number, up to 20 characters"},
    {.name = "discard",
     .type = PROP_BOOL,
     .offset = offsetof(struct virtio_blk, discard),
     .default_value = "on",
     .help = "offer DISCARD and WRITE_ZEROES"},
    {.name = "num-queues",
     .type = PROP_UINT,
     .offset = offsetof(struct virtio_blk, queues),
     .default_value = "0",
     .max = QUEUES_MAX,
     .help = "queues (0: one for each vCPU)"},
    {.name = "queue-size",
     .type = PROP_UINT,
     .offset = offsetof(struct virtio_blk, queue_size),
     .default_value = "256",
     .min = 4,
     .max = VIRTQUEUE_SIZE_MAX,
     .help = "descriptors in each queue, a power of two"},
    {.type = PROP_END},
};

const struct device_class virtio_blk_class = {
    .name = "virtio-blk",
    .help = "disk",
    .flags = DEVICE_USER,
    .size = sizeof(struct virtio_blk),
    .props = blk_props,
    .state = &blk_state,
    .realize = blk_realize,
    .reset = blk_reset,
    .quiesce = blk_quiesce,
    .resume = blk_resume,
    .unrealize = blk_unrealize,
};
