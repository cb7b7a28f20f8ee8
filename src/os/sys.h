/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replaceable system calls. Code that must survive a failing call goes through `sys`, so that tests can put
 * in a function that fails at a chosen moment. Each entry has the C library's contract (-1 and errno). The
 * table is changed only by tests, before other threads run.
 */
#ifndef OS_SYS_H
#define OS_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct sys_table {
    int (*open)(const char *path, int flags, mode_t mode);
    int (*close)(int fd);
    ssize_t (*preadv)(int fd, const struct iovec *iov, int n, off_t off);
    ssize_t (*pwritev)(int fd, const struct iovec *iov, int n, off_t off);
    int (*fsync)(int fd);
    int (*fdatasync)(int fd);
    int (*ftruncate)(int fd, off_t len);
    int (*fallocate)(int fd, int mode, off_t off, off_t len);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    void *(*mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t off);
    int (*munmap)(void *addr, size_t len);
    int (*ioctl)(int fd, unsigned long request, uintptr_t arg);
};

extern struct sys_table sys;

#endif
