/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-net (virtio 1.2, section 5.1): the network card. Back ends take and give complete frames, so
 * checksums and segmentation that the driver leaves to the card are done here (net_offload.h).
 *
 * Transmit runs on the main loop. Receive is called by the back end's thread, which takes the machine lock
 * for each frame: copying it into the guest right there saves a second queue and a second thread's wake-up.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"
#include "base/util.h"
#include "device/virtio/net_offload.h"
#include "device/virtio/virtio.h"
#include "net/net.h"

#define PAIRS_MAX        16
#define HEADER_SIZE      sizeof(struct virtio_net_hdr_v1)
#define CONTROL_SIZE     64  /* of the control queue */
#define RX_BUFFERS_MAX   64  /* merged for one frame */
#define ELEMENTS_PER_RUN 256 /* sent before other work of the main loop gets its turn */
#define MAC_TABLE_MAX    64
#define FLOW_TABLE_SIZE  256
#define FRAME_MIN        14
#define LOCK_PATIENCE_NS 20000000

struct virtio_net {
    struct virtio_device virtio;
    struct net *net;
    char *spec;          /* property "net" */
    uint8_t mac[6];      /* property; all zero: made up */
    uint64_t pairs;      /* property */
    uint64_t mtu;        /* property; 0: not announced */
    uint64_t queue_size; /* property */
    bool offload;        /* property: offer checksum and segmentation offloads */
    bool closing;        /* atomic: receive gives up waiting for the machine lock */

    /* Set by the driver. */
    uint8_t guest_mac[6]; /* the address that it listens to */
    uint16_t active_pairs;
    bool promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast;
    bool table_overflow; /* the driver named more addresses than fit: all pass */
    uint8_t mac_count;
    uint8_t mac_table[MAC_TABLE_MAX * 6];

    bool link_up;
    bool rx_blocked;                    /* the back end waits for net_rx_ready */
    uint8_t flow_pair[FLOW_TABLE_SIZE]; /* the pair that last sent in a flow, so answers come back on it */
    uint8_t buffer[NET_FRAME_MAX];      /* a frame that needs work */
};

static unsigned rx_queue(unsigned pair)
{
    return 2 * pair;
}

/* --- transmit --- */

static void emit(void *opaque, const struct iovec *iov, int count)
{
    struct virtio_net *n = opaque;
    net_send(n->net, iov, count);
}

static void remember_flow(struct virtio_net *n, const uint8_t *frame, size_t len, unsigned pair)
{
    uint32_t hash = n->active_pairs > 1 ? net_flow_hash(frame, len) : 0;
    if (hash)
        n->flow_pair[hash % FLOW_TABLE_SIZE] = (uint8_t)pair;
}

/* A frame that the driver wants finished; wrong requests are dropped as a card would. */
static void send_with_offload(struct virtio_net *n, const struct virtio_net_hdr_v1 *h, size_t len)
{
    uint8_t gso = h->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
    size_t limit = net_frame_limit(n->net);
    if (gso == VIRTIO_NET_HDR_GSO_TCPV4 || gso == VIRTIO_NET_HDR_GSO_TCPV6) {
        net_segment(n->buffer, len, gso == VIRTIO_NET_HDR_GSO_TCPV6, h->gso_size, limit, emit, n);
        return;
    }
    if (gso != VIRTIO_NET_HDR_GSO_NONE || len > limit)
        return;
    if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM &&
        !net_complete_checksum(n->buffer, len, h->csum_start, h->csum_offset))
        return;
    const struct iovec iov = {.iov_base = n->buffer, .iov_len = len};
    net_send(n->net, &iov, 1);
}

static void send_element(struct virtio_net *n, const struct virtqueue_element *e, unsigned pair)
{
    struct virtio_net_hdr_v1 h;
    if (iov_read(e->out, e->out_count, 0, &h, HEADER_SIZE) != HEADER_SIZE ||
        e->out_len < HEADER_SIZE + FRAME_MIN || e->out_len - HEADER_SIZE > sizeof(n->buffer) || !n->link_up)
        return;
    /* Copied first: the guest could change what is being parsed. */
    size_t len = iov_read(e->out, e->out_count, HEADER_SIZE, n->buffer, sizeof(n->buffer));
    remember_flow(n, n->buffer, len, pair);
    send_with_offload(n, &h, len);
}

static void transmit(struct virtio_net *n, struct virtqueue *vq)
{
    unsigned count = 0;
    do {
        virtqueue_disable_kicks(vq);
        struct virtqueue_element *e;
        for (; count < ELEMENTS_PER_RUN && (e = virtqueue_pop(vq)); count++) {
            send_element(n, e, vq->index / 2);
            virtqueue_push(e, 0);
        }
        if (count == ELEMENTS_PER_RUN) {
            virtio_kick(&n->virtio, vq->index);
            break;
        }
    } while (virtqueue_enable_kicks(vq));
    virtqueue_notify(vq);
}

/* --- receive --- */

static bool mac_listed(const struct virtio_net *n, const uint8_t *mac)
{
    for (unsigned i = 0; i < n->mac_count; i++)
        if (memcmp(n->mac_table + 6 * (size_t)i, mac, 6) == 0)
            return true;
    return false;
}

/* Does the driver want frames for this address? (section 5.1.6.5.1) */
static bool wanted(const struct virtio_net *n, const uint8_t *mac)
{
    static const uint8_t broadcast[6] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    if (n->promiscuous)
        return true;
    if (memcmp(mac, broadcast, 6) == 0)
        return !n->no_broadcast;
    if (mac[0] & 1)
        return !n->no_multicast && (n->all_multicast || n->table_overflow || mac_listed(n, mac));
    return !n->no_unicast &&
           (n->all_unicast || n->table_overflow || memcmp(mac, n->guest_mac, 6) == 0 || mac_listed(n, mac));
}

static struct virtqueue *choose_rx(struct virtio_net *n, const uint8_t *frame, size_t len)
{
    unsigned pair = 0;
    if (n->active_pairs > 1)
        pair = n->flow_pair[net_flow_hash(frame, len) % FLOW_TABLE_SIZE] % n->active_pairs;
    return &n->virtio.vq[rx_queue(pair)];
}

enum rx_result { RX_DONE, RX_NO_BUFFERS, RX_DROP };

/* Takes buffers for `need` bytes; how many, or 0 with *result. */
static unsigned take_buffers(struct virtio_net *n, struct virtqueue *vq, size_t need,
                             struct virtqueue_element **e, enum rx_result *result)
{
    unsigned most = virtio_has(&n->virtio, VIRTIO_NET_F_MRG_RXBUF) ? RX_BUFFERS_MAX : 1;
    unsigned count = 0;
    size_t have = 0;
    *result = RX_DROP; /* too long for what the driver offers */
    while (have < need && count < most) {
        e[count] = virtqueue_pop(vq);
        if (!e[count]) {
            *result = RX_NO_BUFFERS;
            break;
        }
        have += e[count]->in_len;
        if (e[count++]->in_len < HEADER_SIZE) {
            virtio_broken(&n->virtio, "queue %u: receive buffer too short for a header", vq->index);
            break;
        }
    }
    if (have >= need)
        return count;
    while (count)
        virtqueue_unpop(e[--count]);
    return 0;
}

static enum rx_result copy_in(struct virtio_net *n, struct virtqueue *vq, const uint8_t *frame, size_t len)
{
    struct virtqueue_element *e[RX_BUFFERS_MAX];
    enum rx_result result;
    unsigned count = take_buffers(n, vq, HEADER_SIZE + len, e, &result);
    if (!count)
        return result;
    const struct virtio_net_hdr_v1 h = {
        .flags = virtio_has(&n->virtio, VIRTIO_NET_F_GUEST_CSUM) ? VIRTIO_NET_HDR_F_DATA_VALID : 0,
        .gso_type = VIRTIO_NET_HDR_GSO_NONE,
        .num_buffers = (uint16_t)count,
    };
    size_t done = 0;
    for (unsigned i = 0; i < count; i++) {
        size_t skip = i ? 0 : iov_write(e[i]->in, e[i]->in_count, 0, &h, HEADER_SIZE);
        size_t copied = iov_write(e[i]->in, e[i]->in_count, skip, frame + done, len - done);
        done += copied;
        virtqueue_fill(e[i], (uint32_t)(skip + copied));
    }
    virtqueue_flush(vq);
    virtqueue_notify(vq);
    return RX_DONE;
}

/* With the machine lock held. False: the back end is to keep the frame. */
static bool receive_locked(struct virtio_net *n, const uint8_t *frame, size_t len)
{
    if (n->virtio.stopped) {
        n->rx_blocked = true;
        return false;
    }
    if (!virtio_running(&n->virtio) || len < FRAME_MIN || !wanted(n, frame))
        return true; /* nobody listens */
    struct virtqueue *vq = choose_rx(n, frame, len);
    enum rx_result result = copy_in(n, vq, frame, len);
    if (result == RX_NO_BUFFERS) {
        /* The driver may have added buffers before it could see that we want to be told. */
        virtqueue_enable_kicks(vq);
        result = copy_in(n, vq, frame, len);
    }
    n->rx_blocked = result == RX_NO_BUFFERS;
    return !n->rx_blocked;
}

/*
 * The machine lock, from the back end's thread. While the device is being taken apart its thread holds the
 * lock and waits for this one to end: then we must not wait for ever.
 */
static bool lock_machine(struct virtio_net *n)
{
    pthread_mutex_t *lock = &n->virtio.pci.dev.machine->lock;
    while (!__atomic_load_n(&n->closing, __ATOMIC_ACQUIRE)) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOCK_PATIENCE_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        if (pthread_mutex_timedlock(lock, &until) == 0)
            return true;
    }
    return false;
}

static bool net_receive(void *opaque, const uint8_t *frame, size_t len)
{
    struct virtio_net *n = opaque;
    if (!lock_machine(n))
        return true; /* lost with the device */
    bool taken = receive_locked(n, frame, len);
    machine_unlock(n->virtio.pci.dev.machine);
    return taken;
}

static void net_link(void *opaque, bool up)
{
    struct virtio_net *n = opaque;
    if (!lock_machine(n))
        return;
    if (n->link_up != up) {
        n->link_up = up;
        virtio_config_changed(&n->virtio);
    }
    machine_unlock(n->virtio.pci.dev.machine);
}

/* --- control queue (section 5.1.6.5) --- */

static bool set_rx_mode(struct virtio_net *n, uint8_t command, bool on)
{
    bool *const modes[] = {
        [VIRTIO_NET_CTRL_RX_PROMISC] = &n->promiscuous, [VIRTIO_NET_CTRL_RX_ALLMULTI] = &n->all_multicast,
        [VIRTIO_NET_CTRL_RX_ALLUNI] = &n->all_unicast,  [VIRTIO_NET_CTRL_RX_NOMULTI] = &n->no_multicast,
        [VIRTIO_NET_CTRL_RX_NOUNI] = &n->no_unicast,    [VIRTIO_NET_CTRL_RX_NOBCAST] = &n->no_broadcast,
    };
    if (command >= ARRAY_SIZE(modes))
        return false;
    *modes[command] = on;
    return true;
}

/* Two tables, unicast and multicast, each a count and so many addresses. */
static bool set_mac_tables(struct virtio_net *n, const struct virtqueue_element *e)
{
    size_t at = sizeof(struct virtio_net_ctrl_hdr);
    unsigned count = 0;
    bool overflow = false;
    for (int table = 0; table < 2; table++) {
        uint32_t entries;
        if (iov_read(e->out, e->out_count, at, &entries, sizeof(entries)) != sizeof(entries))
            return false;
        at += sizeof(entries);
        if (at > e->out_len || entries > (e->out_len - at) / 6)
            return false;
        if (entries > MAC_TABLE_MAX - count)
            overflow = true;
        else
            iov_read(e->out, e->out_count, at, n->mac_table + 6 * (size_t)count, 6 * (size_t)entries);
        count += overflow ? 0 : entries;
        at += 6 * (size_t)entries;
    }
    n->mac_count = (uint8_t)count;
    n->table_overflow = overflow;
    return true;
}

static bool control(struct virtio_net *n, const struct virtqueue_element *e)
{
    struct virtio_net_ctrl_hdr h;
    if (iov_read(e->out, e->out_count, 0, &h, sizeof(h)) != sizeof(h))
        return false;
    if (h.class == VIRTIO_NET_CTRL_RX) {
        uint8_t on;
        return iov_read(e->out, e->out_count, sizeof(h), &on, 1) == 1 && set_rx_mode(n, h.cmd, on);
    }
    if (h.class == VIRTIO_NET_CTRL_MAC && h.cmd == VIRTIO_NET_CTRL_MAC_TABLE_SET)
        return set_mac_tables(n, e);
    if (h.class == VIRTIO_NET_CTRL_MAC && h.cmd == VIRTIO_NET_CTRL_MAC_ADDR_SET)
        return e->out_len == sizeof(h) + 6 && iov_read(e->out, e->out_count, sizeof(h), n->guest_mac, 6) == 6;
    if (h.class == VIRTIO_NET_CTRL_MQ && h.cmd == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) {
        uint16_t pairs;
        if (!virtio_has(&n->virtio, VIRTIO_NET_F_MQ) ||
            iov_read(e->out, e->out_count, sizeof(h), &pairs, sizeof(pairs)) != sizeof(pairs) || pairs < 1 ||
            pairs > n->pairs)
            return false;
        n->active_pairs = pairs;
        return true;
    }
    return false;
}

static void run_control(struct virtio_net *n, struct virtqueue *vq)
{
    unsigned count = 0;
    do {
        struct virtqueue_element *e;
        for (; count < ELEMENTS_PER_RUN && (e = virtqueue_pop(vq)); count++) {
            uint8_t ack = control(n, e) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
            virtqueue_push(e, (uint32_t)iov_write(e->in, e->in_count, 0, &ack, 1));
        }
        if (count == ELEMENTS_PER_RUN) {
            virtio_kick(&n->virtio, vq->index);
            break;
        }
    } while (virtqueue_enable_kicks(vq));
    virtqueue_notify(vq);
}

/* --- virtio --- */

/* Without MQ the control queue follows the first pair (section 5.1.2). */
static bool is_control(struct virtio_net *n, const struct virtqueue *vq)
{
    if (!virtio_has(&n->virtio, VIRTIO_NET_F_CTRL_VQ))
        return false;
    return virtio_has(&n->virtio, VIRTIO_NET_F_MQ) ? vq->index == 2 * n->pairs : vq->index == 2;
}

static void net_notify(struct virtio_device *v, struct virtqueue *vq)
{
    struct virtio_net *n = DEVICE_OF(struct virtio_net, v);
    if (is_control(n, vq)) {
        run_control(n, vq);
    } else if (vq->index % 2) {
        transmit(n, vq);
    } else {
        virtqueue_disable_kicks(vq);
        if (n->rx_blocked) {
            n->rx_blocked = false;
            net_rx_ready(n->net);
        }
    }
}

static void net_config(struct virtio_device *v, uint8_t *config)
{
    const struct virtio_net *n = DEVICE_OF(struct virtio_net, v);
    struct virtio_net_config c = {
        .status = n->link_up ? VIRTIO_NET_S_LINK_UP : 0,
        .max_virtqueue_pairs = (uint16_t)n->pairs,
        .mtu = (uint16_t)n->mtu,
    };
    memcpy(c.mac, n->mac, 6);
    memcpy(config, &c, v->vcls->config_size);
}

static bool net_driver_reset(struct virtio_device *v, bool wait)
{
    struct virtio_net *n = DEVICE_OF(struct virtio_net, v);
    memcpy(n->guest_mac, n->mac, 6);
    n->active_pairs = 1;
    /* Until the driver says otherwise, and some never do. */
    n->promiscuous = true;
    n->all_multicast = n->all_unicast = n->no_multicast = n->no_unicast = n->no_broadcast = false;
    n->table_overflow = false;
    n->mac_count = 0;
    memset(n->flow_pair, 0, sizeof(n->flow_pair));
    if (n->rx_blocked) {
        n->rx_blocked = false;
        net_rx_ready(n->net); /* what it holds was for the old driver */
    }
    return true;
}

static const struct virtio_class net_class = {
    .name = "virtio-net",
    .id = VIRTIO_ID_NET,
    .pci_class = 0x020000,
    .config_size = offsetof(struct virtio_net_config, speed),
    .config_read = net_config,
    .queue_notify = net_notify,
    .reset = net_driver_reset,
};

/* --- life cycle --- */

static uint64_t features(const struct virtio_net *n)
{
    uint64_t f = BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
                 BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |
                 BIT(VIRTIO_NET_F_CTRL_MAC_ADDR);
    if (n->offload)
        f |= BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) |
             BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
             BIT(VIRTIO_NET_F_GUEST_TSO6);
    if (n->pairs > 1)
        f |= BIT(VIRTIO_NET_F_MQ);
    if (n->mtu)
        f |= BIT(VIRTIO_NET_F_MTU);
    return f;
}

/* An address from the locally administered range, the same for a machine each time (FNV-1a over its UUID). */
static void make_mac(struct virtio_net *n)
{
    static const uint8_t none[6] = {0};
    struct machine *m = n->virtio.pci.dev.machine;
    if (memcmp(n->mac, none, 6) != 0)
        return;
    uint32_t hash = 2166136261u;
    for (unsigned i = 0; i < sizeof(m->uuid); i++)
        hash = (hash ^ m->uuid[i]) * 16777619u;
    for (const struct device *d = m->devices; d; d = d->next)
        if (d->cls == n->virtio.pci.dev.cls)
            hash++;
    const uint8_t mac[6] = {0x52, 0x54, 0x00, (uint8_t)(hash >> 16), (uint8_t)(hash >> 8), (uint8_t)hash};
    memcpy(n->mac, mac, 6);
}

static bool net_realize(struct device *dev, struct error **err)
{
    struct virtio_net *n = DEVICE_OF(struct virtio_net, dev);
    if (!is_pow2(n->queue_size) || n->mac[0] & 1) {
        error_set(err, EINVAL, "%s: %s", dev->id,
                  n->mac[0] & 1 ? "a multicast address cannot be a card's"
                                : "queue-size is not a power of two");
        return false;
    }
    n->net = net_open(n->spec, err);
    if (!n->net)
        return false;
    make_mac(n);
    n->link_up = net_link_up(n->net);
    if (!virtio_init(&n->virtio, &net_class, features(n), err)) {
        net_close(n->net);
        return false;
    }
    for (unsigned i = 0; i < 2 * n->pairs; i++)
        virtio_add_queue(&n->virtio, (uint16_t)n->queue_size);
    virtio_add_queue(&n->virtio, CONTROL_SIZE);
    virtio_ready(&n->virtio);
    net_driver_reset(&n->virtio, true);
    const struct net_client client = {.opaque = n, .receive = net_receive, .link = net_link};
    net_attach(n->net, &client);
    return true;
}

static void net_reset(struct device *dev)
{
    virtio_device_reset(DEVICE_OF(struct virtio_device, dev));
}

static void net_quiesce(struct device *dev)
{
    virtio_quiesce(DEVICE_OF(struct virtio_device, dev));
}

static void net_resume(struct device *dev)
{
    struct virtio_net *n = DEVICE_OF(struct virtio_net, dev);
    virtio_resume(&n->virtio);
    if (n->rx_blocked) {
        n->rx_blocked = false;
        net_rx_ready(n->net);
    }
}

static void net_unrealize(struct device *dev)
{
    struct virtio_net *n = DEVICE_OF(struct virtio_net, dev);
    __atomic_store_n(&n->closing, true, __ATOMIC_RELEASE);
    net_close(n->net);
    virtio_exit(&n->virtio);
}

/* --- saved state --- */

static bool net_post_load(void *object, struct error **err)
{
    struct virtio_net *n = object;
    if (n->mac_count > MAC_TABLE_MAX || n->active_pairs < 1 || n->active_pairs > n->pairs) {
        error_set(err, 0, "the saved state of the network card has impossible values");
        return false;
    }
    virtio_loaded(&n->virtio);
    memset(n->flow_pair, 0, sizeof(n->flow_pair));
    return true;
}

static const struct state_field net_fields[] = {
    STATE_FIELD_STRUCT(struct virtio_net, virtio, 1, &virtio_device_state),
    STATE_FIELD_BYTES(struct virtio_net, mac, 6),
    STATE_FIELD_BYTES(struct virtio_net, guest_mac, 6),
    STATE_FIELD_U16(struct virtio_net, active_pairs),
    STATE_FIELD_BOOL(struct virtio_net, promiscuous),
    STATE_FIELD_BOOL(struct virtio_net, all_multicast),
    STATE_FIELD_BOOL(struct virtio_net, all_unicast),
    STATE_FIELD_BOOL(struct virtio_net, no_multicast),
    STATE_FIELD_BOOL(struct virtio_net, no_unicast),
    STATE_FIELD_BOOL(struct virtio_net, no_broadcast),
    STATE_FIELD_BOOL(struct virtio_net, table_overflow),
    STATE_FIELD_U8(struct virtio_net, mac_count),
    STATE_FIELD_BYTES(struct virtio_net, mac_table, MAC_TABLE_MAX * 6),
    STATE_FIELD_END,
};

static const struct state_desc net_state = {
    .name = "virtio-net",
    .version = 1,
    .min_version = 1,
    .fields = net_fields,
    .post_load = net_post_load,
};

static const struct prop net_props[] = {
    VIRTIO_PROPS,
    {.name = "net",
     .type = PROP_STRING,
     .offset = offsetof(struct virtio_net, spec),
     .default_value = "user",
     .help = "back end, as for --net"},
    {.name = "mac",
     .type = PROP_MAC,
     .offset = offsetof(struct virtio_net, mac),
     .help = "hardware address (default: made from the machine's UUID)"},
    {.name = "pairs",
     .type = PROP_UINT,
     .offset = offsetof(struct virtio_net, pairs),
     .default_value = "1",
     .min = 1,
     .max = PAIRS_MAX,
     .help = "pairs of receive and transmit queues"},
    {.name = "mtu",
     .type = PROP_UINT,
     .offset = offsetof(struct virtio_net, mtu),
     .max = 65535,
     .help = "MTU that the guest is advised of (0: none)"},
    {.name = "queue-size",
     .type = PROP_UINT,
     .offset = offsetof(struct virtio_net, queue_size),
     .default_value = "256",
     .min = 16,
     .max = VIRTQUEUE_SIZE_MAX,
     .help = "descriptors in each queue, a power of two"},
    {.name = "offload",
     .type = PROP_BOOL,
     .offset = offsetof(struct virtio_net, offload),
     .default_value = "on",
     .help = "offer checksum and segmentation offloads"},
    {.type = PROP_END},
};

const struct device_class virtio_net_class = {
    .name = "virtio-net",
    .help = "network card",
    .flags = DEVICE_USER,
    .size = sizeof(struct virtio_net),
    .props = net_props,
    .state = &net_state,
    .realize = net_realize,
    .reset = net_reset,
    .quiesce = net_quiesce,
    .resume = net_resume,
    .unrealize = net_unrealize,
};
