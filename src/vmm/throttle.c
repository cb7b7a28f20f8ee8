/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Slowing the guest down: see throttle.h. */
#include "vmm/throttle.h"

#include "vmm/board.h"

#define RUN_NS 5000000u /* at a time, between rests */

static void next(void *opaque)
{
    struct throttle *t = opaque;
    struct board *b = t->board;

    b->resting = !b->resting && t->percent;
    if (b->state == RUN_RUNNING && b->resting)
        vcpus_pause_soon(b->vcpus);
    else if (b->state == RUN_RUNNING)
        runstate_let_go(b);
    if (t->percent)
        loop_timer_arm(&t->timer,
                       monotonic_ns() + (b->resting ? RUN_NS * t->percent / (100 - t->percent) : RUN_NS));
}

void throttle_init(struct throttle *t, struct board *b)
{
    *t = (struct throttle){.board = b};
    loop_timer_init(&t->timer, b->m.loop, next, t);
}

void throttle_set(struct throttle *t, unsigned percent)
{
    bool was_on = t->percent;

    t->percent = percent;
    if (percent && !was_on)
        loop_timer_arm(&t->timer, monotonic_ns() + RUN_NS);
    if (percent || !was_on)
        return;
    loop_timer_cancel(&t->timer);
    if (t->board->resting)
        next(t);
}
