/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line of ruche-vmm. `ruche run` passes the options that concern the machine through unchanged,
 * so this is the one place that knows their syntax.
 */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/engine.h"

struct error;

#define OPTIONS_LIST_MAX  64
#define OPTIONS_PROPS_MAX 32
#define OPTIONS_CPUS_MAX  32

struct disk_config {
    char *path;
    const char *format; /* "raw", "qcow2", NULL: found out */
    bool readonly;
};

struct device_prop {
    char *name, *value;
};

struct device_config {
    char *cls;
    struct device_prop prop[OPTIONS_PROPS_MAX];
    unsigned prop_count;
};

/* One machine as asked for. All strings are owned unless const. */
struct machine_config {
    char *name;       /* NULL: none */
    uint8_t uuid[16]; /* all zero: made from the name, or at random */
    char *engine;     /* NULL or "auto": the best that works */
    enum engine_native native;
    char *translations; /* folder for kept translations; NULL: none */
    bool no_cache;
    char *jitdump; /* folder for perf; NULL: none */
    char *cpu;     /* NULL: the best named model that the host can honour */
    unsigned cpus; /* 1..32 */
    uint64_t memory;
    char *kernel, *initrd, *cmdline; /* NULL: not given */
    char *module[OPTIONS_LIST_MAX];  /* FILE and its command line */
    unsigned module_count;
    struct disk_config disk[OPTIONS_LIST_MAX];
    unsigned disk_count;
    char *net[OPTIONS_LIST_MAX]; /* as net_open takes it, but for mac=ADDRESS */
    unsigned net_count;
    bool no_net; /* "none" was asked for */
    struct device_config device[OPTIONS_LIST_MAX];
    unsigned device_count;
    char *serial;     /* as chardev_open takes it */
    char *serial_log; /* keeps the end of its output; NULL: none */
    char *agent;      /* as chardev_open takes it: the guest agent's port; NULL: there is none */
    char *control;    /* a path, "fd:N", or NULL: no control socket */
    int ready_fd;     /* -1: none */
    bool no_reboot;
    bool paused;    /* it runs only once the control socket says so */
    char *trace;    /* file for a line about each exit from guest code; NULL: none */
    char *restore;  /* a saved machine that goes on instead of booting; NULL: none */
    bool verify;    /* all of it is read before that */
    char *incoming; /* where a machine comes to (os/address.h), instead of booting one; NULL: none */
};

enum options_result {
    OPTIONS_RUN,
    OPTIONS_HELP,        /* --help */
    OPTIONS_VERSION,     /* --version */
    OPTIONS_DEVICE_HELP, /* --device help, or CLASS,help: then config->device[0].cls is the class */
    OPTIONS_PROBE,       /* --probe */
    OPTIONS_WRONG,       /* *err says why, in one line */
};

/* Reads the command line into *config, which options_free releases whatever the result. */
enum options_result options_parse(struct machine_config *config, int argc, char **argv, struct error **err);
void options_free(struct machine_config *config);

/* The text of --help. */
extern const char options_help[];

#endif
