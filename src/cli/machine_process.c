/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starting ruche-vmm: see machine_process.h. */
#include "cli/machine_process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/file.h"
#include "cli/verb.h"

void words_add(struct words *w, const char *word)
{
    char **v = reallocarray(w->v, w->n + 2, sizeof(*v));
    if (!v) {
        fprintf(stderr, "ruche: out of memory\n");
        exit(EXIT_RUCHE);
    }
    w->v = v;
    w->v[w->n++] = catalog_format("%s", word);
    w->v[w->n] = NULL;
}

void words_free(struct words *w)
{
    for (size_t i = 0; i < w->n; i++)
        free(w->v[i]);
    free(w->v);
    *w = (struct words){0};
}

/* Seen from where this program is, or where programs of programs are installed. */
static char *find_program(const char *name, const char *from_here, struct error **err)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = 0;
        *strrchr(self, '/') = 0;
        char *sibling = catalog_format("%s/%s", self, from_here);
        if (access(sibling, X_OK) == 0)
            return sibling;
        free(sibling);
    }
    char *installed = catalog_format(LIBEXECDIR "/%s", name);
    if (access(installed, X_OK) == 0)
        return installed;
    free(installed);
    error_set(err, ENOENT, "there is no %s, neither beside this program nor in " LIBEXECDIR, name);
    return NULL;
}

char *machine_program(struct error **err)
{
    struct error *why = NULL;
    const char *chosen = getenv("RUCHE_VMM");
    if (chosen && chosen[0])
        return catalog_format("%s", chosen);
    char *path = find_program("ruche-vmm", "../vmm/ruche-vmm", &why);
    error_prefix(err, why, "start a machine");
    return path;
}

char *tunnel_program(struct error **err)
{
    return find_program("ruche-tunnel", "ruche-tunnel", err);
}

static void keep_open(int fd)
{
    if (fd >= 0)
        fcntl(fd, F_SETFD, 0);
}

/* In the child; returns only when the program cannot be executed. */
static void become_machine(const char *program, const struct words *args, int serial_fd, int error_fd,
                           int ready_fd, bool detach, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* A process group of its own keeps the terminal's Ctrl-C for `ruche`, which decides what it means. */
    if (detach) {
        setsid();
    } else {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            _exit(EXIT_RUCHE);
    }
    cleanup(fd) int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(nothing, STDIN_FILENO);
    if (detach || serial_fd >= 0)
        dup2(nothing, STDOUT_FILENO);
    dup2(error_fd, STDERR_FILENO);
    keep_open(serial_fd);
    keep_open(ready_fd);
    execv(program, args->v);
}

bool machine_start(const char *program, const struct words *args, int serial_fd, int error_fd, bool detach,
                   struct machine_process *out, struct error **err)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "start '%s'", program), false;
    /* First, so that the machine can already report on it what is wrong with the rest. */
    char number[16];
    snprintf(number, sizeof(number), "%d", ready[1]);
    struct words all = {0};
    words_add(&all, "ruche-vmm");
    words_add(&all, "--ready-fd");
    words_add(&all, number);
    for (size_t i = 0; i < args->n; i++)
        words_add(&all, args->v[i]);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        become_machine(program, &all, serial_fd, error_fd, ready[1], detach, parent);
        dprintf(ready[1], "start '%s': %s\n", program, strerror(errno));
        _exit(EXIT_RUCHE);
    }
    int failed = errno;
    words_free(&all);
    close(ready[1]);
    if (pid < 0) {
        close(ready[0]);
        return error_set_errno(err, failed, "start '%s'", program), false;
    }
    *out = (struct machine_process){.pid = pid, .ready_fd = ready[0]};
    return true;
}

int machine_status(int wait_status)
{
    if (WIFEXITED(wait_status))
        return WEXITSTATUS(wait_status);
    int number = WTERMSIG(wait_status);
    fprintf(stderr, "ruche: the machine's process was ended by signal %d (%s)\n", number, strsignal(number));
    return EXIT_RUCHE;
}
