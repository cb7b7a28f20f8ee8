/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Empty qcow2 overlays. The file has five parts, the first four a cluster each: header with the base's name,
 * refcount table, refcount block, and from there the L1 table, all zero as nothing is allocated.
 */
#include "catalog/overlay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "catalog/file.h"

#define CLUSTER_BITS           16
#define CLUSTER                ((uint64_t)1 << CLUSTER_BITS)
#define HEADER_LENGTH          104
#define HEADER_V2_LENGTH       72
#define BASE_NAME_MAX          1023 /* the longest that the format allows */
#define QCOW2_MAGIC            0x514649fbu
#define INCOMPATIBLE_DATA_FILE 4
#define LOCK_OF_WRITERS        101 /* the byte of an image that they hold */
/* Bytes of disk that one L1 entry stands for: a cluster of 8-byte L2 entries. */
#define L1_SPAN (CLUSTER / 8 * CLUSTER)
/* 32 MiB of L1 table is as much as QEMU accepts. */
#define SIZE_MAX_OVERLAY (L1_SPAN * (32 * MIB / 8))

static bool write_all(int fd, const void *data, size_t len, uint64_t offset)
{
    const uint8_t *p = data;
    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

/* Opens a disk and reads its header; -1 and *err when it is none. */
static int open_disk(const char *path, uint8_t header[HEADER_LENGTH], struct error **err)
{
    cleanup(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, errno, "open '%s'", path), -1;
    memset(header, 0, HEADER_LENGTH);
    ssize_t n = pread(fd, header, HEADER_LENGTH, 0);
    if (n < 0)
        return error_set_errno(err, errno, "read '%s'", path), -1;
    if (n < HEADER_V2_LENGTH || load_be32(header) != QCOW2_MAGIC)
        return error_set(err, EINVAL, "read '%s': it is no qcow2 disk", path), -1;
    return steal_fd(&fd);
}

bool qcow2_virtual_size(const char *path, uint64_t *size, struct error **err)
{
    uint8_t header[HEADER_LENGTH];
    cleanup(fd) int fd = open_disk(path, header, err);
    if (fd >= 0)
        *size = load_be64(header + 24);
    return fd >= 0;
}

char *overlay_base(const char *path, struct error **err)
{
    uint8_t header[HEADER_LENGTH];
    cleanup(fd) int fd = open_disk(path, header, err);
    uint32_t length = fd >= 0 ? load_be32(header + 16) : 0;
    if (!length)
        return NULL;
    cleanup(mem) char *name = calloc(1, BASE_NAME_MAX + 1);
    if (name && length <= BASE_NAME_MAX &&
        pread(fd, name, length, (off_t)load_be64(header + 8)) == (ssize_t)length)
        return steal_ptr(&name);
    return error_set(err, EINVAL, "read '%s': the name of its base is not in its header", path), NULL;
}

int overlay_untouched(const char *path, struct error **err)
{
    uint8_t header[HEADER_LENGTH], entries[4096];
    cleanup(fd) int fd = open_disk(path, header, err);
    if (fd < 0)
        return -1;
    uint64_t left = (uint64_t)load_be32(header + 36) * 8, at = load_be64(header + 40);
    while (left) {
        size_t part = MIN(left, sizeof(entries));
        if (pread(fd, entries, part, (off_t)at) != (ssize_t)part)
            return error_set(err, EINVAL, "read '%s': its first table is cut off", path), -1;
        for (size_t i = 0; i < part; i++)
            if (entries[i])
                return 0;
        left -= part;
        at += part;
    }
    return 1;
}

bool overlay_is_plain(const char *path)
{
    uint8_t header[HEADER_LENGTH];
    cleanup(fd) int fd = open_disk(path, header, NULL);
    return fd >= 0 && (load_be32(header + 4) < 3 || !(load_be64(header + 72) & INCOMPATIBLE_DATA_FILE));
}

bool overlay_is_written(const char *path)
{
    cleanup(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_OF_WRITERS, .l_len = 1};
    return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool overlay_dirty(const char *path)
{
    uint8_t header[HEADER_LENGTH];
    cleanup(fd) int fd = open_disk(path, header, NULL);
    return fd >= 0 && load_be32(header + 4) >= 3 && (load_be64(header + 72) & 1);
}

static bool write_empty_disk(int fd, const char *base, uint64_t size)
{
    static const char format[] = "qcow2";
    uint8_t header[CLUSTER];
    uint64_t l1_entries = (size + L1_SPAN - 1) / L1_SPAN;
    uint64_t l1_clusters = (l1_entries * 8 + CLUSTER - 1) / CLUSTER;
    uint64_t used = 3 + l1_clusters;
    size_t base_len = strlen(base);

    memset(header, 0, sizeof(header));
    store_be32(header, QCOW2_MAGIC);
    store_be32(header + 4, 3); /* version */
    store_be32(header + 20, CLUSTER_BITS);
    store_be64(header + 24, size);
    store_be32(header + 36, (uint32_t)l1_entries);
    store_be64(header + 40, 3 * CLUSTER); /* L1 table */
    store_be64(header + 48, CLUSTER);     /* refcount table */
    store_be32(header + 56, 1);           /* clusters of it */
    store_be32(header + 96, 4);           /* refcounts of 2^4 bits */
    store_be32(header + 100, HEADER_LENGTH);
    /* Header extension "backing file format", the end of the extensions (zero), the backing file's name. */
    uint8_t *ext = header + HEADER_LENGTH;
    store_be32(ext, 0xe2792acau);
    store_be32(ext + 4, sizeof(format) - 1);
    memcpy(ext + 8, format, sizeof(format) - 1);
    uint64_t name_at = HEADER_LENGTH + 8 + 8 + 8;
    store_be64(header + 8, name_at);
    store_be32(header + 16, (uint32_t)base_len);
    memcpy(header + name_at, base, base_len);

    uint8_t table[8], counts[CLUSTER];
    store_be64(table, 2 * CLUSTER);
    memset(counts, 0, sizeof(counts));
    for (uint64_t i = 0; i < used; i++)
        store_be16(counts + 2 * i, 1);
    return ftruncate(fd, (off_t)(used * CLUSTER)) == 0 && write_all(fd, header, sizeof(header), 0) &&
           write_all(fd, table, sizeof(table), CLUSTER) && write_all(fd, counts, sizeof(counts), 2 * CLUSTER);
}

/* Where a name in the header of the disk `path` leads to. */
static char *from_folder_of(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    int folder = name[0] != '/' && slash ? (int)(slash - path + 1) : 0;
    return catalog_format("%.*s%s", folder, path, name);
}

bool overlay_create(const char *path, const char *base, struct error **err)
{
    uint64_t size;
    cleanup(mem) char *base_path = from_folder_of(path, base);
    if (!qcow2_virtual_size(base_path, &size, err))
        return false;
    /* One block of refcounts for all clusters. */
    if (strlen(base) > BASE_NAME_MAX || size > SIZE_MAX_OVERLAY)
        return error_set(err, EINVAL, "put a disk on top of '%s': %s", base,
                         strlen(base) > BASE_NAME_MAX ? "its path is too long" : "it is too large"),
               false;
    cleanup(fd) int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(err, errno, "create disk '%s'", path), false;
    if (!write_empty_disk(fd, base, size)) {
        error_set_errno(err, errno, "write disk '%s'", path);
        unlink(path);
        return false;
    }
    return true;
}

/* Overlays are named after the process that made them: PID.qcow2. */
static void sweep(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        char *end;
        long pid = strtol(e->d_name, &end, 10);
        if (end == e->d_name || strcmp(end, ".qcow2") != 0 || pid <= 0)
            continue;
        if (kill((pid_t)pid, 0) < 0 && errno == ESRCH)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

char *overlay_create_temporary(const char *base, struct error **err)
{
    cleanup(mem) char *dir = catalog_data_dir("overlays", err);
    if (!dir)
        return NULL;
    sweep(dir);
    cleanup(mem) char *path = catalog_format("%s/%ld.qcow2", dir, (long)getpid());
    /* A file of this name is left from a process long gone whose number came round again. */
    unlink(path);
    if (!overlay_create(path, base, err))
        return NULL;
    return steal_ptr(&path);
}
