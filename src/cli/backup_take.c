/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Taking a backup. The machine copies its disks to new files, of one instant, while it goes on; the guest's
 * file systems stand still for that instant if its agent can see to that. The manifest comes last: until then
 * there is no new backup, and the bitmap since the last one is still there.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/backup.h"
#include "catalog/file.h"
#include "catalog/image.h"
#include "catalog/sha256.h"
#include "cli/agent.h"
#include "cli/agent_freeze.h"
#include "cli/backup_plan.h"
#include "cli/backup_source.h"
#include "cli/backups.h"
#include "cli/interrupt.h"
#include "cli/machine_words.h"
#include "cli/machines.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/qemu_img.h"

#define FREEZE_LIMIT_MS 10000
#define POLL_US         50000

struct taking {
    struct backup_folder folder;
    struct backup_source source;
    struct backup_plan plan;
    json_t *files;           /* of the manifest's new entry */
    const char *consistency; /* "application", "crash", "stopped" */
    uint64_t bytes;          /* on the host, of the disks' files */
};

/* --- files that do not change much --- */

/* Named after their contents, they are there once for all backups. */
static bool add_small(struct taking *t, const char *role, const char *path, struct error **err)
{
    char sum[SHA256_HEX_SIZE];
    struct stat st;
    if (!path)
        return true;
    if (stat(path, &st) < 0)
        return error_set_errno(err, errno, "open '%s'", path), false;
    if (!sha256_file(path, sum, err))
        return false;
    cleanup(mem) char *name = catalog_format("%s-%.16s", role, sum);
    cleanup(mem) char *to = backup_path(&t->folder, name);
    cleanup(mem) char *part = catalog_format("%s.part", to);
    json_array_append_new(t->files, json_pack("{s:s, s:s, s:s, s:I}", "name", name, "role", role, "sha256",
                                              sum, "size", (json_int_t)st.st_size));
    if (backup_file_named(&t->folder, name))
        return true;
    if (!catalog_copy(path, part, err) || !catalog_sync(part, err))
        return false;
    return rename(part, to) == 0 || (error_set_errno(err, errno, "write '%s'", to), false);
}

/* What the machine boots, so that it does without its image; the command line goes into the configuration. */
static bool add_boot(struct taking *t, json_t *config, struct error **err)
{
    struct image image = {0};
    const struct machine *m = t->source.m;
    if (!machine_image(m, &image, err))
        return false;
    struct machine_boot boot = machine_boot(m, image.name ? &image : NULL);
    bool ok = add_small(t, "kernel", boot.kernel, err) && add_small(t, "initrd", boot.initrd, err);
    if (boot.cmdline)
        json_object_set_new(config, "cmdline", json_string(boot.cmdline));
    image_release(&image);
    cleanup(mem) char *seed = machine_seed(m);
    return ok && add_small(t, "seed", json_is_true(json_object_get(m->config, "seed")) ? seed : NULL, err);
}

/* --- the instant --- */

static bool make_target(struct taking *t, const struct disk_plan *d, struct error **err)
{
    cleanup(mem) char *path = backup_path(&t->folder, d->part);
    cleanup(mem) char *size = catalog_format("%llu", (unsigned long long)d->size);
    const char *const whole[] = {"qemu-img", "create", "-q", "-f", "qcow2", path, size, NULL};
    const char *const part[] = {"qemu-img", "create", "-q",       "-f", "qcow2", "-F",
                                "qcow2",    "-b",     d->backing, path, size,    NULL};
    return qemu_img(d->before ? part : whole, NULL, 0, err);
}

static json_t *backup_action(const struct taking *t, const struct disk_plan *d)
{
    cleanup(mem) char *path = backup_path(&t->folder, d->part);
    json_t *data =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:b}", "device", d->device, "job-id", d->device, "target", path,
                  "mode", "existing", "sync", d->before ? "bitmap" : "full", "auto-dismiss", false);
    if (d->before) {
        json_object_set_new(data, "bitmap", json_string(d->before));
        json_object_set_new(data, "bitmap-mode", json_string("never"));
    }
    return json_pack("{s:s, s:o}", "type", "drive-backup", "data", data);
}

/* All disks at once: what is in them goes to the files, and what changes from then on is noted. */
static bool begin_jobs(struct taking *t, struct error **err)
{
    json_t *actions = json_array();
    for (size_t i = 0; i < t->plan.count; i++) {
        const struct disk_plan *d = &t->plan.disk[i];
        json_array_append_new(actions, backup_action(t, d));
        if (d->after)
            json_array_append_new(actions,
                                  json_pack("{s:s, s:{s:s, s:s}}", "type", "block-dirty-bitmap-clear", "data",
                                            "node", d->device, "name", d->after));
    }
    json_t *begun =
        control_call(t->source.control, "transaction", json_pack("{s:o}", "actions", actions), err);
    json_decref(begun);
    return begun != NULL;
}

static void warn(const struct taking *t, struct error *why)
{
    fprintf(stderr, "ruche: backup of machine '%s': only crash-consistent: %s\n", t->source.m->name,
            error_text(why));
    error_free(why);
}

static bool begin_frozen(struct taking *t, struct agent *a, struct error **err)
{
    struct error *why = NULL;
    struct agent_freeze *f = agent_freeze(a, t->source.m, FREEZE_LIMIT_MS, &why);
    bool ok = begin_jobs(t, err);
    if (f && agent_thaw(a, f, &why))
        t->consistency = "application";
    else
        warn(t, why);
    return ok;
}

static bool begin_instant(struct taking *t, struct error **err)
{
    t->consistency = t->source.running ? "crash" : "stopped";
    struct agent *a = t->source.running ? agent_open(t->source.m, AGENT_PATIENCE_MS, NULL) : NULL;
    bool ok = a ? begin_frozen(t, a, err) : begin_jobs(t, err);
    agent_close(a);
    return ok;
}

/* --- copying --- */

struct jobs_look {
    uint64_t done, total;
    unsigned active;
    char error[512]; /* of one that failed */
};

static bool look_at_jobs(struct taking *t, struct jobs_look *l, struct error **err)
{
    *l = (struct jobs_look){0};
    json_t *jobs = control_call(t->source.control, "query-block-jobs", NULL, err), *job;
    size_t i;
    json_array_foreach(jobs, i, job)
    {
        const char *status = json_string_value(json_object_get(job, "status"));
        const char *error = json_string_value(json_object_get(job, "error"));
        l->done += (uint64_t)json_integer_value(json_object_get(job, "offset"));
        l->total += (uint64_t)json_integer_value(json_object_get(job, "len"));
        l->active += !status || strcmp(status, "concluded") != 0;
        if (error)
            snprintf(l->error, sizeof(l->error), "%s", error);
    }
    json_decref(jobs);
    return jobs != NULL;
}

static bool await_jobs(struct taking *t, struct error **err)
{
    struct progress progress;
    struct jobs_look l;
    bool ok;
    progress_start(&progress, "backup");
    while ((ok = look_at_jobs(t, &l, err)) && l.active && !*l.error && !interrupt_pending()) {
        progress_bytes(&progress, l.done, l.total);
        usleep(POLL_US);
    }
    progress_end(&progress, ok && !l.active && !*l.error);
    if (ok && *l.error)
        return error_set(err, 0, "copy its disks: %s", l.error), false;
    if (ok && l.active)
        return error_set(err, EINTR, "interrupted"), false;
    return ok && backup_source_stop_jobs(&t->source, err);
}

/* A disk's file is complete: it gets its name. */
static bool add_disk(struct taking *t, const struct disk_plan *d, struct error **err)
{
    cleanup(mem) char *part = backup_path(&t->folder, d->part);
    cleanup(mem) char *path = backup_path(&t->folder, d->name);
    char sum[SHA256_HEX_SIZE];
    struct stat st;
    if (!catalog_sync(part, err) || !sha256_file(part, sum, err))
        return false;
    if (stat(part, &st) < 0 || rename(part, path) < 0)
        return error_set_errno(err, errno, "write '%s'", path), false;
    t->bytes += (uint64_t)st.st_blocks * 512;
    json_t *file = json_pack("{s:s, s:s, s:s, s:I}", "name", d->name, "role", d->role, "sha256", sum, "size",
                             (json_int_t)st.st_size);
    if (d->backing)
        json_object_set_new(file, "backing", json_string(d->backing));
    json_array_append_new(t->files, file);
    return true;
}

static bool copy_disks(struct taking *t, struct error **err)
{
    for (size_t i = 0; i < t->plan.count; i++)
        if (!make_target(t, &t->plan.disk[i], err))
            return false;
    if (!begin_instant(t, err) || !await_jobs(t, err))
        return false;
    for (size_t i = 0; i < t->plan.count; i++)
        if (!add_disk(t, &t->plan.disk[i], err))
            return false;
    return catalog_sync(t->folder.dir, err);
}

/* --- the whole --- */

/* The new entry; from here on the backup is there. */
static bool enter(struct taking *t, const char created[], json_t *config, struct error **err)
{
    json_t *entry =
        json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:O, s:O}", "number", t->plan.number, "created", created,
                  "kind", t->plan.incremental ? "incremental" : "full", "why", t->plan.why, "bitmap",
                  t->plan.bitmap, "consistency", t->consistency, "config", config, "files", t->files);
    json_array_append_new(backup_list(&t->folder), entry);
    json_object_set_new(t->folder.content, "next", json_integer(t->plan.number + 1));
    json_object_set_new(t->folder.content, "machine", json_string(t->source.m->name));
    return backup_save(&t->folder, err);
}

static bool take(struct taking *t, bool full, struct error **err)
{
    char created[CATALOG_TIME_SIZE];
    json_t *config = json_deep_copy(t->source.m->config);
    bool ok = backup_source_stop_jobs(&t->source, err) &&
              backup_plan_tidy(&t->folder, &t->source, backup_text(backup_last(&t->folder), "bitmap"), err) &&
              backup_plan_make(&t->folder, &t->source, full, &t->plan, err);
    if (ok && *t->plan.why)
        fprintf(stderr, "ruche: backup of machine '%s': not only what has changed is copied: %s\n",
                t->source.m->name, t->plan.why);
    catalog_time(created);
    ok = ok && add_boot(t, config, err) && copy_disks(t, err) && enter(t, created, config, err);
    json_decref(config);
    if (ok) /* if it fails the next one does it */
        backup_plan_tidy(&t->folder, &t->source, t->plan.bitmap, NULL);
    return ok;
}

/* Nothing half-made stays, as far as that can be; the next backup removes the rest. What counts is the
 * manifest that is on the disk, whichever it is. */
static void clear_up(struct taking *t)
{
    interrupt_take();
    if (!t->folder.content || !backup_reload(&t->folder, NULL))
        return;
    if (t->source.control && backup_source_stop_jobs(&t->source, NULL))
        backup_plan_tidy(&t->folder, &t->source, backup_text(backup_last(&t->folder), "bitmap"), NULL);
    backup_sweep(&t->folder, NULL);
}

static void tell(const struct taking *t)
{
    char size[32];
    printf("backup %lld: %s, %s, %s\n", (long long)t->plan.number,
           t->plan.incremental ? "incremental" : "full", size_text(t->bytes, size),
           strcmp(t->consistency, "stopped") == 0 ? "of a stopped machine"
           : *t->consistency == 'a'               ? "application-consistent"
                                                  : "crash-consistent");
}

bool backup_take(const char *machine, const char *dir, bool full, struct error **err)
{
    cleanup(machine) struct machine m = {0};
    struct taking t = {.folder = {.fd = -1}, .source = {.turn = -1, .lock = -1}, .files = json_array()};
    cleanup(database) struct database *db = machines_open(err);
    bool ok = db && machine_find(db, machine, &m, err) && backup_open_for(dir, &m, &t.folder, err);
    interrupt_watch();
    ok = ok && backup_source_open(&m, &t.source, err) && take(&t, full, err);
    if (ok)
        tell(&t);
    else
        clear_up(&t);
    backup_source_close(&t.source);
    backup_plan_free(&t.plan);
    backup_close(&t.folder);
    json_decref(t.files);
    return ok;
}
