/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands that a guest agent runs in its guest. One thread. */
#ifndef CLI_AGENT_COMMAND_H
#define CLI_AGENT_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cli/agent.h"

#define AGENT_INPUT_MAX ((size_t)16 << 20)

struct agent_command {
    const char *const *words; /* the program, found in the agent's PATH, and its arguments; ends with NULL */
    const void *input;        /* NULL: none */
    size_t input_len;         /* at most AGENT_INPUT_MAX */
    int timeout_ms;           /* after which it is killed; 0: never */
};

struct agent_result {
    int status;         /* as a shell has it: 128 and more for signals */
    bool timed_out;     /* it was killed, as it took too long, */
    int interrupted;    /* or as we got this signal */
    bool cut;           /* the agent has kept less than there was of one of these */
    uint8_t *out, *err; /* what it said; owned */
    size_t out_len, err_len;
};

/* Runs it to its end. False and *err when that cannot be done or the end is not to be known. The result is to
 * be released on success only. */
bool agent_run(struct agent *a, const struct agent_command *command, struct agent_result *result,
               struct error **err);
void agent_result_release(struct agent_result *result);

#endif
