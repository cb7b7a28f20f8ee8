/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The image lock. It follows QEMU's protocol, so that QEMU's programs and Ruche keep out of each other's
 * images: byte 100 + P of the file is read-locked by who uses permission P, byte 200 + P by who does not let
 * others have P; who wants P checks that nobody holds 200 + P, who denies P that nobody holds 100 + P. Own
 * locks are taken before others' are looked for, so two who come at once may both be refused but never both
 * be let in. Open-file-description locks end with the last copy of the descriptor, also when the process is
 * killed.
 */
#include <errno.h>
#include <fcntl.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "block/block_int.h"

enum { PERM_CONSISTENT_READ = 1, PERM_WRITE = 2, PERM_WRITE_UNCHANGED = 4, PERM_RESIZE = 8, PERM_COUNT = 4 };
enum { USED_BASE = 100, DENIED_BASE = 200 };

static bool lock_bytes(int fd, short type, off_t base, unsigned perms)
{
    for (int i = 0; i < PERM_COUNT; i++) {
        struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = base + i, .l_len = 1};
        if ((perms & BIT(i)) && fcntl(fd, F_OFD_SETLK, &fl) < 0)
            return false;
    }
    return true;
}

/* Does someone else hold a lock on one of these? */
static bool held_by_other(int fd, off_t base, unsigned perms)
{
    for (int i = 0; i < PERM_COUNT; i++) {
        struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = base + i, .l_len = 1};
        if ((perms & BIT(i)) && fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK)
            return true;
    }
    return false;
}

void image_lock_to_readonly(int fd)
{
    lock_bytes(fd, F_UNLCK, USED_BASE, PERM_WRITE | PERM_RESIZE);
    lock_bytes(fd, F_UNLCK, DENIED_BASE, PERM_WRITE_UNCHANGED);
}

bool image_is_written(int fd)
{
    return held_by_other(fd, USED_BASE, PERM_WRITE);
}

bool image_lock(int fd, const char *path, bool readonly, struct error **err)
{
    unsigned used = PERM_CONSISTENT_READ, denied = PERM_WRITE | PERM_RESIZE;
    if (!readonly) {
        used |= PERM_WRITE | PERM_RESIZE;
        denied |= PERM_WRITE_UNCHANGED;
    }
    if (!lock_bytes(fd, F_RDLCK, USED_BASE, used) || !lock_bytes(fd, F_RDLCK, DENIED_BASE, denied)) {
        if (errno == EAGAIN || errno == EACCES) {
            error_set(err, EBUSY, "image '%s' is in use by another program", path);
            return false;
        }
        log_line(LOG_WARN, "the file system of '%s' has no locks: nothing keeps others from using it", path);
        return true;
    }
    if (held_by_other(fd, DENIED_BASE, used) || held_by_other(fd, USED_BASE, denied)) {
        error_set(err, EBUSY, "image '%s' is in use by another program%s", path,
                  readonly ? " that writes it" : "");
        return false;
    }
    return true;
}
