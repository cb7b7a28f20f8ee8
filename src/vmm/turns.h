/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A thread that has the main loop do parts of its work, under the machine lock, and waits for them. */
#ifndef VMM_TURNS_H
#define VMM_TURNS_H

#include <semaphore.h>
#include <stdbool.h>

struct loop;

struct turns {
    struct loop *loop;
    sem_t done;
    bool closed; /* atomic */
    void (*part)(void *opaque);
    void *opaque;
};

void turns_init(struct turns *t, struct loop *loop);
void turns_destroy(struct turns *t);
/* Runs part(opaque) on the main loop and waits for it. False once there are no more turns: then it may never
 * run. The one thread. */
bool turns_take(struct turns *t, void (*part)(void *opaque), void *opaque);
/* No more turns, as the loop does not run any more. Any other thread. */
void turns_close(struct turns *t);

#endif
