/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The life of a machine that moves to another process: see migrate.h. Run states and events have QEMU's
 * names. */
#include <errno.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "block/block.h"
#include "vmm/board.h"
#include "vmm/disk_jobs.h"
#include "vmm/migrate.h"
#include "vmm/qmp.h"
#include "vmm/save.h"

#define LINGER_NS 3000000000u /* for whoever asks how it went */

static bool freeze_to_move(struct board *b, struct error **err)
{
    if (b->state != RUN_RUNNING && b->state != RUN_PAUSED)
        return error_set(err, EBUSY, "it has stopped"), false;
    /* Most of it now, so that the guest does not stand still for it. */
    if (!save_disks_flush(b, err))
        return false;
    bool running = b->state == RUN_RUNNING;
    runstate_freeze(b);
    if (__atomic_load_n(&b->pending, __ATOMIC_SEQ_CST)) {
        /* The guest is about to reset or to end: that comes first. */
        if (running)
            runstate_thaw(b);
        return error_set(err, EAGAIN, "something is about to happen"), false;
    }
    b->go_on_running = running;
    b->state = RUN_FINISH_MIGRATE;
    if (running)
        qmp_event(b->qmp, "STOP", NULL);
    return save_disks_flush(b, err);
}

static void go_on(struct board *b)
{
    if (b->state != RUN_FINISH_MIGRATE)
        return;
    b->state = RUN_PAUSED;
    if (!b->go_on_running)
        return;
    runstate_thaw(b);
    qmp_event(b->qmp, "RESUME", NULL);
}

static void tell_status(struct board *b, const char *status)
{
    if (b->migrate_settings.events)
        qmp_event(b->qmp, "MIGRATION", json_pack("{s:s}", "status", status));
}

static void done(struct board *b, enum migrate_end end, const struct error *failure)
{
    struct control_migration *last = &b->last_migration;

    migrate_progress(b->migration, last);
    if (failure)
        snprintf(last->error, sizeof(last->error), "%s", error_text(failure));
    migrate_free(b->migration);
    b->migration = NULL;
    if (b->state == RUN_FINISH_MIGRATE)
        b->state = end == MIGRATE_MOVED  ? RUN_POSTMIGRATE
                   : end == MIGRATE_LOST ? RUN_INTERNAL_ERROR
                                         : RUN_PAUSED;
    if (end == MIGRATE_MOVED && b->migrate_settings.end)
        loop_timer_arm(&b->moved_timer, monotonic_ns() + LINGER_NS);
    if (failure)
        log_line(end == MIGRATE_STAYED ? LOG_WARN : LOG_ERROR, "the machine was not moved: %s", last->error);
}

static const struct migrate_ops migrate_ops = {
    .freeze = freeze_to_move, .go_on = go_on, .status = tell_status, .done = done};

static void end_moved(void *opaque)
{
    runstate_end(opaque, BOARD_MOVED, false, "host-qmp-quit");
}

bool runstate_migrate(void *opaque, const char *address, struct error **err)
{
    struct board *b = opaque;

    if (b->save || b->migration || disk_jobs_active(b) || (b->state != RUN_RUNNING && b->state != RUN_PAUSED))
        return error_set(err, EBUSY, "cannot move the machine: %s",
                         b->save               ? "it is being saved"
                         : b->migration        ? "it is being moved"
                         : disk_jobs_active(b) ? "its disks are being copied"
                                               : "it has stopped"),
               false;
    b->last_migration = (struct control_migration){.status = "none"};
    loop_timer_init(&b->moved_timer, b->m.loop, end_moved, b);
    b->migration = migrate_start(b, address, &migrate_ops, err);
    return b->migration != NULL;
}

void runstate_migrate_cancel(void *opaque)
{
    struct board *b = opaque;

    if (b->migration)
        migrate_cancel(b->migration);
}

void runstate_migrate_info(void *opaque, struct control_migration *info)
{
    const struct board *b = opaque;

    if (b->migration)
        migrate_progress(b->migration, info);
    else
        *info = b->last_migration;
    if (!info->status)
        info->status = "none";
}

void runstate_migrate_settings(void *opaque, struct control_migrate_settings *out)
{
    *out = ((struct board *)opaque)->migrate_settings;
}

void runstate_migrate_set(void *opaque, const struct control_migrate_settings *settings)
{
    struct board *b = opaque;

    b->migrate_settings = *settings;
    if (b->migration)
        migrate_set(b->migration, settings);
}
