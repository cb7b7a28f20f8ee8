/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The core of virtio devices that is not about the transport: status, features, kicks, life cycle, saved
 * state. */
#include "device/virtio/virtio.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"

bool virtio_running(const struct virtio_device *v)
{
    const uint8_t need = VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK;
    return (v->status & need) == need && !(v->status & VIRTIO_CONFIG_S_NEEDS_RESET) && !v->stopped &&
           !v->resetting && pci_bus_master(&v->pci);
}

/* --- interrupts --- */

void virtio_interrupt(struct virtio_device *v, uint16_t vector, uint8_t isr_bit)
{
    if (pci_msix_enabled(&v->pci)) {
        if (vector != VIRTIO_NO_VECTOR)
            pci_msix_notify(&v->pci, vector);
        return;
    }
    v->isr |= isr_bit;
    pci_set_intx(&v->pci, true);
}

void virtio_config_changed(struct virtio_device *v)
{
    v->config_generation++;
    if (v->status & VIRTIO_CONFIG_S_DRIVER_OK)
        virtio_interrupt(v, v->config_vector, VIRTIO_ISR_CONFIG);
}

void virtio_broken(struct virtio_device *v, const char *fmt, ...)
{
    if (v->status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    char why[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    log_guest(LOG_WARN, "%s: the guest's driver broke the rules: %s", v->pci.dev.id, why);
    v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    virtio_doorbells_update(v);
    virtio_config_changed(v);
}

/* --- kicks --- */

void virtio_notify(struct virtio_device *v, unsigned queue)
{
    if (v->vq[queue].enabled && virtio_running(v))
        v->vcls->queue_notify(v, &v->vq[queue]);
}

/* Runs on the main loop, for all queues kicked since the last time. */
static void run_kicks(void *opaque)
{
    struct virtio_device *v = opaque;
    for (unsigned w = 0; w < ARRAY_SIZE(v->kicked); w++) {
        uint64_t bits = v->kicked[w];
        v->kicked[w] = 0;
        while (bits) {
            unsigned i = 64 * w + (unsigned)__builtin_ctzll(bits);
            bits &= bits - 1;
            virtio_notify(v, i);
        }
    }
}

/* A timer that is due at once is a posted function that can be taken back and needs no memory. */
void virtio_kick(struct virtio_device *v, unsigned queue)
{
    bool first = true;
    for (unsigned w = 0; w < ARRAY_SIZE(v->kicked); w++)
        first = first && !v->kicked[w];
    v->kicked[queue / 64] |= BIT(queue % 64);
    if (first)
        loop_timer_arm(&v->kick, 0);
}

void virtio_kick_all(struct virtio_device *v)
{
    for (unsigned i = 0; i < v->queue_count; i++)
        if (v->vq[i].enabled)
            virtio_kick(v, i);
}

static void forget_kicks(struct virtio_device *v)
{
    loop_timer_cancel(&v->kick);
    memset(v->kicked, 0, sizeof(v->kicked));
}

/* --- status --- */

static void reset_core(struct virtio_device *v)
{
    v->resetting = false;
    v->status = v->isr = 0;
    virtio_doorbells_update(v);
    forget_kicks(v);
    v->features = 0;
    v->device_feature_select = v->driver_feature_select = 0;
    v->config_vector = VIRTIO_NO_VECTOR;
    v->queue_select = 0;
    for (unsigned i = 0; i < v->queue_count; i++)
        virtqueue_reset(&v->vq[i]);
    pci_set_intx(&v->pci, false);
}

void virtio_reset_done(struct virtio_device *v)
{
    if (v->resetting)
        reset_core(v);
}

static bool features_acceptable(const struct virtio_device *v)
{
    return !(v->features & ~v->offered) && virtio_has(v, VIRTIO_F_VERSION_1);
}

static void driver_reset(struct virtio_device *v)
{
    if (v->resetting)
        return;
    v->resetting = true;
    virtio_doorbells_update(v);
    if (!v->vcls->reset || v->vcls->reset(v, false))
        reset_core(v);
}

/* Section 2.1: bits are only added, 0 resets; FEATURES_OK sticks only when the driver's choice is possible.
 */
void virtio_set_status(struct virtio_device *v, uint8_t status)
{
    if (status == 0) {
        driver_reset(v);
        return;
    }
    if (v->resetting)
        return;
    uint8_t added =
        (uint8_t)(status & ~v->status &
                  (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |
                   VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED));
    if (added & VIRTIO_CONFIG_S_FEATURES_OK && !features_acceptable(v)) {
        log_guest(LOG_INFO, "%s: the driver chose features 0x%llx of 0x%llx", v->pci.dev.id,
                  (unsigned long long)v->features, (unsigned long long)v->offered);
        added &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
    }
    v->status |= added;
    virtio_doorbells_update(v);
    if (added & VIRTIO_CONFIG_S_FEATURES_OK && v->vcls->features_set)
        v->vcls->features_set(v);
    if (added & VIRTIO_CONFIG_S_DRIVER_OK && virtio_running(v)) {
        if (v->vcls->driver_ok)
            v->vcls->driver_ok(v);
        virtio_kick_all(v); /* for drivers that filled and kicked before */
    }
}

/* --- life cycle --- */

bool virtio_init(struct virtio_device *v, const struct virtio_class *vcls, uint64_t features,
                 struct error **err)
{
    v->vcls = vcls;
    v->queue_count = 0;
    v->offered = features | BIT(VIRTIO_F_VERSION_1);
    if (v->packed)
        v->offered |= BIT(VIRTIO_F_RING_PACKED);
    if (v->event_idx)
        v->offered |= BIT(VIRTIO_RING_F_EVENT_IDX);
    if (v->indirect)
        v->offered |= BIT(VIRTIO_RING_F_INDIRECT_DESC);
    loop_timer_init(&v->kick, v->pci.dev.machine->loop, run_kicks, v);
    return virtio_transport_init(v, err);
}

struct virtqueue *virtio_add_queue(struct virtio_device *v, uint16_t max_size)
{
    struct virtqueue *vq = &v->vq[v->queue_count];
    vq->vdev = v;
    vq->index = v->queue_count++;
    vq->max_size = max_size;
    virtqueue_reset(vq);
    return vq;
}

void virtio_ready(struct virtio_device *v)
{
    pci_msix_init(&v->pci, 1, v->queue_count + 1);
}

void virtio_exit(struct virtio_device *v)
{
    pci_device_exit(&v->pci); /* with BAR 4 go the doorbells */
    forget_kicks(v);
}

void virtio_device_reset(struct virtio_device *v)
{
    if (v->vcls->reset)
        v->vcls->reset(v, true);
    reset_core(v);
    v->config_generation = 0;
    pci_device_reset(&v->pci);
}

void virtio_quiesce(struct virtio_device *v)
{
    v->stopped = true;
    virtio_doorbells_update(v);
    forget_kicks(v); /* resume looks at every queue */
    pci_msix_settle(&v->pci);
}

void virtio_resume(struct virtio_device *v)
{
    v->stopped = false;
    virtio_doorbells_update(v);
    virtio_kick_all(v);
}

/* --- saved state --- */

static bool queue_post_load(void *object, struct error **err)
{
    const struct virtqueue *vq = object;
    bool ring = vq->size <= VIRTQUEUE_SIZE_MAX && (!vq->size || vq->unsignalled <= vq->size);
    if (!ring) {
        error_set(err, 0, "a virtqueue of the saved machine has impossible values");
        return false;
    }
    return true;
}

static bool queue_state_valid(const struct virtio_device *v, const struct virtqueue *vq)
{
    if (vq->size > vq->max_size || (vq->vector != VIRTIO_NO_VECTOR && vq->vector >= v->pci.msix_count))
        return false;
    bool positions = virtio_has(v, VIRTIO_F_RING_PACKED);
    return !vq->enabled || !positions || (vq->last_avail < vq->size && vq->used_idx < vq->size);
}

static bool virtio_post_load(void *object, struct error **err)
{
    const struct virtio_device *v = object;
    bool ok = v->status & VIRTIO_CONFIG_S_FEATURES_OK ? features_acceptable(v) : true;
    ok = ok && (v->config_vector == VIRTIO_NO_VECTOR || v->config_vector < v->pci.msix_count);
    for (unsigned i = 0; ok && i < VIRTIO_QUEUE_MAX; i++)
        ok = i < v->queue_count ? queue_state_valid(v, &v->vq[i]) : !v->vq[i].enabled;
    if (!ok)
        error_set(err, 0, "the saved virtio registers are not possible for this device");
    return ok;
}

void virtio_loaded(struct virtio_device *v)
{
    forget_kicks(v);
    v->resetting = false;
    for (unsigned i = 0; i < v->queue_count; i++) {
        v->vq[i].mapped = false;
        v->vq[i].inuse = v->vq[i].filled = v->vq[i].filled_slots = 0;
        v->vq[i].epoch++;
    }
    pci_device_loaded(&v->pci);
    virtio_doorbells_update(v);
}

static const struct state_field queue_fields[] = {
    STATE_FIELD_U16(struct virtqueue, size),        STATE_FIELD_U16(struct virtqueue, vector),
    STATE_FIELD_BOOL(struct virtqueue, enabled),    STATE_FIELD_U64(struct virtqueue, desc_gpa),
    STATE_FIELD_U64(struct virtqueue, driver_gpa),  STATE_FIELD_U64(struct virtqueue, device_gpa),
    STATE_FIELD_U16(struct virtqueue, last_avail),  STATE_FIELD_U16(struct virtqueue, used_idx),
    STATE_FIELD_BOOL(struct virtqueue, avail_wrap), STATE_FIELD_BOOL(struct virtqueue, used_wrap),
    STATE_FIELD_U16(struct virtqueue, unsignalled), STATE_FIELD_END,
};

static const struct state_desc queue_state = {
    .name = "virtqueue",
    .version = 1,
    .min_version = 1,
    .fields = queue_fields,
    .post_load = queue_post_load,
};

static const struct state_field virtio_fields[] = {
    STATE_FIELD_STRUCT(struct virtio_device, pci, 1, &pci_device_state),
    STATE_FIELD_U64(struct virtio_device, features),
    STATE_FIELD_U32(struct virtio_device, device_feature_select),
    STATE_FIELD_U32(struct virtio_device, driver_feature_select),
    STATE_FIELD_U16(struct virtio_device, config_vector),
    STATE_FIELD_U16(struct virtio_device, queue_select),
    STATE_FIELD_U8(struct virtio_device, status),
    STATE_FIELD_U8(struct virtio_device, isr),
    STATE_FIELD_U8(struct virtio_device, config_generation),
    STATE_FIELD_STRUCT(struct virtio_device, vq, VIRTIO_QUEUE_MAX, &queue_state),
    STATE_FIELD_END,
};

const struct state_desc virtio_device_state = {
    .name = "virtio",
    .version = 1,
    .min_version = 1,
    .fields = virtio_fields,
    .post_load = virtio_post_load,
};
