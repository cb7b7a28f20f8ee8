/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche cp */
#include <string.h>

#include "base/cleanup.h"
#include "catalog/file.h"
#include "cli/args.h"
#include "cli/copy.h"
#include "cli/interrupt.h"
#include "cli/machines.h"
#include "cli/verb.h"

/* The path in NAME:PATH; NULL for a path of the host, as ./with:colon is one. */
static const char *guest_part(const char *word)
{
    const char *colon = strchr(word, ':');
    return colon && colon != word && !memchr(word, '/', (size_t)(colon - word)) ? colon + 1 : NULL;
}

static int copy(const char *from, const char *to)
{
    const char *from_guest = guest_part(from), *to_guest = guest_part(to);
    const char *in_guest = from_guest ? from_guest : to_guest;
    if (!from_guest == !to_guest)
        return usage_error("cp", "one of '%s' and '%s' must be NAME:PATH, the other a path of the host", from,
                           to);
    if (in_guest[0] != '/')
        return usage_error("cp", "'%s': a path in a guest begins with '/'", in_guest);
    cleanup(mem) char *name =
        catalog_format("%.*s", (int)(in_guest - 1 - (from_guest ? from : to)), from_guest ? from : to);
    cleanup(machine) struct machine m = {0};
    struct error *err = NULL;
    int status = machine_named(name, &m), interrupted = 0;
    if (status != EXIT_OK)
        return status;
    interrupt_watch();
    struct agent *a = agent_open(&m, AGENT_PATIENCE_MS, &err);
    bool ok = a && (from_guest ? copy_from_guest(a, from_guest, to, &interrupted, &err)
                               : copy_to_guest(a, from, to_guest, &interrupted, &err));
    agent_close(a);
    if (ok)
        return EXIT_OK;
    interrupted = interrupted ? interrupted : interrupt_take();
    status = failure(err);
    return interrupted ? EXIT_SIGNAL + interrupted : status;
}

static int run(int argc, char **argv)
{
    int count = args_take(argc, argv, NULL, 0);
    if (count < 0)
        return EXIT_USAGE;
    if (count != 2)
        return usage_error("cp", "a source and a target are wanted");
    return copy(argv[0], argv[1]);
}

const struct verb verb_cp = {
    .name = "cp",
    .summary = "copy a file to or from a guest",
    .help =
        "usage: ruche cp FILE NAME:PATH\n"
        "       ruche cp NAME:PATH FILE\n"
        "\n"
        "Copies a file into a running machine or out of it, with its permissions, by the guest agent\n"
        "(package qemu-guest-agent in the guest). Where the target is a folder the copy gets the source's\n"
        "name. It is compared by SHA-256 when the guest has sha256sum, and takes its name only once it is\n"
        "whole. PATH begins with '/'; a FILE with ':' in its name is written with a '/' before that.\n",
    .run = run,
};
