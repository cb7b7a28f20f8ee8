/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-vmm: one process, one machine. */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "core/device.h"
#include "os/standard.h"
#include "vmm/board.h"
#include "vmm/migrate.h"
#include "vmm/save.h"

/* Tells whoever started the process how it went: one line. Then the descriptor is closed. */
static void report(int fd, const char *text)
{
    char line[1024];

    if (fd < 0)
        return;
    int len = snprintf(line, sizeof(line), "%s", text);
    size_t n = MIN((size_t)len, sizeof(line) - 1);
    for (size_t i = 0; i < n; i++)
        if (line[i] == '\n')
            line[i] = ' ';
    line[n] = '\n';
    if (write(fd, line, n + 1) < 0)
        log_line(LOG_WARN, "cannot report to descriptor %d: %s", fd, strerror(errno));
    close(fd);
}

/* A machine that this process runs, and where it came from. */
struct life {
    struct machine_config *config;
    struct saved_machine *saved; /* NULL: none */
    struct incoming *incoming;   /* NULL: none */
};

static void started(void *opaque)
{
    struct life *life = opaque;

    if (life->incoming)
        incoming_took(life->incoming);
    report(life->config->ready_fd, "ready");
    life->config->ready_fd = -1;
}

static void print_classes(void)
{
    for (const struct device_class *const *c = device_classes; *c; c++)
        if ((*c)->flags & DEVICE_USER)
            printf("%-16s %s\n", (*c)->name, (*c)->help);
}

static void print_props(const struct device_class *cls)
{
    static const char *const types[] = {"", "on|off", "number", "size", "text", "address"};

    printf("%s: %s\n", cls->name, cls->help);
    for (const struct prop *p = cls->props; p && p->type != PROP_END; p++)
        printf("  %-16s %-8s %s%s%s%s\n", p->name, types[p->type], p->help ? p->help : "",
               p->default_value ? " (default: " : "", p->default_value ? p->default_value : "",
               p->default_value ? ")" : "");
}

static int device_help(const char *name)
{
    const struct device_class *cls = name ? device_class_find(name) : NULL;

    if (!name) {
        print_classes();
        return 0;
    }
    if (!cls || !(cls->flags & DEVICE_USER)) {
        fprintf(stderr, "ruche-vmm: --device '%s': there is no such device (see --device help)\n", name);
        return BOARD_WRONG_USAGE;
    }
    print_props(cls);
    return 0;
}

static int fail(const struct machine_config *config, int status, struct error *err)
{
    report(config->ready_fd, error_text(err));
    if (config->ready_fd < 0)
        fprintf(stderr, "ruche-vmm: %s\n", error_text(err));
    error_free(err);
    return status;
}

/* Signals that end the machine in order arrive through a descriptor; a client that went away is an error of
 * its own. */
static void set_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow gives an error */
}

static struct board *restore(struct life *life, int *status, struct error **err)
{
    struct machine_config *config = life->config;
    struct saved_machine *saved = life->saved = saved_open(config->restore, config, err);

    if (!saved || (config->verify && !saved_memory_verify(&saved->file, &saved->table, NULL, err)))
        return NULL;
    return board_restore(config, saved, status, err);
}

static struct board *receive(struct life *life, int *status, struct error **err)
{
    struct incoming *in = life->incoming = incoming_open(life->config, err);
    struct error *why = NULL;

    if (!in)
        return NULL;
    struct board *b = board_receive(life->config, incoming_identity(in), status, &why);
    if (!b)
        incoming_give_up(in, why);
    if (b && incoming_take(in, b, &why))
        return b;
    *err = why;
    if (b)
        board_free(b);
    return NULL;
}

static int run(struct machine_config *config)
{
    struct life life = {.config = config};
    struct error *err = NULL;
    int status = BOARD_FAILED;

    set_signals();
    struct board *b = config->restore    ? restore(&life, &status, &err)
                      : config->incoming ? receive(&life, &status, &err)
                                         : board_new(config, &status, &err);
    if (b) {
        status = board_run(b, started, &life);
        board_free(b);
    }
    incoming_free(life.incoming);
    saved_free(life.saved);
    return b ? status : fail(config, status, err);
}

/* What an engine can do on this host. */
static json_t *probe_engine(const struct engine_ops *ops)
{
    struct error *err = NULL;
    struct cpuid_model *model = calloc(1, sizeof(*model));
    bool usable = model && cpuid_model_build(model, NULL, 1, &err) && ops->probe(&err) &&
                  (!ops->cpu_fit || ops->cpu_fit(model, &err));
    json_t *answer = json_pack("{s:s, s:b, s:s, s:s?}", "engine", ops->name, "usable", usable, "cpu",
                               usable ? model->name : "", "reason", usable ? NULL : error_text(err));
    error_free(err);
    free(model);
    return answer;
}

static int probe(void)
{
    json_t *all = json_array();
    for (const struct engine_ops *const *e = engines; all && *e; e++)
        json_array_append_new(all, probe_engine(*e));
    int status = all && json_dumpf(all, stdout, JSON_INDENT(1)) == 0 ? 0 : BOARD_FAILED;
    putchar('\n');
    json_decref(all);
    return status;
}

int main(int argc, char **argv)
{
    struct machine_config config;
    struct error *err = NULL;
    int status = 0;

    standard_fds_fill();
    switch (options_parse(&config, argc, argv, &err)) {
    case OPTIONS_RUN:
        status = run(&config);
        break;
    case OPTIONS_HELP:
        fputs(options_help, stdout);
        break;
    case OPTIONS_VERSION:
        puts("ruche-vmm " RUCHE_VERSION);
        break;
    case OPTIONS_DEVICE_HELP:
        status = device_help(config.device[0].cls);
        break;
    case OPTIONS_PROBE:
        status = probe();
        break;
    case OPTIONS_WRONG:
        status = fail(&config, BOARD_WRONG_USAGE, err);
        break;
    }
    options_free(&config);
    return standard_output_done(status, BOARD_FAILED);
}
