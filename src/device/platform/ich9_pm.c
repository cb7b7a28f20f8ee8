/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ACPI block of the ICH9: PM1 event and control registers, PM timer, GPE0, and the SMI command port by
 * which an OS switches ACPI on (no SMI happens; the effect is immediate). ICH9 datasheet section 13.8;
 * ACPI 6.5 section 4.8.
 */
#include "device/platform/ich9_pm.h"

#include "base/log.h"
#include "base/util.h"
#include "core/device.h"

#define TIMER_HZ      3579545u
#define TIMER_BITS    24
#define NS_PER_SECOND 1000000000u

#define PM1_TIMER        BIT(0)
#define PM1_GLOBAL       BIT(5)
#define PM1_POWER_BUTTON BIT(8)
#define PM1_RTC          BIT(10)
#define PM1_SCI_SOURCES  (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_RTC)
#define PM1_STATUS_ALL   0xcf31u
#define PM1_ENABLE_ALL   0x4721u
#define CNT_SCI_ENABLE   BIT(0)
#define CNT_SLEEP_TYPE   0x1c00u
#define CNT_SLEEP_ENABLE BIT(13)

struct ich9_pm {
    struct device dev;
    uint16_t status, enable, control;
    uint64_t gpe_status, gpe_enable;
    uint32_t smi_enable;
    uint8_t apm_command, apm_status;
    uint64_t
        toggles; /* how often the timer's top bit had changed when `status` was last brought up to date */
    struct vm_timer timer;
};

static bool ich9_pm_post_load(void *object, struct error **err);

static const struct state_field ich9_pm_fields[] = {
    STATE_FIELD_U16(struct ich9_pm, status),     STATE_FIELD_U16(struct ich9_pm, enable),
    STATE_FIELD_U16(struct ich9_pm, control),    STATE_FIELD_U64(struct ich9_pm, gpe_status),
    STATE_FIELD_U64(struct ich9_pm, gpe_enable), STATE_FIELD_U32(struct ich9_pm, smi_enable),
    STATE_FIELD_U8(struct ich9_pm, apm_command), STATE_FIELD_U8(struct ich9_pm, apm_status),
    STATE_FIELD_U64(struct ich9_pm, toggles),    STATE_FIELD_END,
};

static const struct state_desc ich9_pm_state = {.name = "ich9-pm",
                                                .version = 1,
                                                .min_version = 1,
                                                .fields = ich9_pm_fields,
                                                .post_load = ich9_pm_post_load};

static uint64_t ticks_of(const struct ich9_pm *s)
{
    return (uint64_t)((unsigned __int128)vm_clock_now(&s->dev.machine->clock) * TIMER_HZ / NS_PER_SECOND);
}

static uint64_t toggles_of(const struct ich9_pm *s)
{
    return ticks_of(s) >> (TIMER_BITS - 1);
}

static void update_sci(struct ich9_pm *s)
{
    bool event = (s->status & s->enable & PM1_SCI_SOURCES) || (s->gpe_status & s->gpe_enable);
    s->dev.machine->set_gsi(s->dev.machine, ICH9_SCI_GSI, event && (s->control & CNT_SCI_ENABLE));
}

/* TMR_STS is set whenever the top bit changes; a host timer runs only when the guest wants the interrupt. */
static void update_timer(struct ich9_pm *s)
{
    uint64_t toggles = toggles_of(s);
    if (toggles != s->toggles)
        s->status |= PM1_TIMER;
    s->toggles = toggles;
    if ((s->enable & PM1_TIMER) && !(s->status & PM1_TIMER)) {
        unsigned __int128 due = (unsigned __int128)(toggles + 1) << (TIMER_BITS - 1);
        vm_timer_arm(&s->timer, (uint64_t)(due * NS_PER_SECOND / TIMER_HZ) + 1);
    } else {
        vm_timer_cancel(&s->timer);
    }
    update_sci(s);
}

static void on_timer(void *opaque)
{
    update_timer(opaque);
}

bool ich9_pm_power_button(struct device *dev)
{
    struct ich9_pm *s = DEVICE_OF(struct ich9_pm, dev);
    s->status |= PM1_POWER_BUTTON;
    update_sci(s);
    return (s->enable & PM1_POWER_BUTTON) && (s->control & CNT_SCI_ENABLE);
}

void ich9_pm_raise_gpe(struct device *dev, unsigned bit)
{
    struct ich9_pm *s = DEVICE_OF(struct ich9_pm, dev);
    s->gpe_status |= BIT(bit);
    update_sci(s);
}

/* Registers. */

static uint64_t read_timer(struct device *dev, const struct reg_desc *reg)
{
    return ticks_of(DEVICE_OF(struct ich9_pm, dev)) & (BIT(TIMER_BITS) - 1);
}

static uint64_t read_status(struct device *dev, const struct reg_desc *reg)
{
    struct ich9_pm *s = DEVICE_OF(struct ich9_pm, dev);
    update_timer(s);
    return s->status;
}

/* Whatever the timer did while its bit was set is answered with it. */
static void wrote_status(struct device *dev, const struct reg_desc *reg, uint64_t old)
{
    struct ich9_pm *s = DEVICE_OF(struct ich9_pm, dev);
    if (old & ~(uint64_t)s->status & PM1_TIMER)
        s->toggles = toggles_of(s);
    update_timer(s);
}

static void wrote_enable(struct device *dev, const struct reg_desc *reg, uint64_t old)
{
    update_timer(DEVICE_OF(struct ich9_pm, dev));
}

static void wrote_gpe(struct device *dev, const struct reg_desc *reg, uint64_t old)
{
    update_sci(DEVICE_OF(struct ich9_pm, dev));
}

static void wrote_control(struct device *dev, const struct reg_desc *reg, uint64_t old)
{
    struct ich9_pm *s = DEVICE_OF(struct ich9_pm, dev);
    bool sleep = s->control & CNT_SLEEP_ENABLE;
    unsigned type = (s->control & CNT_SLEEP_TYPE) >> 10;
    s->control &= (uint16_t)~CNT_SLEEP_ENABLE; /* reads as 0 */
    update_sci(s);
    if (!sleep)
        return;
    if (type == ICH9_SLEEP_TYPE_S5)
        dev->machine->event(dev->machine, MACHINE_POWEROFF, 0);
    else
        log_guest(LOG_WARN, "the guest asked for sleep type %u, which this machine does not have", type);
}

static void wrote_apm_command(struct device *dev, const struct reg_desc *reg, uint64_t old)
{
    struct ich9_pm *s = DEVICE_OF(struct ich9_pm, dev);
    if (s->apm_command == ICH9_ACPI_ENABLE)
        s->control |= CNT_SCI_ENABLE;
    else if (s->apm_command == ICH9_ACPI_DISABLE)
        s->control &= (uint16_t)~CNT_SCI_ENABLE;
    update_sci(s);
}

static const struct reg_desc pm_regs[] = {
    {"PM1_STS", 0x00, 2, offsetof(struct ich9_pm, status), .clear = PM1_STATUS_ALL, .read = read_status,
     .write = wrote_status},
    {"PM1_EN", 0x02, 2, offsetof(struct ich9_pm, enable), .writable = PM1_ENABLE_ALL, .write = wrote_enable},
    {"PM1_CNT", 0x04, 2, offsetof(struct ich9_pm, control),
     .writable = CNT_SCI_ENABLE | CNT_SLEEP_TYPE | CNT_SLEEP_ENABLE | BIT(1), .write = wrote_control},
    {"PM_TMR", 0x08, 4, offsetof(struct ich9_pm, smi_enable), .read = read_timer},
    {"GPE0_STS", 0x20, 8, offsetof(struct ich9_pm, gpe_status), .clear = UINT64_MAX, .write = wrote_gpe},
    {"GPE0_EN", 0x28, 8, offsetof(struct ich9_pm, gpe_enable), .writable = UINT64_MAX, .write = wrote_gpe},
    {"SMI_EN", 0x30, 4, offsetof(struct ich9_pm, smi_enable), .writable = UINT32_MAX},
    {NULL},
};

static const struct reg_desc apm_regs[] = {
    {"APM_CNT", 0, 1, offsetof(struct ich9_pm, apm_command), .writable = 0xff, .write = wrote_apm_command},
    {"APM_STS", 1, 1, offsetof(struct ich9_pm, apm_status), .writable = 0xff},
    {NULL},
};

/* Life cycle. */

static void ich9_pm_reset(struct device *dev)
{
    struct ich9_pm *s = DEVICE_OF(struct ich9_pm, dev);
    s->toggles = toggles_of(s);
    update_timer(s);
}

static bool ich9_pm_post_load(void *object, struct error **err)
{
    struct ich9_pm *s = object;
    s->control &= (uint16_t)~CNT_SLEEP_ENABLE;
    if (s->enable & PM1_TIMER)
        vm_timer_arm(&s->timer, 0); /* works out when it is really due */
    else
        vm_timer_cancel(&s->timer);
    return true;
}

static bool ich9_pm_realize(struct device *dev, struct error **err)
{
    struct ich9_pm *s = DEVICE_OF(struct ich9_pm, dev);
    vm_timer_init(&s->timer, &dev->machine->clock, on_timer, s);
    dev->machine->pm = dev;
    return true;
}

static void ich9_pm_unrealize(struct device *dev)
{
    vm_timer_cancel(&DEVICE_OF(struct ich9_pm, dev)->timer);
    dev->machine->pm = NULL;
}

static const struct window_desc ich9_pm_windows[] = {
    {WINDOW_PORT, "ich9-pm", ICH9_PM_BASE, 0x80, .regs = pm_regs, .max_access = 4},
    {WINDOW_PORT, "ich9-apm", ICH9_SMI_COMMAND, 2, .regs = apm_regs, .max_access = 2},
    {WINDOW_END},
};

const struct device_class ich9_pm_class = {
    .name = "ich9-pm",
    .help = "ACPI power management: power button, power off, PM timer",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct ich9_pm),
    .windows = ich9_pm_windows,
    .state = &ich9_pm_state,
    .realize = ich9_pm_realize,
    .reset = ich9_pm_reset,
    .unrealize = ich9_pm_unrealize,
};
