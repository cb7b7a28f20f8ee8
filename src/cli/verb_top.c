/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche top */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/args.h"
#include "cli/machines.h"
#include "cli/print.h"
#include "cli/usage.h"
#include "cli/verb.h"

#define FIRST_MS    300 /* between the first two looks, so that there is something to show soon */
#define INTERVAL_MS 2000

/* One machine at one moment. */
struct row {
    struct machine machine;
    struct machine_look look;
    struct usage usage;
    double at_s, cpu_percent;
};

struct table {
    struct row *rows;
    size_t count;
};

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void table_free(struct table *t)
{
    for (size_t i = 0; i < t->count; i++)
        machine_release(&t->rows[i].machine);
    free(t->rows);
    *t = (struct table){0};
}

/* Since the same life of the same machine was looked at before; 0 when it was not. */
static double percent(const struct row *row, const struct table *before)
{
    for (size_t i = 0; i < before->count; i++) {
        const struct row *old = &before->rows[i];
        if (old->look.state.pid == row->look.state.pid && row->at_s > old->at_s)
            return MAX(0, 100 * (row->usage.cpu_s - old->usage.cpu_s) / (row->at_s - old->at_s));
    }
    return 0;
}

/* The machines that run. */
static bool take(struct table *t, const struct table *before, struct error **err)
{
    struct machine *list;
    size_t count;
    if (!machines_all(&list, &count, err))
        return false;
    *t = (struct table){.rows = calloc(count + 1, sizeof(struct row))};
    for (size_t i = 0; t->rows && i < count; i++) {
        struct row *row = &t->rows[t->count];
        machine_look(&list[i], &row->look);
        if (!row->look.state.pid)
            continue;
        usage_read(row->look.state.pid, &row->usage);
        row->at_s = now_s();
        row->cpu_percent = percent(row, before);
        row->machine = list[i];
        list[i] = (struct machine){0};
        t->count++;
    }
    machine_list_free(list, count);
    return true;
}

static double config_number(const struct row *row, const char *key)
{
    return json_number_value(json_object_get(row->machine.config, key));
}

static void print_table(const struct table *t)
{
    printf("%-16s %-10s %-9s %7s %4s %9s %8s\n", "NAME", "STATUS", "FOR", "CPU%", "CPUS", "RESIDENT",
           "MEMORY");
    for (size_t i = 0; i < t->count; i++) {
        const struct row *row = &t->rows[i];
        char age[32];
        printf("%-16s %-10s %-9s %7.1f %4.0f %8.0fM %7.0fM\n", row->machine.name, row->look.status,
               age_text(row->look.state.since, age), row->cpu_percent, config_number(row, "cpus"),
               (double)row->usage.memory / (double)MIB, config_number(row, "memory") / (double)MIB);
    }
}

static int print_rows(const struct table *t)
{
    json_t *array = json_array();
    for (size_t i = 0; i < t->count; i++) {
        json_t *o = machine_look_json(&t->rows[i].machine, &t->rows[i].look);
        json_object_set_new(o, "cpu_percent", json_real(t->rows[i].cpu_percent));
        json_object_set_new(o, "resident", json_integer((json_int_t)t->rows[i].usage.memory));
        json_array_append_new(array, o);
    }
    return print_json(array);
}

static int watch(bool once, bool json)
{
    struct error *err = NULL;
    struct table before = {0}, now = {0};
    bool screen = !once && !json && isatty(STDOUT_FILENO), more = take(&before, &now, &err);
    int status = EXIT_OK;
    usleep(FIRST_MS * 1000);
    while (more && take(&now, &before, &err)) {
        if (screen)
            fputs("\033[H\033[J", stdout);
        if (json)
            status = print_rows(&now);
        else
            print_table(&now);
        more = fflush(stdout) == 0 && !once && !json;
        table_free(&before);
        before = now;
        now = (struct table){0};
        if (more)
            usleep(INTERVAL_MS * 1000);
    }
    table_free(&before);
    return err ? failure(err) : status;
}

static int run(int argc, char **argv)
{
    bool once = false, json = false;
    const struct arg args[] = {{"once", 0, &once, NULL}, {"json", 0, &json, NULL}};
    int count = args_take(argc, argv, args, ARRAY_SIZE(args));
    if (count < 0)
        return EXIT_USAGE;
    if (count)
        return usage_error("top", "unexpected argument '%s'", argv[0]);
    return watch(once, json);
}

const struct verb verb_top = {
    .name = "top",
    .summary = "show what machines take of the host",
    .help =
        "usage: ruche top [--once] [--json]\n"
        "\n"
        "Shows the machines that run, with the processor time and memory that they take, again and again\n"
        "until it is interrupted.\n"
        "\n"
        "  --once   one table\n"
        "  --json   the same as JSON, once\n",
    .run = run,
};
