/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The destination of a migration: see migrate.h. All of it happens on the main thread before the loop runs,
 * so the machine is not in anybody's hands yet; signals that end the process end the waiting.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "os/address.h"
#include "os/loop.h"
#include "vmm/board.h"
#include "vmm/migrate.h"
#include "vmm/migrate_claim.h"
#include "vmm/migrate_objects.h"
#include "vmm/migrate_stream.h"
#include "vmm/save.h"
#include "vmm/save_state.h"

#define CUT_CLAIM_NS 3000000000u /* how long the claim is tried for when the source is not heard any more */
#define CUT_RETRY_US 20000

struct incoming {
    struct frame_stream stream;
    struct migrate_claim claim;
    struct saved_identity id;
    struct page_reader pages;
    char *objects;
    size_t objects_len;
    int signal_fd;
};

/* The first who connects; no one else is wanted then. */
static int accept_one(int listener, int stop_fd, struct error **err)
{
    struct pollfd p[2] = {{.fd = listener, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};

    while (poll(p, 2, -1) < 0)
        ;
    if (p[1].revents)
        return error_set(err, ECANCELED, "it was told to end before a machine came"), -1;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        error_set_errno(err, errno, "cannot take the connection of a migration");
    return fd;
}

static int wait_for_source(const char *address, int stop_fd, struct error **err)
{
    if (address_is_connected(address))
        return address_connect(address, err);
    cleanup(fd) int listener = address_listen(address, err);
    if (listener < 0)
        return -1;
    int fd = accept_one(listener, stop_fd, err);
    if (address_path(address))
        unlink(address_path(address));
    return fd;
}

static int watch_signals(struct error **err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        error_set_errno(err, errno, "cannot watch for signals");
    return fd;
}

static bool hear_description(struct incoming *in, struct machine_config *config, struct error **err)
{
    struct frame f;

    return migrate_receive(&in->stream, MIGRATE_DESCRIPTION, &f, err) &&
           saved_read_description((const char *)f.data, f.length, config, &in->id, err) &&
           saved_check_cpu(&in->id.cpu, err) && saved_check_disks(config, &in->id, err);
}

static bool hear_objects(struct incoming *in, struct error **err)
{
    struct frame f;

    if (!migrate_receive(&in->stream, MIGRATE_OBJECTS, &f, err))
        return false;
    in->objects = malloc(f.length + 1);
    if (!in->objects)
        return error_set_errno(err, ENOMEM, "cannot take a machine"), false;
    memcpy(in->objects, f.data, f.length);
    in->objects_len = f.length;
    return true;
}

struct incoming *incoming_open(struct machine_config *config, struct error **err)
{
    struct incoming *in = calloc(1, sizeof(*in));
    struct error *why = NULL;

    if (!in) {
        error_set_errno(err, ENOMEM, "cannot wait for a machine");
        return NULL;
    }
    in->claim.name = -1;
    in->signal_fd = watch_signals(&why);
    in->stream = (struct frame_stream){.fd = -1,
                                       .stop_fd = in->signal_fd,
                                       .timeout_ms = MIGRATE_TIMEOUT_MS,
                                       .peer = "the source",
                                       .limit = migrate_limit};
    if (in->signal_fd >= 0)
        in->stream.fd = wait_for_source(config->incoming, in->stream.stop_fd, &why);
    if (in->stream.fd >= 0 && migrate_answer_hello(&in->stream, in->claim.session, &why)) {
        migrate_claim_look(&in->claim);
        if (hear_description(in, config, &why) && hear_objects(in, &why))
            return in;
    }
    incoming_give_up(in, why);
    incoming_free(in);
    error_prefix(err, why, "the machine was not taken");
    return NULL;
}

const struct saved_identity *incoming_identity(const struct incoming *in)
{
    return &in->id;
}

/* Memory, until the states follow it. */
static bool hear_memory(struct incoming *in, struct board *b, struct frame *f, struct error **err)
{
    /* Between rounds the source has no reason to say anything; a connection that broke is heard of. */
    in->stream.timeout_ms = -1;
    for (;;) {
        if (!frame_receive(&in->stream, f, err))
            return false;
        if (f->kind != MIGRATE_PAGES)
            return true;
        if (!page_reader_apply(&in->pages, b->m.memory, f->data, f->length, err))
            return false;
    }
}

static bool hear_machine(struct incoming *in, struct board *b, struct error **err)
{
    const uint8_t shared = in->claim.shared;
    struct frame f;

    if (!saved_check_sizes(b, &in->id, err) || !migrate_objects_fit(b, in->objects, in->objects_len, err) ||
        !frame_send_bytes(&in->stream, MIGRATE_ACCEPT, &shared, 1, err) || !hear_memory(in, b, &f, err) ||
        !migrate_expect(&in->stream, MIGRATE_STATE, &f, err))
        return false;
    b->start_paused = !f.data[0];
    in->stream.timeout_ms = MIGRATE_TIMEOUT_MS;
    return saved_load_state(b, f.data + 1, f.length - 1, "the stream", err) &&
           frame_send_bytes(&in->stream, MIGRATE_READY, NULL, 0, err);
}

/* Nobody may answer any more: whether it is ours is for the claim to say. */
static bool claim_after_cut(struct incoming *in, struct board *b, struct error *cut, struct error **err)
{
    uint64_t end = monotonic_ns() + CUT_CLAIM_NS;
    bool decisive =
        cut->code != EREMOTEIO && cut->code != ECANCELED && migrate_claim_is_decisive(&in->claim, b);

    while (decisive && monotonic_ns() < end) {
        if (migrate_claim_take(&in->claim, b, NULL)) {
            error_free(cut);
            return true;
        }
        usleep(CUT_RETRY_US);
    }
    error_prefix(err, cut, "the machine stayed where it was");
    return false;
}

static bool take_over(struct incoming *in, struct board *b, struct error **err)
{
    struct error *cut = NULL;
    struct frame f;

    if (!migrate_receive(&in->stream, MIGRATE_GO, &f, &cut))
        return claim_after_cut(in, b, cut, err);
    return migrate_claim_take(&in->claim, b, err);
}

bool incoming_take(struct incoming *in, struct board *b, struct error **err)
{
    struct error *why = NULL;

    machine_lock(&b->m);
    bool ok = hear_machine(in, b, &why) && take_over(in, b, &why);
    machine_unlock(&b->m);
    if (ok)
        return true;
    migrate_hear_reason(&in->stream, &why);
    incoming_give_up(in, why);
    error_prefix(err, why, "the machine was not taken");
    return false;
}

void incoming_took(struct incoming *in)
{
    frame_send_bytes(&in->stream, MIGRATE_RUNNING, NULL, 0, NULL);
    close(steal_fd(&in->stream.fd));
    migrate_claim_settle(&in->claim, true);
}

/* What it says should arrive: it is not read yet, and closing at once would throw it away. */
void incoming_give_up(struct incoming *in, const struct error *why)
{
    struct pollfd p = {.fd = in->stream.fd, .events = POLLIN};
    uint8_t waste[4096];
    uint64_t end = monotonic_ns() + 2000000000u;

    if (in->stream.fd < 0 || why->code == EREMOTEIO)
        return;
    in->stream.stop_fd = -1;
    in->stream.timeout_ms = 1000;
    migrate_fail(&in->stream, why);
    shutdown(in->stream.fd, SHUT_WR);
    while (monotonic_ns() < end && poll(&p, 1, 200) > 0 && recv(p.fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
        ;
}

void incoming_free(struct incoming *in)
{
    if (!in)
        return;
    fd_cleanup(&in->stream.fd);
    fd_cleanup(&in->signal_fd);
    frame_stream_release(&in->stream);
    page_reader_release(&in->pages);
    free(in->objects);
    free(in);
}
