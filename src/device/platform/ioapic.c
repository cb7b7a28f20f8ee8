/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * I/O APIC with 24 pins, version 0x20 (with an EOI register). Interrupts leave as messages through
 * machine->send_msi, in the form of SDM vol. 3 section 11.11. Intel 82093AA datasheet; ICH9 datasheet
 * section 13.5.
 */
#include "device/platform/ioapic.h"

#include "base/util.h"
#include "core/device.h"

#define VERSION 0x20

enum { REG_SELECT = 0x00, REG_WINDOW = 0x10, REG_EOI = 0x40 };
enum { INDEX_ID, INDEX_VERSION, INDEX_ARBITRATION, INDEX_ENTRIES = 0x10 };

/* Redirection entry */
#define ENTRY_VECTOR     0xffu
#define ENTRY_DELIVERY   0x700u
#define ENTRY_LOGICAL    BIT(11)
#define ENTRY_REMOTE_IRR BIT(14)
#define ENTRY_LEVEL      BIT(15)
#define ENTRY_MASKED     BIT(16)
#define ENTRY_DEST_SHIFT 56
#define ENTRY_WRITABLE                                                                                       \
    0xff0000000001afffu /* not the delivery status: sending takes no time, it is never set */

/* Message */
#define MSI_ADDRESS    0xfee00000u
#define MSI_DEST_SHIFT 12
#define MSI_LOGICAL    BIT(2)
#define MSI_ASSERT     BIT(14)
#define MSI_LEVEL      BIT(15)

struct ioapic {
    struct device dev;
    uint32_t id;
    uint8_t select;
    uint32_t lines; /* levels of the pins */
    uint64_t entry[IOAPIC_PINS];
};

static bool ioapic_post_load(void *object, struct error **err);

static const struct state_field ioapic_fields[] = {
    STATE_FIELD_U32(struct ioapic, id),
    STATE_FIELD_U8(struct ioapic, select),
    STATE_FIELD_U32(struct ioapic, lines),
    STATE_FIELD_U64_ARRAY(struct ioapic, entry, IOAPIC_PINS),
    STATE_FIELD_END,
};

static const struct state_desc ioapic_state = {
    .name = "ioapic", .version = 1, .min_version = 1, .fields = ioapic_fields, .post_load = ioapic_post_load};

static void send(struct ioapic *s, unsigned pin)
{
    uint64_t e = s->entry[pin];
    uint64_t addr =
        MSI_ADDRESS | (e >> ENTRY_DEST_SHIFT) << MSI_DEST_SHIFT | (e & ENTRY_LOGICAL ? MSI_LOGICAL : 0);
    uint64_t data = (e & (ENTRY_VECTOR | ENTRY_DELIVERY)) | MSI_ASSERT | (e & ENTRY_LEVEL ? MSI_LEVEL : 0);
    if (e & ENTRY_LEVEL)
        s->entry[pin] |= ENTRY_REMOTE_IRR;
    s->dev.machine->send_msi(s->dev.machine, addr, (uint32_t)data);
}

/* A level-triggered pin interrupts while it is high, again after each EOI. */
static void serve_level(struct ioapic *s, unsigned pin)
{
    uint64_t e = s->entry[pin];
    if ((e & ENTRY_LEVEL) && !(e & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) && (s->lines & BIT(pin)))
        send(s, pin);
}

static void set_pin(struct ioapic *s, unsigned pin, bool level)
{
    bool rises = level && !(s->lines & BIT(pin));
    s->lines = level ? s->lines | (uint32_t)BIT(pin) : s->lines & (uint32_t)~BIT(pin);
    if (s->entry[pin] & ENTRY_LEVEL)
        serve_level(s, pin);
    else if (rises && !(s->entry[pin] & ENTRY_MASKED)) /* an edge at a masked pin is lost (82093AA 3.2.4) */
        send(s, pin);
}

void ioapic_set_gsi(struct device *dev, unsigned gsi, bool level)
{
    struct ioapic *s = DEVICE_OF(struct ioapic, dev);
    if (gsi < IOAPIC_PINS && gsi != 2)
        set_pin(s, gsi ? gsi : 2, level);
}

void ioapic_eoi(struct device *dev, uint8_t vector)
{
    struct ioapic *s = DEVICE_OF(struct ioapic, dev);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *e = &s->entry[pin];
        if ((*e & ENTRY_VECTOR) != vector || !(*e & ENTRY_LEVEL) || !(*e & ENTRY_REMOTE_IRR))
            continue;
        *e &= ~ENTRY_REMOTE_IRR;
        serve_level(s, pin);
    }
}

static void write_entry(struct ioapic *s, unsigned pin, uint32_t v, bool high)
{
    uint64_t *e = &s->entry[pin];
    uint64_t mask = ENTRY_WRITABLE & (high ? ~(uint64_t)UINT32_MAX : UINT32_MAX);
    *e = (*e & ~mask) | ((high ? (uint64_t)v << 32 : v) & mask);
    /* Drivers switch to edge and back to get rid of a stuck remote IRR. */
    if (!(*e & ENTRY_LEVEL))
        *e &= ~ENTRY_REMOTE_IRR;
    serve_level(s, pin);
}

static uint32_t read_window(const struct ioapic *s)
{
    switch (s->select) {
    case INDEX_ID:
    case INDEX_ARBITRATION:
        return s->id;
    case INDEX_VERSION:
        return VERSION | (IOAPIC_PINS - 1) << 16;
    default:
        break;
    }
    unsigned n = s->select - INDEX_ENTRIES;
    if (n >= 2 * IOAPIC_PINS)
        return 0;
    return (uint32_t)(s->entry[n / 2] >> (n % 2 ? 32 : 0));
}

static void write_window(struct ioapic *s, uint32_t v)
{
    unsigned n = s->select - INDEX_ENTRIES;
    if (s->select == INDEX_ID)
        s->id = v & 0x0f000000;
    else if (n < 2 * IOAPIC_PINS)
        write_entry(s, n / 2, v, n % 2);
}

static uint64_t ioapic_read(struct device *dev, uint64_t offset, unsigned size)
{
    const struct ioapic *s = DEVICE_OF(struct ioapic, dev);
    if (offset == REG_SELECT)
        return s->select;
    return offset == REG_WINDOW && size == 4 ? read_window(s) : 0;
}

static void ioapic_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *s = DEVICE_OF(struct ioapic, dev);
    if (offset == REG_SELECT)
        s->select = (uint8_t)value;
    else if (offset == REG_WINDOW && size == 4)
        write_window(s, (uint32_t)value);
    else if (offset == REG_EOI)
        ioapic_eoi(dev, (uint8_t)value);
}

static void ioapic_reset(struct device *dev)
{
    struct ioapic *s = DEVICE_OF(struct ioapic, dev);
    s->id = 0;
    s->select = 0;
    s->lines = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        s->entry[pin] = ENTRY_MASKED;
}

static bool ioapic_post_load(void *object, struct error **err)
{
    struct ioapic *s = object;
    s->id &= 0x0f000000;
    s->lines &= BIT(IOAPIC_PINS) - 1;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        s->entry[pin] &= ENTRY_WRITABLE | ENTRY_REMOTE_IRR;
    return true;
}

static bool ioapic_realize(struct device *dev, struct error **err)
{
    dev->machine->ioapic = dev;
    return true;
}

static void ioapic_unrealize(struct device *dev)
{
    dev->machine->ioapic = NULL;
}

static const struct window_desc ioapic_windows[] = {
    {WINDOW_MMIO, "ioapic", IOAPIC_BASE, 0x1000, .read = ioapic_read, .write = ioapic_write, .max_access = 4},
    {WINDOW_END},
};

const struct device_class ioapic_class = {
    .name = "ioapic",
    .help = "I/O APIC",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct ioapic),
    .windows = ioapic_windows,
    .state = &ioapic_state,
    .realize = ioapic_realize,
    .reset = ioapic_reset,
    .unrealize = ioapic_unrealize,
};
