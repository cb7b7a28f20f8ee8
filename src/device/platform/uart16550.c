/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 16550A serial port. Bytes go out at once whatever the baud rate, so the transmitter is always empty; they
 * come in as the receiver has room. A byte below the trigger level counts as timed out at once: drivers then
 * fetch all there is. National Semiconductor PC16550D datasheet.
 */
#include "base/error.h"
#include "base/util.h"
#include "core/device.h"
#include "os/chardev.h"

#define FIFO_SIZE 16

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCRATCH };

#define IER_RX     0x01
#define IER_TX     0x02
#define IER_LINE   0x04
#define IER_MODEM  0x08
#define IIR_NONE   0x01
#define IIR_MODEM  0x00
#define IIR_TX     0x02
#define IIR_RX     0x04
#define IIR_LINE   0x06
#define IIR_RX_OLD 0x0c /* character timeout */
#define IIR_FIFO   0xc0
#define FCR_ENABLE 0x01
#define FCR_CLEAR  0x02 /* the receiver's FIFO */
#define LCR_DLAB   0x80
#define MCR_DTR    0x01
#define MCR_RTS    0x02
#define MCR_OUT1   0x04
#define MCR_OUT2   0x08
#define MCR_LOOP   0x10
#define LSR_DR     0x01
#define LSR_OE     0x02
#define LSR_ERRORS 0x1e
#define LSR_EMPTY  0x60 /* transmitter holding and shift registers */
#define MSR_CTS    0x10
#define MSR_DSR    0x20
#define MSR_RI     0x40
#define MSR_DCD    0x80

struct uart16550 {
    struct device dev;
    uint64_t com;       /* property: 1..4 */
    char *chardev_spec; /* property */
    char *log;          /* property; NULL: none */
    struct chardev *chardev;
    unsigned irq;

    uint16_t divisor;
    uint8_t ier, fcr, lcr, mcr, lsr, msr, scratch;
    bool tx_pending; /* the "transmitter empty" interrupt has not been answered yet */
    uint8_t fifo[FIFO_SIZE];
    uint8_t fifo_start, fifo_len;
};

static bool uart_post_load(void *object, struct error **err);

static const struct state_field uart_fields[] = {
    STATE_FIELD_U16(struct uart16550, divisor),
    STATE_FIELD_U8(struct uart16550, ier),
    STATE_FIELD_U8(struct uart16550, fcr),
    STATE_FIELD_U8(struct uart16550, lcr),
    STATE_FIELD_U8(struct uart16550, mcr),
    STATE_FIELD_U8(struct uart16550, lsr),
    STATE_FIELD_U8(struct uart16550, msr),
    STATE_FIELD_U8(struct uart16550, scratch),
    STATE_FIELD_BOOL(struct uart16550, tx_pending),
    STATE_FIELD_U8_ARRAY(struct uart16550, fifo, FIFO_SIZE),
    STATE_FIELD_U8(struct uart16550, fifo_start),
    STATE_FIELD_U8(struct uart16550, fifo_len),
    STATE_FIELD_END,
};

static const struct state_desc uart_state = {
    .name = "uart16550", .version = 1, .min_version = 1, .fields = uart_fields, .post_load = uart_post_load};

static bool has_fifo(const struct uart16550 *s)
{
    return s->fcr & FCR_ENABLE;
}

static unsigned capacity(const struct uart16550 *s)
{
    return has_fifo(s) ? FIFO_SIZE : 1;
}

static unsigned trigger_level(const struct uart16550 *s)
{
    static const uint8_t levels[] = {1, 4, 8, 14};
    return has_fifo(s) ? levels[s->fcr >> 6] : 1;
}

/* The most urgent interrupt, as IIR shows it (without the FIFO bits). */
static uint8_t pending(const struct uart16550 *s)
{
    if ((s->ier & IER_LINE) && (s->lsr & LSR_ERRORS))
        return IIR_LINE;
    if ((s->ier & IER_RX) && s->fifo_len)
        return s->fifo_len >= trigger_level(s) ? IIR_RX : IIR_RX_OLD;
    if ((s->ier & IER_TX) && s->tx_pending)
        return IIR_TX;
    if ((s->ier & IER_MODEM) && (s->msr & 0x0f))
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct uart16550 *s)
{
    s->dev.machine->set_gsi(s->dev.machine, s->irq, pending(s) != IIR_NONE);
}

static void clear_fifo(struct uart16550 *s)
{
    s->fifo_start = s->fifo_len = 0;
    s->lsr &= (uint8_t)~LSR_DR;
}

static void push(struct uart16550 *s, uint8_t byte)
{
    if (s->fifo_len >= capacity(s)) {
        s->lsr |= LSR_OE;
        return;
    }
    s->fifo[(s->fifo_start + s->fifo_len++) % FIFO_SIZE] = byte;
    s->lsr |= LSR_DR;
}

static uint8_t pop(struct uart16550 *s)
{
    uint8_t byte = s->fifo[s->fifo_start];
    if (!s->fifo_len)
        return byte;
    s->fifo_start = (s->fifo_start + 1) % FIFO_SIZE;
    if (!--s->fifo_len)
        s->lsr &= (uint8_t)~LSR_DR;
    return byte;
}

/* The back end. */

static size_t can_receive(void *opaque)
{
    const struct uart16550 *s = opaque;
    unsigned most = capacity(s);
    return (s->mcr & MCR_LOOP) || s->fifo_len >= most ? 0 : most - s->fifo_len;
}

static void receive(void *opaque, const uint8_t *data, size_t len)
{
    struct uart16550 *s = opaque;
    for (size_t i = 0; i < len; i++)
        push(s, data[i]);
    update_irq(s);
}

static void more_room(struct uart16550 *s)
{
    if (can_receive(s))
        chardev_accept_input(s->chardev);
}

/* The guest's side. */

/* The modem lines: a peer that is always ready, or our own outputs when looped back. Changes set the delta
 * bits. */
static void update_modem(struct uart16550 *s)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD;
    if (s->mcr & MCR_LOOP)
        lines = (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
    uint8_t changed = (s->msr ^ lines) >> 4;
    if (lines & MSR_RI)
        changed &= 0x0b; /* the ring indicator reports only its falling edge */
    s->msr = lines | (s->msr & 0x0f) | changed;
}

static void write_data(struct uart16550 *s, uint8_t v)
{
    if (s->mcr & MCR_LOOP)
        push(s, v);
    else
        chardev_write(s->chardev, &v, 1);
    s->tx_pending = true; /* sent, and empty again */
}

static void write_ier(struct uart16550 *s, uint8_t v)
{
    v &= 0x0f;
    /* Enabling it while the transmitter is empty interrupts, even if IIR had been read before: drivers test
     * for that. */
    if ((v ^ s->ier) & IER_TX)
        s->tx_pending = v & IER_TX;
    s->ier = v;
}

static void write_fcr(struct uart16550 *s, uint8_t v)
{
    if ((v ^ s->fcr) & FCR_ENABLE || v & FCR_CLEAR)
        clear_fifo(s);
    s->fcr = v & FCR_ENABLE ? v & 0xc9 : 0;
}

static void uart_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct uart16550 *s = DEVICE_OF(struct uart16550, dev);
    uint8_t v = (uint8_t)value;
    bool dlab = s->lcr & LCR_DLAB;
    switch (offset) {
    case REG_DATA:
        if (dlab)
            s->divisor = (s->divisor & 0xff00) | v;
        else
            write_data(s, v);
        break;
    case REG_IER:
        if (dlab)
            s->divisor = (uint16_t)((s->divisor & 0x00ff) | v << 8);
        else
            write_ier(s, v);
        break;
    case REG_IIR_FCR:
        write_fcr(s, v);
        break;
    case REG_LCR:
        s->lcr = v;
        break;
    case REG_MCR:
        s->mcr = v & 0x1f;
        update_modem(s);
        break;
    case REG_SCRATCH:
        s->scratch = v;
        break;
    default:
        break;
    }
    update_irq(s);
    more_room(s);
}

static uint8_t read_iir(struct uart16550 *s)
{
    uint8_t v = pending(s);
    if (v == IIR_TX)
        s->tx_pending = false;
    return v | (has_fifo(s) ? IIR_FIFO : 0);
}

static uint8_t read_reg(struct uart16550 *s, uint64_t offset)
{
    bool dlab = s->lcr & LCR_DLAB;
    uint8_t v = 0;
    switch (offset) {
    case REG_DATA:
        return dlab ? (uint8_t)s->divisor : pop(s);
    case REG_IER:
        return dlab ? (uint8_t)(s->divisor >> 8) : s->ier;
    case REG_IIR_FCR:
        return read_iir(s);
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        v = s->lsr;
        s->lsr &= (uint8_t)~LSR_ERRORS;
        return v;
    case REG_MSR:
        v = s->msr;
        s->msr &= 0xf0;
        return v;
    default:
        return s->scratch;
    }
}

static uint64_t uart_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct uart16550 *s = DEVICE_OF(struct uart16550, dev);
    uint8_t v = read_reg(s, offset);
    update_irq(s);
    if (offset == REG_DATA)
        more_room(s);
    return v;
}

/* Life cycle. */

static void uart_reset(struct device *dev)
{
    struct uart16550 *s = DEVICE_OF(struct uart16550, dev);
    s->divisor = 12; /* 9600 baud */
    s->ier = s->fcr = s->lcr = s->scratch = 0;
    s->mcr = MCR_OUT2;
    s->lsr = LSR_EMPTY;
    s->msr = MSR_CTS | MSR_DSR | MSR_DCD;
    s->tx_pending = false;
    memset(s->fifo, 0, sizeof(s->fifo));
    clear_fifo(s);
    update_irq(s);
    chardev_accept_input(s->chardev);
}

static bool uart_post_load(void *object, struct error **err)
{
    struct uart16550 *s = object;
    s->fcr &= s->fcr & FCR_ENABLE ? 0xc9 : 0;
    s->fifo_start %= FIFO_SIZE;
    s->fifo_len = (uint8_t)MIN(s->fifo_len, capacity(s));
    s->lsr = (s->lsr & LSR_ERRORS) | LSR_EMPTY | (s->fifo_len ? LSR_DR : 0);
    chardev_accept_input(s->chardev);
    return true;
}

static bool uart_realize(struct device *dev, struct error **err)
{
    static const uint16_t ports[] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
    struct uart16550 *s = DEVICE_OF(struct uart16550, dev);
    struct window_desc window = {WINDOW_PORT,       "uart16550",         ports[s->com - 1], 8,
                                 .read = uart_read, .write = uart_write, .max_access = 1};
    s->irq = s->com % 2 ? 4 : 3;
    if (!device_map_window(dev, &window, err))
        return false;
    s->chardev = chardev_open(s->chardev_spec, dev->machine->loop, err);
    if (!s->chardev)
        return false;
    if (s->log && !chardev_log(s->chardev, s->log, err)) {
        chardev_close(s->chardev);
        return false;
    }
    struct chardev_client client = {.opaque = s, .can_receive = can_receive, .receive = receive};
    chardev_attach(s->chardev, &client);
    return true;
}

static void uart_unrealize(struct device *dev)
{
    chardev_close(DEVICE_OF(struct uart16550, dev)->chardev);
}

static const struct prop uart_props[] = {
    {"com", PROP_UINT, offsetof(struct uart16550, com), "1", 1, 4, "port number, as in COM1"},
    {"chardev", PROP_STRING, offsetof(struct uart16550, chardev_spec), "none",
     .help = "where the bytes go: none, stdio, fd:N, file:PATH, unix:PATH"},
    {"log", PROP_STRING, offsetof(struct uart16550, log), .help = "file that keeps the end of the output"},
    {.type = PROP_END},
};

const struct device_class uart16550_class = {
    .name = "uart16550",
    .help = "16550A serial port",
    .flags = DEVICE_USER,
    .size = sizeof(struct uart16550),
    .props = uart_props,
    .state = &uart_state,
    .realize = uart_realize,
    .reset = uart_reset,
    .unrealize = uart_unrealize,
};
