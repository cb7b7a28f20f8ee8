/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-rng (virtio 1.2, section 5.4): the guest's buffers are filled from the host's random number
 * generator. The rate is bounded, as a guest could otherwise keep the main loop busy with it.
 */
#include <errno.h>
#include <sys/random.h>

#include "base/util.h"
#include "device/virtio/virtio.h"

#define QUEUE_SIZE  64
#define PERIOD_NS   10000000ull /* the budget is refilled every 10 ms */
#define PERIODS     100         /* of which so many make a second */
#define REQUEST_MAX 4096        /* given at once; a driver asks again */

struct virtio_rng {
    struct virtio_device virtio;
    uint64_t rate; /* property, bytes a second */
    uint64_t budget;
    struct vm_timer refill;
};

/* Fills up to `len` bytes of the element; returns how many. */
static uint32_t fill(struct virtqueue_element *e, size_t len)
{
    uint8_t bytes[REQUEST_MAX];
    size_t want = MIN(MIN(len, e->in_len), sizeof(bytes));
    ssize_t got = getrandom(bytes, want, 0);
    if (got <= 0)
        return 0; /* interrupted; a short answer is allowed */
    return (uint32_t)iov_write(e->in, e->in_count, 0, bytes, (size_t)got);
}

static void rng_notify(struct virtio_device *v, struct virtqueue *vq)
{
    struct virtio_rng *rng = DEVICE_OF(struct virtio_rng, v);
    do {
        virtqueue_disable_kicks(vq);
        struct virtqueue_element *e;
        while (rng->budget && (e = virtqueue_pop(vq))) {
            uint32_t n = fill(e, rng->budget);
            rng->budget -= MAX(n, 1u); /* empty requests cost something, too */
            virtqueue_push(e, n);
        }
    } while (rng->budget && virtqueue_enable_kicks(vq)); /* else the timer looks again */
    virtqueue_notify(vq);
    if (!rng->budget && !rng->refill.armed)
        vm_timer_arm(&rng->refill, vm_clock_now(&v->pci.dev.machine->clock) + PERIOD_NS);
}

static void refill(void *opaque)
{
    struct virtio_rng *rng = opaque;
    rng->budget = MAX(rng->rate / PERIODS, 1);
    virtio_kick(&rng->virtio, 0);
}

static const struct virtio_class rng_class = {
    .name = "virtio-rng",
    .id = VIRTIO_ID_RNG,
    .pci_class = 0x00FF00,
    .queue_notify = rng_notify,
};

static bool rng_realize(struct device *dev, struct error **err)
{
    struct virtio_rng *rng = DEVICE_OF(struct virtio_rng, dev);
    if (!virtio_init(&rng->virtio, &rng_class, 0, err))
        return false;
    virtio_add_queue(&rng->virtio, QUEUE_SIZE);
    virtio_ready(&rng->virtio);
    vm_timer_init(&rng->refill, &dev->machine->clock, refill, rng);
    return true;
}

static void rng_reset(struct device *dev)
{
    struct virtio_rng *rng = DEVICE_OF(struct virtio_rng, dev);
    virtio_device_reset(&rng->virtio);
    vm_timer_cancel(&rng->refill);
    rng->budget = MAX(rng->rate / PERIODS, 1);
}

static void rng_quiesce(struct device *dev)
{
    virtio_quiesce(DEVICE_OF(struct virtio_device, dev));
}

static void rng_resume(struct device *dev)
{
    virtio_resume(DEVICE_OF(struct virtio_device, dev));
}

static void rng_unrealize(struct device *dev)
{
    struct virtio_rng *rng = DEVICE_OF(struct virtio_rng, dev);
    vm_timer_cancel(&rng->refill);
    virtio_exit(&rng->virtio);
}

/* How far the budget was used up is not worth saving: it is full again. */
static bool rng_post_load(void *object, struct error **err)
{
    struct virtio_rng *rng = object;
    virtio_loaded(&rng->virtio);
    rng->budget = MAX(rng->rate / PERIODS, 1);
    return true;
}

static const struct prop rng_props[] = {
    VIRTIO_PROPS,
    {.name = "rate",
     .type = PROP_SIZE,
     .offset = offsetof(struct virtio_rng, rate),
     .default_value = "4M",
     .min = 1,
     .max = 1024 * MIB,
     .help = "most bytes a second"},
    {.type = PROP_END},
};

static const struct state_field rng_fields[] = {
    STATE_FIELD_STRUCT(struct virtio_rng, virtio, 1, &virtio_device_state),
    STATE_FIELD_END,
};

static const struct state_desc rng_state = {
    .name = "virtio-rng",
    .version = 1,
    .min_version = 1,
    .fields = rng_fields,
    .post_load = rng_post_load,
};

const struct device_class virtio_rng_class = {
    .name = "virtio-rng",
    .help = "random numbers from the host",
    .flags = DEVICE_USER,
    .size = sizeof(struct virtio_rng),
    .props = rng_props,
    .state = &rng_state,
    .realize = rng_realize,
    .reset = rng_reset,
    .quiesce = rng_quiesce,
    .resume = rng_resume,
    .unrealize = rng_unrealize,
};
