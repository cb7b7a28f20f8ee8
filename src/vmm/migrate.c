/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The source of a migration: see migrate.h. Its thread talks to the destination; what touches the machine is
 * a turn of the main loop.
 */
#include "vmm/migrate.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "block/block.h"
#include "os/address.h"
#include "vmm/board.h"
#include "vmm/dirty_log.h"
#include "vmm/memory_data.h"
#include "vmm/migrate_claim.h"
#include "vmm/migrate_objects.h"
#include "vmm/migrate_stream.h"
#include "vmm/save.h"
#include "vmm/save_state.h"
#include "vmm/throttle.h"
#include "vmm/turns.h"

#define NS_PER_SECOND 1000000000u
#define NS_PER_MS     1000000u
#define HAND_OVER_NS  8000000u  /* of a pause is gone for states and disks, however little memory there is */
#define FAIR_SAMPLE   (4 * MIB) /* a round of less says little about the line's speed */
#define RECLAIM_NS    ((uint64_t)10 * NS_PER_SECOND)
#define RECLAIM_US    50000

const struct control_migrate_settings migrate_defaults = {.events = true,
                                                          .downtime_limit = 30,
                                                          .throttle_initial = 20,
                                                          .throttle_increment = 10,
                                                          .throttle_max = 99};

struct migration {
    struct board *board;
    const struct migrate_ops *ops;
    char *address;
    struct turns turns;
    pthread_t thread;
    bool running; /* it is to be joined */
    struct frame_stream stream;
    int cancel_fd;  /* eventfd */
    bool cancelled; /* atomic */
    struct page_writer writer;
    struct migrate_claim claim;
    struct dirty_log log;
    struct throttle throttle;
    struct state_buf state;                    /* of all objects, after a byte that says whether it runs */
    struct control_migrate_settings settings;  /* the main loop's */
    uint64_t max_bandwidth, downtime_limit_ns; /* atomic: of them */
    bool compress;                             /* atomic: of them */
    bool memory_changed;                       /* the main loop's: all of it is to be sent again */
    bool again;                                /* not frozen: something else has to happen first */
    bool let_go;                               /* the claim is not held: the destination may run */
    bool sent;                                 /* it may have, and claim the machine */
    bool ready;                                /* the destination has everything */
    enum migrate_end end;
    const char *status;
    /* Time and progress. */
    uint64_t started, fetched, frozen;                     /* monotonic */
    uint64_t setup_ns, total_ns, downtime_ns, expected_ns; /* atomic */
    uint64_t remaining, total, rate, speed, rounds;        /* atomic; bytes, pages a second, bytes a second */
    struct error *failure;
};

static void store(uint64_t *to, uint64_t value)
{
    __atomic_store_n(to, value, __ATOMIC_RELAXED);
}

static uint64_t load(const uint64_t *from)
{
    return __atomic_load_n(from, __ATOMIC_RELAXED);
}

/* Turns of the main loop: from another thread each is run by turns_take. */

/* `opaque` leads to `m` in one way or another. */
static bool turn_with(struct migration *m, void (*part)(void *opaque), void *opaque, struct error **err)
{
    if (!turns_take(&m->turns, part, opaque))
        error_set(err, ECANCELED, "the machine has ended");
    else if (m->failure)
        error_prefix(err, steal_ptr(&m->failure), "the machine cannot be moved");
    else
        return true;
    return false;
}

static bool turn(struct migration *m, void (*part)(void *opaque), struct error **err)
{
    return turn_with(m, part, m, err);
}

static bool is_cancelling(const struct migration *m)
{
    return !strcmp(m->status, "cancelling");
}

static void set_status(struct migration *m, const char *status)
{
    m->status = status;
    m->ops->status(m->board, status);
}

static void post_active(void *opaque)
{
    struct migration *m = opaque;

    runstate_hold(m->board);
    dirty_log_start(&m->log, m->board, &m->failure);
    runstate_let_go(m->board);
    m->fetched = monotonic_ns();
    store(&m->setup_ns, m->fetched - m->started);
    if (!m->failure && !is_cancelling(m))
        set_status(m, "active");
}

static void describe(struct migration *m, char **description, char **objects, struct error **err)
{
    struct board *b = m->board;
    struct saved_identity id = {.cpu = b->cpu};
    struct block_info disk[OPTIONS_LIST_MAX];

    memcpy(id.uuid, b->m.uuid, sizeof(id.uuid));
    save_disks_identify(b, &id);
    for (unsigned i = 0; i < id.disk_count; i++)
        block_get_info(b->disk[i].block, &disk[i]);
    *description = save_describe(b->config, &id, disk, err);
    *objects = *description ? migrate_objects_describe(b, err) : NULL;
}

/* What holds something, beside what was written. */
static bool add_all(struct migration *m, struct error **err)
{
    const struct board *b = m->board;
    const uint32_t *base = b->saved ? b->saved->table.sum : NULL;

    m->log.pages = 0;
    for (unsigned i = 0; i < b->m.memory->region_count; i++) {
        if (!memory_data_find(b->m.memory, i, base, m->log.bits[i], NULL, err))
            return false;
        m->log.pages += page_bits_set(m->log.bits[i], guest_page_words(b->m.memory, i));
    }
    return true;
}

static void fetch(struct migration *m)
{
    uint64_t now = monotonic_ns();

    dirty_log_fetch(&m->log);
    if (!m->frozen)
        store(&m->rate, m->log.pages * NS_PER_SECOND / MAX(now - m->fetched, 1u));
    m->fetched = now;
    if (m->memory_changed)
        add_all(m, &m->failure);
    m->memory_changed = false;
    store(&m->remaining, m->log.pages * GUEST_PAGE_SIZE);
}

static void post_fetch(void *opaque)
{
    struct migration *m = opaque;

    runstate_hold(m->board);
    fetch(m);
    runstate_let_go(m->board);
}

static void post_throttle(void *opaque)
{
    struct migration *m = opaque;
    const struct control_migrate_settings *s = &m->settings;
    unsigned now = m->throttle.percent;

    if (!s->auto_converge)
        return;
    throttle_set(&m->throttle,
                 (unsigned)MIN(now ? now + s->throttle_increment : s->throttle_initial, s->throttle_max));
}

static void post_freeze(void *opaque)
{
    struct migration *m = opaque;
    struct board *b = m->board;
    struct error *why = NULL;
    const uint8_t running = b->state == RUN_RUNNING;

    m->frozen = monotonic_ns();
    m->again = !m->ops->freeze(b, &why) && why->code == EAGAIN;
    if (m->again)
        error_free(why);
    else
        m->failure = why;
    if (m->again)
        m->frozen = 0;
    if (m->again || m->failure)
        return;
    if (!is_cancelling(m))
        set_status(m, "device");
    fetch(m);
    state_buf_free(&m->state);
    if (!m->failure && save_state_put(&m->state, &running, 1, &m->failure))
        save_state(b, &m->state, &m->failure);
}

static void post_let_go(void *opaque)
{
    struct migration *m = opaque;

    if (is_cancelling(m))
        error_set(&m->failure, ECANCELED, "it was cancelled");
    else
        m->let_go = migrate_claim_let_go(&m->claim, m->board, &m->failure);
}

static void post_reclaim(void *opaque)
{
    struct migration *m = opaque;

    m->let_go = !migrate_claim_take(&m->claim, m->board, NULL);
}

/* Whatever has happened: when the machine is ours again, it goes on. */
static void post_done(void *opaque)
{
    struct migration *m = opaque;
    const char *status = m->end == MIGRATE_MOVED                       ? "completed"
                         : m->failure && m->failure->code == ECANCELED ? "cancelled"
                                                                       : "failed";

    pthread_join(m->thread, NULL);
    m->running = false;
    throttle_set(&m->throttle, 0);
    dirty_log_stop(&m->log);
    store(&m->total_ns, monotonic_ns() - m->started);
    if (m->frozen && !m->let_go)
        m->ops->go_on(m->board);
    set_status(m, status);
    m->ops->done(m->board, m->end, m->failure);
}

/* The thread. */

static bool hear_accept(struct migration *m, struct error **err)
{
    struct frame f;

    if (!migrate_receive(&m->stream, MIGRATE_ACCEPT, &f, err))
        return false;
    m->claim.shared = f.data[0];
    return true;
}

/* What was restored from a file and has not been read yet must not be passed on when it has gone bad. */
static bool check_origin(struct migration *m, struct error **err)
{
    const struct saved_machine *s = m->board->saved;

    return !s || saved_memory_verify(&s->file, &s->table, &m->cancelled, err);
}

struct offer {
    struct migration *m;
    char *description, *objects;
};

static void post_describe(void *opaque)
{
    struct offer *o = opaque;

    describe(o->m, &o->description, &o->objects, &o->m->failure);
}

static bool send_offer(struct migration *m, struct error **err)
{
    struct offer o = {.m = m};

    bool ok = turn_with(m, post_describe, &o, err) &&
              frame_send_bytes(&m->stream, MIGRATE_DESCRIPTION, o.description, strlen(o.description), err) &&
              frame_send_bytes(&m->stream, MIGRATE_OBJECTS, o.objects, strlen(o.objects), err);
    free(o.description);
    free(o.objects);
    return ok;
}

static bool introduce(struct migration *m, struct error **err)
{
    m->stream.fd = address_connect(m->address, err);
    return m->stream.fd >= 0 && check_origin(m, err) && migrate_hello(&m->stream, m->claim.session, err) &&
           send_offer(m, err) && hear_accept(m, err) && turn(m, post_active, err);
}

/* Waits for as long as the round, which has sent `bytes` since `begin`, is ahead of the limit. */
static bool keep_to_bandwidth(struct migration *m, uint64_t begin, uint64_t bytes, struct error **err)
{
    uint64_t limit = load(&m->max_bandwidth);
    uint64_t due = limit ? begin + (uint64_t)((double)bytes / (double)limit * NS_PER_SECOND) : 0;
    uint64_t now = monotonic_ns();
    struct pollfd p = {.fd = m->stream.stop_fd, .events = POLLIN};

    if (due <= now || poll(&p, 1, (int)MIN((due - now) / NS_PER_MS, 1000u)) <= 0)
        return true;
    error_set(err, ECANCELED, "it was cancelled");
    return false;
}

/* The destination only says something out of turn when it gives up. */
static bool destination_listens(struct migration *m, struct error **err)
{
    struct frame f;

    return !frame_waits(&m->stream) || migrate_receive(&m->stream, MIGRATE_FAILED, &f, err);
}

/* The pages of the log as last fetched. `known`: the destination may have had others. */
static bool send_region(struct migration *m, unsigned region, bool known, bool at_pace, struct error **err)
{
    const uint64_t *bits = m->log.bits[region];
    uint64_t begin = monotonic_ns(), sent = load(&m->stream.bytes_sent);
    bool compress = __atomic_load_n(&m->compress, __ATOMIC_RELAXED);

    for (size_t word = 0; word < guest_page_words(m->board->m.memory, region); word++) {
        for (uint64_t left = bits[word]; left; left &= left - 1) {
            size_t page = word * 64 + (size_t)__builtin_ctzll(left);
            if (!page_writer_add(&m->writer, region, page, known, compress, err))
                return false;
        }
        __atomic_fetch_sub(&m->remaining, (uint64_t)__builtin_popcountll(bits[word]) * GUEST_PAGE_SIZE,
                           __ATOMIC_RELAXED);
        if (at_pace && bits[word] &&
            (!keep_to_bandwidth(m, begin, load(&m->stream.bytes_sent) - sent, err) ||
             !destination_listens(m, err)))
            return false;
    }
    return page_writer_flush(&m->writer, compress, err);
}

static bool send_memory(struct migration *m, bool known, bool at_pace, struct error **err)
{
    uint64_t begin = monotonic_ns(), bytes = m->log.pages * GUEST_PAGE_SIZE;

    for (unsigned i = 0; i < m->board->m.memory->region_count; i++)
        if (!send_region(m, i, known, at_pace, err))
            return false;
    if (bytes >= FAIR_SAMPLE || !load(&m->speed))
        store(&m->speed, (uint64_t)((double)bytes * NS_PER_SECOND / (double)MAX(monotonic_ns() - begin, 1u)));
    store(&m->rounds, m->rounds + 1);
    return true;
}

/* For how long the machine would stand still if what is left were sent now. */
static uint64_t expected_pause(struct migration *m)
{
    double left = (double)m->log.pages * GUEST_PAGE_SIZE;
    uint64_t pause = HAND_OVER_NS + (uint64_t)(left * NS_PER_SECOND / (double)MAX(load(&m->speed), 1u));

    store(&m->expected_ns, pause);
    return pause;
}

static bool send_all(struct migration *m, struct error **err)
{
    if (!add_all(m, err))
        return false;
    store(&m->remaining, m->log.pages * GUEST_PAGE_SIZE);
    return send_memory(m, false, true, err);
}

/*
 * What the guest writes meanwhile, until that is so little that the rest will fit the pause. A guest that
 * writes half as fast as can be sent, or faster, is slowed down after two such rounds, if that is wanted.
 */
static bool send_changes(struct migration *m, struct error **err)
{
    unsigned fast = 0;

    for (;;) {
        uint64_t before = m->log.pages;
        if (!turn(m, post_fetch, err))
            return false;
        bool little = expected_pause(m) <= load(&m->downtime_limit_ns);
        fast = m->log.pages > before / 2 ? fast + 1 : 0;
        if (!little && fast >= 2 && !turn(m, post_throttle, err))
            return false;
        if (!send_memory(m, true, true, err))
            return false;
        if (little)
            return true;
    }
}

/* Freezes the machine, unless something has to happen before that. */
static bool freeze(struct migration *m, struct error **err)
{
    do {
        if (!send_changes(m, err) || !turn(m, post_freeze, err))
            return false;
    } while (m->again);
    return true;
}

static bool send_rest(struct migration *m, struct error **err)
{
    struct frame f;

    if (!send_memory(m, true, false, err))
        return false;
    m->sent = true;
    m->ready = frame_send_bytes(&m->stream, MIGRATE_STATE, m->state.data, m->state.len, err) &&
               migrate_receive(&m->stream, MIGRATE_READY, &f, err);
    return m->ready;
}

/*
 * The machine is to be had by whoever claims it first, and the destination has not said that it has it. Once
 * it is taken here, it will not run there. When it cannot be taken for so long, it runs there.
 */
static void reclaim(struct migration *m, struct error *why, struct error **err)
{
    uint64_t end = monotonic_ns() + RECLAIM_NS;
    bool refused = why->code == EREMOTEIO; /* it said that it will not run: there is no doubt */
    bool open = true;

    if (!refused && !migrate_claim_is_decisive(&m->claim, m->board)) {
        m->end = MIGRATE_IN_DOUBT;
        error_prefix(err, why,
                     "whether the machine runs there is not known; it stands still here until it is told to "
                     "go on");
        return;
    }
    while (m->let_go && open && monotonic_ns() < end) {
        open = turns_take(&m->turns, post_reclaim, m);
        if (m->let_go)
            usleep(RECLAIM_US);
    }
    m->end = !m->let_go ? MIGRATE_STAYED : refused ? MIGRATE_LOST : MIGRATE_MOVED;
    if (m->end == MIGRATE_MOVED)
        error_free(why);
    else
        error_prefix(err, why,
                     m->let_go ? "the machine cannot be taken back" : "the destination did not take it");
}

static bool hand_over(struct migration *m, struct error **err)
{
    struct error *why = NULL;
    struct frame f;

    if (!send_rest(m, err) || !turn(m, post_let_go, err))
        return false;
    m->stream.stop_fd = -1; /* too late to cancel */
    if (frame_send_bytes(&m->stream, MIGRATE_GO, NULL, 0, &why) &&
        migrate_receive(&m->stream, MIGRATE_RUNNING, &f, &why))
        m->end = MIGRATE_MOVED;
    else
        reclaim(m, why, err);
    store(&m->downtime_ns, monotonic_ns() - m->frozen);
    return m->end == MIGRATE_MOVED;
}

static void *migrate_main(void *opaque)
{
    struct migration *m = opaque;
    struct error *why = NULL;

    if (!introduce(m, &why) || !send_all(m, &why) || !freeze(m, &why) || !hand_over(m, &why)) {
        m->stream.stop_fd = -1;
        m->stream.timeout_ms = 1000;
        if (m->stream.fd >= 0)
            migrate_hear_reason(&m->stream, &why);
        if (m->stream.fd >= 0 && m->end == MIGRATE_STAYED && why->code != EREMOTEIO)
            migrate_fail(&m->stream, why);
        error_free(m->failure);
        m->failure = why;
    }
    loop_post(m->board->m.loop, post_done, m);
    return NULL;
}

/* Life. */

static bool prepare(struct migration *m, struct error **err)
{
    int stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    m->stream = (struct frame_stream){.fd = -1,
                                      .stop_fd = stop_fd,
                                      .timeout_ms = MIGRATE_TIMEOUT_MS,
                                      .peer = "the destination",
                                      .limit = migrate_limit};
    m->cancel_fd = stop_fd;
    if (stop_fd < 0)
        return error_set_errno(err, errno, "cannot make an eventfd"), false;
    return save_disks_check(m->board, err) && migrate_claim_begin(&m->claim, err) &&
           page_writer_init(&m->writer, &m->stream, m->board->m.memory, err);
}

struct migration *migrate_start(struct board *b, const char *address, const struct migrate_ops *ops,
                                struct error **err)
{
    struct migration *m = calloc(1, sizeof(*m));
    int code = ENOMEM;

    if (!m || !address_check(address, err)) {
        if (!m)
            error_set_errno(err, ENOMEM, "cannot move the machine");
        free(m);
        return NULL;
    }
    *m = (struct migration){.board = b,
                            .ops = ops,
                            .address = strdup(address),
                            .claim.name = -1,
                            .started = monotonic_ns(),
                            .total = guest_pages(b->m.memory) * GUEST_PAGE_SIZE,
                            .remaining = guest_pages(b->m.memory) * GUEST_PAGE_SIZE};
    turns_init(&m->turns, b->m.loop);
    throttle_init(&m->throttle, b);
    migrate_set(m, &b->migrate_settings);
    if (prepare(m, err)) {
        set_status(m, "setup");
        code = m->address ? pthread_create(&m->thread, NULL, migrate_main, m) : ENOMEM;
        m->running = code == 0;
        if (m->running)
            return m;
        error_set_errno(err, code, "cannot start a thread to move the machine");
    }
    migrate_free(m);
    return NULL;
}

void migrate_set(struct migration *m, const struct control_migrate_settings *settings)
{
    m->settings = *settings;
    store(&m->max_bandwidth, settings->max_bandwidth);
    store(&m->downtime_limit_ns, settings->downtime_limit * NS_PER_MS);
    __atomic_store_n(&m->compress, settings->compress, __ATOMIC_RELAXED);
}

void migrate_memory_changed(struct migration *m)
{
    m->memory_changed = true;
}

static void tell_thread(struct migration *m)
{
    __atomic_store_n(&m->cancelled, true, __ATOMIC_RELAXED);
    if (m->cancel_fd >= 0)
        eventfd_write(m->cancel_fd, 1);
}

void migrate_cancel(struct migration *m)
{
    if (!m->let_go)
        set_status(m, "cancelling");
    tell_thread(m);
}

void migrate_progress(const struct migration *m, struct control_migration *out)
{
    *out = (struct control_migration){.status = m->status,
                                      .setup_ns = load(&m->setup_ns),
                                      .downtime_ns = load(&m->downtime_ns),
                                      .expected_downtime_ns = load(&m->expected_ns),
                                      .transferred = load(&m->stream.bytes_sent),
                                      .remaining = load(&m->remaining),
                                      .total = m->total,
                                      .full_pages = load(&m->writer.full),
                                      .zero_pages = load(&m->writer.zero),
                                      .dirty_pages_rate = load(&m->rate),
                                      .bandwidth = load(&m->speed),
                                      .rounds = load(&m->rounds),
                                      .throttle = m->throttle.percent};
    out->total_ns = m->total_ns ? load(&m->total_ns) : monotonic_ns() - m->started;
}

void migrate_free(struct migration *m)
{
    if (!m)
        return;
    tell_thread(m);
    turns_close(&m->turns);
    if (m->running)
        pthread_join(m->thread, NULL);
    throttle_set(&m->throttle, 0);
    dirty_log_stop(&m->log);
    migrate_claim_settle(&m->claim, m->sent);
    page_writer_release(&m->writer);
    frame_stream_release(&m->stream);
    fd_cleanup(&m->stream.fd);
    fd_cleanup(&m->cancel_fd);
    state_buf_free(&m->state);
    turns_destroy(&m->turns);
    error_free(m->failure);
    free(m->address);
    free(m);
}
