/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * High precision event timer at 0xFED00000: a 64-bit counter at 100 MHz and three timers. As with the 8254,
 * nothing counts: the counter is machine time plus an offset. IA-PC HPET specification 1.0a; the
 * identification and the routing capability are those of QEMU's, which ACPI tables in use describe.
 */
#include "base/util.h"
#include "core/device.h"
#include "device/platform/i8254.h"
#include "device/platform/mc146818.h"

#define TIMERS           3
#define TICK_NS          10
#define TICK_FS          (TICK_NS * 1000000u)
#define CAPABILITIES     ((uint64_t)TICK_FS << 32 | 0x8086a001u | (TIMERS - 1) << 8)
#define ROUTES           0xff0104u /* pins 2, 8, 16-23 */
#define LATE_TICKS       100000000u
#define INTERRUPT_MIN_NS 20000u /* a guest cannot make us work more often than that */

enum { REG_CAP = 0x000, REG_CONFIG = 0x010, REG_STATUS = 0x020, REG_COUNTER = 0x0f0, REG_TIMERS = 0x100 };
enum { TIMER_CONFIG = 0x00, TIMER_COMPARATOR = 0x08, TIMER_STRIDE = 0x20 };

#define CONFIG_ENABLE BIT(0)
#define CONFIG_LEGACY BIT(1)

#define T_LEVEL     BIT(1)
#define T_ENABLE    BIT(2)
#define T_PERIODIC  BIT(3)
#define T_CAP       (BIT(4) | BIT(5)) /* can be periodic, is 64 bits wide */
#define T_SET_ACC   BIT(6)
#define T_32BIT     BIT(8)
#define T_ROUTE(c)  ((c) >> 9 & 31)
#define T_WRITABLE  0x3f4eu
#define T_READ_ONLY (T_CAP | (uint64_t)ROUTES << 32)

struct hpet_timer {
    uint64_t config, comparator, period;
    uint64_t last_ns; /* of the last interrupt */
    bool waiting;     /* the comparator has not been reached since it was written */
    struct hpet *hpet;
    struct vm_timer timer;
};

struct hpet {
    struct device dev;
    uint64_t config, status;
    uint64_t held;     /* the counter while it stands still */
    uint64_t start_ns; /* while it runs: counter = (machine time - start_ns) / TICK_NS + held */
    struct hpet_timer t[TIMERS];
};

static const struct state_field timer_fields[] = {
    STATE_FIELD_U64(struct hpet_timer, config),   STATE_FIELD_U64(struct hpet_timer, comparator),
    STATE_FIELD_U64(struct hpet_timer, period),   STATE_FIELD_U64(struct hpet_timer, last_ns),
    STATE_FIELD_BOOL(struct hpet_timer, waiting), STATE_FIELD_END,
};

static const struct state_desc timer_state = {
    .name = "hpet-timer", .version = 1, .min_version = 1, .fields = timer_fields};

static bool hpet_post_load(void *object, struct error **err);

static const struct state_field hpet_fields[] = {
    STATE_FIELD_U64(struct hpet, config),
    STATE_FIELD_U64(struct hpet, status),
    STATE_FIELD_U64(struct hpet, held),
    STATE_FIELD_U64(struct hpet, start_ns),
    STATE_FIELD_STRUCT(struct hpet, t, TIMERS, &timer_state),
    STATE_FIELD_END,
};

static const struct state_desc hpet_state = {
    .name = "hpet", .version = 1, .min_version = 1, .fields = hpet_fields, .post_load = hpet_post_load};

static uint64_t now_of(const struct hpet *s)
{
    return vm_clock_now(&s->dev.machine->clock);
}

static uint64_t counter_of(const struct hpet *s)
{
    return s->config & CONFIG_ENABLE ? (now_of(s) - s->start_ns) / TICK_NS + s->held : s->held;
}

/* Interrupts. */

static unsigned gsi_of(const struct hpet *s, unsigned n)
{
    if ((s->config & CONFIG_LEGACY) && n < 2)
        return n == 0 ? 0 : 8;
    unsigned pin = T_ROUTE(s->t[n].config);
    return pin == 2 ? 0 : pin; /* the machine's line 0 is wired to pin 2 */
}

static void set_line(struct hpet *s, unsigned n, bool level)
{
    unsigned gsi = gsi_of(s, n);
    bool legacy = (s->config & CONFIG_LEGACY) && n < 2;
    bool routed = ROUTES >> T_ROUTE(s->t[n].config) & 1;
    if (legacy || routed)
        s->dev.machine->set_gsi(s->dev.machine, gsi, level);
}

static void raise(struct hpet *s, unsigned n)
{
    const struct hpet_timer *t = &s->t[n];
    bool enabled = t->config & T_ENABLE;
    if (t->config & T_LEVEL) {
        s->status |= BIT(n);
        if (enabled)
            set_line(s, n, true);
    } else if (enabled) {
        set_line(s, n, true);
        set_line(s, n, false);
    }
}

static uint64_t mask_of(const struct hpet_timer *t)
{
    return t->config & T_32BIT ? UINT32_MAX : UINT64_MAX;
}

/*
 * Ticks until the counter reaches the comparator. Hardware would wait for the wrap when the guest was late in
 * writing it; here a guest can be held up at any moment, so what lies less than a second behind counts as
 * reached.
 */
static uint64_t ticks_left(const struct hpet *s, const struct hpet_timer *t)
{
    uint64_t mask = mask_of(t);
    uint64_t diff = (t->comparator - counter_of(s)) & mask;
    return diff > mask - LATE_TICKS ? 0 : diff;
}

static void arm(struct hpet *s, unsigned n)
{
    struct hpet_timer *t = &s->t[n];
    if (!(s->config & CONFIG_ENABLE) || !(t->config & T_ENABLE) || !t->waiting) {
        vm_timer_cancel(&t->timer);
        return;
    }
    uint64_t left = MIN(ticks_left(s, t), (uint64_t)INT64_MAX / TICK_NS);
    uint64_t at = now_of(s) + left * TICK_NS;
    vm_timer_arm(&t->timer, MAX(at, t->last_ns + INTERRUPT_MIN_NS));
}

/* Moves a periodic comparator past the counter. */
static void next_round(struct hpet *s, struct hpet_timer *t)
{
    uint64_t mask = mask_of(t);
    uint64_t period = t->period & mask;
    uint64_t behind = (counter_of(s) - t->comparator) & mask;
    if (period)
        t->comparator = (t->comparator + (behind / period + 1) * period) & mask;
}

static void on_timer(void *opaque)
{
    struct hpet_timer *t = opaque;
    struct hpet *s = t->hpet;
    unsigned n = (unsigned)(t - s->t);
    t->last_ns = now_of(s);
    raise(s, n);
    t->waiting = (t->config & T_PERIODIC) && t->period;
    if (!t->waiting)
        return; /* a one-shot would come again when the counter has wrapped */
    next_round(s, t);
    arm(s, n);
}

/* Registers. */

static void write_config(struct hpet *s, uint64_t v)
{
    uint64_t old = s->config, now = now_of(s);
    v &= CONFIG_ENABLE | CONFIG_LEGACY;
    if (!(old & CONFIG_ENABLE) && (v & CONFIG_ENABLE))
        s->start_ns = now;
    else if ((old & CONFIG_ENABLE) && !(v & CONFIG_ENABLE))
        s->held = counter_of(s);
    if ((old ^ v) & CONFIG_LEGACY) {
        i8254_connect_irq(s->dev.machine, !(v & CONFIG_LEGACY));
        mc146818_connect_irq(s->dev.machine, !(v & CONFIG_LEGACY));
    }
    s->config = v;
    for (unsigned n = 0; n < TIMERS; n++)
        arm(s, n);
}

static void write_status(struct hpet *s, uint64_t v)
{
    uint64_t cleared = s->status & v;
    s->status &= ~v;
    for (unsigned n = 0; n < TIMERS; n++) {
        if ((cleared & BIT(n)) && (s->t[n].config & T_LEVEL))
            set_line(s, n, false);
    }
}

static void write_counter(struct hpet *s, uint64_t v)
{
    s->held = v;
    s->start_ns = now_of(s);
    for (unsigned n = 0; n < TIMERS; n++) {
        s->t[n].waiting = s->t[n].comparator != UINT64_MAX;
        arm(s, n);
    }
}

static void write_timer_config(struct hpet *s, unsigned n, uint64_t v)
{
    struct hpet_timer *t = &s->t[n];
    /* The line it held may not be its line, or not level-triggered, any more. */
    if (s->status & BIT(n))
        set_line(s, n, false);
    t->config = (v & T_WRITABLE) | T_READ_ONLY;
    if (t->config & T_32BIT) {
        t->comparator = (uint32_t)t->comparator;
        t->period = (uint32_t)t->period;
    }
    if (!(t->config & T_LEVEL))
        s->status &= ~BIT(n);
    else if ((s->status & BIT(n)) && (t->config & T_ENABLE))
        set_line(s, n, true);
    arm(s, n);
}

static void write_comparator(struct hpet *s, unsigned n, uint64_t v)
{
    struct hpet_timer *t = &s->t[n];
    if (t->config & T_32BIT)
        v = (uint32_t)v;
    if (!(t->config & T_PERIODIC) || (t->config & T_SET_ACC))
        t->comparator = v;
    if (t->config & T_PERIODIC) {
        /* With "set accumulator" the first write is the comparator and the second the period, which drivers
         * rely on; a driver that writes once means both. */
        t->period = v;
        t->config &= ~T_SET_ACC;
    }
    t->waiting = true;
    arm(s, n);
}

static uint64_t read_reg(const struct hpet *s, uint64_t reg)
{
    switch (reg) {
    case REG_CAP:
        return CAPABILITIES;
    case REG_CONFIG:
        return s->config;
    case REG_STATUS:
        return s->status;
    case REG_COUNTER:
        return counter_of(s);
    default:
        break;
    }
    uint64_t n = (reg - REG_TIMERS) / TIMER_STRIDE;
    if (reg < REG_TIMERS || n >= TIMERS)
        return 0;
    uint64_t which = reg % TIMER_STRIDE;
    return which == TIMER_CONFIG ? s->t[n].config : which == TIMER_COMPARATOR ? s->t[n].comparator : 0;
}

static void write_reg(struct hpet *s, uint64_t reg, uint64_t v)
{
    switch (reg) {
    case REG_CONFIG:
        write_config(s, v);
        return;
    case REG_STATUS:
        write_status(s, v);
        return;
    case REG_COUNTER:
        write_counter(s, v);
        return;
    default:
        break;
    }
    uint64_t n = (reg - REG_TIMERS) / TIMER_STRIDE;
    if (reg < REG_TIMERS || n >= TIMERS)
        return;
    if (reg % TIMER_STRIDE == TIMER_CONFIG)
        write_timer_config(s, (unsigned)n, v);
    else if (reg % TIMER_STRIDE == TIMER_COMPARATOR)
        write_comparator(s, (unsigned)n, v);
}

/* Accesses are 4 or 8 bytes, aligned (specification 2.3.2); a half leaves the register's other half as it is.
 */
static uint64_t hpet_read(struct device *dev, uint64_t offset, unsigned size)
{
    const struct hpet *s = DEVICE_OF(struct hpet, dev);
    return read_reg(s, offset & ~7ull) >> (8 * (offset & 7));
}

static void hpet_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct hpet *s = DEVICE_OF(struct hpet, dev);
    uint64_t reg = offset & ~7ull;
    if (size < 4 || offset % size)
        return;
    if (size == 4) {
        /* Of what is written to clear, the other half must not be written back. */
        uint64_t other = reg == REG_STATUS ? 0 : read_reg(s, reg);
        value = offset & 4 ? (other & UINT32_MAX) | value << 32 : (other & ~(uint64_t)UINT32_MAX) | value;
    }
    write_reg(s, reg, value);
}

/* Life cycle. */

static void hpet_reset(struct device *dev)
{
    struct hpet *s = DEVICE_OF(struct hpet, dev);
    s->config = s->status = s->held = s->start_ns = 0;
    for (unsigned n = 0; n < TIMERS; n++) {
        struct hpet_timer *t = &s->t[n];
        vm_timer_cancel(&t->timer);
        t->config = T_READ_ONLY;
        t->comparator = UINT64_MAX;
        t->period = t->last_ns = 0;
        t->waiting = false;
    }
    i8254_connect_irq(dev->machine, true);
    mc146818_connect_irq(dev->machine, true);
}

static bool hpet_post_load(void *object, struct error **err)
{
    struct hpet *s = object;
    s->config &= CONFIG_ENABLE | CONFIG_LEGACY;
    s->status &= BIT(TIMERS) - 1;
    for (unsigned n = 0; n < TIMERS; n++) {
        s->t[n].config = (s->t[n].config & T_WRITABLE) | T_READ_ONLY;
        arm(s, n);
    }
    return true;
}

static bool hpet_realize(struct device *dev, struct error **err)
{
    struct hpet *s = DEVICE_OF(struct hpet, dev);
    for (unsigned n = 0; n < TIMERS; n++) {
        s->t[n].hpet = s;
        vm_timer_init(&s->t[n].timer, &dev->machine->clock, on_timer, &s->t[n]);
    }
    return true;
}

static void hpet_unrealize(struct device *dev)
{
    for (unsigned n = 0; n < TIMERS; n++)
        vm_timer_cancel(&DEVICE_OF(struct hpet, dev)->t[n].timer);
}

static const struct window_desc hpet_windows[] = {
    {WINDOW_MMIO, "hpet", 0xfed00000, 0x400, .read = hpet_read, .write = hpet_write, .max_access = 8},
    {WINDOW_END},
};

const struct device_class hpet_class = {
    .name = "hpet",
    .help = "high precision event timer",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct hpet),
    .windows = hpet_windows,
    .state = &hpet_state,
    .realize = hpet_realize,
    .reset = hpet_reset,
    .unrealize = hpet_unrealize,
};
