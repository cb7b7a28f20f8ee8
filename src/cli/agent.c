/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest agents and turns: see agent.h. */
#include "cli/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/file.h"
#include "catalog/machine_state.h"
#include "cli/agent_freeze.h"
#include "cli/control.h"
#include "cli/interrupt.h"
#include "os/loop.h"

#define TURN_NS  1000000000u
#define QUEUE_MS 300000 /* turns of many others; who only glances does not wait that long */
#define LOOK_MS  10     /* between two looks at the lock, */
#define GAP_MS   30     /* and between two turns, so that whoever looks finds it free */

struct agent {
    char *name, *socket, *lock_path; /* the last may be NULL: nobody takes turns */
    int patience_ms;
    int lock; /* -1: it is not our turn */
    uint64_t turn_end;
    struct agent_wire *wire; /* NULL: not our turn */
};

/* --- turns --- */

void agent_pause(struct agent *a)
{
    agent_wire_close(a->wire);
    a->wire = NULL;
    if (a->lock >= 0)
        close(steal_fd(&a->lock));
}

static bool take_lock(struct agent *a, struct error **err)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int left_ms = a->patience_ms < AGENT_PATIENCE_MS ? a->patience_ms : QUEUE_MS;
    cleanup(fd) int fd = open(a->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(err, errno, "open '%s'", a->lock_path), false;
    for (; fcntl(fd, F_OFD_SETLK, &whole) < 0; left_ms -= LOOK_MS) {
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return error_set_errno(err, errno, "lock '%s'", a->lock_path), false;
        if (interrupt_pending())
            return error_set(err, EINTR, "interrupted"), false;
        if (left_ms <= 0)
            return error_set(err, EBUSY, "other commands keep it busy"), false;
        usleep(LOOK_MS * 1000);
    }
    a->lock = steal_fd(&fd);
    return true;
}

static bool begin_turn(struct agent *a, struct error **err)
{
    if (a->wire)
        return true;
    if (a->lock_path && !take_lock(a, err))
        return false;
    a->turn_end = monotonic_ns() + TURN_NS;
    a->wire = agent_wire_open(a->socket, a->patience_ms, err);
    if (!a->wire)
        agent_pause(a);
    return a->wire != NULL;
}

json_t *agent_call(struct agent *a, const char *command, json_t *arguments, size_t reply_max,
                   struct error **err)
{
    struct error *why = NULL;
    json_t *value = NULL;
    if (begin_turn(a, &why))
        value = agent_wire_call(a->wire, command, arguments, reply_max, a->patience_ms, &why);
    else
        json_decref(arguments);
    if (why && why->code != EREMOTEIO) {
        agent_pause(a);
    } else if (monotonic_ns() >= a->turn_end) {
        agent_pause(a);
        usleep(GAP_MS * 1000);
    }
    error_prefix(err, why, "guest agent of machine '%s'", a->name);
    return value;
}

bool agent_do(struct agent *a, const char *command, json_t *arguments, struct error **err)
{
    json_t *value = agent_call(a, command, arguments, AGENT_REPLY, err);
    json_decref(value);
    return value != NULL;
}

/* --- whether there is one --- */

/* What the list of query-chardev says of the port; true where nothing is known. */
static bool guest_listens(const json_t *list)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        const char *label = json_string_value(json_object_get(one, "label"));
        if (label && strcmp(label, "agent") == 0)
            return !json_is_false(json_object_get(one, "frontend-open"));
    }
    return true;
}

static bool look(const struct machine *m, const char *control_path, int timeout_ms, struct error **err)
{
    struct error *why = NULL;
    struct control *c = control_open(control_path, timeout_ms, &why);
    json_t *status = c ? control_call(c, "query-status", NULL, &why) : NULL;
    json_t *list = status ? control_call(c, "query-chardev", NULL, &why) : NULL;
    const char *word = json_string_value(json_object_get(status, "status"));
    if (why)
        error_prefix(err, why, "machine '%s'", m->name);
    else if (word && strcmp(word, "running") != 0)
        error_set(err, EBUSY,
                  "machine '%s' is %s, so its guest answers nobody (ruche resume %s lets it go on)", m->name,
                  word, m->name);
    else if (!guest_listens(list))
        error_set(err, EAGAIN,
                  "no guest agent runs in machine '%s': the guest is still booting, or lacks the package "
                  "qemu-guest-agent (ruche console %s shows)",
                  m->name, m->name);
    bool ok = list && (!word || strcmp(word, "running") == 0) && guest_listens(list);
    json_decref(status);
    json_decref(list);
    control_close(c);
    return ok;
}

/* The first turn. */
static struct agent *meet(const char *name, const char *socket_path, const char *lock_path, int patience_ms,
                          struct error **err)
{
    struct error *why = NULL;
    struct agent *a = calloc(1, sizeof(*a));
    if (!a)
        return error_set_errno(err, ENOMEM, "guest agent of machine '%s'", name), NULL;
    *a = (struct agent){.name = catalog_format("%s", name),
                        .socket = catalog_format("%s", socket_path),
                        .lock_path = lock_path ? catalog_format("%s", lock_path) : NULL,
                        .patience_ms = patience_ms,
                        .lock = -1};
    if (begin_turn(a, &why))
        return a;
    bool mute = why->code == ETIMEDOUT;
    error_prefix(err, why, "guest agent of machine '%s'%s", name, mute ? " (ruche console shows why)" : "");
    agent_close(a);
    return NULL;
}

struct agent *agent_open(const struct machine *m, int patience_ms, struct error **err)
{
    struct machine_state state;
    machine_state_read(m, &state);
    if (state.life != MACHINE_RUNNING) {
        error_set(err, ESRCH, "machine '%s' does not run (ruche start %s starts it)", m->name, m->name);
        return NULL;
    }
    if (!state.agent[0]) {
        error_set(err, ENOENT,
                  "machine '%s' runs without a port for a guest agent (ruche restart %s makes one, "
                  "unless a --device of its has it)",
                  m->name, m->name);
        return NULL;
    }
    if (!look(m, state.control, patience_ms, err))
        return NULL;
    cleanup(mem) char *lock_path = catalog_format("%s/agent.lock", m->dir);
    struct agent *a = meet(m->name, state.agent, lock_path, patience_ms, err);
    if (a)
        agent_thaw_forgotten(a, m);
    return a;
}

struct agent *agent_open_socket(const char *name, const char *socket_path, int patience_ms,
                                struct error **err)
{
    return meet(name, socket_path, NULL, patience_ms, err);
}

void agent_close(struct agent *a)
{
    if (!a)
        return;
    agent_pause(a);
    free(a->name);
    free(a->socket);
    free(a->lock_path);
    free(a);
}
