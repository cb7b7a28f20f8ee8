/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ends the outer machine with an exit status, by way of QEMU's isa-debug-exit. Usage: nested-exit STATUS. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>
#include <unistd.h>

#define EXIT_PORT  0xf4
#define STATUS_MAX 127u

int main(int argc, char **argv)
{
    unsigned long status = argc == 2 ? strtoul(argv[1], NULL, 10) : STATUS_MAX;
    usleep(100000); /* what was printed leaves the serial line */
    if (ioperm(EXIT_PORT, 1, 1) < 0) {
        perror("nested-exit");
        return 1;
    }
    outb((unsigned char)(status > STATUS_MAX ? STATUS_MAX : status), EXIT_PORT);
    return 1;
}
