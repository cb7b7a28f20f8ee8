/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche exec */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/agent_command.h"
#include "cli/args.h"
#include "cli/interrupt.h"
#include "cli/machines.h"
#include "cli/stop.h"
#include "cli/verb.h"

#define EXIT_TIMEOUT 124 /* as of timeout(1) */

struct request {
    bool input;
    int timeout_ms;
    char **command;
};

/* All of standard input; false and *err, with EINTR when a signal came. */
static bool read_input(struct agent_command *c, char **data, struct error **err)
{
    size_t size = 65536;
    for (*data = malloc(size); *data;) {
        ssize_t n = read(STDIN_FILENO, *data + c->input_len, size - c->input_len);
        if (n == 0) {
            c->input = c->input_len ? *data : NULL;
            return true;
        }
        if (n < 0 && (errno != EINTR || interrupt_pending()))
            return error_set_errno(err, errno, "read standard input"), false;
        c->input_len += (size_t)MAX(n, 0);
        if (c->input_len > AGENT_INPUT_MAX) {
            error_set(
                err, EFBIG,
                "standard input is longer than %zu MiB, more than an agent takes (ruche cp copies files)",
                AGENT_INPUT_MAX >> 20);
            return false;
        }
        if (c->input_len == size) {
            char *larger = realloc(*data, size *= 2);
            if (!larger)
                break;
            *data = larger;
        }
    }
    return error_set_errno(err, ENOMEM, "read standard input"), false;
}

/* Hands on what it said and how it ended. */
static int report(const struct request *r, const struct agent_result *result)
{
    fwrite(result->out, 1, result->out_len, stdout);
    fflush(stdout);
    fwrite(result->err, 1, result->err_len, stderr);
    if (result->interrupted)
        return EXIT_SIGNAL + result->interrupted;
    if (result->timed_out) {
        fprintf(stderr, "ruche: '%s' was killed after %d s\n", r->command[0], r->timeout_ms / 1000);
        return EXIT_TIMEOUT;
    }
    if (!result->cut)
        return result->status;
    fprintf(stderr, "ruche: the guest agent has kept only the first 16 MiB of what '%s' said\n",
            r->command[0]);
    return result->status ? result->status : EXIT_RUCHE;
}

static int execute(const struct request *r, const struct machine *m)
{
    struct error *err = NULL;
    struct agent_command c = {.words = (const char *const *)r->command, .timeout_ms = r->timeout_ms};
    struct agent_result result;
    cleanup(mem) char *input = NULL;
    interrupt_watch();
    struct agent *a =
        !r->input || read_input(&c, &input, &err) ? agent_open(m, AGENT_PATIENCE_MS, &err) : NULL;
    bool ok = a && agent_run(a, &c, &result, &err);
    agent_close(a);
    if (!ok) {
        int number = interrupt_take(), status = failure(err);
        return number ? EXIT_SIGNAL + number : status;
    }
    int status = report(r, &result);
    agent_result_release(&result);
    return status;
}

/* Options and the machine stand before "--", the command, which has options of its own, behind it. NULL after
 * a line on stderr. */
static char **parse(struct request *r, int argc, char **argv)
{
    const char *timeout = NULL;
    bool tty = false;
    const struct arg args[] = {
        {"interactive", 'i', &r->input, NULL}, {"tty", 't', &tty, NULL}, {"timeout", 0, NULL, &timeout}};
    int split = 1;
    for (; split < argc && strcmp(argv[split], "--") != 0; split++)
        tty = tty || strcmp(argv[split], "-it") == 0 || strcmp(argv[split], "-ti") == 0;
    int count = tty ? 0 : args_take(split, argv, args, ARRAY_SIZE(args));
    if (count < 0)
        return NULL;
    if (tty)
        usage_error("exec", "-t: a guest agent gives no terminal; ruche console attaches one");
    else if (count != 1)
        usage_error("exec", "one machine is wanted, then -- and the command");
    else if (split + 1 >= argc)
        usage_error("exec", "which command? It comes after --");
    else if (timeout && (!stop_timeout(timeout, &r->timeout_ms) || !r->timeout_ms))
        usage_error("exec", "--timeout '%s': a number of seconds is wanted", timeout);
    else
        return argv + split + 1;
    return NULL;
}

static int run(int argc, char **argv)
{
    struct request r = {0};
    cleanup(machine) struct machine m = {0};
    r.command = parse(&r, argc, argv);
    if (!r.command)
        return EXIT_USAGE;
    int status = machine_named(argv[0], &m);
    return status == EXIT_OK ? execute(&r, &m) : status;
}

const struct verb verb_exec = {
    .name = "exec",
    .summary = "run a command in a guest",
    .help =
        "usage: ruche exec [-i] [--timeout SECONDS] NAME -- COMMAND [ARGUMENT]...\n"
        "\n"
        "Runs a command in a running machine, by the guest agent (package qemu-guest-agent in the guest),\n"
        "as the agent's user, which is root. What it writes on its standard output and error comes out\n"
        "here when it has ended, at most 16 MiB of each. No shell takes part: for one write\n"
        "sh -c 'LINE' as the command.\n"
        "\n"
        "  -i, --interactive   give it all of standard input, at most 16 MiB\n"
        "  --timeout SECONDS   kill it after that time\n"
        "\n"
        "Ctrl-C kills it. There is no terminal for it (-t is refused): ruche console has one.\n"
        "\n"
        "Exit status: that of the command, 128 and the number of the signal that ended it; 124 after a\n"
        "timeout; 125 when Ruche failed, with one line that says why.\n",
    .run = run,
};
