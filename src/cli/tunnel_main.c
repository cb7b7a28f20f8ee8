/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ruche-tunnel, started by ruche migrate and ruche receive: standard input is the machine's end, a socket;
 * --net N the connection to the other host. It says "ready" on standard output once both have shown who they
 * are, or in one line why not.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/parse.h"
#include "cli/tunnel.h"
#include "cli/verb.h"

struct request {
    struct tunnel_identity who;
    uint64_t net;
    bool server;
};

static bool parse(struct request *r, int argc, char **argv)
{
    static const struct option options[] = {
        {"server", no_argument, NULL, 's'},     {"net", required_argument, NULL, 'n'},
        {"psk", required_argument, NULL, 'p'},  {"cert", required_argument, NULL, 'c'},
        {"key", required_argument, NULL, 'k'},  {"ca", required_argument, NULL, 'a'},
        {"host", required_argument, NULL, 'h'}, {0},
    };
    bool net = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        r->server |= c == 's';
        r->who.psk = c == 'p' ? optarg : r->who.psk;
        r->who.cert = c == 'c' ? optarg : r->who.cert;
        r->who.key = c == 'k' ? optarg : r->who.key;
        r->who.ca = c == 'a' ? optarg : r->who.ca;
        r->who.host = c == 'h' ? optarg : r->who.host;
        net |= c == 'n' && parse_uint(optarg, &r->net) && r->net <= INT_MAX;
        if (c == '?')
            return false;
    }
    return net && optind == argc && (r->who.psk || (r->who.cert && r->who.key && r->who.ca));
}

int main(int argc, char **argv)
{
    struct request r = {0};
    struct tunnel t;
    struct error *err = NULL;
    if (!parse(&r, argc, argv)) {
        fputs("usage: ruche-tunnel [--server] --net N [--host NAME] --psk FILE | --cert FILE --key FILE --ca "
              "FILE\n",
              stderr);
        return EXIT_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    if (!tunnel_open(&t, (int)r.net, r.server, &r.who, &err)) {
        printf("%s\n", error_text(err));
        error_free(err);
        return EXIT_RUCHE;
    }
    puts("ready");
    fclose(stdout);
    fcntl((int)r.net, F_SETFL, fcntl((int)r.net, F_GETFL) | O_NONBLOCK);
    bool ok = tunnel_carry(&t, (int)r.net, STDIN_FILENO, &err);
    error_free(err); /* both ends of the migration learn of it, and say so */
    tunnel_close(&t);
    return ok ? EXIT_OK : EXIT_RUCHE;
}
