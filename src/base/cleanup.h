/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scope cleanup: `cleanup(fd) int fd = open(...)` closes at the end of the scope. `steal_fd` and `steal_ptr`
 * hand a resource out of the scope. A type NAME takes part by having a function NAME_cleanup(T *).
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define cleanup(name) __attribute__((cleanup(name##_cleanup)))

static inline void fd_cleanup(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void mem_cleanup(void *p)
{
    free(*(void **)p);
}

static inline void file_cleanup(FILE **f)
{
    if (*f)
        fclose(*f);
}

static inline int steal_fd(int *fd)
{
    int v = *fd;
    *fd = -1;
    return v;
}

#define steal_ptr(p)                                                                                         \
    __extension__({                                                                                          \
        __typeof__(*(p)) steal_value = *(p);                                                                 \
        *(p) = NULL;                                                                                         \
        steal_value;                                                                                         \
    })

#endif
