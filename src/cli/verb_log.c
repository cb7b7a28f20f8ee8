/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche log */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/file.h"
#include "cli/args.h"
#include "cli/keeper.h"
#include "cli/machines.h"
#include "cli/verb.h"

#define POLL_US 100000

/* What there is from here on; false when it cannot be read or written. */
static bool copy(int fd)
{
    char text[65536];
    ssize_t n;
    while ((n = read(fd, text, sizeof(text))) > 0)
        if (fwrite(text, 1, (size_t)n, stdout) != (size_t)n)
            return false;
    return n == 0 && fflush(stdout) == 0;
}

/* The older part, when there is one. */
static bool show_older(const char *path)
{
    cleanup(mem) char *older = catalog_format("%s.1", path);
    cleanup(fd) int fd = open(older, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? errno == ENOENT : copy(fd);
}

/* Whether another file has taken its place. */
static bool replaced(int fd, const char *path)
{
    struct stat mine, now;
    return fstat(fd, &mine) == 0 && stat(path, &now) == 0 && mine.st_ino != now.st_ino;
}

/* With `follow` until the machine has ended and all is shown. */
static bool show(const struct machine *m, const char *path, bool follow)
{
    bool live = true;
    cleanup(fd) int fd = -1;
    do {
        live = follow && machine_is_live(m);
        if (fd < 0)
            fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 && errno != ENOENT)
            return false;
        if (fd >= 0 && !copy(fd))
            return false;
        if (fd >= 0 && live && replaced(fd, path)) {
            if (!copy(fd))
                return false;
            close(steal_fd(&fd));
        } else if (live) {
            usleep(POLL_US);
        }
    } while (live);
    return true;
}

static int run(int argc, char **argv)
{
    bool follow = false, console = false;
    const struct arg args[] = {{"follow", 'f', &follow, NULL}, {"console", 0, &console, NULL}};
    int count = args_take(argc, argv, args, 2);
    if (count < 0)
        return EXIT_USAGE;
    if (count != 1)
        return usage_error("log", "one machine is wanted");
    cleanup(machine) struct machine m = {0};
    int status = machine_named(argv[0], &m);
    if (status != EXIT_OK)
        return status;
    cleanup(mem) char *path = console ? machine_serial_log(&m) : machine_log(&m);
    if (show_older(path) && show(&m, path, follow))
        return EXIT_OK;
    struct error *err = NULL;
    error_set_errno(&err, errno, "show '%s'", path);
    return failure(err);
}

const struct verb verb_log = {
    .name = "log",
    .summary = "show what a machine has said",
    .help = "usage: ruche log [-f] [--console] NAME\n"
            "\n"
            "Shows when the machine was started, how it ended, and what its process had to say.\n"
            "\n"
            "  --console      what the guest has said on its console instead: the last MiB of it\n"
            "  -f, --follow   go on until the machine has ended\n",
    .run = run,
};
