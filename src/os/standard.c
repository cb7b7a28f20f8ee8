/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Standard input, output and error: see standard.h. */
#include "os/standard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

void standard_fds_fill(void)
{
    /* In ascending order: the lowest free number is what open gives. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
            return; /* nothing can be opened here: no harm is done */
}

void standard_fds_leave(int keep, int also_keep)
{
    const int kept[] = {MIN(keep, also_keep), MAX(keep, also_keep)};
    unsigned from = STDERR_FILENO + 1;
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        dup2(nothing, fd);
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
        if (kept[i] < (int)from)
            continue;
        if (kept[i] > (int)from)
            close_range(from, (unsigned)kept[i] - 1, 0);
        from = (unsigned)kept[i] + 1;
    }
    close_range(from, ~0U, 0);
}

int standard_output_done(int status, int lost)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "%s: write to standard output: %s\n", program_invocation_short_name, strerror(errno));
    return status ? status : lost;
}
