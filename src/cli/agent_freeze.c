/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Frozen guests: see agent_freeze.h. */
#include "cli/agent_freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/machine_state.h"
#include "cli/agent.h"
#include "cli/interrupt.h"
#include "os/standard.h"

#define RETRY_MS 500
#define GIVE_UP  1200 /* retries */

struct agent_freeze {
    char *mark; /* path of agent.frozen */
    int lock;   /* of it */
    int thawer; /* pipe to it: a byte says that it is not needed, the end that it is */
    pid_t pid;
};

static char *mark_path(const struct machine *m)
{
    return catalog_format("%s/agent.frozen", m->dir);
}

static bool lock_file(int fd)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fd >= 0 && fcntl(fd, F_OFD_SETLK, &whole) == 0;
}

/* Locked before it has its name, so that nobody takes it for a forgotten one. */
static int make_mark(const char *path, struct error **err)
{
    cleanup(mem) char *draft = catalog_format("%s.new", path);
    cleanup(fd) int other = open(path, O_RDWR | O_CLOEXEC);
    if (other >= 0 && !lock_file(other))
        return error_set(err, EBUSY, "another command has frozen them"), -1;
    cleanup(fd) int fd = open(draft, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (!lock_file(fd) || rename(draft, path) < 0)
        return error_set_errno(err, errno, "make '%s'", path), -1;
    return steal_fd(&fd);
}

/* --- the thawer --- */

/* Until it is done or the machine has ended; should it give up, the mark stays for other commands. */
static void thaw_surely(const struct machine *m, const char *mark)
{
    bool done = false;
    for (int i = 0; i < GIVE_UP && !done; i++) {
        struct agent *a = agent_open(m, AGENT_PATIENCE_MS, NULL);
        done = a ? agent_do(a, "guest-fsfreeze-thaw", NULL, NULL) : !machine_is_live(m);
        agent_close(a);
        if (!done)
            usleep(RETRY_MS * 1000);
    }
    if (done)
        unlink(mark);
}

static void be_thawer(const struct machine *m, const struct agent_freeze *f, int end, int limit_ms)
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP};
    char byte;
    setsid();
    for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
        signal(ignored[i], SIG_IGN);
    interrupt_take(); /* was the command's affair */
    standard_fds_leave(f->lock, end);
    struct pollfd p = {.fd = end, .events = POLLIN};
    if (poll(&p, 1, limit_ms) > 0 && read(end, &byte, 1) == 1)
        return;
    thaw_surely(m, f->mark);
}

static bool start_thawer(const struct machine *m, struct agent_freeze *f, int limit_ms, struct error **err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "make a pipe"), false;
    f->pid = fork();
    if (f->pid == 0) {
        close(ends[1]);
        be_thawer(m, f, ends[0], limit_ms);
        _exit(0);
    }
    int failed = errno;
    close(ends[0]);
    f->thawer = ends[1];
    return f->pid > 0 || (error_set_errno(err, failed, "make a process"), false);
}

/* --- freezing --- */

/* With `done` nothing is left to be thawed; else the thawer sees to it. */
static void release(struct agent_freeze *f, bool done)
{
    if (done && f->lock >= 0)
        unlink(f->mark);
    if (f->thawer >= 0) {
        /* Where it cannot be told, it has thawed for its own reasons and is about to end. */
        bool told = done && write(f->thawer, "x", 1) == 1;
        close(f->thawer);
        if (done)
            waitpid(f->pid, NULL, told ? 0 : WNOHANG);
    }
    if (f->lock >= 0)
        close(f->lock);
    free(f->mark);
    free(f);
}

struct agent_freeze *agent_freeze(struct agent *a, const struct machine *m, int limit_ms, struct error **err)
{
    struct agent_freeze *f = calloc(1, sizeof(*f));
    struct error *why = NULL;
    if (!f)
        return error_set_errno(err, ENOMEM, "freeze machine '%s'", m->name), NULL;
    *f = (struct agent_freeze){.mark = mark_path(m), .lock = -1, .thawer = -1};
    f->lock = make_mark(f->mark, &why);
    bool ready = f->lock >= 0 && start_thawer(m, f, limit_ms, &why);
    bool frozen = ready && agent_do(a, "guest-fsfreeze-freeze", NULL, &why);
    agent_pause(a); /* or the thawer would wait for its turn */
    if (frozen)
        return f;
    /* It may be frozen in part, or be so soon. */
    release(f, !ready || agent_do(a, "guest-fsfreeze-thaw", NULL, NULL));
    error_prefix(err, why, "freeze the file systems");
    return NULL;
}

bool agent_thaw(struct agent *a, struct agent_freeze *f, struct error **err)
{
    struct error *why = NULL;
    json_t *count = agent_call(a, "guest-fsfreeze-thaw", NULL, AGENT_REPLY, &why);
    if (count && json_integer_value(count) <= 0)
        error_set(&why, ECANCELED, "they had been thawed before it was asked for");
    release(f, count != NULL);
    json_decref(count);
    error_prefix(err, why, "thaw the file systems");
    return !why;
}

void agent_thaw_forgotten(struct agent *a, const struct machine *m)
{
    cleanup(mem) char *mark = mark_path(m);
    cleanup(fd) int fd = open(mark, O_RDWR | O_CLOEXEC);
    if (lock_file(fd) && agent_do(a, "guest-fsfreeze-thaw", NULL, NULL))
        unlink(mark);
}
