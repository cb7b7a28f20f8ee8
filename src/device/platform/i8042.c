/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 8042 keyboard controller at ports 0x60 and 0x64, with a keyboard and a mouse that answer all commands and
 * never send anything of their own accord. IRQ 1 and IRQ 12 are high while their byte waits in the output
 * buffer. IBM PS/2 Hardware Interface Technical Reference.
 */
#include "base/util.h"
#include "core/device.h"

#define QUEUE_SIZE 32

#define STATUS_FULL     0x01 /* output buffer */
#define STATUS_SYSTEM   0x04
#define STATUS_COMMAND  0x08
#define STATUS_UNLOCKED 0x10
#define STATUS_MOUSE    0x20 /* the byte in the output buffer is the mouse's */

#define MODE_KBD_IRQ   0x01
#define MODE_MOUSE_IRQ 0x02
#define MODE_SYSTEM    0x04
#define MODE_NO_KBD    0x10
#define MODE_NO_MOUSE  0x20

#define OUTPUT_RESET 0x01 /* output port: low resets the processor */
#define OUTPUT_A20   0x02

#define REPLY_ACK    0xfa
#define REPLY_RESEND 0xfe
#define REPLY_OK     0xaa /* self test of a keyboard or mouse passed */

enum source { FROM_KBD, FROM_MOUSE, SOURCES };

/* Bytes on their way to the guest. */
struct queue {
    uint8_t data[QUEUE_SIZE];
    uint8_t start, len;
};

struct i8042 {
    struct device dev;
    struct queue queue[SOURCES];
    uint8_t mode, output_port;
    uint8_t command; /* controller command that waits for its byte at port 0x60; 0: none */
    bool command_last;
    bool full, from_mouse;
    uint8_t out; /* output buffer */
    uint8_t ram[32];
    uint8_t kbd_command, mouse_command; /* device command that waits for its argument; 0: none */
    uint8_t kbd_scancode_set;
    uint8_t mouse_status, mouse_rate, mouse_resolution;
    bool mouse_wrap;
};

static bool queue_post_load(void *object, struct error **err);

static const struct state_field queue_fields[] = {
    STATE_FIELD_U8_ARRAY(struct queue, data, QUEUE_SIZE),
    STATE_FIELD_U8(struct queue, start),
    STATE_FIELD_U8(struct queue, len),
    STATE_FIELD_END,
};

static const struct state_desc queue_state = {.name = "i8042-queue",
                                              .version = 1,
                                              .min_version = 1,
                                              .fields = queue_fields,
                                              .post_load = queue_post_load};

static const struct state_field i8042_fields[] = {
    STATE_FIELD_STRUCT(struct i8042, queue, SOURCES, &queue_state),
    STATE_FIELD_U8(struct i8042, mode),
    STATE_FIELD_U8(struct i8042, output_port),
    STATE_FIELD_U8(struct i8042, command),
    STATE_FIELD_BOOL(struct i8042, command_last),
    STATE_FIELD_BOOL(struct i8042, full),
    STATE_FIELD_BOOL(struct i8042, from_mouse),
    STATE_FIELD_U8(struct i8042, out),
    STATE_FIELD_U8_ARRAY(struct i8042, ram, 32),
    STATE_FIELD_U8(struct i8042, kbd_command),
    STATE_FIELD_U8(struct i8042, mouse_command),
    STATE_FIELD_U8(struct i8042, kbd_scancode_set),
    STATE_FIELD_U8(struct i8042, mouse_status),
    STATE_FIELD_U8(struct i8042, mouse_rate),
    STATE_FIELD_U8(struct i8042, mouse_resolution),
    STATE_FIELD_BOOL(struct i8042, mouse_wrap),
    STATE_FIELD_END,
};

static const struct state_desc i8042_state = {
    .name = "i8042", .version = 1, .min_version = 1, .fields = i8042_fields};

/* The output buffer. */

static bool queue_post_load(void *object, struct error **err)
{
    struct queue *q = object;
    q->start %= QUEUE_SIZE;
    q->len = MIN(q->len, QUEUE_SIZE);
    return true;
}

static void update_irqs(struct i8042 *s)
{
    struct machine *m = s->dev.machine;
    m->set_gsi(m, 1, s->full && !s->from_mouse && (s->mode & MODE_KBD_IRQ));
    m->set_gsi(m, 12, s->full && s->from_mouse && (s->mode & MODE_MOUSE_IRQ));
}

/* Fills the output buffer with the next byte of a source that may send. */
static void refill(struct i8042 *s)
{
    const bool open[SOURCES] = {!(s->mode & MODE_NO_KBD), !(s->mode & MODE_NO_MOUSE)};
    for (unsigned i = 0; i < SOURCES && !s->full; i++) {
        struct queue *q = &s->queue[i];
        if (!q->len || !open[i])
            continue;
        s->out = q->data[q->start];
        q->start = (q->start + 1) % QUEUE_SIZE;
        q->len--;
        s->from_mouse = i == FROM_MOUSE;
        s->full = true;
    }
    update_irqs(s);
}

/* What does not fit is lost, as with the real one. */
static void put(struct i8042 *s, enum source source, uint8_t byte)
{
    struct queue *q = &s->queue[source];
    if (q->len < QUEUE_SIZE)
        q->data[(q->start + q->len++) % QUEUE_SIZE] = byte;
}

static void flush(struct i8042 *s, enum source source)
{
    s->queue[source].start = s->queue[source].len = 0;
}

/* A controller command's answer replaces what waits in the buffer: it is what the driver reads next. */
static void answer(struct i8042 *s, uint8_t byte, bool as_mouse)
{
    s->out = byte;
    s->from_mouse = as_mouse;
    s->full = true;
    update_irqs(s);
}

/* The keyboard. */

static void kbd_defaults(struct i8042 *s)
{
    s->kbd_command = 0;
    s->kbd_scancode_set = 2;
}

static void kbd_argument(struct i8042 *s, uint8_t command, uint8_t v)
{
    put(s, FROM_KBD, REPLY_ACK);
    if (command != 0xf0)
        return; /* LEDs, typematic rate */
    if (v == 0)
        put(s, FROM_KBD, s->kbd_scancode_set);
    else if (v <= 3)
        s->kbd_scancode_set = v;
}

static void kbd_write(struct i8042 *s, uint8_t v)
{
    uint8_t command = s->kbd_command;
    s->kbd_command = 0;
    if (command) {
        kbd_argument(s, command, v);
        return;
    }
    switch (v) {
    case 0xed: /* LEDs */
    case 0xf0: /* scan code set */
    case 0xf3: /* typematic rate */
        s->kbd_command = v;
        put(s, FROM_KBD, REPLY_ACK);
        break;
    case 0xee: /* echo */
        put(s, FROM_KBD, v);
        break;
    case 0xf2: /* identify */
        put(s, FROM_KBD, REPLY_ACK);
        put(s, FROM_KBD, 0xab);
        put(s, FROM_KBD, 0x83);
        break;
    case 0xf4: /* enable; disable with defaults; defaults */
    case 0xf5:
    case 0xf6:
        if (v != 0xf4)
            kbd_defaults(s);
        put(s, FROM_KBD, REPLY_ACK);
        break;
    case 0xff: /* reset */
        flush(s, FROM_KBD);
        kbd_defaults(s);
        put(s, FROM_KBD, REPLY_ACK);
        put(s, FROM_KBD, REPLY_OK);
        break;
    default:
        put(s, FROM_KBD, REPLY_RESEND);
        break;
    }
}

/* The mouse: a plain three-button PS/2 mouse. */

static void mouse_defaults(struct i8042 *s)
{
    s->mouse_command = 0;
    s->mouse_status = 0;
    s->mouse_rate = 100;
    s->mouse_resolution = 2;
    s->mouse_wrap = false;
}

static void mouse_report(struct i8042 *s, uint8_t a, uint8_t b, uint8_t c)
{
    put(s, FROM_MOUSE, a);
    put(s, FROM_MOUSE, b);
    put(s, FROM_MOUSE, c);
}

static void mouse_command(struct i8042 *s, uint8_t v)
{
    put(s, FROM_MOUSE, REPLY_ACK);
    switch (v) {
    case 0xe6: /* scaling 1:1, 2:1 */
    case 0xe7:
        s->mouse_status = v == 0xe7 ? s->mouse_status | 0x10 : s->mouse_status & (uint8_t)~0x10;
        break;
    case 0xe8: /* resolution, sample rate: with an argument */
    case 0xf3:
        s->mouse_command = v;
        break;
    case 0xe9: /* status */
        mouse_report(s, s->mouse_status, s->mouse_resolution, s->mouse_rate);
        break;
    case 0xea: /* stream mode, remote mode */
    case 0xf0:
        s->mouse_status = v == 0xf0 ? s->mouse_status | 0x40 : s->mouse_status & (uint8_t)~0x40;
        break;
    case 0xeb: /* read data: it has not moved */
        mouse_report(s, 0x08, 0, 0);
        break;
    case 0xee: /* wrap mode */
        s->mouse_wrap = true;
        break;
    case 0xf2: /* identify */
        put(s, FROM_MOUSE, 0);
        break;
    case 0xf4: /* enable, disable */
    case 0xf5:
        s->mouse_status = v == 0xf4 ? s->mouse_status | 0x20 : s->mouse_status & (uint8_t)~0x20;
        break;
    case 0xf6:
        mouse_defaults(s);
        break;
    default:
        break;
    }
}

static void mouse_write(struct i8042 *s, uint8_t v)
{
    uint8_t command = s->mouse_command;
    s->mouse_command = 0;
    if (command) {
        if (command == 0xf3)
            s->mouse_rate = v;
        else
            s->mouse_resolution = v & 3;
        put(s, FROM_MOUSE, REPLY_ACK);
    } else if (v == 0xff) { /* reset */
        flush(s, FROM_MOUSE);
        mouse_defaults(s);
        mouse_report(s, REPLY_ACK, REPLY_OK, 0);
    } else if (s->mouse_wrap && v != 0xec) {
        put(s, FROM_MOUSE, v);
    } else if (v == 0xec) {
        s->mouse_wrap = false;
        put(s, FROM_MOUSE, REPLY_ACK);
    } else {
        mouse_command(s, v);
    }
}

/* The controller. */

static void write_output_port(struct i8042 *s, uint8_t v)
{
    s->output_port = v | OUTPUT_RESET;
    if (!(v & OUTPUT_RESET))
        s->dev.machine->event(s->dev.machine, MACHINE_RESET, 0);
}

static uint8_t read_output_port(const struct i8042 *s)
{
    uint8_t full = s->full ? (s->from_mouse ? 0x20 : 0x10) : 0;
    return (s->output_port & (uint8_t)~0x30) | full;
}

static void self_test(struct i8042 *s)
{
    s->mode =
        (s->mode | MODE_SYSTEM | MODE_NO_KBD | MODE_NO_MOUSE) & (uint8_t) ~(MODE_KBD_IRQ | MODE_MOUSE_IRQ);
    answer(s, 0x55, false);
}

static void set_mode(struct i8042 *s, uint8_t mode)
{
    s->mode = mode;
    refill(s);
}

static void controller_command(struct i8042 *s, uint8_t v)
{
    s->command = 0;
    if (v >= 0x20 && v < 0x40) {
        answer(s, v == 0x20 ? s->mode : s->ram[v & 31], false);
    } else if ((v >= 0x60 && v < 0x80) || (v >= 0xd1 && v <= 0xd4)) {
        s->command = v; /* the byte follows at port 0x60 */
    } else if (v >= 0xf0) {
        if (!(v & 1)) /* pulses the output port's low bits: bit 0 is the reset line */
            s->dev.machine->event(s->dev.machine, MACHINE_RESET, 0);
    } else {
        switch (v) {
        case 0xa7:
            set_mode(s, s->mode | MODE_NO_MOUSE);
            break;
        case 0xa8:
            set_mode(s, s->mode & (uint8_t)~MODE_NO_MOUSE);
            break;
        case 0xa9: /* interface tests: no fault */
        case 0xab:
            answer(s, 0, false);
            break;
        case 0xaa:
            self_test(s);
            break;
        case 0xad:
            set_mode(s, s->mode | MODE_NO_KBD);
            break;
        case 0xae:
            set_mode(s, s->mode & (uint8_t)~MODE_NO_KBD);
            break;
        case 0xc0: /* input port: keyboard not locked */
            answer(s, 0x80, false);
            break;
        case 0xd0:
            answer(s, read_output_port(s), false);
            break;
        case 0xdd: /* A20 off, on */
        case 0xdf:
            s->output_port = v == 0xdf ? s->output_port | OUTPUT_A20 : s->output_port & (uint8_t)~OUTPUT_A20;
            break;
        default:
            break;
        }
    }
}

static void data_write(struct i8042 *s, uint8_t v)
{
    uint8_t command = s->command;
    s->command = 0;
    if (command >= 0x60 && command < 0x80) {
        s->ram[command & 31] = v;
        if (command == 0x60)
            set_mode(s, v);
        return;
    }
    switch (command) {
    case 0xd1:
        write_output_port(s, v);
        break;
    case 0xd2: /* as if the keyboard, as if the mouse had sent it */
        answer(s, v, false);
        break;
    case 0xd3:
        answer(s, v, true);
        break;
    case 0xd4:
        s->mode &= (uint8_t)~MODE_NO_MOUSE;
        mouse_write(s, v);
        refill(s);
        break;
    default:
        s->mode &= (uint8_t)~MODE_NO_KBD;
        kbd_write(s, v);
        refill(s);
        break;
    }
}

static uint64_t data_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct i8042 *s = DEVICE_OF(struct i8042, dev);
    uint8_t v = s->out;
    s->full = false;
    update_irqs(s); /* down before the next byte: each one is an edge */
    refill(s);
    return v;
}

static uint64_t status_read(struct device *dev, uint64_t offset, unsigned size)
{
    const struct i8042 *s = DEVICE_OF(struct i8042, dev);
    return STATUS_UNLOCKED | (s->full ? STATUS_FULL : 0) | (s->full && s->from_mouse ? STATUS_MOUSE : 0) |
           (s->mode & MODE_SYSTEM ? STATUS_SYSTEM : 0) | (s->command_last ? STATUS_COMMAND : 0);
}

static void port60_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *s = DEVICE_OF(struct i8042, dev);
    s->command_last = false;
    data_write(s, (uint8_t)value);
}

static void port64_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *s = DEVICE_OF(struct i8042, dev);
    s->command_last = true;
    controller_command(s, (uint8_t)value);
}

static void i8042_reset(struct device *dev)
{
    struct i8042 *s = DEVICE_OF(struct i8042, dev);
    for (unsigned i = 0; i < SOURCES; i++)
        s->queue[i] = (struct queue){0};
    memset(s->ram, 0, sizeof(s->ram));
    s->mode = MODE_KBD_IRQ | MODE_MOUSE_IRQ | MODE_SYSTEM;
    s->output_port = 0xcc | OUTPUT_RESET | OUTPUT_A20;
    s->command = s->out = 0;
    s->command_last = true;
    s->full = s->from_mouse = false;
    kbd_defaults(s);
    mouse_defaults(s);
    update_irqs(s);
}

static const struct window_desc i8042_windows[] = {
    {WINDOW_PORT, "i8042 data", 0x60, 1, .read = data_read, .write = port60_write, .max_access = 1},
    {WINDOW_PORT, "i8042 command", 0x64, 1, .read = status_read, .write = port64_write, .max_access = 1},
    {WINDOW_END},
};

const struct device_class i8042_class = {
    .name = "i8042",
    .help = "keyboard controller",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct i8042),
    .windows = i8042_windows,
    .state = &i8042_state,
    .reset = i8042_reset,
};
