/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket: QMP, QEMU's machine protocol (docs/interop/qmp-spec.rst there): JSON objects, a
 * greeting, capabilities negotiation, commands with replies, events. Any number of clients; what one of them
 * sends or fails to read harms only itself: its input and output are bounded, and past the bounds it is cut
 * off. Everything runs on the main loop with the machine lock held.
 */
#ifndef VMM_QMP_H
#define VMM_QMP_H

#include <jansson.h>
#include <stdbool.h>

#include "vmm/control.h"

struct error;
struct loop;
struct qmp;

#define QMP_CLIENT_MAX  256
#define QMP_INPUT_MAX   (64 * 1024)
#define QMP_OUTPUT_MAX  (1024 * 1024) /* not read by the client: cut off */
#define QMP_OUTPUT_HIGH (128 * 1024)  /* no further commands are taken until it reads */

/*
 * `where`: a path (a socket of mode 0600 is made there; a stale one is replaced, a live one is an error), or
 * "fd:N", a listening descriptor, which is taken over. `ops` and `opaque` outlive it.
 */
struct qmp *qmp_open(const char *where, struct loop *loop, const struct control_ops *ops, void *opaque,
                     struct error **err);
/* Sends what clients take at once, closes, removes a socket that it made. NULL is fine. */
void qmp_close(struct qmp *qmp);

/* Sends an event to all clients that have negotiated. `data` (may be NULL) is taken over. `qmp` may be NULL.
 */
void qmp_event(struct qmp *qmp, const char *name, json_t *data);

/* A command in execution. */
struct qmp_call {
    const struct control_ops *ops;
    void *opaque;
    const json_t *arguments; /* an object, or NULL */
};

struct qmp_command {
    const char *name; /* NULL ends a table */
    /* The reply's value, or NULL and *err (a GenericError). */
    json_t *(*run)(struct qmp_call *call, struct error **err);
    const char *parameters; /* the arguments that it takes, with commas between; NULL: none */
};

/* All commands, by subject: one file in qmp_commands/ and one table each. */
extern const struct qmp_command qmp_block_commands[];
extern const struct qmp_command qmp_chardev_commands[];
extern const struct qmp_command qmp_cpu_commands[];
extern const struct qmp_command qmp_job_commands[];
extern const struct qmp_command qmp_migrate_commands[];
extern const struct qmp_command qmp_power_commands[];
extern const struct qmp_command qmp_query_commands[];
extern const struct qmp_command qmp_save_commands[];
extern const struct qmp_command qmp_stats_commands[];

/* NULL-terminated. */
extern const struct qmp_command *const qmp_command_tables[];
const struct qmp_command *qmp_command_find(const char *name);

/* A processor's name in QEMU's object tree. */
#define QMP_CPU_PATH_MAX 48
void qmp_cpu_path(char path[QMP_CPU_PATH_MAX], unsigned index);

/* The "version" of greeting and query-version. */
json_t *qmp_version(void);

#endif
