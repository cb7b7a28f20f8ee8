/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening and reading the files that a machine boots from. */
#include "vmm/boot/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"

bool boot_file_adopt(struct boot_file *f, const char *name, int fd, struct error **err)
{
    cleanup(fd) int owned = fd;
    struct stat st;

    *f = (struct boot_file){.fd = -1};
    if (fstat(owned, &st) < 0) {
        error_set_errno(err, errno, "cannot read %s", name);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        error_set(err, EINVAL, "cannot boot from %s: it is %s", name,
                  S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
        return false;
    }
    if (st.st_size == 0) {
        error_set(err, EINVAL, "cannot boot from %s: the file is empty", name);
        return false;
    }
    f->name = strdup(name);
    if (!f->name) {
        error_set_errno(err, ENOMEM, "cannot read %s", name);
        return false;
    }
    f->size = (uint64_t)st.st_size;
    f->fd = steal_fd(&owned);
    return true;
}

bool boot_file_open(struct boot_file *f, const char *path, struct error **err)
{
    /* O_NONBLOCK: a FIFO must be refused, not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0) {
        *f = (struct boot_file){.fd = -1};
        error_set_errno(err, errno, "cannot open %s", path);
        return false;
    }
    return boot_file_adopt(f, path, fd, err);
}

void boot_file_close(struct boot_file *f)
{
    if (!f->name)
        return;
    close(f->fd);
    free(f->name);
    *f = (struct boot_file){.fd = -1};
}

bool boot_file_read(const struct boot_file *f, uint64_t offset, void *buf, size_t len, struct error **err)
{
    uint8_t *to = buf;

    if (!range_fits(offset, len, f->size)) {
        error_set(err, EINVAL, "%s is truncated: %zu bytes wanted at offset %llu, the file has %llu", f->name,
                  len, (unsigned long long)offset, (unsigned long long)f->size);
        return false;
    }
    while (len > 0) {
        ssize_t n = pread(f->fd, to, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            error_set_errno(err, errno, "cannot read %s", f->name);
            return false;
        }
        if (n == 0) {
            error_set(err, EIO, "%s shrank while it was being read", f->name);
            return false;
        }
        to += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return true;
}
