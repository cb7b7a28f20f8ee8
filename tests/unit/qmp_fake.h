/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine for the control socket's tests: it writes down what it was asked. */
#ifndef TESTS_QMP_FAKE_H
#define TESTS_QMP_FAKE_H

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "block/block.h"
#include "vmm/control.h"

struct fake_machine {
    bool running, refuse;
    char calls[256];
    struct control_migrate_settings settings;
};

static inline void fake_note(void *opaque, const char *what)
{
    struct fake_machine *f = opaque;
    strncat(f->calls, what, sizeof(f->calls) - strlen(f->calls) - 1);
}

static inline const char *fake_status(void *opaque)
{
    return ((struct fake_machine *)opaque)->running ? "running" : "paused";
}

static inline bool fake_running(void *opaque)
{
    return ((struct fake_machine *)opaque)->running;
}

static inline void fake_stop(void *opaque)
{
    fake_note(opaque, "stop ");
}

static inline bool fake_cont(void *opaque, struct error **err)
{
    if (((struct fake_machine *)opaque)->refuse) {
        error_set(err, EBUSY, "refused");
        return false;
    }
    fake_note(opaque, "cont ");
    return true;
}

static inline void fake_reset(void *opaque)
{
    fake_note(opaque, "reset ");
}

static inline void fake_powerdown(void *opaque)
{
    fake_note(opaque, "powerdown ");
}

static inline void fake_quit(void *opaque)
{
    fake_note(opaque, "quit ");
}

static inline unsigned fake_cpu_count(void *opaque)
{
    return 2;
}

static inline long fake_cpu_thread_id(void *opaque, unsigned index)
{
    return 100 + (long)index;
}

static inline const char *fake_engine_name(void *opaque)
{
    return "bt";
}

static inline unsigned fake_cpu_stats(void *opaque, unsigned index, struct engine_stat *out)
{
    out[0] = (struct engine_stat){"translations", ENGINE_STAT_COUNT, 7 + index};
    out[1] = (struct engine_stat){"halt-cycles", ENGINE_STAT_CYCLES, 9};
    return 2;
}

static inline bool fake_block_info(void *opaque, unsigned index, struct control_block *info)
{
    *info = (struct control_block){.id = "disk0",
                                   .path = "/images/a.qcow2",
                                   .format = "qcow2",
                                   .backing = "base.raw",
                                   .size = GIB,
                                   .allocated = MIB,
                                   .cluster_size = 65536,
                                   .readonly = true};
    return index == 0;
}

static inline bool fake_bitmap_info(void *opaque, unsigned disk, unsigned index, struct block_bitmap *info)
{
    *info = (struct block_bitmap){.name = "b0", .granularity = 65536, .dirty = 131072, .recording = true};
    return index == 0;
}

static inline bool fake_chardev_info(void *opaque, unsigned index, struct control_chardev *info)
{
    *info = (struct control_chardev){.label = "serial0", .spec = "unix:/x", .open = true};
    return index == 0;
}

static inline bool fake_save(void *opaque, const struct control_save_order *order, struct error **err)
{
    if (((struct fake_machine *)opaque)->refuse) {
        error_set(err, EBUSY, "refused");
        return false;
    }
    fake_note(opaque, "save ");
    fake_note(opaque, order->path);
    for (unsigned i = 0; i < order->overlay_count; i++) {
        fake_note(opaque, " ");
        fake_note(opaque, order->overlay[i].device);
        fake_note(opaque, order->overlay[i].file);
    }
    return true;
}

static inline void fake_save_cancel(void *opaque)
{
    fake_note(opaque, "save-cancel ");
}

static inline void fake_save_info(void *opaque, struct control_save *info)
{
    *info = (struct control_save){.status = "failed",
                                  .path = "/saved",
                                  .error = "the disk is full",
                                  .bytes = 5,
                                  .total = 7,
                                  .pause_ns = 3000};
}

static inline bool fake_disks_change(void *opaque, const struct control_disk_change *c, unsigned count,
                                     struct error **err)
{
    static const char *const names[] = {"add", "remove", "clear", "backup"};
    for (unsigned i = 0; i < count; i++) {
        fake_note(opaque, names[c[i].action]);
        fake_note(opaque, c[i].device);
        fake_note(opaque, c[i].bitmap ? c[i].bitmap : "-");
        fake_note(opaque, c[i].target ? c[i].target : "");
        fake_note(opaque, c[i].keep ? " kept " : " ");
    }
    if (((struct fake_machine *)opaque)->refuse)
        error_set(err, EBUSY, "refused");
    return !((struct fake_machine *)opaque)->refuse;
}

static inline bool fake_job_info(void *opaque, unsigned index, struct control_job *info)
{
    *info =
        (struct control_job){.id = "j", .error = "full", .done = 1, .total = 2, .speed = 3, .ended = true};
    return index == 0;
}

static inline bool fake_job_cancel(void *opaque, const char *id, struct error **err)
{
    fake_note(opaque, "job-cancel ");
    fake_note(opaque, id);
    return true;
}

static inline bool fake_job_dismiss(void *opaque, const char *id, struct error **err)
{
    fake_note(opaque, "job-dismiss ");
    fake_note(opaque, id);
    return true;
}

static inline bool fake_job_set_speed(void *opaque, const char *id, uint64_t speed, struct error **err)
{
    fake_note(opaque, speed == 7 ? "job-speed 7 " : "job-speed ");
    fake_note(opaque, id);
    return true;
}

static inline bool fake_migrate(void *opaque, const char *address, struct error **err)
{
    if (((struct fake_machine *)opaque)->refuse) {
        error_set(err, EBUSY, "refused");
        return false;
    }
    fake_note(opaque, "migrate ");
    fake_note(opaque, address);
    return true;
}

static inline void fake_migrate_cancel(void *opaque)
{
    fake_note(opaque, " migrate-cancel");
}

static inline void fake_migrate_info(void *opaque, struct control_migration *info)
{
    *info = (struct control_migration){.status = ((struct fake_machine *)opaque)->running ? "failed" : "none",
                                       .error = "the line broke",
                                       .total_ns = 7000000,
                                       .downtime_ns = 3000000,
                                       .remaining = 5,
                                       .throttle = 20};
}

static inline void fake_migrate_settings(void *opaque, struct control_migrate_settings *out)
{
    *out = ((struct fake_machine *)opaque)->settings;
}

static inline void fake_migrate_set(void *opaque, const struct control_migrate_settings *settings)
{
    ((struct fake_machine *)opaque)->settings = *settings;
}

static const struct control_ops fake_ops = {
    .status = fake_status,
    .running = fake_running,
    .stop = fake_stop,
    .cont = fake_cont,
    .reset = fake_reset,
    .powerdown = fake_powerdown,
    .quit = fake_quit,
    .cpu_count = fake_cpu_count,
    .cpu_thread_id = fake_cpu_thread_id,
    .engine_name = fake_engine_name,
    .cpu_stats = fake_cpu_stats,
    .block_info = fake_block_info,
    .bitmap_info = fake_bitmap_info,
    .chardev_info = fake_chardev_info,
    .save = fake_save,
    .save_cancel = fake_save_cancel,
    .save_info = fake_save_info,
    .disks_change = fake_disks_change,
    .job_info = fake_job_info,
    .job_cancel = fake_job_cancel,
    .job_dismiss = fake_job_dismiss,
    .job_set_speed = fake_job_set_speed,
    .migrate = fake_migrate,
    .migrate_cancel = fake_migrate_cancel,
    .migrate_info = fake_migrate_info,
    .migrate_settings = fake_migrate_settings,
    .migrate_set = fake_migrate_set,
};

#endif
