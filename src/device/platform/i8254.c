/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 8254 interval timer, ports 0x40-0x43, and the system control port 0x61 that gates its channel 2. Channel 0
 * drives IRQ 0. Counting is not simulated: each channel remembers when it was loaded, and everything else is
 * computed from the time since then. Intel 8254 datasheet.
 */
#include "device/platform/i8254.h"

#include "base/util.h"
#include "core/device.h"

#define FREQUENCY        1193182u
#define NS_PER_SECOND    1000000000u
#define INTERRUPT_MIN_NS 50000u /* a guest cannot make us work more often than that */
#define REFRESH_NS       15085u /* half a period of the refresh signal in port 0x61 */

enum access { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_WORD };

struct channel {
    uint32_t count;     /* 1..0x10000 */
    uint64_t loaded_ns; /* machine time at which counting began */
    uint64_t held;      /* ticks counted when the gate closed (modes 0 and 4) */
    uint16_t latch;
    uint8_t status_latch;
    uint8_t latch_left; /* bytes of the latched count yet to be read */
    uint8_t mode, access;
    uint8_t write_low; /* first byte of a word being written */
    bool bcd, gate, status_latched, read_high, write_high;
    bool loaded; /* a count was written since the control word */
};

struct i8254 {
    struct device dev;
    struct channel ch[3];
    struct vm_timer timer;
    uint64_t deadline_ns; /* of channel 0's next rising edge; 0: none */
    uint64_t last_ns;     /* its last one */
    bool irq_taken;       /* by the HPET */
    uint8_t port61;       /* bits 0 and 1: gate of channel 2, speaker */
};

static const struct state_field channel_fields[] = {
    STATE_FIELD_U32(struct channel, count),       STATE_FIELD_U64(struct channel, loaded_ns),
    STATE_FIELD_U64(struct channel, held),        STATE_FIELD_U16(struct channel, latch),
    STATE_FIELD_U8(struct channel, status_latch), STATE_FIELD_U8(struct channel, latch_left),
    STATE_FIELD_U8(struct channel, mode),         STATE_FIELD_U8(struct channel, access),
    STATE_FIELD_U8(struct channel, write_low),    STATE_FIELD_BOOL(struct channel, bcd),
    STATE_FIELD_BOOL(struct channel, gate),       STATE_FIELD_BOOL(struct channel, status_latched),
    STATE_FIELD_BOOL(struct channel, read_high),  STATE_FIELD_BOOL(struct channel, write_high),
    STATE_FIELD_BOOL(struct channel, loaded),     STATE_FIELD_END,
};

static bool channel_post_load(void *object, struct error **err);
static bool i8254_post_load(void *object, struct error **err);

static const struct state_desc channel_state = {.name = "i8254-channel",
                                                .version = 1,
                                                .min_version = 1,
                                                .fields = channel_fields,
                                                .post_load = channel_post_load};

static const struct state_field i8254_fields[] = {
    STATE_FIELD_STRUCT(struct i8254, ch, 3, &channel_state),
    STATE_FIELD_U64(struct i8254, deadline_ns),
    STATE_FIELD_U64(struct i8254, last_ns),
    STATE_FIELD_BOOL(struct i8254, irq_taken),
    STATE_FIELD_U8(struct i8254, port61),
    STATE_FIELD_END,
};

static const struct state_desc i8254_state = {
    .name = "i8254", .version = 1, .min_version = 1, .fields = i8254_fields, .post_load = i8254_post_load};

static uint64_t ns_to_ticks(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * FREQUENCY / NS_PER_SECOND);
}

/* Rounded up, so that at that time the tick has come. */
static uint64_t ticks_to_ns(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * NS_PER_SECOND + FREQUENCY - 1) / FREQUENCY);
}

static uint64_t now_of(const struct i8254 *s)
{
    return vm_clock_now(&s->dev.machine->clock);
}

static bool is_one_shot(const struct channel *c)
{
    return c->mode == 0 || c->mode == 4;
}

/* Ticks counted since the channel was loaded. */
static uint64_t ticks_of(const struct channel *c, uint64_t now)
{
    if (is_one_shot(c) && !c->gate)
        return c->held;
    return now > c->loaded_ns ? ns_to_ticks(now - c->loaded_ns) : 0;
}

static bool output_of(const struct channel *c, uint64_t now)
{
    uint64_t d = ticks_of(c, now);
    switch (c->mode) {
    case 0:
    case 1:
        return c->loaded && d >= c->count;
    case 2: /* low for the last tick of each round */
        return !c->gate || !c->loaded || d % c->count != c->count - 1;
    case 3: /* high for the first half of each round, the longer one */
        return !c->gate || !c->loaded || d % c->count < (c->count + 1) / 2;
    default: /* low for one tick at the end */
        return !c->loaded || d != c->count;
    }
}

static uint16_t to_bcd(uint64_t v)
{
    v %= 10000;
    return (uint16_t)(v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10);
}

static uint32_t from_bcd(uint16_t v)
{
    return (v >> 12) * 1000u + (v >> 8 & 15) * 100u + (v >> 4 & 15) * 10u + (v & 15);
}

static uint16_t counter_of(const struct channel *c, uint64_t now)
{
    uint64_t d = ticks_of(c, now);
    uint64_t wrap = c->bcd ? 10000 : 0x10000;
    uint64_t v;
    if (c->mode == 2)
        v = c->count - d % c->count;
    else if (c->mode == 3) /* counts down by two */
        v = c->count - 2 * d % c->count;
    else
        v = (c->count + wrap - d % wrap) % wrap;
    return c->bcd ? to_bcd(v) : (uint16_t)v;
}

/* When channel 0's output rises next after `now`; 0 for never. */
static uint64_t next_edge(const struct i8254 *s, uint64_t now)
{
    const struct channel *c = &s->ch[0];
    uint64_t d = ticks_of(c, now), due;
    if (!c->loaded || c->mode == 1 || c->mode == 5)
        return 0; /* 1 and 5 wait for a rising gate, which channel 0 never sees */
    if (is_one_shot(c)) {
        due = c->mode == 0 ? c->count : c->count + 1u;
        if (d >= due)
            return 0;
    } else {
        due = (d / c->count + 1) * c->count;
    }
    uint64_t at = c->loaded_ns + ticks_to_ns(due);
    uint64_t earliest = s->last_ns + INTERRUPT_MIN_NS;
    return at < earliest ? earliest : at;
}

static void set_irq0(struct i8254 *s, bool level)
{
    if (!s->irq_taken)
        s->dev.machine->set_gsi(s->dev.machine, 0, level);
}

static void arm(struct i8254 *s, uint64_t now)
{
    s->deadline_ns = next_edge(s, now);
    if (s->deadline_ns)
        vm_timer_arm(&s->timer, s->deadline_ns);
    else
        vm_timer_cancel(&s->timer);
}

/* The falling edges in between interest nobody, so each round costs one timer: fall and rise at once. */
static void on_timer(void *opaque)
{
    struct i8254 *s = opaque;
    uint64_t now = now_of(s);
    set_irq0(s, false);
    set_irq0(s, true);
    s->last_ns = now;
    arm(s, MAX(now, s->deadline_ns));
}

static void load_count(struct i8254 *s, unsigned n, uint16_t v)
{
    struct channel *c = &s->ch[n];
    uint32_t count = c->bcd ? from_bcd(v) : v;
    c->count = count ? count : c->bcd ? 10000 : 0x10000;
    c->loaded_ns = now_of(s);
    c->held = 0;
    c->loaded = true;
    if (n == 0) {
        set_irq0(s, c->mode != 0);
        arm(s, c->loaded_ns);
    }
}

static void latch_count(struct i8254 *s, struct channel *c)
{
    if (c->latch_left)
        return; /* the first one stays until it is read */
    c->latch = counter_of(c, now_of(s));
    c->latch_left = c->access == ACCESS_WORD ? 2 : 1;
}

static void latch_status(struct i8254 *s, struct channel *c)
{
    if (c->status_latched)
        return;
    c->status_latch =
        (uint8_t)(output_of(c, now_of(s)) << 7 | !c->loaded << 6 | c->access << 4 | c->mode << 1 | c->bcd);
    c->status_latched = true;
}

static void read_back(struct i8254 *s, uint8_t v)
{
    for (unsigned n = 0; n < 3; n++) {
        if (!(v & BIT(n + 1)))
            continue;
        if (!(v & 0x20))
            latch_count(s, &s->ch[n]);
        if (!(v & 0x10))
            latch_status(s, &s->ch[n]);
    }
}

static void write_control(struct i8254 *s, uint8_t v)
{
    unsigned n = v >> 6;
    if (n == 3) {
        read_back(s, v);
        return;
    }
    struct channel *c = &s->ch[n];
    uint8_t access = v >> 4 & 3;
    if (access == ACCESS_LATCH) {
        latch_count(s, c);
        return;
    }
    uint8_t mode = v >> 1 & 7;
    c->mode = mode > 5 ? mode - 4 : mode; /* 6 and 7 are 2 and 3 */
    c->access = access;
    c->bcd = v & 1;
    c->loaded = c->read_high = c->write_high = c->status_latched = false;
    c->latch_left = 0;
    if (n == 0) {
        set_irq0(s, c->mode != 0);
        arm(s, now_of(s));
    }
}

static void write_count(struct i8254 *s, unsigned n, uint8_t v)
{
    struct channel *c = &s->ch[n];
    if (c->access == ACCESS_LOW) {
        load_count(s, n, v);
    } else if (c->access == ACCESS_HIGH) {
        load_count(s, n, (uint16_t)(v << 8));
    } else if (c->write_high) {
        c->write_high = false;
        load_count(s, n, (uint16_t)(v << 8 | c->write_low));
    } else {
        c->write_high = true;
        c->write_low = v;
    }
}

static uint8_t read_count(struct i8254 *s, struct channel *c)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status_latch;
    }
    uint16_t v = c->latch_left ? c->latch : counter_of(c, now_of(s));
    bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_WORD && c->read_high);
    if (c->access == ACCESS_WORD)
        c->read_high = !c->read_high;
    if (c->latch_left)
        c->latch_left--;
    return (uint8_t)(high ? v >> 8 : v);
}

static uint64_t i8254_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct i8254 *s = DEVICE_OF(struct i8254, dev);
    return offset < 3 ? read_count(s, &s->ch[offset]) : 0xff;
}

static void i8254_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8254 *s = DEVICE_OF(struct i8254, dev);
    if (offset < 3)
        write_count(s, (unsigned)offset, (uint8_t)value);
    else
        write_control(s, (uint8_t)value);
}

static void set_gate(struct i8254 *s, struct channel *c, bool gate)
{
    uint64_t now = now_of(s);
    if (gate == c->gate)
        return;
    if (is_one_shot(c)) {
        if (gate)
            c->loaded_ns = now - MIN(now, ticks_to_ns(c->held));
        else
            c->held = ticks_of(c, now);
    } else if (gate) {
        c->loaded_ns = now;
    }
    c->gate = gate;
}

static uint64_t port61_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct i8254 *s = DEVICE_OF(struct i8254, dev);
    uint64_t now = now_of(s);
    return s->port61 | (now / REFRESH_NS & 1) << 4 | (uint64_t)output_of(&s->ch[2], now) << 5;
}

static void port61_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8254 *s = DEVICE_OF(struct i8254, dev);
    s->port61 = value & 3;
    set_gate(s, &s->ch[2], value & 1);
}

void i8254_connect_irq(struct machine *m, bool connected)
{
    for (struct device *d = m->devices; d; d = d->next) {
        if (strcmp(d->cls->name, "i8254") != 0)
            continue;
        struct i8254 *s = DEVICE_OF(struct i8254, d);
        if (!connected)
            set_irq0(s, false);
        s->irq_taken = !connected;
    }
}

static void i8254_reset(struct device *dev)
{
    struct i8254 *s = DEVICE_OF(struct i8254, dev);
    for (unsigned n = 0; n < 3; n++)
        s->ch[n] = (struct channel){.count = 0x10000, .mode = 3, .access = ACCESS_WORD, .gate = n != 2};
    s->port61 = 0;
    s->irq_taken = false;
    s->last_ns = 0;
    arm(s, now_of(s));
}

static bool channel_post_load(void *object, struct error **err)
{
    struct channel *c = object;
    if (!c->count || c->count > 0x10000)
        c->count = 0x10000;
    if (c->mode > 5)
        c->mode = 3;
    c->access = c->access & 3 ? c->access & 3 : ACCESS_WORD;
    c->latch_left = MIN(c->latch_left, 2);
    return true;
}

static bool i8254_post_load(void *object, struct error **err)
{
    struct i8254 *s = object;
    s->port61 &= 3;
    s->ch[0].gate = s->ch[1].gate = true; /* wired so */
    if (s->deadline_ns)
        vm_timer_arm(&s->timer, s->deadline_ns);
    else
        vm_timer_cancel(&s->timer);
    return true;
}

static bool i8254_realize(struct device *dev, struct error **err)
{
    struct i8254 *s = DEVICE_OF(struct i8254, dev);
    vm_timer_init(&s->timer, &dev->machine->clock, on_timer, s);
    return true;
}

static void i8254_unrealize(struct device *dev)
{
    vm_timer_cancel(&DEVICE_OF(struct i8254, dev)->timer);
}

static const struct window_desc i8254_windows[] = {
    {WINDOW_PORT, "i8254", 0x40, 4, .read = i8254_read, .write = i8254_write, .max_access = 1},
    {WINDOW_PORT, "system control port B", 0x61, 1, .read = port61_read, .write = port61_write,
     .max_access = 1},
    {WINDOW_END},
};

const struct device_class i8254_class = {
    .name = "i8254",
    .help = "interval timer",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct i8254),
    .windows = i8254_windows,
    .state = &i8254_state,
    .realize = i8254_realize,
    .reset = i8254_reset,
    .unrealize = i8254_unrealize,
};
