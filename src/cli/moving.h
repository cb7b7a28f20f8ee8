/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What `ruche migrate` and `ruche receive` share: the line between them, made safe, and the few words that
 * they exchange over it about the machine before the two ruche-vmm have it to themselves. One thread.
 */
#ifndef CLI_MOVING_H
#define CLI_MOVING_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "catalog/machine.h"
#include "cli/args.h"
#include "os/frame.h"

/* How the line is made safe. */
struct moving_safety {
    const char *psk, *cert, *key, *ca; /* files */
    bool plain;
};

#define MOVING_ARGS(s)                                                                                       \
    {"psk", 0, NULL, &(s)->psk}, {"cert", 0, NULL, &(s)->cert}, {"key", 0, NULL, &(s)->key},                 \
        {"ca", 0, NULL, &(s)->ca},                                                                           \
    {                                                                                                        \
        "plain", 0, &(s)->plain, NULL                                                                        \
    }

#define MOVING_HELP                                                                                          \
    "Over TCP the two hosts show each other who they are, and nobody else can read what they say:\n"         \
    "\n"                                                                                                     \
    "  --psk FILE                         by a key that both have: at least 16 bytes in hexadecimal, as\n"   \
    "                                     openssl rand -hex 32 prints it\n"                                  \
    "  --cert FILE --key FILE --ca FILE   by certificates of one authority, in PEM form\n"                   \
    "  --plain                            not at all: anybody on the way can read and change the machine\n"

/* EXIT_OK, or EXIT_USAGE after a line on stderr, when the address needs something that is not there. */
int moving_check(const char *verb, const char *address, const struct moving_safety *safety);

/* A line to "unix:PATH", "tcp:HOST:PORT" or "ssh:[USER@]HOST": a connected socket, or -1 and *err. */
int moving_connect(const char *address, const struct moving_safety *safety, struct error **err);
/* The other end's: of a connection to `address`, which is taken over. */
int moving_accept(const char *address, int net, const struct moving_safety *safety, struct error **err);
/* The same of standard input and output, as ssh gives them. */
int moving_stdio(struct error **err);

/* Says or hears a JSON object; the second gives a new reference, or NULL and *err. */
struct frame_stream moving_stream(int fd, const char *peer);
bool moving_say(struct frame_stream *s, const json_t *o, struct error **err);
json_t *moving_hear(struct frame_stream *s, struct error **err);

/* A machine's configuration as another catalogue has it: nothing in it stands for a file of this one. A new
 * reference, or NULL and *err. */
json_t *moving_config(const struct machine *m, struct error **err);

/* A socket at which ruche-vmm fetches the line as "pass:PATH": listening, or -1 and *err. *path is owned by
 * the caller, who removes the file. */
int moving_offer(char **path, struct error **err);
/* Waits for ruche-vmm there, and passes the line on. */
bool moving_pass(int listener, int line, struct error **err);

#endif
