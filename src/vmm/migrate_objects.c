/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects and versions: see migrate_objects.h. */
#include "vmm/migrate_objects.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/board.h"
#include "vmm/save_config.h"
#include "vmm/save_state.h"

static void add_object(void *opaque, const char *name, const char *cls, const struct state_desc *desc)
{
    json_array_append_new(opaque, json_pack("[s, s, I]", name, cls, (json_int_t)desc->version));
}

char *migrate_objects_describe(const struct board *b, struct error **err)
{
    cleanup(json) json_t *list = json_array();

    save_state_each(b, add_object, list);
    char *text = list ? json_dumps(list, JSON_COMPACT) : NULL;
    if (!text)
        error_set_errno(err, ENOMEM, "cannot describe the machine");
    return text;
}

struct fit {
    json_t *list;
    unsigned ours;
    struct error *why;
};

static void check_object(void *opaque, const char *name, const char *cls, const struct state_desc *desc)
{
    struct fit *f = opaque;
    const char *their_name, *their_cls;
    json_int_t version;
    size_t i;
    json_t *o;

    f->ours++;
    json_array_foreach(f->list, i, o)
    {
        if (f->why || json_unpack(o, "[s, s, I !]", &their_name, &their_cls, &version) < 0 ||
            strcmp(name, their_name) != 0 || strcmp(cls, their_cls) != 0)
            continue;
        if (version < desc->min_version || version > desc->version)
            error_set(&f->why, ENOTSUP,
                      "the state of %s (%s) is of version %lld, and this Ruche reads %u to %u", name, cls,
                      (long long)version, desc->min_version, desc->version);
        return;
    }
    if (!f->why)
        error_set(&f->why, ENOTSUP, "the machine here has %s (%s), which the one that is to come has not",
                  name, cls);
}

bool migrate_objects_fit(const struct board *b, const char *text, size_t len, struct error **err)
{
    cleanup(json) json_t *list = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    struct fit f = {.list = list};

    if (!json_is_array(list))
        return error_set(err, EBADMSG, "the list of the machine's devices is none"), false;
    save_state_each(b, check_object, &f);
    if (!f.why && f.ours != json_array_size(list))
        error_set(&f.why, ENOTSUP, "it has %zu devices and processors, the machine here %u",
                  json_array_size(list), f.ours);
    if (!f.why)
        return true;
    error_prefix(err, f.why, "this machine cannot be taken");
    return false;
}
