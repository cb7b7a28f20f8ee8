/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One file of a backing chain: opening it safely, finding its format and the files below it, mapping through
 * the chain. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "block/block_int.h"
#include "os/sys.h"

const uint8_t zero_block[ZERO_BLOCK];

/* Raw is last: it takes everything. */
static const struct block_ops *const formats[] = {&qcow2_ops, &raw_ops};

const struct block_ops *block_format_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (strcmp(formats[i]->name, name) == 0)
            return formats[i];
    return NULL;
}

int file_read(int fd, void *buf, uint64_t len, uint64_t offset)
{
    while (len) {
        struct iovec iov = {buf, len};
        ssize_t n = sys.preadv(fd, &iov, 1, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0) {
            memset(buf, 0, len);
            return 0;
        }
        buf = (char *)buf + n;
        len -= (uint64_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int file_write(int fd, const void *buf, uint64_t len, uint64_t offset)
{
    const char *from = buf;
    while (len) {
        struct iovec iov = {.iov_len = len};
        memcpy(&iov.iov_base, &from, sizeof(from)); /* pwritev only reads it */
        ssize_t n = sys.pwritev(fd, &iov, 1, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        from += n;
        len -= (uint64_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

bool file_is_nameless(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 0;
}

static int open_checked(const char *path, bool readonly, struct stat *st, struct error **err)
{
    /* O_NONBLOCK: a FIFO or a device without medium must not hang us; files ignore it. */
    int flags = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    cleanup(fd) int fd = sys.open(path, flags, 0);
    if (fd < 0 && errno == EISDIR) {
        error_set(err, EISDIR, "cannot use '%s' as a disk: it is a directory", path);
        return -1;
    }
    if (fd < 0) {
        int code = errno;
        error_set_errno(err, code, "cannot open disk image '%s'%s", path, readonly ? "" : " for writing");
        return -1;
    }
    if (fstat(fd, st) < 0) {
        error_set_errno(err, errno, "cannot examine '%s'", path);
        return -1;
    }
    if (S_ISDIR(st->st_mode)) {
        error_set(err, EISDIR, "cannot use '%s' as a disk: it is a directory", path);
        return -1;
    }
    if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode)) {
        error_set(err, EINVAL, "cannot use '%s' as a disk: it is neither a file nor a block device", path);
        return -1;
    }
    return steal_fd(&fd);
}

static const struct block_ops *choose_format(struct layer *l, const char *format, struct error **err)
{
    if (format) {
        const struct block_ops *ops = block_format_find(format);
        if (!ops)
            error_set(err, EINVAL, "cannot open '%s': unknown image format '%s'", l->path, format);
        return ops;
    }
    uint8_t head[512];
    int r = file_read(l->fd, head, sizeof(head), 0);
    if (r < 0) {
        error_set_errno(err, -r, "cannot read '%s'", l->path);
        return NULL;
    }
    l->probed = true;
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (formats[i]->probe(head, sizeof(head)))
            return formats[i];
    return &raw_ops;
}

char *layer_backing_path(const char *path, const char *name, struct error **err)
{
    static const char file_scheme[] = "file:";
    if (strncmp(name, file_scheme, strlen(file_scheme)) == 0) {
        name += strlen(file_scheme);
    } else if (name[strcspn(name, ":/")] == ':') {
        error_set(err, ENOTSUP, "backing file '%s' of '%s' is not a plain file name", name, path);
        return NULL;
    }
    const char *slash = strrchr(path, '/');
    int folder = name[0] != '/' && slash ? (int)(slash - path + 1) : 0;
    char *out = NULL;
    if (asprintf(&out, "%.*s%s", folder, path, name) < 0) {
        error_set_errno(err, ENOMEM, "cannot open backing file '%s'", name);
        return NULL;
    }
    return out;
}

static bool open_backing(struct layer *l, unsigned flags, struct error **err)
{
    if (!l->backing_name || (flags & BLOCK_NO_BACKING))
        return true;
    cleanup(mem) char *path = layer_backing_path(l->path, l->backing_name, err);
    if (!path)
        return false;
    struct error *e = NULL;
    l->backing = layer_open(l->block, path, l->backing_format, flags | BLOCK_READONLY, l, &e);
    error_prefix(err, e, "backing file of '%s'", l->path);
    return l->backing != NULL;
}

static bool check_chain(const struct layer *l, struct error **err)
{
    unsigned depth = 1;
    for (const struct layer *a = l->above; a; a = a->above) {
        if (a->dev == l->dev && a->ino == l->ino) {
            error_set(err, ELOOP, "the chain of backing files comes back to '%s'", l->path);
            return false;
        }
        if (++depth > BLOCK_CHAIN_MAX) {
            error_set(err, ELOOP, "the chain of backing files is longer than %d", BLOCK_CHAIN_MAX);
            return false;
        }
    }
    return true;
}

static bool open_file(struct layer *l, unsigned flags, struct error **err)
{
    struct stat st;
    l->fd = open_checked(l->path, l->readonly, &st, err);
    if (l->fd < 0)
        return false;
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    return check_chain(l, err) && ((flags & BLOCK_NO_LOCK) || image_lock(l->fd, l->path, l->readonly, err));
}

struct layer *layer_open(struct block *block, const char *path, const char *format, unsigned flags,
                         struct layer *above, struct error **err)
{
    struct layer *l = calloc(1, sizeof(*l));
    char *name = strdup(path);
    if (!l || !name) {
        error_set_errno(err, ENOMEM, "cannot open '%s'", path);
        free(name);
        free(l);
        return NULL;
    }
    l->block = block;
    l->path = name;
    l->fd = -1;
    l->above = above;
    l->readonly = flags & BLOCK_READONLY;
    if (!open_file(l, flags, err))
        goto fail;
    const struct block_ops *ops = choose_format(l, format, err);
    if (!ops || !ops->open(l, err))
        goto fail;
    l->ops = ops;
    if (!open_backing(l, flags, err))
        goto fail;
    return l;

fail:
    layer_close(l);
    return NULL;
}

bool layer_open_for_write(struct layer *layer, struct error **err)
{
    return !layer->ops->open_for_write || layer->ops->open_for_write(layer, err);
}

void layer_close(struct layer *l)
{
    while (l) {
        struct layer *below = l->backing;
        if (l->ops)
            l->ops->close(l);
        if (l->fd >= 0)
            sys.close(l->fd);
        free(l->backing_name);
        free(l->backing_format);
        free(l->path);
        free(l);
        l = below;
    }
}

int layer_map(struct layer *layer, uint64_t offset, uint64_t length, struct extent *out)
{
    if (offset >= layer->size) {
        *out = (struct extent){.kind = EXTENT_ZERO, .length = length};
        return 0;
    }
    return layer->ops->map(layer, offset, MIN(length, layer->size - offset), out);
}
