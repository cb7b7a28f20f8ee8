/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Backups of disks, and dirty bitmaps (QEMU qapi/block-core.json, qapi/transaction.json). Of drive-backup
 * there is what a backup in files needs: to an image that was made beforehand ("mode": "existing"), of all
 * ("sync": "full") or of what a bitmap says ("bitmap", with "bitmap-mode": "never", which leaves it as it
 * is). Bitmaps are always persistent. "transaction" makes several changes at one instant, of several disks.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "vmm/qmp.h"

#define GRANULARITY 65536

static bool wrong(struct error **err, const char *command, const char *why)
{
    return error_set(err, EINVAL, "%s: %s", command, why), false;
}

/* A name of BITMAP on NODE. */
static bool take_bitmap(const json_t *data, const char *command, struct control_disk_change *c,
                        struct error **err)
{
    c->device = json_string_value(json_object_get(data, "node"));
    c->bitmap = json_string_value(json_object_get(data, "name"));
    return (c->device && c->bitmap) || wrong(err, command, "'node' and 'name' are wanted");
}

static bool take_add(const json_t *data, const char *command, struct control_disk_change *c,
                     struct error **err)
{
    const json_t *granularity = json_object_get(data, "granularity");
    c->action = CONTROL_BITMAP_ADD;
    c->granularity = granularity ? (uint64_t)json_integer_value(granularity) : GRANULARITY;
    if (!json_is_true(json_object_get(data, "persistent")))
        return wrong(err, command, "all bitmaps are persistent: \"persistent\": true is wanted");
    return take_bitmap(data, command, c, err);
}

static bool take_remove(const json_t *data, const char *command, struct control_disk_change *c,
                        struct error **err)
{
    c->action = CONTROL_BITMAP_REMOVE;
    return take_bitmap(data, command, c, err);
}

static bool take_clear(const json_t *data, const char *command, struct control_disk_change *c,
                       struct error **err)
{
    c->action = CONTROL_BITMAP_CLEAR;
    return take_bitmap(data, command, c, err);
}

/* Whether a member is missing or has the one value that is understood. */
static bool is_or_missing(const json_t *data, const char *key, const char *value)
{
    const json_t *have = json_object_get(data, key);
    return !have || (json_is_string(have) && strcmp(json_string_value(have), value) == 0);
}

static bool take_backup(const json_t *data, const char *command, struct control_disk_change *c,
                        struct error **err)
{
    const char *sync = json_string_value(json_object_get(data, "sync"));
    const char *mode = json_string_value(json_object_get(data, "mode"));
    const char *job = json_string_value(json_object_get(data, "job-id"));
    json_int_t speed = json_integer_value(json_object_get(data, "speed"));
    bool by_bitmap = sync && strcmp(sync, "bitmap") == 0;
    c->action = CONTROL_BACKUP;
    c->device = json_string_value(json_object_get(data, "device"));
    c->target = json_string_value(json_object_get(data, "target"));
    c->bitmap = json_string_value(json_object_get(data, "bitmap"));
    c->job = job ? job : c->device;
    c->speed = (uint64_t)speed;
    c->keep = json_is_false(json_object_get(data, "auto-dismiss"));
    if (!c->device || !c->target || *c->target != '/')
        return wrong(err, command, "'device' and 'target', an absolute file name, are wanted");
    if (!by_bitmap && (!sync || strcmp(sync, "full") != 0))
        return wrong(err, command, "'sync' is wanted, \"full\" or \"bitmap\"");
    if (by_bitmap != (c->bitmap != NULL) || by_bitmap != (json_object_get(data, "bitmap-mode") != NULL) ||
        !is_or_missing(data, "bitmap-mode", "never"))
        return wrong(
            err, command,
            "'bitmap' and \"bitmap-mode\": \"never\" go with \"sync\": \"bitmap\", and only with that");
    if (!mode || strcmp(mode, "existing") != 0 || !is_or_missing(data, "format", "qcow2"))
        return wrong(err, command, "the target is an image that exists: \"mode\": \"existing\", in qcow2");
    return speed >= 0 || wrong(err, command, "'speed' is negative");
}

static const struct change {
    const char *name;
    bool (*take)(const json_t *data, const char *command, struct control_disk_change *c, struct error **err);
} changes[] = {{"block-dirty-bitmap-add", take_add},
               {"block-dirty-bitmap-remove", take_remove},
               {"block-dirty-bitmap-clear", take_clear},
               {"drive-backup", take_backup}};

/* One alone. */
static json_t *change(struct qmp_call *call, const char *name, struct error **err)
{
    struct control_disk_change c = {0};
    const struct change *kind = changes;
    while (strcmp(kind->name, name) != 0)
        kind++;
    return kind->take(call->arguments, name, &c, err) && call->ops->disks_change(call->opaque, &c, 1, err)
               ? json_object()
               : NULL;
}

static json_t *bitmap_add(struct qmp_call *call, struct error **err)
{
    return change(call, "block-dirty-bitmap-add", err);
}

static json_t *bitmap_remove(struct qmp_call *call, struct error **err)
{
    return change(call, "block-dirty-bitmap-remove", err);
}

static json_t *bitmap_clear(struct qmp_call *call, struct error **err)
{
    return change(call, "block-dirty-bitmap-clear", err);
}

static json_t *drive_backup(struct qmp_call *call, struct error **err)
{
    return change(call, "drive-backup", err);
}

static bool take_action(json_t *action, struct control_disk_change *c, struct error **err)
{
    const char *type = json_string_value(json_object_get(action, "type"));
    const json_t *data = json_object_get(action, "data");
    if (!type || !json_is_object(data))
        return wrong(err, "transaction", "an action has a 'type' and 'data'");
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++)
        if (strcmp(changes[i].name, type) == 0)
            return changes[i].take(data, type, c, err);
    return error_set(err, EINVAL, "transaction: there is no action '%s'", type), false;
}

static json_t *transaction(struct qmp_call *call, struct error **err)
{
    json_t *actions = json_object_get(call->arguments, "actions"), *action;
    struct control_disk_change list[CONTROL_CHANGES_MAX] = {0};
    size_t i;

    if (!json_is_array(actions) || json_array_size(actions) > CONTROL_CHANGES_MAX) {
        error_set(err, EINVAL, "transaction: 'actions' is no list of at most %d", CONTROL_CHANGES_MAX);
        return NULL;
    }
    json_array_foreach(actions, i, action)
    {
        if (!take_action(action, &list[i], err))
            return NULL;
    }
    return call->ops->disks_change(call->opaque, list, (unsigned)json_array_size(actions), err)
               ? json_object()
               : NULL;
}

static json_t *query_block_jobs(struct qmp_call *call, struct error **err)
{
    json_t *list = json_array();
    struct control_job j;

    for (unsigned i = 0; call->ops->job_info(call->opaque, i, &j); i++) {
        json_t *o = json_pack(
            "{s:s, s:s, s:I, s:I, s:I, s:b, s:b, s:b, s:s, s:s, s:b, s:b}", "type", "backup", "device", j.id,
            "len", (json_int_t)j.total, "offset", (json_int_t)j.done, "speed", (json_int_t)j.speed, "busy",
            !j.ended, "paused", false, "ready", false, "io-status", "ok", "status",
            j.ended ? "concluded" : "running", "auto-finalize", true, "auto-dismiss", false);
        if (j.error)
            json_object_set_new(o, "error", json_string(j.error));
        json_array_append_new(list, o);
    }
    return list;
}

/* The argument that names a job; NULL and *err when it is missing. */
static const char *job_of(const struct qmp_call *call, const char *key, struct error **err)
{
    const char *id = json_string_value(json_object_get(call->arguments, key));
    if (!id)
        error_set(err, EINVAL, "'%s' is wanted", key);
    return id;
}

static json_t *cancel(struct qmp_call *call, struct error **err)
{
    const char *id = job_of(call, "device", err);
    return id && call->ops->job_cancel(call->opaque, id, err) ? json_object() : NULL;
}

static json_t *dismiss(struct qmp_call *call, struct error **err)
{
    const char *id = job_of(call, "id", err);
    return id && call->ops->job_dismiss(call->opaque, id, err) ? json_object() : NULL;
}

static json_t *set_speed(struct qmp_call *call, struct error **err)
{
    const char *id = job_of(call, "device", err);
    const json_t *speed = json_object_get(call->arguments, "speed");
    if (!id)
        return NULL;
    if (!json_is_integer(speed) || json_integer_value(speed) < 0) {
        error_set(err, EINVAL, "block-job-set-speed: 'speed' is wanted, in bytes a second");
        return NULL;
    }
    bool ok = call->ops->job_set_speed(call->opaque, id, (uint64_t)json_integer_value(speed), err);
    return ok ? json_object() : NULL;
}

const struct qmp_command qmp_job_commands[] = {
    {"block-dirty-bitmap-add", bitmap_add, "node,name,granularity,persistent"},
    {"block-dirty-bitmap-remove", bitmap_remove, "node,name"},
    {"block-dirty-bitmap-clear", bitmap_clear, "node,name"},
    {"drive-backup", drive_backup,
     "device,target,sync,mode,format,bitmap,bitmap-mode,speed,job-id,auto-dismiss"},
    {"transaction", transaction, "actions,properties"},
    {"query-block-jobs", query_block_jobs},
    {"block-job-cancel", cancel, "device,force"},
    {"block-job-dismiss", dismiss, "id"},
    {"block-job-set-speed", set_speed, "device,speed"},
    {NULL, NULL},
};
