/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a machine's disks are read through for a backup: the machine, or, when it does not run, a process of
 * ruche-vmm that has them open and never runs. One command at a time. One thread.
 */
#ifndef CLI_BACKUP_SOURCE_H
#define CLI_BACKUP_SOURCE_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "catalog/machine.h"
#include "cli/control.h"

struct backup_source {
    const struct machine *m;
    struct control *control;
    bool running; /* the machine itself */
    int turn;     /* lock: nobody else backs it up */
    int lock;     /* of a machine that does not run */
    pid_t pid;    /* of the process for that; 0: none */
};

/* `m` must outlive it. backup_source_close is due in any case. */
bool backup_source_open(const struct machine *m, struct backup_source *s, struct error **err);
/* Returns once a process of its own has closed the disks. */
void backup_source_close(struct backup_source *s);

/* Ends jobs, and waits for that: of a killed command, or of this one. */
bool backup_source_stop_jobs(struct backup_source *s, struct error **err);

#endif
