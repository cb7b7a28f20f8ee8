/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a machine's processes take of the host, from /proc. Any thread. */
#ifndef CLI_USAGE_H
#define CLI_USAGE_H

#include <stdint.h>
#include <sys/types.h>

struct usage {
    double cpu_s; /* processor time so far, with that of the processes in which its programs run natively */
    uint64_t memory; /* resident bytes */
};

/* Zeros for a process that is gone. */
void usage_read(pid_t pid, struct usage *usage);

#endif
