/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying the disks of a machine while it runs, and the dirty bitmaps that tell what the next copy may leave
 * out; the control socket's view of both (control.h). Main loop, machine lock held; `opaque` is the board.
 */
#ifndef VMM_DISK_JOBS_H
#define VMM_DISK_JOBS_H

#include <stdbool.h>

#include "vmm/control.h"

struct board;
struct error;

bool disk_jobs_change(void *opaque, const struct control_disk_change *changes, unsigned count,
                      struct error **err);
bool disk_jobs_info(void *opaque, unsigned index, struct control_job *info);
bool disk_jobs_cancel(void *opaque, const char *id, struct error **err);
bool disk_jobs_dismiss(void *opaque, const char *id, struct error **err);
bool disk_jobs_set_speed(void *opaque, const char *id, uint64_t speed, struct error **err);
/* Whether a disk is being copied. */
bool disk_jobs_active(const struct board *b);
/* Ends all of them at once. */
void disk_jobs_free(struct board *b);

#endif
