/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two cascaded 8259A interrupt controllers (ports 0x20 and 0xA0) with the edge/level registers of the chipset
 * (ELCR, ports 0x4D0 and 0x4D1). Intel 8259A datasheet; ICH9 datasheet section 5.8.
 */
#include "device/platform/i8259.h"

#include "base/util.h"
#include "core/device.h"

#define CASCADE 2

enum init_step { INIT_DONE, INIT_ICW2, INIT_ICW3, INIT_ICW4, INIT_STEPS };

struct chip {
    uint8_t irr, imr, isr;
    uint8_t lines; /* levels of the inputs, for finding edges */
    uint8_t elcr;  /* 1: level-triggered */
    uint8_t base;  /* vector of input 0 */
    uint8_t top;   /* the input with the highest priority, 0..7 */
    uint8_t init;  /* enum init_step: which command word comes next */
    bool icw4_follows, single;
    bool read_isr, poll, special_mask, auto_eoi, rotate_on_aeoi, fully_nested;
};

struct i8259 {
    struct device dev;
    struct chip chip[2]; /* the master, the slave */
    bool output;         /* level of INTR as last told */
    void (*intr)(void *opaque, bool level);
    void *opaque;
};

static const uint8_t elcr_writable[2] = {0xf8, 0xde};

static const struct state_field chip_fields[] = {
    STATE_FIELD_U8(struct chip, irr),
    STATE_FIELD_U8(struct chip, imr),
    STATE_FIELD_U8(struct chip, isr),
    STATE_FIELD_U8(struct chip, lines),
    STATE_FIELD_U8(struct chip, elcr),
    STATE_FIELD_U8(struct chip, base),
    STATE_FIELD_U8(struct chip, top),
    STATE_FIELD_U8(struct chip, init),
    STATE_FIELD_BOOL(struct chip, icw4_follows),
    STATE_FIELD_BOOL(struct chip, single),
    STATE_FIELD_BOOL(struct chip, read_isr),
    STATE_FIELD_BOOL(struct chip, poll),
    STATE_FIELD_BOOL(struct chip, special_mask),
    STATE_FIELD_BOOL(struct chip, auto_eoi),
    STATE_FIELD_BOOL(struct chip, rotate_on_aeoi),
    STATE_FIELD_BOOL(struct chip, fully_nested),
    STATE_FIELD_END,
};

static bool chip_post_load(void *object, struct error **err);
static bool i8259_post_load(void *object, struct error **err);

static const struct state_desc chip_state = {
    .name = "i8259-chip", .version = 1, .min_version = 1, .fields = chip_fields, .post_load = chip_post_load};

static const struct state_field i8259_fields[] = {
    STATE_FIELD_STRUCT(struct i8259, chip, 2, &chip_state),
    STATE_FIELD_END,
};

static const struct state_desc i8259_state = {
    .name = "i8259", .version = 1, .min_version = 1, .fields = i8259_fields, .post_load = i8259_post_load};

/* How far below the top the most urgent of `bits` is: 0..7, or 8 for none. */
static unsigned urgency(const struct chip *c, uint8_t bits)
{
    unsigned n = 0;
    while (n < 8 && !(bits & BIT((c->top + n) & 7)))
        n++;
    return n;
}

/* The input that the chip asks to have served, or -1. */
static int chip_pending(const struct chip *c, bool master)
{
    unsigned request = urgency(c, c->irr & (uint8_t)~c->imr);
    if (request == 8)
        return -1;
    uint8_t in_service = c->isr;
    if (c->special_mask)
        in_service &= (uint8_t)~c->imr;
    if (c->fully_nested && master)
        in_service &= (uint8_t)~BIT(CASCADE);
    return request < urgency(c, in_service) ? (int)((c->top + request) & 7) : -1;
}

static void chip_set_line(struct chip *c, unsigned n, bool level)
{
    uint8_t bit = (uint8_t)BIT(n);
    if (c->elcr & bit) {
        c->irr = level ? c->irr | bit : c->irr & (uint8_t)~bit;
    } else if (level && !(c->lines & bit)) {
        c->irr |= bit;
    }
    c->lines = level ? c->lines | bit : c->lines & (uint8_t)~bit;
}

static void update(struct i8259 *s)
{
    chip_set_line(&s->chip[0], CASCADE, chip_pending(&s->chip[1], false) >= 0);
    /* An unserved slave request that went away must not stay latched in the master. */
    if (!(s->chip[0].lines & BIT(CASCADE)))
        s->chip[0].irr &= (uint8_t)~BIT(CASCADE);
    bool output = chip_pending(&s->chip[0], true) >= 0;
    if (output == s->output)
        return;
    s->output = output;
    if (s->intr)
        s->intr(s->opaque, output);
}

static void chip_accept(struct chip *c, unsigned n)
{
    uint8_t bit = (uint8_t)BIT(n);
    if (!c->auto_eoi)
        c->isr |= bit;
    else if (c->rotate_on_aeoi)
        c->top = (n + 1) & 7;
    if (!(c->elcr & bit))
        c->irr &= (uint8_t)~bit;
}

int i8259_acknowledge(struct device *dev)
{
    struct i8259 *s = DEVICE_OF(struct i8259, dev);
    struct chip *master = &s->chip[0], *slave = &s->chip[1];
    int n = chip_pending(master, true);
    int vector = n < 0 ? -1 : master->base + n;
    if (n >= 0)
        chip_accept(master, (unsigned)n);
    if (n == CASCADE) {
        int m = chip_pending(slave, false);
        if (m >= 0)
            chip_accept(slave, (unsigned)m);
        else
            m = 7; /* spurious: no ISR bit */
        vector = slave->base + m;
        master->lines &= (uint8_t)~BIT(CASCADE); /* what else the slave has is a new edge */
    }
    update(s);
    return vector;
}

void i8259_set_irq(struct device *dev, unsigned irq, bool level)
{
    struct i8259 *s = DEVICE_OF(struct i8259, dev);
    if (irq > 15 || irq == CASCADE)
        return;
    chip_set_line(&s->chip[irq / 8], irq % 8, level);
    update(s);
}

void i8259_connect(struct device *dev, void (*intr)(void *opaque, bool level), void *opaque)
{
    struct i8259 *s = DEVICE_OF(struct i8259, dev);
    s->intr = intr;
    s->opaque = opaque;
    intr(opaque, s->output);
}

/* ICW1: everything but the level-triggered requests starts anew. */
static void begin_init(struct chip *c, uint8_t icw1)
{
    *c = (struct chip){
        .irr = c->irr & c->elcr,
        .lines = c->lines & c->elcr,
        .elcr = c->elcr,
        .base = c->base,
        .init = INIT_ICW2,
        .icw4_follows = icw1 & 1,
        .single = icw1 & 2,
    };
}

static void end_of_interrupt(struct chip *c, unsigned n, bool rotate)
{
    c->isr &= (uint8_t)~BIT(n);
    if (rotate)
        c->top = (n + 1) & 7;
}

static void write_ocw2(struct chip *c, uint8_t v)
{
    unsigned highest = urgency(c, c->isr);
    switch (v >> 5) {
    case 0: /* rotate in automatic EOI mode: off, on */
    case 4:
        c->rotate_on_aeoi = v >> 7;
        break;
    case 1: /* non-specific EOI, without and with rotation */
    case 5:
        if (highest < 8)
            end_of_interrupt(c, (c->top + highest) & 7, v >> 7);
        break;
    case 3: /* specific EOI, without and with rotation */
    case 7:
        end_of_interrupt(c, v & 7, v >> 7);
        break;
    case 6: /* set priority */
        c->top = (v + 1) & 7;
        break;
    default:
        break;
    }
}

static void write_ocw3(struct chip *c, uint8_t v)
{
    if (v & 0x04)
        c->poll = true;
    if (v & 0x02)
        c->read_isr = v & 1;
    if (v & 0x40)
        c->special_mask = v & 0x20;
}

static void write_data(struct chip *c, uint8_t v)
{
    switch (c->init) {
    case INIT_ICW2:
        c->base = v & 0xf8;
        c->init = !c->single ? INIT_ICW3 : c->icw4_follows ? INIT_ICW4 : INIT_DONE;
        break;
    case INIT_ICW3: /* the wiring of the cascade is fixed */
        c->init = c->icw4_follows ? INIT_ICW4 : INIT_DONE;
        break;
    case INIT_ICW4:
        c->fully_nested = v & 0x10;
        c->auto_eoi = v & 0x02;
        c->init = INIT_DONE;
        break;
    default:
        c->imr = v;
        break;
    }
}

static void chip_write(struct i8259 *s, unsigned which, uint64_t offset, uint8_t v)
{
    struct chip *c = &s->chip[which];
    if (offset == 1)
        write_data(c, v);
    else if (v & 0x10)
        begin_init(c, v);
    else if (v & 0x08)
        write_ocw3(c, v);
    else
        write_ocw2(c, v);
    update(s);
}

/* A read after the poll command is an acknowledge cycle of this one chip. */
static uint8_t chip_poll(struct i8259 *s, unsigned which)
{
    struct chip *c = &s->chip[which];
    int n = chip_pending(c, which == 0);
    c->poll = false;
    if (n < 0)
        return 0;
    chip_accept(c, (unsigned)n);
    update(s);
    return (uint8_t)(0x80 | n);
}

static uint8_t chip_read(struct i8259 *s, unsigned which, uint64_t offset)
{
    struct chip *c = &s->chip[which];
    if (c->poll)
        return chip_poll(s, which);
    if (offset == 1)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static uint64_t master_read(struct device *dev, uint64_t offset, unsigned size)
{
    return chip_read(DEVICE_OF(struct i8259, dev), 0, offset);
}

static void master_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    chip_write(DEVICE_OF(struct i8259, dev), 0, offset, (uint8_t)value);
}

static uint64_t slave_read(struct device *dev, uint64_t offset, unsigned size)
{
    return chip_read(DEVICE_OF(struct i8259, dev), 1, offset);
}

static void slave_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    chip_write(DEVICE_OF(struct i8259, dev), 1, offset, (uint8_t)value);
}

static uint64_t elcr_read(struct device *dev, uint64_t offset, unsigned size)
{
    return DEVICE_OF(struct i8259, dev)->chip[offset & 1].elcr;
}

static void elcr_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    DEVICE_OF(struct i8259, dev)->chip[offset & 1].elcr = (uint8_t)value & elcr_writable[offset & 1];
}

static void i8259_reset(struct device *dev)
{
    struct i8259 *s = DEVICE_OF(struct i8259, dev);
    s->chip[0] = s->chip[1] = (struct chip){.init = INIT_DONE};
    update(s);
}

static bool chip_post_load(void *object, struct error **err)
{
    struct chip *c = object;
    c->top &= 7;
    c->base &= 0xf8;
    if (c->init >= INIT_STEPS)
        c->init = INIT_DONE;
    return true;
}

static bool i8259_post_load(void *object, struct error **err)
{
    update(object);
    return true;
}

static bool i8259_realize(struct device *dev, struct error **err)
{
    dev->machine->pic = dev;
    return true;
}

static void i8259_unrealize(struct device *dev)
{
    dev->machine->pic = NULL;
}

static const struct window_desc i8259_windows[] = {
    {WINDOW_PORT, "i8259 master", 0x20, 2, .read = master_read, .write = master_write, .max_access = 1},
    {WINDOW_PORT, "i8259 slave", 0xa0, 2, .read = slave_read, .write = slave_write, .max_access = 1},
    {WINDOW_PORT, "elcr", 0x4d0, 2, .read = elcr_read, .write = elcr_write, .max_access = 1},
    {WINDOW_END},
};

const struct device_class i8259_class = {
    .name = "i8259",
    .help = "pair of 8259A interrupt controllers",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct i8259),
    .windows = i8259_windows,
    .state = &i8259_state,
    .realize = i8259_realize,
    .reset = i8259_reset,
    .unrealize = i8259_unrealize,
};
