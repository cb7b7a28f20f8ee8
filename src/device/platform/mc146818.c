/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MC146818 real-time clock with 128 bytes of CMOS memory, ports 0x70 and 0x71, IRQ 8. It shows the host's
 * time in UTC plus what the guest has set it off by. A timer runs only while the guest has asked for
 * interrupts; the flags of register C are otherwise worked out when they are read. Motorola MC146818A
 * datasheet; the memory-size bytes are where firmware and QEMU put them.
 */
#include "device/platform/mc146818.h"

#include "base/util.h"
#include "core/device.h"

#include <time.h>

#define NS_PER_SECOND 1000000000
#define UPDATE_NS     244000 /* UIP is set so long before each update */
#define NEVER         UINT64_MAX

enum {
    REG_SECONDS,
    REG_SECONDS_ALARM,
    REG_MINUTES,
    REG_MINUTES_ALARM,
    REG_HOURS,
    REG_HOURS_ALARM,
    REG_WEEKDAY,
    REG_DAY,
    REG_MONTH,
    REG_YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    REG_CENTURY = 0x32,
};

#define A_UIP  0x80
#define B_SET  0x80
#define B_PIE  0x40
#define B_AIE  0x20
#define B_UIE  0x10
#define B_DM   0x04 /* binary, not BCD */
#define B_24H  0x02
#define C_IRQF 0x80
#define C_PF   0x40
#define C_AF   0x20
#define C_UF   0x10
#define D_VRT  0x80

#define HOUR_PM         0x80
#define ALARM_DONT_CARE 0xc0

struct mc146818 {
    struct device dev;
    uint8_t cmos[128]; /* the time registers in here count while B_SET holds the clock */
    uint8_t index;
    bool irq_taken;     /* by the HPET */
    int64_t offset_ns;  /* the guest's time minus the host's */
    int64_t last_sec;   /* the guest second for which UF and AF were last worked out */
    uint64_t last_tick; /* the same for PF: number of the period */
    struct vm_timer timer;
};

static bool mc146818_post_load(void *object, struct error **err);

static const struct state_field mc146818_fields[] = {
    STATE_FIELD_U8_ARRAY(struct mc146818, cmos, 128),
    STATE_FIELD_U8(struct mc146818, index),
    STATE_FIELD_BOOL(struct mc146818, irq_taken),
    STATE_FIELD_U64(struct mc146818, offset_ns),
    STATE_FIELD_U64(struct mc146818, last_sec),
    STATE_FIELD_U64(struct mc146818, last_tick),
    STATE_FIELD_END,
};

static const struct state_desc mc146818_state = {.name = "mc146818",
                                                 .version = 1,
                                                 .min_version = 1,
                                                 .fields = mc146818_fields,
                                                 .post_load = mc146818_post_load};

/* Time. Offsets come from the guest, so sums wrap instead of overflowing. */

static int64_t guest_ns(const struct mc146818 *s)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)((uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec + (uint64_t)s->offset_ns);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Nanoseconds since the guest's second began. */
static int64_t into_second(const struct mc146818 *s)
{
    int64_t into = guest_ns(s) % NS_PER_SECOND;
    return into < 0 ? into + NS_PER_SECOND : into;
}

static int64_t guest_second(const struct mc146818 *s)
{
    return floor_div(guest_ns(s), NS_PER_SECOND);
}

static uint64_t now_of(const struct mc146818 *s)
{
    return vm_clock_now(&s->dev.machine->clock);
}

/* The divider chain runs, and the guest does not hold the clock to set it. */
static bool is_running(const struct mc146818 *s)
{
    return !(s->cmos[REG_B] & B_SET) && (s->cmos[REG_A] & 0x70) <= 0x20;
}

/* Nanoseconds of one periodic interrupt; 0: none. At most 8192 a second. */
static uint64_t period_ns(const struct mc146818 *s)
{
    unsigned rate = s->cmos[REG_A] & 0x0f;
    if (!rate)
        return 0;
    if (rate <= 2)
        rate += 7;
    return ((uint64_t)NS_PER_SECOND << (rate - 1)) / 32768;
}

/* The registers. */

static uint8_t encode(const struct mc146818 *s, int v)
{
    return (uint8_t)(s->cmos[REG_B] & B_DM ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct mc146818 *s, uint8_t v)
{
    return s->cmos[REG_B] & B_DM ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct mc146818 *s, int hour)
{
    if (s->cmos[REG_B] & B_24H)
        return encode(s, hour);
    return encode(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static int decode_hour(const struct mc146818 *s, uint8_t v)
{
    if (s->cmos[REG_B] & B_24H)
        return decode(s, v);
    return decode(s, v & 0x7f) % 12 + (v & HOUR_PM ? 12 : 0);
}

/* Puts the running time into the registers. */
static void show_time(struct mc146818 *s)
{
    time_t t = (time_t)guest_second(s);
    struct tm tm;
    if (!gmtime_r(&t, &tm))
        return;
    int year = tm.tm_year + 1900;
    s->cmos[REG_SECONDS] = encode(s, tm.tm_sec);
    s->cmos[REG_MINUTES] = encode(s, tm.tm_min);
    s->cmos[REG_HOURS] = encode_hour(s, tm.tm_hour);
    s->cmos[REG_WEEKDAY] = encode(s, tm.tm_wday + 1);
    s->cmos[REG_DAY] = encode(s, tm.tm_mday);
    s->cmos[REG_MONTH] = encode(s, tm.tm_mon + 1);
    s->cmos[REG_YEAR] = encode(s, (year % 100 + 100) % 100);
    s->cmos[REG_CENTURY] = encode(s, (year / 100 % 100 + 100) % 100);
}

/* The clock goes on from what the registers say. */
static void take_time(struct mc146818 *s)
{
    struct tm tm = {
        .tm_sec = decode(s, s->cmos[REG_SECONDS]),
        .tm_min = decode(s, s->cmos[REG_MINUTES]),
        .tm_hour = decode_hour(s, s->cmos[REG_HOURS]),
        .tm_mday = decode(s, s->cmos[REG_DAY]),
        .tm_mon = decode(s, s->cmos[REG_MONTH]) - 1,
        .tm_year = decode(s, s->cmos[REG_CENTURY]) * 100 + decode(s, s->cmos[REG_YEAR]) - 1900,
    };
    int64_t wanted = (int64_t)((uint64_t)timegm(&tm) * NS_PER_SECOND);
    s->offset_ns = (int64_t)((uint64_t)s->offset_ns + (uint64_t)wanted - (uint64_t)guest_ns(s));
    s->last_sec = guest_second(s);
}

static bool is_time_reg(uint8_t reg)
{
    return reg == REG_CENTURY || (reg <= REG_YEAR && reg != REG_SECONDS_ALARM && reg != REG_MINUTES_ALARM &&
                                  reg != REG_HOURS_ALARM);
}

/* Interrupts. */

static void update_irq(struct mc146818 *s)
{
    bool raise = s->cmos[REG_C] & s->cmos[REG_B] & (C_PF | C_AF | C_UF);
    s->cmos[REG_C] = raise ? s->cmos[REG_C] | C_IRQF : s->cmos[REG_C] & (uint8_t)~C_IRQF;
    if (!s->irq_taken)
        s->dev.machine->set_gsi(s->dev.machine, 8, raise);
}

static bool alarm_matches(struct mc146818 *s)
{
    static const uint8_t regs[] = {REG_SECONDS, REG_MINUTES, REG_HOURS};
    for (size_t i = 0; i < ARRAY_SIZE(regs); i++) {
        uint8_t alarm = s->cmos[regs[i] + 1];
        if ((alarm & ALARM_DONT_CARE) != ALARM_DONT_CARE && alarm != s->cmos[regs[i]])
            return false;
    }
    return true;
}

/* Brings the flags up to now. */
static void catch_up(struct mc146818 *s)
{
    uint64_t period = period_ns(s);
    uint64_t tick = period ? now_of(s) / period : 0;
    if (period && tick != s->last_tick)
        s->cmos[REG_C] |= C_PF;
    s->last_tick = tick;
    if (!is_running(s))
        return;
    int64_t second = guest_second(s);
    if (second != s->last_sec) {
        s->cmos[REG_C] |= C_UF;
        show_time(s);
        if (alarm_matches(s))
            s->cmos[REG_C] |= C_AF;
    }
    s->last_sec = second;
}

static void arm(struct mc146818 *s)
{
    uint64_t now = now_of(s), at = NEVER, period = period_ns(s);
    if ((s->cmos[REG_B] & B_PIE) && period)
        at = (now / period + 1) * period;
    if ((s->cmos[REG_B] & (B_UIE | B_AIE)) && is_running(s))
        at = MIN(at, now + (uint64_t)(NS_PER_SECOND - into_second(s)));
    if (at != NEVER)
        vm_timer_arm(&s->timer, at);
    else
        vm_timer_cancel(&s->timer);
}

static void on_timer(void *opaque)
{
    struct mc146818 *s = opaque;
    catch_up(s);
    update_irq(s);
    arm(s);
}

void mc146818_connect_irq(struct machine *m, bool connected)
{
    for (struct device *d = m->devices; d; d = d->next) {
        if (strcmp(d->cls->name, "mc146818") != 0)
            continue;
        struct mc146818 *s = DEVICE_OF(struct mc146818, d);
        if (!connected && !s->irq_taken)
            m->set_gsi(m, 8, false);
        s->irq_taken = !connected;
        update_irq(s);
    }
}

/* Ports. */

static uint8_t read_c(struct mc146818 *s)
{
    catch_up(s);
    update_irq(s);
    uint8_t v = s->cmos[REG_C];
    s->cmos[REG_C] = 0;
    update_irq(s);
    return v;
}

static uint8_t read_a(struct mc146818 *s)
{
    bool updating = is_running(s) && NS_PER_SECOND - into_second(s) <= UPDATE_NS;
    return s->cmos[REG_A] | (updating ? A_UIP : 0);
}

static void write_control(struct mc146818 *s, uint8_t reg, uint8_t v)
{
    bool ran = is_running(s);
    catch_up(s);
    if (ran)
        show_time(s); /* in the old format, and frozen if it stops now */
    if (reg == REG_A)
        s->cmos[REG_A] = v & (uint8_t)~A_UIP;
    else
        s->cmos[REG_B] = v & B_SET ? v & (uint8_t)~B_UIE : v;
    if (!ran && is_running(s))
        take_time(s);
    uint64_t period = period_ns(s);
    s->last_tick = period ? now_of(s) / period : 0;
    update_irq(s);
    arm(s);
}

static uint64_t mc146818_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct mc146818 *s = DEVICE_OF(struct mc146818, dev);
    if (offset == 0)
        return 0xff; /* write-only */
    if (s->index == REG_A)
        return read_a(s);
    if (s->index == REG_C)
        return read_c(s);
    if (is_time_reg(s->index) && is_running(s))
        show_time(s);
    return s->cmos[s->index];
}

static void mc146818_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct mc146818 *s = DEVICE_OF(struct mc146818, dev);
    if (offset == 0) {
        s->index = value & 0x7f; /* bit 7 masks NMIs, of which there are none */
    } else if (s->index == REG_A || s->index == REG_B) {
        write_control(s, s->index, (uint8_t)value);
    } else if (is_time_reg(s->index) && is_running(s)) {
        show_time(s);
        s->cmos[s->index] = (uint8_t)value;
        take_time(s);
        arm(s);
    } else if (s->index != REG_C && s->index != REG_D) {
        s->cmos[s->index] = (uint8_t)value;
    }
}

/* Life cycle. */

static void set_le16(struct mc146818 *s, uint8_t reg, uint64_t v)
{
    store_le16(&s->cmos[reg], (uint16_t)MIN(v, 0xffffu));
}

static void describe_memory(struct mc146818 *s)
{
    const struct machine *m = s->dev.machine;
    uint64_t low = m->memory ? m->memory->ram_low : 0;
    uint64_t high = m->memory ? m->memory->ram_size - low : 0;
    uint64_t above_1m = low > MIB ? (low - MIB) / KIB : 0;
    set_le16(s, 0x15, 640);
    set_le16(s, 0x17, above_1m);
    set_le16(s, 0x30, above_1m);
    set_le16(s, 0x34, low > 16 * MIB ? (low - 16 * MIB) / (64 * KIB) : 0);
    uint64_t units = high / (64 * KIB);
    s->cmos[0x5b] = (uint8_t)units;
    s->cmos[0x5c] = (uint8_t)(units >> 8);
    s->cmos[0x5d] = (uint8_t)(units >> 16);
    s->cmos[0x5f] = (uint8_t)(m->cpu_count ? m->cpu_count - 1 : 0);
}

static bool mc146818_realize(struct device *dev, struct error **err)
{
    struct mc146818 *s = DEVICE_OF(struct mc146818, dev);
    vm_timer_init(&s->timer, &dev->machine->clock, on_timer, s);
    s->cmos[REG_A] = 0x26; /* 32768 Hz, 1024 periodic interrupts a second */
    s->cmos[REG_B] = B_24H;
    s->cmos[REG_D] = D_VRT;
    s->cmos[0x14] = 0x06; /* equipment: FPU, PS/2 mouse */
    s->cmos[0x2d] = 0x02; /* no floppy signature check */
    s->cmos[0x3d] = 0x32; /* boot order: disk, CD */
    describe_memory(s);
    s->last_sec = guest_second(s);
    return true;
}

/* The battery keeps the memory and the time; RESET only clears the interrupts (datasheet, "RESET"). */
static void mc146818_reset(struct device *dev)
{
    struct mc146818 *s = DEVICE_OF(struct mc146818, dev);
    s->irq_taken = false;
    s->cmos[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | 0x08);
    s->cmos[REG_C] = 0;
    s->index = 0;
    update_irq(s);
    arm(s);
}

static bool mc146818_post_load(void *object, struct error **err)
{
    struct mc146818 *s = object;
    s->index &= 0x7f;
    arm(s);
    return true;
}

static void mc146818_unrealize(struct device *dev)
{
    vm_timer_cancel(&DEVICE_OF(struct mc146818, dev)->timer);
}

static const struct window_desc mc146818_windows[] = {
    {WINDOW_PORT, "mc146818", 0x70, 2, .read = mc146818_read, .write = mc146818_write, .max_access = 1},
    {WINDOW_END},
};

const struct device_class mc146818_class = {
    .name = "mc146818",
    .help = "real-time clock and CMOS memory",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct mc146818),
    .windows = mc146818_windows,
    .state = &mc146818_state,
    .realize = mc146818_realize,
    .reset = mc146818_reset,
    .unrealize = mc146818_unrealize,
};
