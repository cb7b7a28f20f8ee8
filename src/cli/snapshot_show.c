/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Listing snapshots. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/file.h"
#include "cli/machines.h"
#include "cli/print.h"
#include "cli/snapshots.h"
#include "cli/verb.h"

struct shown {
    const struct machine *m;
    const struct snapshot_list *list;
    bool titled;
};

/* What a file takes on the host. */
static uint64_t bytes_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static uint64_t disk_bytes(const struct machine *m, const struct snapshot *s)
{
    cleanup(mem) char *path = layer_path(m, s->disk);
    return machine_has_disk(s->config) ? bytes_of(path) : 0;
}

static uint64_t memory_bytes(const struct machine *m, const struct snapshot *s)
{
    cleanup(mem) char *path = snapshot_memory(m, s->id);
    return s->memory ? bytes_of(path) : 0;
}

static bool is_at(const struct machine *m, const struct snapshot *s)
{
    return m->snapshot && strcmp(m->snapshot, s->id) == 0;
}

static json_t *snapshot_json(const struct shown *w, const struct snapshot *s)
{
    const struct snapshot *parent = snapshot_by_id(w->list, s->parent);
    return json_pack("{s:s, s:s, s:s?, s:s, s:s, s:b, s:I, s:I, s:b}", "name", s->name, "id", s->id, "parent",
                     parent ? parent->name : NULL, "created", s->created, "description", s->description,
                     "memory", s->memory, "disk_size", (json_int_t)disk_bytes(w->m, s), "memory_size",
                     (json_int_t)memory_bytes(w->m, s), "current", is_at(w->m, s));
}

static void print_row(struct shown *w, const struct snapshot *s, unsigned depth)
{
    char size[32];
    if (!w->titled)
        printf("%-24s %-21s %9s %-8s %s\n", "NAME", "CREATED", "ON HOST", "STATE", "DESCRIPTION");
    w->titled = true;
    cleanup(mem) char *name =
        catalog_format("%*s%s%s", (int)(2 * depth), "", s->name, is_at(w->m, s) ? " *" : "");
    printf("%-24s %-21s %9s %-8s %s\n", name, s->created,
           size_text(disk_bytes(w->m, s) + memory_bytes(w->m, s), size), s->memory ? "running" : "stopped",
           s->description);
}

/* What came after `parent`, each with what came after it. */
static void print_after(struct shown *w, const char *parent, unsigned depth)
{
    for (size_t i = 0; i < w->list->n; i++) {
        const struct snapshot *s = &w->list->v[i];
        if (strcmp(s->parent ? s->parent : "", parent) != 0)
            continue;
        print_row(w, s, depth);
        print_after(w, s->id, depth + 1);
    }
}

int snapshot_show(const char *machine, bool json, struct error **err)
{
    cleanup(machine) struct machine m = {0};
    cleanup(snapshot_list) struct snapshot_list list = {0};
    cleanup(database) struct database *db = machines_open(err);
    struct shown w = {.m = &m, .list = &list};
    if (!db || !machine_find(db, machine, &m, err) || !snapshot_list(db, &m, &list, err))
        return EXIT_RUCHE;
    if (!json) {
        print_after(&w, "", 0);
        return EXIT_OK;
    }
    json_t *array = json_array();
    for (size_t i = 0; i < list.n; i++)
        json_array_append_new(array, snapshot_json(&w, &list.v[i]));
    return print_json(array);
}
