/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VM generation ID: a GUID in guest memory that is another one whenever the machine's state is one that
 * may be lived through more than once, so that the guest throws away what must be used only once, such as the
 * state of its random numbers. Microsoft, "Virtual Machine Generation ID"; QEMU docs/specs/vmgenid.rst. The
 * DSDT has its address and passes the event on.
 */
#include "device/platform/vmgenid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/parse.h"
#include "base/util.h"
#include "core/device.h"
#include "device/platform/ich9_pm.h"

#define GUID_SIZE 16

struct vmgenid {
    struct device dev;
    char *text;              /* property */
    uint8_t guid[GUID_SIZE]; /* as it is in memory */
};

static const struct prop vmgenid_props[] = {
    {"guid", PROP_STRING, offsetof(struct vmgenid, text), .help = "its first value; made up unless given"},
    {NULL},
};

static const struct state_field vmgenid_fields[] = {
    STATE_FIELD_BYTES(struct vmgenid, guid, GUID_SIZE),
    STATE_FIELD_END,
};

static const struct state_desc vmgenid_state = {
    .name = "vmgenid", .version = 1, .min_version = 1, .fields = vmgenid_fields};

static bool make_up(struct vmgenid *s, struct error **err)
{
    if (getrandom(s->guid, GUID_SIZE, 0) == GUID_SIZE)
        return true;
    error_set_errno(err, errno, "cannot get random numbers for the generation ID");
    return false;
}

/* The first three groups of digits are little-endian numbers. */
static bool take_text(struct vmgenid *s, struct error **err)
{
    uint8_t b[GUID_SIZE];
    if (!parse_uuid(s->text, b))
        return error_set(err, EINVAL, "vmgenid: '%s' is no GUID", s->text), false;
    store_le32(s->guid, load_be32(b));
    store_le16(s->guid + 4, load_be16(b + 4));
    store_le16(s->guid + 6, load_be16(b + 6));
    memcpy(s->guid + 8, b + 8, 8);
    return true;
}

static bool vmgenid_realize(struct device *dev, struct error **err)
{
    struct vmgenid *s = DEVICE_OF(struct vmgenid, dev);
    if (!guest_ptr(dev->machine->memory, VMGENID_ADDRESS, GUID_SIZE, true))
        return error_set(err, EINVAL, "vmgenid: there is no memory at its address"), false;
    if (s->text ? !take_text(s, err) : !make_up(s, err))
        return false;
    dev->machine->vmgenid = dev;
    return true;
}

static void vmgenid_unrealize(struct device *dev)
{
    dev->machine->vmgenid = NULL;
}

/* It stays the same, whatever the guest has done to its memory. */
static void vmgenid_reset(struct device *dev)
{
    guest_write(dev->machine->memory, VMGENID_ADDRESS, DEVICE_OF(struct vmgenid, dev)->guid, GUID_SIZE);
}

bool vmgenid_renew(struct device *dev, struct error **err)
{
    struct vmgenid *s = DEVICE_OF(struct vmgenid, dev);
    if (!make_up(s, err))
        return false;
    vmgenid_reset(dev);
    ich9_pm_raise_gpe(dev->machine->pm, VMGENID_GPE);
    return true;
}

const struct device_class vmgenid_class = {
    .name = "vmgenid",
    .help = "tells the guest when it goes on from a saved state or is a clone",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct vmgenid),
    .props = vmgenid_props,
    .state = &vmgenid_state,
    .realize = vmgenid_realize,
    .reset = vmgenid_reset,
    .unrealize = vmgenid_unrealize,
};
