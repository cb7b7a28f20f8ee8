/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of replaceable system calls, filled with the real ones: see sys.h. */
#include "os/sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int real_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags, mode);
}

static int real_ioctl(int fd, unsigned long request, uintptr_t arg)
{
    return ioctl(fd, request, arg);
}

struct sys_table sys = {
    .open = real_open,
    .close = close,
    .preadv = preadv,
    .pwritev = pwritev,
    .fsync = fsync,
    .fdatasync = fdatasync,
    .ftruncate = ftruncate,
    .fallocate = fallocate,
    .rename = rename,
    .unlink = unlink,
    .mmap = mmap,
    .munmap = munmap,
    .ioctl = real_ioctl,
};
