/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lives and ends of machines: see machine_state.h. */
#include "catalog/machine_state.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/machine.h"
#include "catalog/overlay.h"

#define POLL_MS 20
#define LOCK    "lock" /* its name in the machine's folder */
/* Exit statuses of ruche-vmm; see ruche(1). */
#define STATUS_OFF         0
#define STATUS_WRONG       2 /* its options; no guest can end with that */
#define STATUS_MOVED       124
#define STATUS_FAILED      125
#define STATUS_CRASHED     126
#define STATUS_INTERRUPTED 130

static char *state_path(const struct machine *m)
{
    return catalog_format("%s/state.json", m->dir);
}

int machine_lock(const struct machine *m, struct error **err)
{
    cleanup(mem) char *path = catalog_format("%s/" LOCK, m->dir);
    return catalog_lock(path, err);
}

bool machine_is_live(const struct machine *m)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    cleanup(mem) char *path = catalog_format("%s/" LOCK, m->dir);
    cleanup(fd) int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd >= 0 && fcntl(fd, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * (int64_t)1000 + ts.tv_nsec / 1000000;
}

/* To wait in fcntl would mean to take the lock, and who starts the machine then would find it held. */
bool machine_wait_end(const struct machine *m, int timeout_ms)
{
    int64_t end = now_ms() + timeout_ms;
    while (machine_is_live(m)) {
        if (timeout_ms >= 0 && now_ms() >= end)
            return false;
        usleep(POLL_MS * 1000);
    }
    return true;
}

/* --- state.json --- */

static const char *const life_names[] = {
    [MACHINE_STARTING] = "starting", [MACHINE_RUNNING] = "running", [MACHINE_ENDED] = "ended"};

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from ? from : "");
}

static bool read_members(const json_t *o, struct machine_state *state)
{
    const char *life = json_string_value(json_object_get(o, "life"));
    state->life = MACHINE_VANISHED;
    for (size_t i = MACHINE_STARTING; life && i < ARRAY_SIZE(life_names); i++)
        if (strcmp(life, life_names[i]) == 0)
            state->life = (enum machine_life)i;
    state->pid = (pid_t)json_integer_value(json_object_get(o, "pid"));
    state->keeper = (pid_t)json_integer_value(json_object_get(o, "keeper"));
    state->since = json_integer_value(json_object_get(o, "since"));
    copy_text(state->control, sizeof(state->control), json_string_value(json_object_get(o, "control")));
    copy_text(state->serial, sizeof(state->serial), json_string_value(json_object_get(o, "serial")));
    copy_text(state->agent, sizeof(state->agent), json_string_value(json_object_get(o, "agent")));
    state->killed = json_is_true(json_object_get(o, "killed"));
    state->status = (int)json_integer_value(json_object_get(o, "status"));
    copy_text(state->reason, sizeof(state->reason), json_string_value(json_object_get(o, "reason")));
    return state->life != MACHINE_VANISHED;
}

void machine_state_read(const struct machine *m, struct machine_state *state)
{
    cleanup(mem) char *path = state_path(m);
    bool live = machine_is_live(m); /* first: what is then not alive has said its last word */
    json_t *o = access(path, F_OK) == 0 ? json_load_file(path, 0, NULL) : NULL;
    *state = (struct machine_state){.life = MACHINE_NEVER};
    if (o && !read_members(o, state))
        snprintf(state->reason, sizeof(state->reason), "'%s' is not what it should be", path);
    else if (!o && (live || access(path, F_OK) == 0))
        state->life = live ? MACHINE_STARTING : MACHINE_VANISHED;
    json_decref(o);
    /* A command may have begun the next life in between. */
    if (!live && machine_lives(state))
        live = machine_is_live(m);
    if (!live && machine_lives(state))
        state->life = MACHINE_VANISHED;
    /* Nobody is left who would say that it runs. */
    if (live && state->life == MACHINE_STARTING && state->keeper && kill(state->keeper, 0) < 0 &&
        errno == ESRCH)
        state->life = MACHINE_RUNNING;
    if (!live)
        state->pid = state->keeper = 0;
}

bool machine_state_write(const struct machine *m, const struct machine_state *state, struct error **err)
{
    cleanup(mem) char *path = state_path(m);
    json_t *o =
        json_pack("{s:s, s:i, s:i, s:I, s:s, s:s, s:s, s:b, s:i, s:s}", "life", life_names[state->life],
                  "pid", (int)state->pid, "keeper", (int)state->keeper, "since", (json_int_t)state->since,
                  "control", state->control, "serial", state->serial, "agent", state->agent, "killed",
                  state->killed, "status", state->status, "reason", state->reason);
    bool ok = o && catalog_write_json(path, o, err);
    if (!o)
        error_set(err, EINVAL, "write '%s': a text in it is not UTF-8", path);
    json_decref(o);
    return ok;
}

/* --- ends --- */

static bool failed(int status)
{
    return status == STATUS_FAILED || status == STATUS_WRONG;
}

bool machine_lives(const struct machine_state *state)
{
    return state->life == MACHINE_STARTING || state->life == MACHINE_RUNNING;
}

bool machine_died(const struct machine_state *state)
{
    return state->life == MACHINE_VANISHED ||
           (state->life == MACHINE_ENDED &&
            (state->killed || failed(state->status) || state->status == STATUS_CRASHED));
}

bool machine_moved(const struct machine_state *state)
{
    return state->life == MACHINE_ENDED && !state->killed && state->status == STATUS_MOVED;
}

bool machine_is_here(const struct machine *m, struct error **err)
{
    struct machine_state state;
    cleanup(mem) char *disk = machine_disk(m);
    machine_state_read(m, &state);
    if (machine_moved(&state))
        return error_set(err, EBUSY, "it was moved to another host (ruche receive takes it back)"), false;
    if (machine_has_disk(m->config) && overlay_is_written(disk))
        return error_set(err, EBUSY, "another program has its disk '%s' open", disk), false;
    return true;
}

void machine_end_text(const struct machine_state *state, char *text, size_t size)
{
    const char *reason = state->reason, *gap = reason[0] ? ": " : "";
    if (state->life == MACHINE_VANISHED)
        snprintf(text, size, "ended without saying why%s%s", gap, reason);
    else if (state->life != MACHINE_ENDED)
        snprintf(text, size, "%s", state->life == MACHINE_NEVER ? "never started" : "alive");
    else if (state->killed)
        snprintf(text, size, "killed by signal %d (%s)%s%s", state->status, strsignal(state->status), gap,
                 reason);
    else if (state->status == STATUS_OFF)
        snprintf(text, size, "the guest powered off");
    else if (state->status == STATUS_MOVED)
        snprintf(text, size, "was moved to another host");
    else if (state->status == STATUS_INTERRUPTED)
        snprintf(text, size, "was ended");
    else if (state->status == STATUS_CRASHED)
        snprintf(text, size, "the guest crashed%s%s", gap, reason);
    else if (failed(state->status) && reason[0])
        snprintf(text, size, "%s", reason);
    else
        snprintf(text, size, "exit status %d%s%s", state->status, gap, reason);
}
