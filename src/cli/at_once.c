/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Many things at the same time: see at_once.h. */
#include "cli/at_once.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "cli/verb.h"

#define FEWEST 2 /* at a time: much of it is waiting */

static pid_t begin(size_t index, int (*fn)(size_t index, void *opaque), void *opaque)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int status = fn(index, opaque);
        fflush(NULL);
        _exit(status);
    }
    return pid;
}

/* Waits for one of those that run; gives how many still do. */
static size_t end_one(pid_t *pids, size_t count, size_t running, int status[])
{
    int how;
    pid_t pid = wait(&how);
    if (pid < 0)
        return errno == EINTR ? running : 0;
    for (size_t i = 0; i < count; i++) {
        if (pids[i] != pid)
            continue;
        pids[i] = 0;
        status[i] = WIFEXITED(how) ? WEXITSTATUS(how) : EXIT_RUCHE;
        return running - 1;
    }
    return running; /* of another child of ours */
}

void at_once(size_t count, int (*fn)(size_t index, void *opaque), void *opaque, int status[])
{
    pid_t pids[AT_ONCE_MAX];
    size_t most = (size_t)MAX(get_nprocs(), FEWEST), running = 0;
    for (size_t i = 0; i < count; i++) {
        while (running >= most)
            running = end_one(pids, i, running, status);
        pids[i] = begin(i, fn, opaque);
        status[i] = EXIT_RUCHE;
        if (pids[i] > 0) {
            running++;
            continue;
        }
        struct error *err = NULL;
        error_set_errno(&err, errno, "make a process");
        failure(err);
    }
    while (running)
        running = end_one(pids, count, running, status);
}
