/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the control socket can ask of a machine. The board implements it; tests give a machine of their own.
 * All calls come from the main loop with the machine lock held.
 */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/engine.h"

struct block_bitmap;
struct error;

/* Strings stay valid until the next call of any operation. */
struct control_block {
    const char *id;   /* of the device */
    const char *path; /* of the image */
    const char *format;
    const char *backing; /* NULL: none */
    uint64_t size, allocated;
    unsigned cluster_size; /* 0: the format has none */
    bool readonly, dirty, corrupt;
};

struct control_chardev {
    const char *label; /* of the front end, e.g. "serial0" */
    const char *spec;  /* e.g. "unix:/run/console" */
    bool open;         /* the guest has it open, as far as can be known */
};

/* How the last save went, or how far the one in progress is. */
struct control_save {
    const char *status; /* "none", "active", "completed", "failed", "cancelled" */
    char path[4096];
    char error[512];       /* when it failed */
    uint64_t bytes, total; /* of memory; total grows while it is being found out */
    uint64_t pause_ns;     /* for which the machine stood still */
};

/* What to save, and the disks that get a new, empty top layer at the moment that is saved. */
#define CONTROL_OVERLAYS_MAX 64
struct control_save_order {
    const char *path;
    struct control_overlay {
        const char *device, *file; /* of the disk; of its overlay, made beforehand */
    } overlay[CONTROL_OVERLAYS_MAX];
    unsigned overlay_count;
};

/* One change of a disk; several of them happen at one instant. */
enum control_disk_action {
    CONTROL_BITMAP_ADD,
    CONTROL_BITMAP_REMOVE,
    CONTROL_BITMAP_CLEAR,
    CONTROL_BACKUP, /* begins to copy what the disk then holds */
};
struct control_disk_change {
    enum control_disk_action action;
    const char *device;   /* the disk */
    const char *bitmap;   /* by which the backup goes; NULL: it copies everything */
    uint64_t granularity; /* of ADD, bytes */
    /* Of BACKUP. */
    const char *job, *target; /* its name; the image, made beforehand, that is copied to */
    uint64_t speed;           /* bytes a second; 0: no limit */
    bool keep;                /* the job is still shown when it has ended, until job_dismiss */
};
#define CONTROL_CHANGES_MAX 256

/* A job of copying a disk. Strings as those of control_block. */
struct control_job {
    const char *id;
    const char *error; /* why it failed; NULL: it has not */
    uint64_t done, total, speed;
    bool ended;
};

/* How a migration to another process is to go on; QEMU's names and units. */
struct control_migrate_settings {
    bool auto_converge;      /* slow the guest down when it writes faster than can be sent */
    bool end;                /* the process ends once the machine is elsewhere */
    bool events;             /* MIGRATION is sent */
    bool compress;           /* memory, by zstd */
    uint64_t max_bandwidth;  /* bytes a second while the machine runs; 0: no limit */
    uint64_t downtime_limit; /* milliseconds for which the machine may stand still */
    uint64_t throttle_initial, throttle_increment, throttle_max; /* percent */
};

/* How the last migration went, or how far the one in progress is. Times in nanoseconds, sizes in bytes. */
struct control_migration {
    const char *status; /* QEMU's MigrationStatus, "none" when there was none */
    char error[512];    /* when it failed */
    uint64_t setup_ns, total_ns, downtime_ns, expected_downtime_ns;
    uint64_t transferred;      /* on the wire */
    uint64_t remaining, total; /* of memory */
    uint64_t full_pages, zero_pages;
    uint64_t dirty_pages_rate; /* a second */
    uint64_t bandwidth;        /* of memory, a second */
    uint64_t rounds;
    unsigned throttle; /* percent by which the guest is slowed down */
};

struct control_ops {
    /* QEMU's name of the run state: "running", "paused", "shutdown", "guest-panicked", "internal-error", ...
     */
    const char *(*status)(void *opaque);
    bool (*running)(void *opaque);

    /* Pauses all processors; harmless when they are. Drops the machine lock while it waits for them. */
    void (*stop)(void *opaque);
    /* Goes on; refused where only a reset or the end can follow. */
    bool (*cont)(void *opaque, struct error **err);
    /* These three take effect soon, after the reply. */
    void (*reset)(void *opaque);
    void (*powerdown)(void *opaque);
    void (*quit)(void *opaque);

    unsigned (*cpu_count)(void *opaque);
    long (*cpu_thread_id)(void *opaque, unsigned index); /* of the host */
    const char *(*engine_name)(void *opaque);
    /* Counters of a processor, at most ENGINE_STATS_MAX; how many. */
    unsigned (*cpu_stats)(void *opaque, unsigned index, struct engine_stat *out);
    /* Number `index`; false when there is none. */
    bool (*block_info)(void *opaque, unsigned index, struct control_block *info);
    /* Bitmap `index` of disk `disk`; false when there is none. */
    bool (*bitmap_info)(void *opaque, unsigned disk, unsigned index, struct block_bitmap *info);
    bool (*chardev_info)(void *opaque, unsigned index, struct control_chardev *info);

    /*
     * Begins to save the machine, which stands still until its state and memory have been taken; false and
     * *err when it cannot be begun. A save that fails may have put the new layers on its disks all the same,
     * which changes nothing of what they hold. The event RUCHE_SAVE tells the end.
     */
    bool (*save)(void *opaque, const struct control_save_order *order, struct error **err);
    void (*save_cancel)(void *opaque); /* takes effect soon */
    void (*save_info)(void *opaque, struct control_save *info);

    /* All of it at one instant of all disks, or nothing. The events BLOCK_JOB_COMPLETED and
     * BLOCK_JOB_CANCELLED tell the end of a job. */
    bool (*disks_change)(void *opaque, const struct control_disk_change *changes, unsigned count,
                         struct error **err);
    /* Number `index`; false when there is none. */
    bool (*job_info)(void *opaque, unsigned index, struct control_job *info);
    bool (*job_cancel)(void *opaque, const char *id, struct error **err); /* takes effect soon */
    bool (*job_dismiss)(void *opaque, const char *id, struct error **err);
    bool (*job_set_speed)(void *opaque, const char *id, uint64_t speed, struct error **err);

    /*
     * Begins to move the machine to whoever listens at an address (os/address.h); the event MIGRATION tells
     * what becomes of it. False and *err when it cannot be begun. Cancelling takes effect soon, unless the
     * machine is as good as gone.
     */
    bool (*migrate)(void *opaque, const char *address, struct error **err);
    void (*migrate_cancel)(void *opaque);
    void (*migrate_info)(void *opaque, struct control_migration *info);
    void (*migrate_settings)(void *opaque, struct control_migrate_settings *out);
    void (*migrate_set)(void *opaque, const struct control_migrate_settings *settings);
};

#endif
