/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the suite does besides measuring when it is the first process of a guest.
 */
#include "suite.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

static void mount_at(const char *type, const char *folder)
{
    if (mkdir(folder, 0755) < 0 && errno != EEXIST)
        die(folder);
    if (mount(type, folder, type, 0, NULL) < 0 && errno != EBUSY)
        die(folder);
}

void init_prepare(void)
{
    mount_at("devtmpfs", "/dev");
    mount_at("proc", "/proc");
    mount_at("tmpfs", SCRATCH_FOLDER);

    int console = open("/dev/console", O_RDWR | O_CLOEXEC);
    if (console < 0)
        init_power_off();
    for (int fd = 0; fd < 3; fd++)
        dup2(console, fd);
    close(console);

    /* Lines leave the machine as they are written. */
    struct termios mode;
    if (tcgetattr(1, &mode) == 0) {
        mode.c_oflag &= ~(tcflag_t)OPOST;
        tcsetattr(1, TCSANOW, &mode);
    }
}

_Noreturn void init_power_off(void)
{
    tcdrain(1);
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}
