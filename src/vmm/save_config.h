/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The description in a saved machine's file, as JSON: the machine's configuration, its identity, its
 * processor, its disks. Reading is strict: what is not known makes the file one of a newer Ruche.
 */
#ifndef VMM_SAVE_CONFIG_H
#define VMM_SAVE_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "block/block.h"
#include "vmm/options.h"
#include "x86/cpuid.h"

struct error;

/* For `cleanup(json)`. */
static inline void json_cleanup(json_t **o)
{
    json_decref(*o);
}

/* A disk that a saved machine goes on with. */
struct saved_disk {
    uint64_t size;   /* what the guest sees, bytes */
    int64_t changed; /* when the image was last written, nanoseconds since 1970; 0: that is not known */
};

/* What the description says besides the configuration. */
struct saved_identity {
    uint8_t uuid[16];
    struct cpuid_model cpu;
    struct saved_disk disk[OPTIONS_LIST_MAX]; /* as in the configuration's list */
    unsigned disk_count;
};

/*
 * The description as text, which the caller frees. `disk` is what each disk is now. NULL and *err when a name
 * is not UTF-8 or memory is short.
 */
char *save_describe(const struct machine_config *config, const struct saved_identity *id,
                    const struct block_info disk[], struct error **err);

/*
 * Reads a description. What *config holds already takes the place of what was saved: engine, name, serial
 * line, the agent's port if it has one, control socket, disks, networks; of the last two there must be as
 * many. Everything else is filled in; options_free releases it. False and *err for text that is no
 * description; *config may be half filled then.
 */
bool saved_read_description(const char *text, size_t len, struct machine_config *config,
                            struct saved_identity *id, struct error **err);

/* save_cpu.c: the processor. */
json_t *save_describe_cpu(const struct cpuid_model *cpu);
bool saved_read_cpu(json_t *o, struct cpuid_model *cpu, struct error **err);
/* Whether this host and this Ruche have what the processor promises; *err names what is missing. */
bool saved_check_cpu(const struct cpuid_model *cpu, struct error **err);

#endif
