/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Other programs: see program.h. */
#include "cli/program.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/verb.h"

#define TICK_MS 200

/* In the child. */
static void become(const char *const words[], const struct program *p, FILE *printed, FILE *complaints,
                   pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_RUCHE);
    dup2(fileno(printed), STDOUT_FILENO);
    dup2(fileno(complaints), STDERR_FILENO);
    execvp(words[0], (char *const *)(uintptr_t)words);
    fprintf(stderr, "%s (Debian package %s): %s\n", words[0], p->package, strerror(errno));
    _exit(EXIT_RUCHE);
}

/* False when it cannot be waited for. */
static bool follow(pid_t pid, const struct program *p, int *status)
{
    cleanup(fd) int fd = p->tick ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    struct pollfd end = {.fd = fd, .events = POLLIN};
    while (fd >= 0 && poll(&end, 1, TICK_MS) <= 0)
        p->tick(p->opaque);
    return waitpid(pid, status, 0) == pid;
}

static const char *complaint(const char *name, FILE *complaints, char text[1024])
{
    size_t len = strlen(name);
    ssize_t n = pread(fileno(complaints), text, 1023, 0);
    text[MAX(n, 0)] = 0;
    text[strcspn(text, "\n")] = 0;
    return strncmp(text, name, len) == 0 && strncmp(text + len, ": ", 2) == 0 ? text + len + 2 : text;
}

int program_run(const char *const words[], const struct program *p, struct error **err)
{
    cleanup(file) FILE *printed = tmpfile();
    cleanup(file) FILE *complaints = tmpfile();
    pid_t parent = getpid(), pid = printed && complaints ? fork() : -1;
    if (pid == 0)
        become(words, p, printed, complaints, parent);
    int status = 0;
    if (pid < 0 || !follow(pid, p, &status))
        return error_set_errno(err, errno, "run %s", words[0]), -1;
    if (status != 0) {
        char text[1024];
        const char *said = complaint(words[0], complaints, text);
        error_set(err, 0, "%s%s", *said ? said : words[0], *said ? "" : " failed");
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    if (p->out) {
        ssize_t n = pread(fileno(printed), p->out, p->size - 1, 0);
        p->out[MAX(n, 0)] = 0;
    }
    return 0;
}
