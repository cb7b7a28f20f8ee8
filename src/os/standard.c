/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Standard input, output and error: see standard.h. */
#include "os/standard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void standard_fds_fill(void)
{
    /* In ascending order: the lowest free number is what open gives. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
            return; /* nothing can be opened here: no harm is done */
}

int standard_output_done(int status, int lost)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "%s: write to standard output: %s\n", program_invocation_short_name, strerror(errno));
    return status ? status : lost;
}
