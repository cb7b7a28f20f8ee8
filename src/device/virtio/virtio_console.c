/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-console with ports (virtio 1.2, section 5.3). Port 0 is the console (hvc0 in Linux); the others
 * carry a name and are character devices in the guest, such as the guest agent's org.qemu.guest_agent.0.
 *
 *     --device virtio-console,chardev=unix:PATH                          a console
 *     --device virtio-console,port1=org.qemu.guest_agent.0:unix:PATH     a named port, no console
 *
 * A program that finds its port closed on the host's side polls it, and what it writes waits for the next who
 * comes; with open=on it sleeps, and what nobody reads is gone.
 *
 * What is to be said to the driver about a port is kept as bits, not as messages, so that a driver that does
 * not listen costs nothing.
 */
#include <errno.h>
#include <linux/virtio_console.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/util.h"
#include "device/virtio/virtio.h"
#include "device/virtio/virtio_console.h"
#include "os/chardev.h"

#define PORT_MAX         8 /* the console and port1..port7 */
#define QUEUE_SIZE       128
#define CONTROL_RX       2
#define CONTROL_TX       3
#define INPUT_BYTES      4096 /* from the host, until the driver has a buffer */
#define ELEMENTS_PER_RUN 256
#define NAME_BYTES_MAX   128
#define BACKLOG_MAX      65536 /* of a named port's output: then its driver waits for the host's program */

/* What the driver has yet to be told, in this order. */
enum port_news { NEWS_ADD = 1, NEWS_CONSOLE = 2, NEWS_NAME = 4, NEWS_OPEN = 8 };

struct console_port {
    struct virtio_console *console;
    unsigned id;
    char *name;              /* owned; NULL: none */
    struct chardev *chardev; /* NULL: the port does not exist */
    bool host_open;          /* someone is at the other end */
    bool guest_open;
    uint8_t news;
    uint8_t input[INPUT_BYTES];
    uint16_t input_len;
};

struct virtio_console {
    struct virtio_device virtio;
    char *chardev;                 /* property */
    char *port_spec[PORT_MAX - 1]; /* properties port1.. */
    bool open;                     /* property */
    struct console_port port[PORT_MAX];
    unsigned port_count; /* highest id in use, plus 1 */
};

/* Ports 0, 1, 2... have queues 0/1, 4/5, 6/7... */
static unsigned rx_queue(unsigned port)
{
    return port ? 2 * port + 2 : 0;
}

static unsigned port_of_queue(unsigned queue)
{
    return queue < 2 ? 0 : (queue - 2) / 2;
}

static bool multiport(const struct virtio_console *c)
{
    return virtio_has(&c->virtio, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* --- data --- */

/* A console is always listened to; a driver without MULTIPORT knows of nothing else. */
static bool guest_listens(const struct console_port *p)
{
    return p->guest_open || p->id == 0;
}

/* The next element of a queue that waits for us; when there is none, the driver is asked to kick. */
static struct virtqueue_element *pop_or_ask(struct virtqueue *vq)
{
    struct virtqueue_element *e = virtqueue_pop(vq);
    return e || !virtqueue_enable_kicks(vq) ? e : virtqueue_pop(vq);
}

/* Moves input to the driver's buffers. */
static void give_input(struct console_port *p)
{
    struct virtqueue *vq = &p->console->virtio.vq[rx_queue(p->id)];
    size_t done = 0;
    struct virtqueue_element *e;
    while (done < p->input_len && guest_listens(p) && (e = pop_or_ask(vq))) {
        size_t n = iov_write(e->in, e->in_count, 0, p->input + done, p->input_len - done);
        virtqueue_push(e, (uint32_t)n);
        done += n;
    }
    if (!done)
        return;
    memmove(p->input, p->input + done, p->input_len - done);
    p->input_len = (uint16_t)(p->input_len - done);
    virtqueue_notify(vq);
}

static size_t port_can_receive(void *opaque)
{
    const struct console_port *p = opaque;
    return guest_listens(p) ? sizeof(p->input) - p->input_len : 0;
}

static void port_receive(void *opaque, const uint8_t *data, size_t len)
{
    struct console_port *p = opaque;
    size_t n = MIN(len, sizeof(p->input) - p->input_len);
    memcpy(p->input + p->input_len, data, n);
    p->input_len = (uint16_t)(p->input_len + n);
    give_input(p);
}

static void input_notify(struct console_port *p)
{
    give_input(p);
    if (p->chardev && p->input_len < sizeof(p->input))
        chardev_accept_input(p->chardev);
}

/* The console's driver may spin until its output is taken; a named port's sleeps. */
static bool output_waits(const struct console_port *p)
{
    return p->id && p->chardev && chardev_backlog(p->chardev) > BACKLOG_MAX;
}

static void output_notify(struct console_port *p, struct virtqueue *vq)
{
    struct virtqueue_element *e;
    unsigned n = 0;
    for (; n < ELEMENTS_PER_RUN && !output_waits(p) && (e = pop_or_ask(vq)); n++) {
        for (unsigned i = 0; p->chardev && i < e->out_count; i++)
            chardev_write(p->chardev, e->out[i].iov_base, e->out[i].iov_len);
        virtqueue_push(e, 0);
    }
    virtqueue_notify(vq);
    if (n == ELEMENTS_PER_RUN)
        virtio_kick(&p->console->virtio, vq->index);
}

static void port_drained(void *opaque)
{
    struct console_port *p = opaque;
    virtio_kick(&p->console->virtio, rx_queue(p->id) + 1);
}

/* --- control --- */

/* One message to the driver; false: it has no buffer now. */
static bool send_control(struct virtio_console *c, unsigned id, uint16_t event, uint16_t value,
                         const char *text)
{
    struct virtqueue_element *e = pop_or_ask(&c->virtio.vq[CONTROL_RX]);
    if (!e)
        return false;
    uint8_t message[sizeof(struct virtio_console_control) + NAME_BYTES_MAX];
    struct virtio_console_control head = {.id = id, .event = event, .value = value};
    size_t len = sizeof(head), text_len = text ? MIN(strlen(text), NAME_BYTES_MAX) : 0;
    memcpy(message, &head, len);
    if (text_len)
        memcpy(message + len, text, text_len);
    virtqueue_push(e, (uint32_t)iov_write(e->in, e->in_count, 0, message, len + text_len));
    return true;
}

static bool send_one(struct console_port *p, enum port_news news)
{
    struct virtio_console *c = p->console;
    switch (news) {
    case NEWS_ADD:
        return send_control(c, p->id, VIRTIO_CONSOLE_PORT_ADD, 1, NULL);
    case NEWS_CONSOLE:
        return send_control(c, p->id, VIRTIO_CONSOLE_CONSOLE_PORT, 1, NULL);
    case NEWS_NAME:
        return send_control(c, p->id, VIRTIO_CONSOLE_PORT_NAME, 1, p->name);
    case NEWS_OPEN:
        return send_control(c, p->id, VIRTIO_CONSOLE_PORT_OPEN, p->host_open, NULL);
    }
    return true;
}

static void send_news(struct virtio_console *c)
{
    static const enum port_news order[] = {NEWS_ADD, NEWS_CONSOLE, NEWS_NAME, NEWS_OPEN};
    bool room = true;
    for (unsigned i = 0; i < c->port_count; i++) {
        struct console_port *p = &c->port[i];
        for (unsigned k = 0; room && k < ARRAY_SIZE(order); k++) {
            if (!(p->news & order[k]))
                continue;
            room = send_one(p, order[k]);
            if (room)
                p->news &= (uint8_t)~order[k];
        }
    }
    virtqueue_notify(&c->virtio.vq[CONTROL_RX]);
}

static void port_connected(void *opaque, bool yes)
{
    struct console_port *p = opaque;
    if (p->id == 0)
        return; /* the console is always open */
    if (!p->console->open && p->host_open != yes) {
        p->host_open = yes;
        p->news |= NEWS_OPEN;
        if (multiport(p->console))
            send_news(p->console);
    }
    if (!yes)
        port_drained(p); /* what waited for the peer goes the way of what it no longer reads */
}

static void device_ready(struct virtio_console *c)
{
    for (unsigned i = 0; i < c->port_count; i++)
        if (c->port[i].chardev)
            c->port[i].news = NEWS_ADD;
}

static void handle_control(struct virtio_console *c, const struct virtio_console_control *m)
{
    if (m->event == VIRTIO_CONSOLE_DEVICE_READY) {
        if (m->value)
            device_ready(c);
        return;
    }
    if (m->id >= c->port_count || !c->port[m->id].chardev)
        return;
    struct console_port *p = &c->port[m->id];
    if (m->event == VIRTIO_CONSOLE_PORT_READY && m->value) {
        p->news |= (uint8_t)((p->id == 0 ? NEWS_CONSOLE : 0) | (p->name ? NEWS_NAME : 0) |
                             (p->host_open ? NEWS_OPEN : 0));
    } else if (m->event == VIRTIO_CONSOLE_PORT_OPEN) {
        p->guest_open = m->value != 0;
        input_notify(p);
    }
}

static void control_notify(struct virtio_console *c, struct virtqueue *vq)
{
    struct virtqueue_element *e;
    unsigned n = 0;
    for (; n < ELEMENTS_PER_RUN && (e = pop_or_ask(vq)); n++) {
        struct virtio_console_control m;
        bool whole = iov_read(e->out, e->out_count, 0, &m, sizeof(m)) == sizeof(m);
        virtqueue_push(e, 0);
        if (whole)
            handle_control(c, &m);
    }
    virtqueue_notify(vq);
    send_news(c);
    if (n == ELEMENTS_PER_RUN)
        virtio_kick(&c->virtio, vq->index);
}

static void console_notify(struct virtio_device *v, struct virtqueue *vq)
{
    struct virtio_console *c = DEVICE_OF(struct virtio_console, v);
    if (vq->index == CONTROL_RX)
        send_news(c);
    else if (vq->index == CONTROL_TX)
        control_notify(c, vq);
    else if (vq->index % 2)
        output_notify(&c->port[port_of_queue(vq->index)], vq);
    else
        input_notify(&c->port[port_of_queue(vq->index)]);
}

static void console_config(struct virtio_device *v, uint8_t *config)
{
    const struct virtio_console *c = DEVICE_OF(struct virtio_console, v);
    const struct virtio_console_config values = {.max_nr_ports = c->port_count};
    memcpy(config, &values, sizeof(values));
}

static bool console_driver_reset(struct virtio_device *v, bool wait)
{
    struct virtio_console *c = DEVICE_OF(struct virtio_console, v);
    for (unsigned i = 0; i < c->port_count; i++) {
        c->port[i].guest_open = false;
        c->port[i].news = 0;
    }
    return true;
}

static const struct virtio_class console_class = {
    .name = "virtio-console",
    .id = VIRTIO_ID_CONSOLE,
    .pci_class = 0x078000,
    .config_size = sizeof(struct virtio_console_config),
    .config_read = console_config,
    .queue_notify = console_notify,
    .reset = console_driver_reset,
};

/* --- life cycle --- */

static void close_ports(struct virtio_console *c)
{
    for (unsigned i = 0; i < PORT_MAX; i++) {
        struct console_port *p = &c->port[i];
        if (p->chardev)
            chardev_close(p->chardev);
        free(p->name);
        p->chardev = NULL;
        p->name = NULL;
    }
}

/* Opens port `id`; `name` is taken over. */
static bool open_port(struct virtio_console *c, unsigned id, char *name, const char *spec, struct error **err)
{
    struct console_port *p = &c->port[id];
    p->name = name;
    p->chardev = chardev_open(spec, c->virtio.pci.dev.machine->loop, err);
    if (!p->chardev)
        return false;
    p->host_open = id == 0 || c->open || strncmp(spec, "unix:", 5) != 0;
    c->port_count = id + 1;
    return true;
}

static bool open_ports(struct virtio_console *c, struct error **err)
{
    const char *id = c->virtio.pci.dev.id;
    bool named = false;
    for (unsigned i = 0; i < PORT_MAX; i++) {
        c->port[i].console = c;
        c->port[i].id = i;
        named = named || (i && c->port_spec[i - 1]);
    }
    if ((c->chardev || !named) && !open_port(c, 0, NULL, c->chardev ? c->chardev : "none", err))
        return false;
    for (unsigned i = 1; i < PORT_MAX; i++) {
        const char *spec = c->port_spec[i - 1];
        if (!spec)
            continue;
        const char *colon = strchr(spec, ':');
        if (!colon || colon == spec || !colon[1] || colon - spec > NAME_BYTES_MAX) {
            error_set(err, EINVAL, "%s: port%u=%s is not NAME:CHARDEV", id, i, spec);
            return false;
        }
        char *name = strndup(spec, (size_t)(colon - spec));
        if (!name) {
            error_set_errno(err, ENOMEM, "%s: cannot make port%u", id, i);
            return false;
        }
        if (!open_port(c, i, name, colon + 1, err))
            return false;
    }
    return true;
}

static bool console_realize(struct device *dev, struct error **err)
{
    struct virtio_console *c = DEVICE_OF(struct virtio_console, dev);
    if (!virtio_init(&c->virtio, &console_class, BIT(VIRTIO_CONSOLE_F_MULTIPORT), err))
        return false;
    if (!open_ports(c, err)) {
        close_ports(c);
        virtio_exit(&c->virtio);
        return false;
    }
    /* Port 0 has its queues even when it does not exist. */
    for (unsigned i = 0; i < 2 * (c->port_count + 1); i++)
        virtio_add_queue(&c->virtio, QUEUE_SIZE);
    virtio_ready(&c->virtio);
    for (unsigned i = 0; i < c->port_count; i++) {
        const struct chardev_client client = {
            .opaque = &c->port[i],
            .can_receive = port_can_receive,
            .receive = port_receive,
            .connected = port_connected,
            .drained = port_drained,
        };
        if (c->port[i].chardev)
            chardev_attach(c->port[i].chardev, &client);
    }
    return true;
}

static void console_reset(struct device *dev)
{
    struct virtio_console *c = DEVICE_OF(struct virtio_console, dev);
    virtio_device_reset(&c->virtio);
    for (unsigned i = 0; i < c->port_count; i++)
        c->port[i].input_len = 0;
}

static void console_quiesce(struct device *dev)
{
    virtio_quiesce(DEVICE_OF(struct virtio_device, dev));
}

static void console_resume(struct device *dev)
{
    virtio_resume(DEVICE_OF(struct virtio_device, dev));
}

static void console_unrealize(struct device *dev)
{
    struct virtio_console *c = DEVICE_OF(struct virtio_console, dev);
    close_ports(c);
    virtio_exit(&c->virtio);
}

bool virtio_console_guest_open(const struct device *dev, unsigned port)
{
    const struct virtio_console *c = (const struct virtio_console *)dev;
    return c->port[port].guest_open;
}

/* --- saved state --- */

static bool port_post_load(void *object, struct error **err)
{
    const struct console_port *p = object;
    if (p->input_len <= sizeof(p->input))
        return true;
    error_set(err, 0, "a console port of the saved machine holds too much input");
    return false;
}

static const struct state_field port_fields[] = {
    STATE_FIELD_BOOL(struct console_port, guest_open),
    STATE_FIELD_U8(struct console_port, news),
    STATE_FIELD_BYTES(struct console_port, input, INPUT_BYTES),
    STATE_FIELD_U16(struct console_port, input_len),
    STATE_FIELD_END,
};

static const struct state_desc port_state = {
    .name = "console-port",
    .version = 1,
    .min_version = 1,
    .fields = port_fields,
    .post_load = port_post_load,
};

/* Who is at the other end here may differ from who was there: the driver is told anew. */
static bool console_post_load(void *object, struct error **err)
{
    struct virtio_console *c = object;
    virtio_loaded(&c->virtio);
    for (unsigned i = 1; i < c->port_count; i++)
        if (c->port[i].chardev && !(c->port[i].news & NEWS_ADD))
            c->port[i].news |= NEWS_OPEN;
    return true;
}

static const struct state_field console_fields[] = {
    STATE_FIELD_STRUCT(struct virtio_console, virtio, 1, &virtio_device_state),
    STATE_FIELD_STRUCT(struct virtio_console, port, PORT_MAX, &port_state),
    STATE_FIELD_END,
};

static const struct state_desc console_state = {
    .name = "virtio-console",
    .version = 1,
    .min_version = 1,
    .fields = console_fields,
    .post_load = console_post_load,
};

#define PORT_PROP(n)                                                                                         \
    {                                                                                                        \
        .name = "port" #n, .type = PROP_STRING, .offset = offsetof(struct virtio_console, port_spec[(n)-1]), \
        .help = "a named port, as NAME:none|stdio|file:PATH|unix:PATH"                                       \
    }

static const struct prop console_props[] = {
    VIRTIO_PROPS,
    {.name = "chardev",
     .type = PROP_STRING,
     .offset = offsetof(struct virtio_console, chardev),
     .help = "what the console talks to: none, stdio, file:PATH, unix:PATH"},
    {.name = "open",
     .type = PROP_BOOL,
     .offset = offsetof(struct virtio_console, open),
     .help = "named ports look open to the guest even while nobody is at the other end"},
    PORT_PROP(1),
    PORT_PROP(2),
    PORT_PROP(3),
    PORT_PROP(4),
    PORT_PROP(5),
    PORT_PROP(6),
    PORT_PROP(7),
    {.type = PROP_END},
};

const struct device_class virtio_console_class = {
    .name = "virtio-console",
    .help = "console and named ports to programs of the host",
    .flags = DEVICE_USER,
    .size = sizeof(struct virtio_console),
    .props = console_props,
    .state = &console_state,
    .realize = console_realize,
    .reset = console_reset,
    .quiesce = console_quiesce,
    .resume = console_resume,
    .unrealize = console_unrealize,
};
