/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche stop */
#include <stdlib.h>
#include <time.h>

#include "base/util.h"
#include "cli/args.h"
#include "cli/machines.h"
#include "cli/stop.h"
#include "cli/verb.h"

struct request {
    bool force, all;
    int timeout_ms;
};

static long long now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* All buttons first: one after the other they would take as long as all together. Releases what is done. */
static int stop_list(struct machine *list, size_t count, const struct request *r)
{
    long long deadline = now_ms() + r->timeout_ms;
    int status = EXIT_OK;
    for (int waiting = 0; waiting < 2; waiting++) {
        for (size_t i = 0; i < count; i++) {
            struct error *err = NULL;
            int left = (int)MAX(deadline - now_ms(), 0);
            if (!list[i].uuid ||
                (waiting ? stop_wait(&list[i], left, r->force, &err) : stop_ask(&list[i], r->force, &err)))
                continue;
            status = failure(err);
            machine_release(&list[i]);
        }
    }
    return status;
}

/* A machine that is not found stays empty in the list. */
static int stop_named(char **words, int count, const struct request *r)
{
    struct machine *list = calloc((size_t)count + 1, sizeof(*list));
    int status = list ? EXIT_OK : EXIT_RUCHE;
    for (int i = 0; list && i < count; i++)
        if (machine_named(words[i], &list[i]) != EXIT_OK)
            status = EXIT_RUCHE;
    int stopped = list ? stop_list(list, (size_t)count, r) : EXIT_RUCHE;
    machine_list_free(list, (size_t)count);
    return status ? status : stopped;
}

static int stop_all(const struct request *r)
{
    struct error *err = NULL;
    struct machine *list;
    size_t count;
    if (!machines_all(&list, &count, &err))
        return failure(err);
    int status = stop_list(list, count, r);
    machine_list_free(list, count);
    return status;
}

static int run(int argc, char **argv)
{
    struct request r = {.timeout_ms = STOP_TIMEOUT_S * 1000};
    const char *timeout = NULL;
    const struct arg args[] = {
        {"force", 'f', &r.force, NULL}, {"all", 'a', &r.all, NULL}, {"timeout", 0, NULL, &timeout}};
    int count = args_take(argc, argv, args, ARRAY_SIZE(args));
    if (count < 0)
        return EXIT_USAGE;
    if (timeout && !stop_timeout(timeout, &r.timeout_ms))
        return usage_error("stop", "--timeout '%s': a number of seconds is wanted", timeout);
    if (!count != r.all)
        return usage_error("stop", r.all ? "--all goes without names" : "which machine?");
    return r.all ? stop_all(&r) : stop_named(argv, count, &r);
}

const struct verb verb_stop = {
    .name = "stop",
    .summary = "stop machines by their power button",
    .help = "usage: ruche stop [--timeout SECONDS] [--force] NAME...\n"
            "       ruche stop [--timeout SECONDS] [--force] --all\n"
            "\n"
            "Presses the power button of machines and waits until their guests have powered off.\n"
            "\n"
            "  --timeout SECONDS   how long to wait (default 60)\n"
            "  --force             end those that have not powered off by then, and at once those that no\n"
            "                      power button reaches, because they are paused or do not answer\n",
    .run = run,
};
