/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Turns of the main loop: see turns.h. */
#include "vmm/turns.h"

#include "os/loop.h"

void turns_init(struct turns *t, struct loop *loop)
{
    *t = (struct turns){.loop = loop};
    sem_init(&t->done, 0, 0);
}

void turns_destroy(struct turns *t)
{
    sem_destroy(&t->done);
}

static void run_part(void *opaque)
{
    struct turns *t = opaque;

    t->part(t->opaque);
    sem_post(&t->done);
}

bool turns_take(struct turns *t, void (*part)(void *opaque), void *opaque)
{
    if (__atomic_load_n(&t->closed, __ATOMIC_ACQUIRE))
        return false;
    t->part = part;
    t->opaque = opaque;
    loop_post(t->loop, run_part, t);
    while (sem_wait(&t->done) < 0)
        ;
    return !__atomic_load_n(&t->closed, __ATOMIC_ACQUIRE);
}

void turns_close(struct turns *t)
{
    __atomic_store_n(&t->closed, true, __ATOMIC_RELEASE); /* pairs with turns_take */
    sem_post(&t->done);
}
