/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running qemu-img: see qemu_img.h. */
#include "cli/qemu_img.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/machine_process.h"
#include "cli/verb.h"

#define PROGRAM "qemu-img"

/* In the child. */
static void become_it(const struct words *words, int out, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_RUCHE);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execvp(PROGRAM, words->v);
    dprintf(out, "%s (Debian's package qemu-utils has it)\n", strerror(errno));
    _exit(EXIT_RUCHE);
}

/* The last line that comes from a descriptor, which is closed. */
static void last_line(int fd, char *last, size_t size)
{
    cleanup(file) FILE *f = fdopen(fd, "r");
    char line[512];
    last[0] = 0;
    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0])
            snprintf(last, size, "%s", line);
    }
}

bool qemu_img(const char *const words[], struct error **err)
{
    int ends[2], status = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "make a pipe"), false;
    struct words all = {0};
    words_add(&all, PROGRAM);
    for (size_t i = 0; words[i]; i++)
        words_add(&all, words[i]);
    char last[512];
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become_it(&all, ends[1], parent);
    int failed = errno;
    words_free(&all);
    close(ends[1]);
    last_line(ends[0], last, sizeof(last));
    if (pid < 0)
        return error_set_errno(err, failed, "start " PROGRAM), false;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    error_set(err, 0, PROGRAM " %s: %s", words[0], last[0] ? last : "it was killed");
    return false;
}
