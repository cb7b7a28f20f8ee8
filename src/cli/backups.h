/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The actions of `ruche backup`: one file each. One thread. */
#ifndef CLI_BACKUPS_H
#define CLI_BACKUPS_H

#include <stdbool.h>

#include "base/error.h"

/* backup_take.c: a backup of the machine; `full`: of all of its disks, whatever the last one has. */
bool backup_take(const char *machine, const char *dir, bool full, struct error **err);
/* backup_show.c; gives an exit status. */
int backup_show(const char *dir, bool json, struct error **err);
/* backup_verify.c: says on stderr of each file that is not as it was; false and *err when there are any. */
bool backup_verify(const char *dir, struct error **err);
/* backup_prune.c: keeps the newest `keep` backups. */
bool backup_prune(const char *dir, unsigned keep, struct error **err);
/* backup_restore.c: makes a machine; `number` NULL: of the last backup, `name` NULL: named as it was. */
bool backup_restore(const char *dir, const char *number, const char *name, struct error **err);

#endif
