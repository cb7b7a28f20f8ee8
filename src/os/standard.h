/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Standard input, output and error of a program, as they may be: closed, full, or gone. Main thread. */
#ifndef OS_STANDARD_H
#define OS_STANDARD_H

/*
 * To be called first. A program may be started with some of descriptors 0 to 2 closed; whatever it opened
 * next would take their place, and the console's text would go there. Each closed one gets a descriptor on
 * which reading (0) or writing (1, 2) fails as it would have.
 */
void standard_fds_fill(void);

/*
 * For a process that goes on when its command has ended, whose output or locks nobody shall wait for: 0 to 2
 * become /dev/null, and every other descriptor but these two (-1: none) is closed.
 */
void standard_fds_leave(int keep, int also_keep);

/*
 * To be called last: what was printed must have got there, else the program did not do what it says. Gives
 * `status`; where output was lost, says so on standard error and gives `lost` in place of a status of 0.
 */
int standard_output_done(int status, int lost);

#endif
