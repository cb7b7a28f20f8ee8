/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One machine in this process: the board with its devices, the engine, and the life of the whole from start
 * to end. board.c makes it, firmware.c does what firmware would (tables, loading), runstate.c runs it.
 */
#ifndef VMM_BOARD_H
#define VMM_BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/engine.h"
#include "core/machine.h"
#include "vmm/acpi/acpi.h"
#include "vmm/boot/boot.h"
#include "vmm/control.h"
#include "vmm/options.h"
#include "vmm/smbios.h"
#include "vmm/vcpus.h"
#include "x86/cpuid.h"

struct block;
struct disk_job;
struct error;
struct incoming;
struct layer;
struct migration;
struct qmp;
struct save_job;
struct saved_check;
struct saved_machine;

/* How the process ends (ruche(1), EXIT STATUS). */
enum board_status {
    BOARD_POWERED_OFF = 0,
    BOARD_WRONG_USAGE = 2,
    BOARD_MOVED = 124, /* to another process */
    BOARD_FAILED = 125,
    BOARD_CRASHED = 126,
    BOARD_INTERRUPTED = 130,
};

enum run_state {
    RUN_STARTING, /* not yet run */
    RUN_RUNNING,
    RUN_PAUSED,
    RUN_SHUTDOWN,
    RUN_PANICKED,
    RUN_INTERNAL_ERROR,
    RUN_FINISH_MIGRATE, /* frozen: it may go on here or elsewhere */
    RUN_POSTMIGRATE,    /* it goes on elsewhere */
};

struct board {
    struct machine m; /* first: devices' `machine` leads here */
    const struct machine_config *config;
    struct cpuid_model cpu;
    struct engine_host host;
    const struct engine_ops *ops;
    struct engine *engine;
    FILE *trace;               /* of config->trace; NULL: none */
    struct error *passed_over; /* why --engine auto did not take the best engine; NULL: it did */
    struct vcpus *vcpus;
    struct qmp *qmp;
    struct boot_source boot;
    struct acpi_tables acpi;
    struct smbios smbios;
    int signal_fd;
    struct board_disk {
        struct block *block;
        struct device *device;
        struct layer *overlay; /* becomes the block's top when the machine is saved; NULL: none */
        int64_t
            mark; /* save_disks.c: the time of the last write if nothing was written since; 0: not known */
    } disk[OPTIONS_LIST_MAX]; /* as in config->disk */
    struct device *agent;     /* with the guest agent's port; NULL: none */

    /* The main loop's, under the machine lock. */
    enum run_state state;
    bool quiesced;
    const struct saved_identity *identity; /* that this machine was given; NULL: none. Not owned */
    const struct saved_machine *saved;     /* that this machine began as; NULL: none. Not owned */
    struct saved_check *saved_check;
    struct disk_job *disk_jobs;    /* disk_jobs.c */
    struct save_job *save;         /* NULL: nothing is being saved */
    struct control_save last_save; /* how the last save went */
    struct migration *migration;   /* NULL: it is not being moved */
    struct control_migrate_settings migrate_settings;
    struct control_migration last_migration; /* how the last one went */
    bool resting;                            /* throttle.c: the vCPUs stand still for a moment */
    bool go_on_running;                      /* it ran before RUN_FINISH_MIGRATE */
    struct loop_timer moved_timer;           /* the end of a machine that has moved */
    bool start_paused;                       /* board_run leaves it frozen */
    int exit_status;

    /* What has happened and is to be acted on by the main loop; bits by enum machine_event and board_event.
     */
    uint32_t pending; /* atomic */
    uint32_t debug_exit;
    struct vm_exit cpu_exit; /* of the first vCPU that left `run` by itself */
    unsigned cpu_exit_index;
};

/* Continues enum machine_event: what vCPUs report. */
enum board_event { BOARD_TRIPLE_FAULT = 16, BOARD_CPU_RESET, BOARD_CPU_ERROR };

/*
 * Makes the machine, loaded and ready to run. NULL and *err on failure; *status then says whether the user's
 * words were wrong (2) or the host failed (125). `config` outlives it.
 */
struct board *board_new(const struct machine_config *config, int *status, struct error **err);
/* The same of a saved machine, in the state that was saved. `saved` outlives it. */
struct board *board_restore(const struct machine_config *config, const struct saved_machine *saved,
                            int *status, struct error **err);
/* Of one that comes from elsewhere, frozen, its memory empty, its disks away. `identity` outlives it. */
struct board *board_receive(const struct machine_config *config, const struct saved_identity *identity,
                            int *status, struct error **err);
/* Writes back what is to be written and releases everything. */
void board_free(struct board *b);

/* Runs the machine until it ends; `started` (may be NULL) is called once it runs. Returns the exit status. */
int board_run(struct board *b, void (*started)(void *opaque), void *opaque);

/* board.c: logs why --engine auto did not take the best engine, if it did not. No lock needed. */
void engine_tell(struct board *b);

/* For board.c. Machine lock held unless said otherwise. */

/* firmware.c: the files to boot from (no lock needed), the tables and fw_cfg items. */
bool firmware_prepare(struct board *b, struct error **err);
/* The same for a saved machine, which needs the files only for a reset: one without them cannot be reset. */
bool firmware_prepare_saved(struct board *b, struct error **err);
bool firmware_fill_fw_cfg(struct board *b, struct error **err);
/* Puts the machine where firmware would leave it: PCI set up, tables and kernel in memory, first vCPU at its
 * entry. */
bool firmware_start(struct board *b, bool fresh, struct error **err);

/* runstate.c */
void runstate_event(struct machine *m, enum machine_event event, uint32_t value); /* any thread */
void runstate_cpu_exit(void *opaque, unsigned index, const struct vm_exit *exit); /* a vCPU's thread */
/* Opens the control socket and takes SIGTERM, SIGINT and SIGHUP, which are blocked in all threads. */
bool runstate_init(struct board *b, struct error **err);

/* Stops the guest where it is: nothing moves any more, and all state is complete. Main loop. */
void runstate_freeze(struct board *b);
/* Ends the process soon. Only the first end counts. */
void runstate_end(struct board *b, int status, bool guest, const char *why);
/* It goes on. */
void runstate_thaw(struct board *b);
/* No vCPU runs between these two; after the second only if the machine does. */
void runstate_hold(struct board *b);
void runstate_let_go(struct board *b);

/* runstate_migrate.c: the part of the control socket's operations that is about migration. */
bool runstate_migrate(void *opaque, const char *address, struct error **err);
void runstate_migrate_cancel(void *opaque);
void runstate_migrate_info(void *opaque, struct control_migration *info);
void runstate_migrate_settings(void *opaque, struct control_migrate_settings *out);
void runstate_migrate_set(void *opaque, const struct control_migrate_settings *settings);

/* crash_log.c: the registers and the instruction of a parked vCPU. */
void crash_log(struct board *b, unsigned index, const char *why);

#endif
