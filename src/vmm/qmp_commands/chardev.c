/* SPDX-License-Identifier: GPL-2.0-or-later */
/* query-chardev (QEMU qapi/char.json, ChardevInfo). */
#include "vmm/qmp.h"

static json_t *query_chardev(struct qmp_call *call, struct error **err)
{
    json_t *list = json_array();
    struct control_chardev c;

    for (unsigned i = 0; call->ops->chardev_info(call->opaque, i, &c); i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "label", c.label, "filename", c.spec,
                                              "frontend-open", c.open));
    return list;
}

const struct qmp_command qmp_chardev_commands[] = {
    {"query-chardev", query_chardev},
    {NULL, NULL},
};
