/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Saving the machine to a file. QEMU saves into its disks, so these commands are Ruche's own. ruche-save,
 * with the argument "path", begins; "overlays", a list of objects with "device" and "snapshot-file" (the
 * words of QEMU's blockdev-snapshot-sync), gives disks a new top layer at the moment that is saved. The event
 * RUCHE_SAVE tells the end, with "status", "path" and "error". ruche-save-cancel gives up. query-ruche-save
 * tells "status", "path", "bytes", "total", "pause" in microseconds, and "error".
 */
#include <errno.h>

#include "base/error.h"
#include "vmm/qmp.h"

static bool take_overlays(json_t *list, struct control_save_order *order, struct error **err)
{
    size_t i;
    json_t *item;

    if (list && (!json_is_array(list) || json_array_size(list) > CONTROL_OVERLAYS_MAX))
        return error_set(err, EINVAL, "ruche-save: 'overlays' is no list of at most %d",
                         CONTROL_OVERLAYS_MAX),
               false;
    json_array_foreach(list, i, item)
    {
        struct control_overlay *o = &order->overlay[i];
        if (json_unpack(item, "{s:s, s:s !}", "device", &o->device, "snapshot-file", &o->file) < 0 ||
            *o->file != '/')
            return error_set(err, EINVAL,
                             "ruche-save: an overlay has a 'device' and a 'snapshot-file', an absolute file "
                             "name"),
                   false;
        order->overlay_count++;
    }
    return true;
}

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
    struct control_save_order order = {.path = path};
    if (!take_overlays(json_object_get(call->arguments, "overlays"), &order, err))
        return NULL;
    return call->ops->save(call->opaque, &order, err) ? json_object() : NULL;
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
    {"ruche-save", save, "path,overlays"},
    {"ruche-save-cancel", cancel},
    {"query-ruche-save", query},
    {NULL, NULL},
};
