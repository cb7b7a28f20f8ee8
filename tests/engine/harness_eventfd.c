/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Doorbells and lines of the bare test machine: the engine's, or what a machine does without. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/error.h"
#include "harness.h"

static void must(bool good, const char *what, struct error *err)
{
    if (good)
        return;
    fprintf(stderr, "harness: %s: %s\n", what, err ? error_text(err) : "too many");
    exit(1);
}

/* The one that is fd's; for fd -1 a free one. */
static struct harness_eventfd *find(struct harness_eventfd *table, int fd)
{
    for (unsigned i = 0; i < HARNESS_EVENTFDS; i++)
        if (table[i].fd == fd)
            return &table[i];
    return NULL;
}

void harness_doorbell_add(struct harness *h, uint64_t gpa, int fd)
{
    struct error *err = NULL;
    if (h->ops->doorbell_add) {
        must(h->ops->doorbell_add(h->engine, gpa, fd, &err), "a doorbell", err);
        return;
    }
    pthread_mutex_lock(&h->lock);
    struct harness_eventfd *bell = find(h->bell, -1);
    must(bell, "a doorbell", NULL);
    *bell = (struct harness_eventfd){.fd = fd, .addr = gpa};
    pthread_mutex_unlock(&h->lock);
}

void harness_doorbell_remove(struct harness *h, uint64_t gpa, int fd)
{
    if (h->ops->doorbell_remove) {
        h->ops->doorbell_remove(h->engine, gpa, fd);
        return;
    }
    pthread_mutex_lock(&h->lock);
    for (unsigned i = 0; i < HARNESS_EVENTFDS; i++)
        if (h->bell[i].fd == fd && h->bell[i].addr == gpa)
            h->bell[i].fd = -1;
    pthread_mutex_unlock(&h->lock);
}

void harness_line_set(struct harness *h, int fd, uint64_t addr, uint32_t data)
{
    struct error *err = NULL;
    if (h->ops->line_set) {
        must(h->ops->line_set(h->engine, fd, addr, data, &err), "a line", err);
        return;
    }
    struct harness_eventfd *line = find(h->line, fd);
    line = line ? line : find(h->line, -1);
    must(line, "a line", NULL);
    *line = (struct harness_eventfd){.fd = fd, .addr = addr, .data = data};
}

void harness_line_drop(struct harness *h, int fd)
{
    struct harness_eventfd *line = find(h->line, fd);
    if (h->ops->line_drop)
        h->ops->line_drop(h->engine, fd);
    else if (line)
        line->fd = -1;
}

void harness_line_signal(struct harness *h, int fd, uint64_t n)
{
    const struct harness_eventfd *line = find(h->line, fd);
    if (h->ops->line_set)
        must(eventfd_write(fd, n) == 0, "signalling a line", NULL);
    else if (line)
        h->ops->msi(h->engine, line->addr, line->data);
}
