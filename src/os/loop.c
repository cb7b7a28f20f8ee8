/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop: see loop.h.
 *
 * Two locks. `outer` is the user's (the machine lock): it is taken before anything is looked up for a
 * callback, so that a timer cancelled or a descriptor removed under that lock is never called afterwards.
 * `mutex` is a leaf lock around the timer heap and the posted functions, which other threads change. A thread
 * other than the loop's wakes the loop through an eventfd, and only when the loop sleeps past what was just
 * asked for.
 */
#include "os/loop.h"

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_PER_WAIT 64
#define NEVER           UINT64_MAX

struct watch {
    int fd; /* -1: removed, freed at the end of the round */
    loop_fd_fn *fn;
    void *opaque;
    struct watch *next;
};

struct posted {
    void (*fn)(void *opaque);
    void *opaque;
    struct posted *next;
};

struct loop {
    pthread_mutex_t *outer;
    int epoll_fd, wake_fd;
    atomic_bool stop;
    struct watch *watches, *removed;
    bool no_pwait2; /* the kernel has no epoll_pwait2 */

    pthread_mutex_t mutex;
    struct loop_timer **heap; /* heap[1..heap_len], the earliest first */
    unsigned heap_len, heap_cap;
    struct posted *posted_head, **posted_tail;
    uint64_t sleeping_until; /* 0 while awake */
};

uint64_t monotonic_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct loop *loop_new(pthread_mutex_t *lock, struct error **err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop) {
        error_set_errno(err, ENOMEM, "cannot make an event loop");
        return NULL;
    }
    loop->outer = lock;
    loop->posted_tail = &loop->posted_head;
    pthread_mutex_init(&loop->mutex, NULL);
    loop->wake_fd = -1;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0)
        goto fail;
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0)
        goto fail;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &ev) < 0)
        goto fail;
    return loop;

fail:
    error_set_errno(err, errno, "cannot make an event loop");
    loop_free(loop);
    return NULL;
}

static void free_removed(struct loop *loop)
{
    while (loop->removed) {
        struct watch *w = loop->removed;
        loop->removed = w->next;
        free(w);
    }
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    while (loop->watches) {
        struct watch *w = loop->watches;
        loop->watches = w->next;
        free(w);
    }
    free_removed(loop);
    while (loop->posted_head) {
        struct posted *p = loop->posted_head;
        loop->posted_head = p->next;
        free(p);
    }
    for (unsigned i = 1; i <= loop->heap_len; i++)
        loop->heap[i]->heap_index = 0;
    free(loop->heap);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    pthread_mutex_destroy(&loop->mutex);
    free(loop);
}

static void wake(struct loop *loop)
{
    uint64_t one = 1;
    /* The counter cannot overflow in practice, and a full one wakes the loop as well. */
    if (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_line(LOG_ERROR, "cannot wake the event loop");
}

static void outer_lock(struct loop *loop)
{
    if (loop->outer)
        pthread_mutex_lock(loop->outer);
}

static void outer_unlock(struct loop *loop)
{
    if (loop->outer)
        pthread_mutex_unlock(loop->outer);
}

/* File descriptors. */

static struct watch *watch_find(struct loop *loop, int fd)
{
    for (struct watch *w = loop->watches; w; w = w->next) {
        if (w->fd == fd)
            return w;
    }
    return NULL;
}

bool loop_fd_add(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *opaque, struct error **err)
{
    struct watch *w = calloc(1, sizeof(*w));
    if (!w) {
        error_set_errno(err, ENOMEM, "cannot watch a file descriptor");
        return false;
    }
    *w = (struct watch){.fd = fd, .fn = fn, .opaque = opaque};
    struct epoll_event ev = {.events = events, .data.ptr = w};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        error_set_errno(err, errno, "cannot watch file descriptor %d", fd);
        free(w);
        return false;
    }
    w->next = loop->watches;
    loop->watches = w;
    return true;
}

void loop_fd_change(struct loop *loop, int fd, uint32_t events)
{
    struct watch *w = watch_find(loop, fd);
    if (!w)
        return;
    struct epoll_event ev = {.events = events, .data.ptr = w};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, fd, &ev) < 0)
        log_line(LOG_ERROR, "cannot change what file descriptor %d is watched for", fd);
}

void loop_fd_remove(struct loop *loop, int fd)
{
    for (struct watch **p = &loop->watches; *p; p = &(*p)->next) {
        struct watch *w = *p;
        if (w->fd != fd)
            continue;
        *p = w->next;
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        /* Events already fetched point to it: it lives until the round ends. */
        w->fd = -1;
        w->next = loop->removed;
        loop->removed = w;
        return;
    }
}

/* Posted functions. */

void loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct posted *p = malloc(sizeof(*p));
    if (!p)
        abort(); /* a few bytes, and the caller cannot go on without it */
    *p = (struct posted){.fn = fn, .opaque = opaque};
    pthread_mutex_lock(&loop->mutex);
    *loop->posted_tail = p;
    loop->posted_tail = &p->next;
    bool sleeping = loop->sleeping_until != 0;
    loop->sleeping_until = 0;
    pthread_mutex_unlock(&loop->mutex);
    if (sleeping)
        wake(loop);
}

/* Runs what was posted before this round; what is posted meanwhile waits for the next, so descriptors get
 * their turn. */
static void run_posted(struct loop *loop)
{
    pthread_mutex_lock(&loop->mutex);
    struct posted *p = loop->posted_head;
    loop->posted_head = NULL;
    loop->posted_tail = &loop->posted_head;
    pthread_mutex_unlock(&loop->mutex);
    while (p) {
        struct posted *next = p->next;
        outer_lock(loop);
        p->fn(p->opaque);
        outer_unlock(loop);
        free(p);
        p = next;
    }
}

/* The timer heap: every function below is called with `mutex` held. */

static void heap_put(struct loop *loop, unsigned i, struct loop_timer *t)
{
    loop->heap[i] = t;
    t->heap_index = i;
}

static void heap_up(struct loop *loop, unsigned i, struct loop_timer *t)
{
    while (i > 1 && loop->heap[i / 2]->deadline_ns > t->deadline_ns) {
        heap_put(loop, i, loop->heap[i / 2]);
        i /= 2;
    }
    heap_put(loop, i, t);
}

static void heap_down(struct loop *loop, unsigned i, struct loop_timer *t)
{
    for (;;) {
        unsigned child = 2 * i;
        if (child > loop->heap_len)
            break;
        if (child < loop->heap_len && loop->heap[child + 1]->deadline_ns < loop->heap[child]->deadline_ns)
            child++;
        if (loop->heap[child]->deadline_ns >= t->deadline_ns)
            break;
        heap_put(loop, i, loop->heap[child]);
        i = child;
    }
    heap_put(loop, i, t);
}

static void heap_remove(struct loop *loop, struct loop_timer *t)
{
    unsigned i = t->heap_index;
    struct loop_timer *last = loop->heap[loop->heap_len--];
    t->heap_index = 0;
    if (last == t)
        return;
    if (i > 1 && loop->heap[i / 2]->deadline_ns > last->deadline_ns)
        heap_up(loop, i, last);
    else
        heap_down(loop, i, last);
}

static void heap_insert(struct loop *loop, struct loop_timer *t)
{
    if (loop->heap_len + 1 >= loop->heap_cap) {
        unsigned cap = loop->heap_cap ? loop->heap_cap * 2 : 64;
        struct loop_timer **heap = realloc(loop->heap, cap * sizeof(struct loop_timer *));
        if (!heap)
            abort(); /* one pointer per timer object that was itself allocated */
        loop->heap = heap;
        loop->heap_cap = cap;
    }
    heap_up(loop, ++loop->heap_len, t);
}

void loop_timer_init(struct loop_timer *t, struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    *t = (struct loop_timer){.fn = fn, .opaque = opaque, .loop = loop};
}

void loop_timer_arm(struct loop_timer *t, uint64_t deadline_ns)
{
    struct loop *loop = t->loop;
    /* One that is always armed in the past must queue behind those that are due, or they never get their
     * turn. */
    deadline_ns = MAX(deadline_ns, monotonic_ns());
    pthread_mutex_lock(&loop->mutex);
    if (t->heap_index)
        heap_remove(loop, t);
    t->deadline_ns = deadline_ns;
    heap_insert(loop, t);
    bool too_late = loop->sleeping_until > deadline_ns;
    if (too_late)
        loop->sleeping_until = 0;
    pthread_mutex_unlock(&loop->mutex);
    if (too_late)
        wake(loop);
}

void loop_timer_cancel(struct loop_timer *t)
{
    struct loop *loop = t->loop;
    if (!loop)
        return;
    pthread_mutex_lock(&loop->mutex);
    if (t->heap_index)
        heap_remove(loop, t);
    pthread_mutex_unlock(&loop->mutex);
}

/* Takes the first timer that is due, or NULL. */
static struct loop_timer *take_due(struct loop *loop, uint64_t now)
{
    pthread_mutex_lock(&loop->mutex);
    struct loop_timer *t = loop->heap_len && loop->heap[1]->deadline_ns <= now ? loop->heap[1] : NULL;
    if (t)
        heap_remove(loop, t);
    pthread_mutex_unlock(&loop->mutex);
    return t;
}

/* Timers due at the start of the round; one that re-arms itself in the past waits for the next round. */
static void run_timers(struct loop *loop)
{
    uint64_t now = monotonic_ns();
    pthread_mutex_lock(&loop->mutex);
    unsigned budget = loop->heap_len;
    bool due = budget && loop->heap[1]->deadline_ns <= now;
    pthread_mutex_unlock(&loop->mutex);
    while (due && budget-- && !loop->stop) {
        outer_lock(loop);
        struct loop_timer *t = take_due(loop, now);
        if (t)
            t->fn(t->opaque);
        outer_unlock(loop);
        due = t != NULL;
    }
}

/* Waiting. */

/* How long to sleep; declares the sleep to other threads. NEVER: without end; 0: not at all. */
static uint64_t begin_sleep(struct loop *loop)
{
    uint64_t wait = NEVER;
    pthread_mutex_lock(&loop->mutex);
    uint64_t until = loop->heap_len ? loop->heap[1]->deadline_ns : NEVER;
    if (loop->posted_head || loop->stop) {
        wait = 0;
    } else if (until != NEVER) {
        uint64_t now = monotonic_ns();
        wait = until > now ? until - now : 0;
    }
    loop->sleeping_until = wait ? until : 0;
    pthread_mutex_unlock(&loop->mutex);
    return wait;
}

static int wait_events(struct loop *loop, struct epoll_event *events, uint64_t wait)
{
    struct timespec ts = {.tv_sec = (time_t)MIN(wait / 1000000000u, (uint64_t)INT32_MAX),
                          .tv_nsec = (long)(wait % 1000000000u)};
    const struct timespec *timeout = wait == NEVER ? NULL : &ts;
    if (!loop->no_pwait2) {
        int n = epoll_pwait2(loop->epoll_fd, events, EVENTS_PER_WAIT, timeout, NULL);
        if (n >= 0 || (errno != ENOSYS && errno != EPERM))
            return n;
        loop->no_pwait2 = true;
    }
    if (wait) {
        struct pollfd pfd = {.fd = loop->epoll_fd, .events = POLLIN};
        if (ppoll(&pfd, 1, timeout, NULL) <= 0)
            return 0;
    }
    return epoll_wait(loop->epoll_fd, events, EVENTS_PER_WAIT, 0);
}

static void run_watches(struct loop *loop, const struct epoll_event *events, int n)
{
    for (int i = 0; i < n; i++) {
        struct watch *w = events[i].data.ptr;
        if (!w) {
            uint64_t count;
            while (read(loop->wake_fd, &count, sizeof(count)) > 0)
                ;
            continue;
        }
        outer_lock(loop);
        if (w->fd >= 0)
            w->fn(w->opaque, w->fd, events[i].events);
        outer_unlock(loop);
    }
    outer_lock(loop);
    free_removed(loop);
    outer_unlock(loop);
}

void loop_run(struct loop *loop)
{
    /* Guests set timers tens of microseconds apart; the default slack of 50 us would blur them. */
    prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
    while (!loop->stop) {
        struct epoll_event events[EVENTS_PER_WAIT];
        int n = wait_events(loop, events, begin_sleep(loop));
        pthread_mutex_lock(&loop->mutex);
        loop->sleeping_until = 0;
        pthread_mutex_unlock(&loop->mutex);
        run_timers(loop);
        run_watches(loop, events, MAX(n, 0));
        run_posted(loop);
    }
    loop->stop = false;
}

void loop_stop(struct loop *loop)
{
    loop->stop = true;
    wake(loop);
}
