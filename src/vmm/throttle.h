/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Slowing the guest down: its processors rest for a part of each moment. Main loop, machine lock held. */
#ifndef VMM_THROTTLE_H
#define VMM_THROTTLE_H

#include <stdbool.h>

#include "os/loop.h"

struct board;

struct throttle {
    struct board *board;
    struct loop_timer timer;
    unsigned percent; /* of time at rest; 0: it is off */
};

void throttle_init(struct throttle *t, struct board *b);
/* 0 to 99 percent. */
void throttle_set(struct throttle *t, unsigned percent);

#endif
