/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stopping, going on, reset, power button, end (QEMU qapi/misc.json, run-state.json). */
#include "vmm/qmp.h"

static json_t *stop(struct qmp_call *call, struct error **err)
{
    call->ops->stop(call->opaque);
    return json_object();
}

static json_t *cont(struct qmp_call *call, struct error **err)
{
    return call->ops->cont(call->opaque, err) ? json_object() : NULL;
}

static json_t *system_reset(struct qmp_call *call, struct error **err)
{
    call->ops->reset(call->opaque);
    return json_object();
}

static json_t *system_powerdown(struct qmp_call *call, struct error **err)
{
    call->ops->powerdown(call->opaque);
    return json_object();
}

static json_t *quit(struct qmp_call *call, struct error **err)
{
    call->ops->quit(call->opaque);
    return json_object();
}

const struct qmp_command qmp_power_commands[] = {
    {"stop", stop}, {"cont", cont}, {"system_reset", system_reset}, {"system_powerdown", system_powerdown},
    {"quit", quit}, {NULL, NULL},
};
