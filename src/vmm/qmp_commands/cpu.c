/* SPDX-License-Identifier: GPL-2.0-or-later */
/* query-cpus-fast (QEMU qapi/machine.json, CpuInfoFast). */
#include <stdio.h>

#include "vmm/qmp.h"

void qmp_cpu_path(char path[QMP_CPU_PATH_MAX], unsigned index)
{
    snprintf(path, QMP_CPU_PATH_MAX, "/machine/unattached/device[%u]", index);
}

static json_t *query_cpus_fast(struct qmp_call *call, struct error **err)
{
    json_t *list = json_array();
    unsigned count = call->ops->cpu_count(call->opaque);

    for (unsigned i = 0; i < count; i++) {
        char path[QMP_CPU_PATH_MAX];
        qmp_cpu_path(path, i);
        json_t *props = json_pack("{s:i, s:i, s:i}", "socket-id", 0, "core-id", (int)i, "thread-id", 0);
        json_array_append_new(list,
                              json_pack("{s:i, s:s, s:I, s:s, s:o}", "cpu-index", (int)i, "qom-path", path,
                                        "thread-id", (json_int_t)call->ops->cpu_thread_id(call->opaque, i),
                                        "target", "x86_64", "props", props));
    }
    return list;
}

const struct qmp_command qmp_cpu_commands[] = {
    {"query-cpus-fast", query_cpus_fast},
    {NULL, NULL},
};
