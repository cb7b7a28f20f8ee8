/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running qemu-img: see qemu_img.h. */
#include "cli/qemu_img.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/verb.h"

/* The first line of a text that qemu-img has written, without its name in front. */
static const char *first_line(char *text)
{
    text[strcspn(text, "\n")] = 0;
    return strncmp(text, "qemu-img: ", 10) == 0 ? text + 10 : text;
}

/* In the child. */
static void become_it(const char *const words[], FILE *printed, FILE *complaints, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_RUCHE);
    dup2(fileno(printed), STDOUT_FILENO);
    dup2(fileno(complaints), STDERR_FILENO);
    execvp(words[0], (char *const *)(uintptr_t)words);
    fprintf(stderr, "%s (Debian package qemu-utils): %s\n", words[0], strerror(errno));
    _exit(EXIT_RUCHE);
}

bool qemu_img(const char *const words[], char *out, size_t size, struct error **err)
{
    cleanup(file) FILE *printed = tmpfile();
    cleanup(file) FILE *complaints = tmpfile();
    pid_t parent = getpid(), pid = printed && complaints ? fork() : -1;
    if (pid == 0)
        become_it(words, printed, complaints, parent);
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return error_set_errno(err, errno, "run qemu-img"), false;
    if (status == 0) {
        ssize_t n = out ? pread(fileno(printed), out, size - 1, 0) : 0;
        if (out)
            out[MAX(n, 0)] = 0;
        return true;
    }
    char text[1024];
    ssize_t n = pread(fileno(complaints), text, sizeof(text) - 1, 0);
    text[MAX(n, 0)] = 0;
    return error_set(err, 0, "%s", text[0] ? first_line(text) : "qemu-img failed"), false;
}
