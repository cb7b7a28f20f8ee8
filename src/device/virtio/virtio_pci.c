/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio over PCI (virtio 1.2, section 4.1), modern interface only. BAR 4 holds the four structures, a page
 * each; BAR 1 is MSI-X.
 */
#include <linux/virtio_pci.h>

#include "base/log.h"
#include "base/util.h"
#include "device/virtio/virtio.h"

#define STRUCTURES_BAR    4
#define STRUCTURES_SIZE   0x4000
#define COMMON_OFFSET     0x0000
#define ISR_OFFSET        0x1000
#define CONFIG_OFFSET     0x2000
#define NOTIFY_OFFSET     0x3000
#define NOTIFY_MULTIPLIER 4

_Static_assert(VIRTIO_QUEUE_MAX *NOTIFY_MULTIPLIER <= 0x1000, "the doorbells fit their page");
_Static_assert(VIRTIO_QUEUE_MAX < PCI_MSIX_MAX, "each queue has a vector, configuration changes have one");

/* --- common configuration (section 4.1.4.3) --- */

static struct virtqueue *selected(struct virtio_device *v)
{
    return v->queue_select < v->queue_count ? &v->vq[v->queue_select] : NULL;
}

static uint32_t half(uint64_t value, uint32_t select)
{
    return select < 2 ? (uint32_t)(value >> (32 * select)) : 0;
}

/* The whole structure as it reads now. */
static void common_snapshot(struct virtio_device *v, struct virtio_pci_common_cfg *c)
{
    *c = (struct virtio_pci_common_cfg){
        .device_feature_select = v->device_feature_select,
        .device_feature = half(v->offered, v->device_feature_select),
        .guest_feature_select = v->driver_feature_select,
        .guest_feature = half(v->features, v->driver_feature_select),
        .msix_config = v->config_vector,
        .num_queues = (uint16_t)v->queue_count,
        .device_status = v->status,
        .config_generation = v->config_generation,
        .queue_select = v->queue_select,
    };
    const struct virtqueue *vq = selected(v);
    if (!vq)
        return; /* queue_size 0: there is none */
    c->queue_size = vq->size;
    c->queue_msix_vector = vq->vector;
    c->queue_enable = vq->enabled;
    c->queue_notify_off = (uint16_t)vq->index;
    c->queue_desc_lo = (uint32_t)vq->desc_gpa;
    c->queue_desc_hi = (uint32_t)(vq->desc_gpa >> 32);
    c->queue_avail_lo = (uint32_t)vq->driver_gpa;
    c->queue_avail_hi = (uint32_t)(vq->driver_gpa >> 32);
    c->queue_used_lo = (uint32_t)vq->device_gpa;
    c->queue_used_hi = (uint32_t)(vq->device_gpa >> 32);
}

static uint64_t common_read(struct virtio_device *v, uint64_t offset, unsigned size)
{
    struct virtio_pci_common_cfg c;
    common_snapshot(v, &c);
    uint32_t value = 0;
    if (range_fits(offset, size, sizeof(c)))
        memcpy(&value, (const uint8_t *)&c + offset, MIN(size, 4));
    return value;
}

static uint16_t valid_vector(const struct virtio_device *v, uint64_t vector)
{
    return vector < v->pci.msix_count ? (uint16_t)vector : VIRTIO_NO_VECTOR;
}

static void set_half(uint64_t *field, unsigned upper, uint32_t value)
{
    uint64_t keep = upper ? UINT32_MAX : ~(uint64_t)UINT32_MAX;
    *field = (*field & keep) | (uint64_t)value << (32 * upper);
}

static void write_features(struct virtio_device *v, uint32_t value)
{
    if (v->driver_feature_select < 2 && !(v->status & VIRTIO_CONFIG_S_FEATURES_OK))
        set_half(&v->features, v->driver_feature_select, value);
}

/* Fields of the selected queue; all but the vector are settled once it is enabled. */
static void queue_write(struct virtio_device *v, uint64_t offset, uint32_t value)
{
    struct virtqueue *vq = selected(v);
    if (!vq)
        return;
    if (offset == VIRTIO_PCI_COMMON_Q_MSIX) {
        vq->vector = valid_vector(v, value);
        return;
    }
    if (vq->enabled)
        return;
    switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
        if (value && value <= vq->max_size)
            vq->size = (uint16_t)value;
        break;
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        if (value == 1 && v->status & VIRTIO_CONFIG_S_FEATURES_OK) {
            vq->enabled = true;
            if (!virtqueue_map(vq))
                vq->enabled = false;
            virtio_doorbells_update(v);
        }
        break;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        set_half(&vq->desc_gpa, offset == VIRTIO_PCI_COMMON_Q_DESCHI, value);
        break;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        set_half(&vq->driver_gpa, offset == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
        break;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        set_half(&vq->device_gpa, offset == VIRTIO_PCI_COMMON_Q_USEDHI, value);
        break;
    default:
        break;
    }
}

/* The driver must use each field's own width (section 4.1.3.1); anything else is ignored. */
static unsigned common_width(uint64_t offset)
{
    switch (offset) {
    case VIRTIO_PCI_COMMON_STATUS:
        return 1;
    case VIRTIO_PCI_COMMON_MSIX:
    case VIRTIO_PCI_COMMON_Q_SELECT:
    case VIRTIO_PCI_COMMON_Q_SIZE:
    case VIRTIO_PCI_COMMON_Q_MSIX:
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        return 2;
    default:
        return 4;
    }
}

static void common_write(struct virtio_device *v, uint64_t offset, unsigned size, uint32_t value)
{
    if (size != common_width(offset) || (v->resetting && offset != VIRTIO_PCI_COMMON_STATUS))
        return;
    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        v->device_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_GFSELECT:
        v->driver_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_GF:
        write_features(v, value);
        break;
    case VIRTIO_PCI_COMMON_MSIX:
        v->config_vector = valid_vector(v, value);
        break;
    case VIRTIO_PCI_COMMON_STATUS:
        virtio_set_status(v, (uint8_t)value);
        break;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        v->queue_select = (uint16_t)value;
        break;
    default:
        queue_write(v, offset, value);
        break;
    }
}

/* --- the other structures --- */

/* Reading clears, and lowers the line (section 4.1.4.5). */
static uint64_t isr_read(struct virtio_device *v)
{
    uint8_t isr = v->isr;
    v->isr = 0;
    pci_set_intx(&v->pci, false);
    return isr;
}

static uint64_t config_read(struct virtio_device *v, uint64_t offset, unsigned size)
{
    uint32_t value = 0;
    if (!v->vcls->config_read || !range_fits(offset, size, v->vcls->config_size))
        return 0;
    uint8_t config[VIRTIO_CONFIG_MAX] = {0};
    v->vcls->config_read(v, config);
    memcpy(&value, config + offset, MIN(size, 4));
    return value;
}

static uint64_t structures_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_device *v = opaque;
    switch (offset & ~(uint64_t)0xFFF) {
    case COMMON_OFFSET:
        return common_read(v, offset - COMMON_OFFSET, size);
    case ISR_OFFSET:
        return offset == ISR_OFFSET ? isr_read(v) : 0;
    case CONFIG_OFFSET:
        return config_read(v, offset - CONFIG_OFFSET, size);
    default:
        return 0;
    }
}

static void structures_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_device *v = opaque;
    switch (offset & ~(uint64_t)0xFFF) {
    case COMMON_OFFSET:
        common_write(v, offset - COMMON_OFFSET, size, (uint32_t)value);
        break;
    case CONFIG_OFFSET:
        if (v->vcls->config_write && range_fits(offset - CONFIG_OFFSET, size, v->vcls->config_size))
            v->vcls->config_write(v, (unsigned)(offset - CONFIG_OFFSET), size, (uint32_t)value);
        break;
    case NOTIFY_OFFSET: {
        uint64_t queue = (offset - NOTIFY_OFFSET) / NOTIFY_MULTIPLIER;
        if (queue < v->queue_count && v->vq[queue].enabled && virtio_running(v))
            virtio_kick(v, (unsigned)queue);
        break;
    }
    default:
        break;
    }
}

uint64_t virtio_transport_doorbell(const struct virtio_device *v, unsigned queue)
{
    uint64_t bar = pci_bar_address(&v->pci, STRUCTURES_BAR);
    return bar ? bar + NOTIFY_OFFSET + (uint64_t)queue * NOTIFY_MULTIPLIER : 0;
}

/* --- configuration space --- */

/* The window into BAR 4 through configuration space (section 4.1.4.9): where it points now; false: nowhere
 * valid. */
static bool cfg_window(const struct virtio_device *v, uint64_t *offset, unsigned *size)
{
    const uint8_t *cap = v->pci.config + v->cfg_cap;
    *offset = load_le32(cap + offsetof(struct virtio_pci_cap, offset));
    uint32_t length = load_le32(cap + offsetof(struct virtio_pci_cap, length));
    *size = length;
    return cap[offsetof(struct virtio_pci_cap, bar)] == STRUCTURES_BAR &&
           (length == 1 || length == 2 || length == 4) && *offset % length == 0 &&
           range_fits(*offset, length, STRUCTURES_SIZE);
}

static bool touches_cfg_data(const struct virtio_device *v, unsigned offset, unsigned size)
{
    unsigned at = v->cfg_cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
    return offset < at + 4 && at < offset + size;
}

static void before_config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_device *v = CONTAINER_OF(pci, struct virtio_device, pci);
    uint64_t at;
    unsigned width;
    if (touches_cfg_data(v, offset, size) && cfg_window(v, &at, &width))
        store_le32(pci->config + v->cfg_cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data),
                   (uint32_t)structures_read(v, at, width));
}

static void after_config_write(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_device *v = CONTAINER_OF(pci, struct virtio_device, pci);
    uint64_t at;
    unsigned width;
    if (touches_cfg_data(v, offset, size) && cfg_window(v, &at, &width)) {
        uint32_t data =
            load_le32(pci->config + v->cfg_cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data));
        structures_write(v, at, width, width == 4 ? data : data & ((1u << 8 * width) - 1));
    }
    if (offset <= PCI_COMMAND && offset + size > PCI_COMMAND)
        virtio_doorbells_update(v);
    /* What was offered while the device might not touch memory has to be seen once it may. */
    if (offset <= PCI_COMMAND && offset + size > PCI_COMMAND && virtio_running(v))
        virtio_kick_all(v);
}

static void bars_changed(struct pci_device *pci)
{
    virtio_doorbells_update(CONTAINER_OF(pci, struct virtio_device, pci));
}

static unsigned add_structure(struct virtio_device *v, uint8_t type, unsigned cap_len, uint32_t offset,
                              uint32_t length)
{
    unsigned at = pci_add_capability(&v->pci, PCI_CAP_ID_VNDR, cap_len);
    uint8_t *cap = v->pci.config + at;
    cap[offsetof(struct virtio_pci_cap, cap_len)] = (uint8_t)cap_len;
    cap[offsetof(struct virtio_pci_cap, cfg_type)] = type;
    cap[offsetof(struct virtio_pci_cap, bar)] = STRUCTURES_BAR;
    store_le32(cap + offsetof(struct virtio_pci_cap, offset), offset);
    store_le32(cap + offsetof(struct virtio_pci_cap, length), length);
    return at;
}

static void add_structures(struct virtio_device *v)
{
    const unsigned plain = sizeof(struct virtio_pci_cap);
    add_structure(v, VIRTIO_PCI_CAP_COMMON_CFG, plain, COMMON_OFFSET, 0x1000);
    add_structure(v, VIRTIO_PCI_CAP_ISR_CFG, plain, ISR_OFFSET, 0x1000);
    if (v->vcls->config_size)
        add_structure(v, VIRTIO_PCI_CAP_DEVICE_CFG, plain, CONFIG_OFFSET, 0x1000);
    unsigned notify = add_structure(v, VIRTIO_PCI_CAP_NOTIFY_CFG, sizeof(struct virtio_pci_notify_cap),
                                    NOTIFY_OFFSET, 0x1000);
    store_le32(v->pci.config + notify + offsetof(struct virtio_pci_notify_cap, notify_off_multiplier),
               NOTIFY_MULTIPLIER);

    v->cfg_cap = (uint8_t)add_structure(v, VIRTIO_PCI_CAP_PCI_CFG, sizeof(struct virtio_pci_cfg_cap), 0, 0);
    uint8_t *cap = v->pci.config + v->cfg_cap, *writable = v->pci.writable + v->cfg_cap;
    cap[offsetof(struct virtio_pci_cap, bar)] = 0;
    writable[offsetof(struct virtio_pci_cap, bar)] = 0xFF;
    memset(writable + offsetof(struct virtio_pci_cap, offset), 0xFF, 4);
    memset(writable + offsetof(struct virtio_pci_cap, length), 0xFF, 4);
    memset(writable + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data), 0xFF, 4);
}

bool virtio_transport_init(struct virtio_device *v, struct error **err)
{
    const struct pci_ids ids = {
        .vendor = PCI_VENDOR_QUMRANET,
        .device = (uint16_t)(0x1040 + v->vcls->id),
        .subsystem_vendor = PCI_VENDOR_QUMRANET,
        .subsystem = 0x1100,
        .class_code = v->vcls->pci_class,
        .revision = 1,
        .interrupt_pin = 1,
    };
    if (!pci_device_init(&v->pci, &ids, err))
        return false;
    const struct io_window ops = {
        .name = v->vcls->name,
        .read = structures_read,
        .write = structures_write,
        .opaque = v,
        .max_access = 4,
    };
    pci_register_bar(&v->pci, STRUCTURES_BAR, PCI_BAR_MEM64, true, STRUCTURES_SIZE, &ops);
    add_structures(v);
    v->pci.before_read = before_config_read;
    v->pci.after_write = after_config_write;
    v->pci.bars_changed = bars_changed;
    return true;
}
