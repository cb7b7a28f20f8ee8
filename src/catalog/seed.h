/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest is told at its first boot, in the form of cloud-init's data source NoCloud: a small volume
 * labelled `cidata`. One thread.
 */
#ifndef CATALOG_SEED_H
#define CATALOG_SEED_H

#include <jansson.h>
#include <stdbool.h>

struct error;

/* Starts as zeros; what is NULL is not said. */
struct seed {
    char *hostname, *user, *password_hash;
    json_t *keys; /* texts, one public key each */
    char *user_data, *network_config;
};

/* NULL members are fine. */
void seed_release(struct seed *s);

/*
 * Takes one of what seed_option names, with its value as a user writes it; reads the file where that is one.
 * The code of *err is EINVAL when the value has not the form it should have.
 */
bool seed_set(struct seed *s, const char *option, const char *value, struct error **err);
/* One after the other; NULL at the end. */
const char *seed_option(unsigned index);

/* Labels with dots between, as long as Linux takes it. */
bool seed_is_hostname(const char *name);

bool seed_is_empty(const struct seed *s);

/*
 * Makes the volume at `path`, which must not exist, for the machine of that name and UUID. The name is the
 * guest's host name if it can be one and no other was said.
 */
bool seed_write(const struct seed *s, const char *name, const char *uuid, const char *path,
                struct error **err);

/* The same volume for another machine, a clone of the one with the UUID `old`: with its UUID, and its name as
 * the guest's host name. */
bool seed_copy(const char *from, const char *old, const char *name, const char *uuid, const char *path,
               struct error **err);

#endif
