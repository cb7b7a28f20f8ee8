/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the server and the machine are: query-version, query-commands, query-status (QEMU qapi/control.json).
 */
#include "vmm/qmp.h"

static json_t *query_version(struct qmp_call *call, struct error **err)
{
    return qmp_version();
}

static json_t *query_commands(struct qmp_call *call, struct error **err)
{
    json_t *list = json_array();

    for (unsigned t = 0; qmp_command_tables[t]; t++)
        for (const struct qmp_command *c = qmp_command_tables[t]; c->name; c++)
            json_array_append_new(list, json_pack("{s:s}", "name", c->name));
    json_array_append_new(list, json_pack("{s:s}", "name", "qmp_capabilities"));
    return list;
}

static json_t *query_status(struct qmp_call *call, struct error **err)
{
    return json_pack("{s:s, s:b, s:b}", "status", call->ops->status(call->opaque), "running",
                     call->ops->running(call->opaque), "singlestep", false);
}

const struct qmp_command qmp_query_commands[] = {
    {"query-version", query_version},
    {"query-commands", query_commands},
    {"query-status", query_status},
    {NULL, NULL},
};
