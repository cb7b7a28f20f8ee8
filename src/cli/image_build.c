/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making an image by its recipe: see image_build.h. */
#include "cli/image_build.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/file.h"
#include "catalog/image.h"
#include "catalog/sha256.h"
#include "cli/progress.h"
#include "cli/verb.h"

#define PROGRESS_FD 3
#define LOG_NAME    "build.log"
#define LOG_TAIL    12    /* lines shown after a failure */
#define FULL_BELOW  65536 /* bytes free */

static char *recipe_path(const char *name, struct error **err)
{
    if (!catalog_name_check(name, err))
        return NULL;
    const char *chosen = getenv("RUCHE_RECIPES");
    if (chosen && chosen[0]) {
        cleanup(mem) char *path = catalog_format("%s/%s", chosen, name);
        if (access(path, X_OK) == 0)
            return steal_ptr(&path);
        return error_set_errno(err, errno, "execute recipe '%s'", path), NULL;
    }
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = 0;
        *strrchr(self, '/') = 0;
        char *beside = catalog_format("%s/recipe-%s", self, name);
        if (access(beside, X_OK) == 0)
            return beside;
        free(beside);
    }
    char *installed = catalog_format("%s/recipe-%s", RECIPEDIR, name);
    if (access(installed, X_OK) == 0)
        return installed;
    free(installed);
    error_set(err, ENOENT, "there is no recipe for an image '%s'", name);
    return NULL;
}

char *image_recipe_sha256(const char *name, struct error **err)
{
    cleanup(mem) char *path = recipe_path(name, err);
    char hex[SHA256_HEX_SIZE];
    if (!path || !sha256_file(path, hex, err))
        return NULL;
    return catalog_format("%s", hex);
}

/* In the child; returns only when the recipe cannot be executed. */
static void become_recipe(const char *path, const struct image_build *build, const char *dir, int progress_fd,
                          int log_fd)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    /* A group of its own, so that all of it can be ended at once. */
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int nothing = open("/dev/null", O_RDONLY);
    setenv("RUCHE_MIRROR", build->mirror, 1);
    setenv("RUCHE_SIZE", build->size, 1);
    if (chdir(dir) < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(log_fd, STDOUT_FILENO) < 0 ||
        dup2(log_fd, STDERR_FILENO) < 0 || dup2(progress_fd, PROGRESS_FD) < 0)
        _exit(EXIT_RUCHE);
    execl(path, path, (char *)NULL);
    dprintf(STDERR_FILENO, "execute '%s': %s\n", path, strerror(errno));
}

/* Takes whole lines out of what the recipe reports. */
static void take_reports(struct progress *progress, char *buf, size_t *used)
{
    char *line = buf;
    char *end;
    while ((end = memchr(line, '\n', *used - (size_t)(line - buf)))) {
        *end = 0;
        if (strncmp(line, "steps ", 6) == 0)
            progress->steps = (unsigned)strtoul(line + 6, NULL, 10);
        else if (strncmp(line, "step ", 5) == 0)
            progress_step(progress, line + 5);
        line = end + 1;
    }
    *used -= (size_t)(line - buf);
    memmove(buf, line, *used);
}

/* Follows the recipe to its end. Gives the signal that the user ended it by, or 0; the wait status in
 * *wait_status. */
static int follow(pid_t pid, int report_fd, int signal_fd, struct progress *progress, int *wait_status)
{
    char buf[1024];
    size_t used = 0;
    int interrupted = 0;
    for (;;) {
        struct pollfd p[] = {{.fd = report_fd, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
        poll(p, 2, 1000);
        struct signalfd_siginfo info;
        while (read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
            if (info.ssi_signo == SIGCHLD)
                continue;
            interrupted = (int)info.ssi_signo;
            kill(-pid, SIGTERM);
        }
        if (p[0].revents) {
            ssize_t n = read(report_fd, buf + used, sizeof(buf) - used);
            used = n > 0 ? used + (size_t)n : 0;
            if (n <= 0)
                report_fd = -1;
            take_reports(progress, buf, &used);
            if (used == sizeof(buf))
                used = 0;
        }
        if (waitpid(pid, wait_status, WNOHANG) == pid)
            return interrupted;
        progress_tick(progress);
    }
}

static void show_log_tail(const char *path)
{
    cleanup(file) FILE *f = fopen(path, "re");
    char lines[LOG_TAIL][256];
    unsigned n = 0;
    while (f && fgets(lines[n % LOG_TAIL], sizeof(lines[0]), f))
        n++;
    for (unsigned i = n > LOG_TAIL ? n - LOG_TAIL : 0; i < n; i++) {
        char *line = lines[i % LOG_TAIL];
        fprintf(stderr, "  | %.*s\n", (int)strcspn(line, "\n"), line);
    }
}

/* Then the log itself may lack what it would say. */
static bool is_full(const char *dir)
{
    struct statvfs fs;
    return statvfs(dir, &fs) == 0 && fs.f_bavail * fs.f_frsize < FULL_BELOW;
}

static int signals_to_follow(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Runs the recipe in the draft's folder. EXIT_OK when it went well. */
static int run_recipe(const char *path, const struct image_build *build, const char *dir,
                      struct progress *progress)
{
    cleanup(mem) char *log = catalog_format("%s/" LOG_NAME, dir);
    cleanup(fd) int log_fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    cleanup(fd) int signal_fd = signals_to_follow();
    int report[2];
    if (log_fd < 0 || signal_fd < 0 || pipe2(report, O_CLOEXEC) < 0) {
        fprintf(stderr, "ruche: make image '%s': %s\n", build->name, strerror(errno));
        return EXIT_RUCHE;
    }
    cleanup(fd) int report_in = report[0];
    pid_t pid = fork();
    if (pid == 0) {
        become_recipe(path, build, dir, report[1], log_fd);
        _exit(EXIT_RUCHE);
    }
    close(report[1]);
    if (pid < 0) {
        fprintf(stderr, "ruche: make image '%s': %s\n", build->name, strerror(errno));
        return EXIT_RUCHE;
    }
    int wait_status;
    int interrupted = follow(pid, report_in, signal_fd, progress, &wait_status);
    /* Whatever the recipe left running must not write into the folder any more. */
    kill(-pid, SIGKILL);
    if (!interrupted && WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0) {
        unlink(log);
        return EXIT_OK;
    }
    progress_end(progress, false);
    if (interrupted) {
        fprintf(stderr, "ruche: make image '%s': interrupted\n", build->name);
        return EXIT_SIGNAL + interrupted;
    }
    fprintf(stderr, "ruche: make image '%s': its recipe failed at step %u (%s)%s; the end of its log:\n",
            build->name, progress->step, progress->title, is_full(dir) ? " on a full disk" : "");
    show_log_tail(log);
    return EXIT_RUCHE;
}

int image_build(const struct image_build *build)
{
    struct error *err = NULL;
    cleanup(mem) char *path = recipe_path(build->name, &err);
    cleanup(mem) char *sum = path ? image_recipe_sha256(build->name, &err) : NULL;
    struct image_draft draft;
    if (!sum || !image_draft_begin(build->name, &draft, &err))
        return failure(err);
    struct progress progress;
    cleanup(mem) char *what = catalog_format("image %s", build->name);
    progress_start(&progress, what);
    int status = run_recipe(path, build, draft.dir, &progress);
    if (status == EXIT_OK) {
        bool ok = image_draft_commit(&draft, sum, &err);
        progress_end(&progress, ok);
        status = ok ? EXIT_OK : failure(err);
    }
    image_draft_discard(&draft);
    return status;
}
