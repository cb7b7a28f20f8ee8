/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Saving: see saving.h. */
#include "cli/saving.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/progress.h"

#define POLL_US 20000

/* Shows how far it is until it has ended. */
static bool wait_saved(struct control *c, const char *what, struct error **err)
{
    struct progress progress;
    progress_start(&progress, what);
    snprintf(progress.title, sizeof(progress.title), "MiB");
    for (;;) {
        json_t *o = control_call(c, "query-ruche-save", NULL, err);
        if (!o)
            return progress_end(&progress, false), false;
        const char *status = json_string_value(json_object_get(o, "status"));
        const char *why = json_string_value(json_object_get(o, "error"));
        bool active = status && strcmp(status, "active") == 0,
             ok = status && strcmp(status, "completed") == 0;
        progress.step = (unsigned)((uint64_t)json_integer_value(json_object_get(o, "bytes")) / MIB);
        progress.steps = (unsigned)((uint64_t)json_integer_value(json_object_get(o, "total")) / MIB);
        if (!active && !ok)
            error_set(err, 0, "%s", why ? why : "it was cancelled");
        json_decref(o);
        if (!active)
            return progress_end(&progress, ok), ok;
        progress_tick(&progress);
        usleep(POLL_US);
    }
}

bool saving_run(struct control *c, const char *what, json_t *arguments, struct error **err)
{
    json_t *begun = control_call(c, "ruche-save", arguments, err);
    json_decref(begun);
    return begun && wait_saved(c, what, err);
}
