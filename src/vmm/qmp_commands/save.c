/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Saving the machine to a file. QEMU saves into its disks, so these commands are Ruche's own. ruche-save,
 * with the argument "path", begins; the event RUCHE_SAVE tells the end, with "status", "path" and "error".
 * ruche-save-cancel gives up. query-ruche-save tells "status", "path", "bytes", "total", "pause" in
 * microseconds, and "error".
 */
#include <errno.h>

#include "base/error.h"
#include "vmm/qmp.h"

static json_t *save(struct qmp_call *call, struct error **err)
{
    const char *path = json_string_value(json_object_get(call->arguments, "path"));
    struct control_save size;

    if (!path || *path != '/') {
        error_set(err, EINVAL, "ruche-save wants the argument 'path', an absolute file name");
        return NULL;
    }
    if (json_string_length(json_object_get(call->arguments, "path")) >= sizeof(size.path)) {
        error_set(err, ENAMETOOLONG, "ruche-save: the file name is too long");
        return NULL;
    }
    return call->ops->save(call->opaque, path, err) ? json_object() : NULL;
}

static json_t *cancel(struct qmp_call *call, struct error **err)
{
    call->ops->save_cancel(call->opaque);
    return json_object();
}

static json_t *query(struct qmp_call *call, struct error **err)
{
    struct control_save s;

    call->ops->save_info(call->opaque, &s);
    json_t *o = json_pack("{s:s, s:I, s:I, s:I}", "status", s.status, "bytes", (json_int_t)s.bytes, "total",
                          (json_int_t)s.total, "pause", (json_int_t)(s.pause_ns / 1000));
    if (*s.path)
        json_object_set_new(o, "path", json_string(s.path));
    if (*s.error)
        json_object_set_new(o, "error", json_string(s.error));
    return o;
}

const struct qmp_command qmp_save_commands[] = {
    {"ruche-save", save, "path"},
    {"ruche-save-cancel", cancel},
    {"query-ruche-save", query},
    {NULL, NULL},
};
