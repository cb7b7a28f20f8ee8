/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Header and sections of a saved machine's file: see save_file.h. The header is written last, so a file that
 * was not finished is not taken for one, and the finished file takes its name by a rename.
 */
#include "vmm/save_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/util.h"
#include "os/sys.h"

/* Offsets in the header page; the checksum covers all before it. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 16,
    AT_COUNT = 20,
    AT_SIZE = 24,
    AT_SECTIONS = 32, /* kind u32, checksum u32, offset u64, length u64 */
    SECTION_SIZE = 24,
    SECTIONS_MAX = 64,
    AT_CHECKSUM = SAVE_PAGE - 4,
};

/* The line ends show a transfer that took the file for text. */
static const uint8_t magic[16] = {'R', 'U', 'C', 'H', 'E', '-',  'M',  'A',
                                  'C', 'H', 'I', 'N', 'E', '\r', '\n', 0x1a};

static const char *const section_names[SAVE_SECTION_COUNT] = {[SAVE_DESCRIPTION] = "description",
                                                              [SAVE_STATE] = "state",
                                                              [SAVE_PAGES] = "page table",
                                                              [SAVE_MEMORY] = "memory"};

/* What is kept in host memory as a whole is bounded; the page table of 1 TiB is the largest. */
static uint64_t length_limit(enum save_section section)
{
    return section == SAVE_DESCRIPTION ? 4 * MIB
           : section == SAVE_STATE     ? 64 * MIB
           : section == SAVE_PAGES     ? GIB
                                       : INT64_MAX;
}

/* Reading. */

bool save_file_read_at(const struct save_file *f, uint64_t offset, void *buf, size_t len, struct error **err)
{
    for (size_t done = 0; done < len;) {
        struct iovec iov = {(uint8_t *)buf + done, len - done};
        ssize_t n = sys.preadv(f->fd, &iov, 1, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, "cannot read saved machine '%s'", f->path), false;
        if (n == 0)
            return error_set(err, EINVAL, "saved machine '%s' is cut short", f->path), false;
        done += (size_t)n;
    }
    return true;
}

static bool take_section(struct save_file *f, const uint8_t *p, uint64_t size, struct error **err)
{
    uint32_t kind = load_le32(p);
    struct save_span span = {
        .crc = load_le32(p + 4), .offset = load_le64(p + 8), .length = load_le64(p + 16)};

    if (kind == 0 || kind >= SAVE_SECTION_COUNT || f->section[kind].length)
        return error_set(err, EINVAL, "saved machine '%s' has a section of kind %u, which is not known",
                         f->path, kind),
               false;
    if (!span.length || span.offset < SAVE_PAGE || !range_fits(span.offset, span.length, size) ||
        span.length > length_limit(kind) || (kind == SAVE_MEMORY && (span.offset | span.length) % SAVE_PAGE))
        return error_set(err, EINVAL, "saved machine '%s' is damaged: its %s lies nowhere", f->path,
                         section_names[kind]),
               false;
    f->section[kind] = span;
    return true;
}

static bool take_header(struct save_file *f, const uint8_t *h, uint64_t file_size, struct error **err)
{
    if (memcmp(h + AT_MAGIC, magic, sizeof(magic)) != 0)
        return error_set(err, EINVAL, "'%s' is not a saved machine", f->path), false;
    if (load_le32(h + AT_CHECKSUM) != crc32c(0, h, AT_CHECKSUM))
        return error_set(err, EINVAL, "saved machine '%s' is damaged: the header's checksum is wrong",
                         f->path),
               false;
    uint32_t version = load_le32(h + AT_VERSION), count = load_le32(h + AT_COUNT);
    if (version != SAVE_FILE_VERSION)
        return error_set(err, EINVAL, "saved machine '%s' has format %u; this Ruche reads format %u", f->path,
                         version, SAVE_FILE_VERSION),
               false;
    if (load_le64(h + AT_SIZE) > file_size)
        return error_set(err, EINVAL, "saved machine '%s' is cut short: %llu of %llu bytes", f->path,
                         (unsigned long long)file_size, (unsigned long long)load_le64(h + AT_SIZE)),
               false;
    if (count > SECTIONS_MAX)
        return error_set(err, EINVAL, "saved machine '%s' has %u sections", f->path, count), false;
    for (uint32_t i = 0; i < count; i++)
        if (!take_section(f, h + AT_SECTIONS + i * SECTION_SIZE, load_le64(h + AT_SIZE), err))
            return false;
    for (unsigned i = 1; i < SAVE_SECTION_COUNT; i++)
        if (!f->section[i].length)
            return error_set(err, EINVAL, "saved machine '%s' has no %s", f->path, section_names[i]), false;
    return true;
}

static bool read_header(struct save_file *f, struct error **err)
{
    uint8_t header[SAVE_PAGE];
    struct stat st;

    if (fstat(f->fd, &st) < 0)
        return error_set_errno(err, errno, "cannot read saved machine '%s'", f->path), false;
    if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(header))
        return error_set(err, EINVAL, "'%s' is not a saved machine", f->path), false;
    return save_file_read_at(f, 0, header, sizeof(header), err) &&
           take_header(f, header, (uint64_t)st.st_size, err);
}

bool save_file_adopt(struct save_file *f, int fd, const char *path, struct error **err)
{
    *f = (struct save_file){.fd = fd, .path = strdup(path)};
    if (!f->path)
        error_set_errno(err, ENOMEM, "cannot open saved machine '%s'", path);
    if (f->path && read_header(f, err))
        return true;
    save_file_close(f);
    return false;
}

bool save_file_open(struct save_file *f, const char *path, struct error **err)
{
    /* Not blocking: the name may be a pipe's. */
    int fd = sys.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);

    if (fd < 0)
        return error_set_errno(err, errno, "cannot open saved machine '%s'", path), false;
    return save_file_adopt(f, fd, path, err);
}

void save_file_close(struct save_file *f)
{
    if (f->fd >= 0)
        sys.close(f->fd);
    free(f->path);
    *f = (struct save_file){.fd = -1};
}

uint8_t *save_file_read(const struct save_file *f, enum save_section section, struct error **err)
{
    const struct save_span *span = &f->section[section];
    cleanup(mem) uint8_t *data = malloc(span->length + 1);

    if (!data)
        return error_set_errno(err, ENOMEM, "cannot read saved machine '%s'", f->path), NULL;
    if (!save_file_read_at(f, span->offset, data, span->length, err))
        return NULL;
    if (crc32c(0, data, span->length) != span->crc)
        return error_set(err, EINVAL, "saved machine '%s' is damaged: the checksum of its %s is wrong",
                         f->path, section_names[section]),
               NULL;
    data[span->length] = 0;
    return steal_ptr(&data);
}

/* Writing. */

/*
 * Opens PATH.part and locks it. Another process may finish and rename its own file of that name between our
 * two steps: then what is locked is not what the name stands for, and is left alone.
 */
static bool open_part(struct save_writer *w, struct error **err)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        struct stat mine, named;
        cleanup(fd) int fd = sys.open(w->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return error_set_errno(err, errno, "cannot make '%s'", w->part), false;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
            return error_set(err, EBUSY, "'%s' is being written by another process", w->part), false;
        if (fstat(fd, &mine) < 0 || stat(w->part, &named) < 0 || mine.st_ino != named.st_ino ||
            mine.st_dev != named.st_dev)
            continue;
        w->fd = steal_fd(&fd);
        if (sys.ftruncate(w->fd, 0) < 0)
            return error_set_errno(err, errno, "cannot empty '%s'", w->part), false;
        return true;
    }
    error_set(err, EBUSY, "'%s' is being written by other processes", w->part);
    return false;
}

bool save_writer_open(struct save_writer *w, const char *path, struct error **err)
{
    struct stat st;

    *w = (struct save_writer){.fd = -1, .end = SAVE_PAGE};
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "cannot save to '%s': it is not an ordinary file", path), false;
    w->path = strdup(path);
    if (!w->path || asprintf(&w->part, "%s.part", path) < 0) {
        w->part = NULL;
        error_set_errno(err, ENOMEM, "cannot save to '%s'", path);
    } else if (open_part(w, err)) {
        return true;
    }
    save_writer_close(w);
    return false;
}

bool save_writer_write(struct save_writer *w, uint64_t offset, const void *data, size_t len,
                       struct error **err)
{
    for (size_t done = 0; done < len;) {
        struct iovec iov = {(uint8_t *)(uintptr_t)data + done, MIN(len - done, (size_t)(1 * MIB))};
        ssize_t n = sys.pwritev(w->fd, &iov, 1, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set_errno(err, n < 0 ? errno : EIO, "cannot write '%s'", w->part), false;
        done += (size_t)n;
    }
    return true;
}

uint64_t save_writer_reserve_memory(struct save_writer *w, uint64_t length)
{
    uint64_t offset = round_up(w->end, SAVE_MEMORY_ALIGN);

    w->section[SAVE_MEMORY] = (struct save_span){.offset = offset, .length = length};
    w->end = offset + length;
    return offset;
}

bool save_writer_append(struct save_writer *w, enum save_section section, const void *data, size_t len,
                        struct error **err)
{
    struct save_span span = {.offset = w->end, .length = len, .crc = crc32c(0, data, len)};

    if (!save_writer_write(w, span.offset, data, len, err))
        return false;
    w->section[section] = span;
    w->end = round_up(span.offset + len, 8);
    return true;
}

static void fill_header(const struct save_writer *w, uint8_t *h)
{
    uint32_t count = 0;

    memcpy(h + AT_MAGIC, magic, sizeof(magic));
    store_le32(h + AT_VERSION, SAVE_FILE_VERSION);
    store_le64(h + AT_SIZE, w->end);
    for (uint32_t kind = 1; kind < SAVE_SECTION_COUNT; kind++) {
        const struct save_span *span = &w->section[kind];
        uint8_t *p = h + AT_SECTIONS + count * SECTION_SIZE;
        if (!span->length)
            continue;
        store_le32(p, kind);
        store_le32(p + 4, span->crc);
        store_le64(p + 8, span->offset);
        store_le64(p + 16, span->length);
        count++;
    }
    store_le32(h + AT_COUNT, count);
    store_le32(h + AT_CHECKSUM, crc32c(0, h, AT_CHECKSUM));
}

/* The rename itself must outlive a crash of the host. */
static bool sync_folder(const char *path, struct error **err)
{
    cleanup(mem) char *folder = strdup(path);
    char *slash = folder ? strrchr(folder, '/') : NULL;

    if (slash)
        slash[slash == folder] = 0;
    cleanup(fd) int fd = sys.open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd >= 0 && sys.fsync(fd) == 0)
        return true;
    error_set_errno(err, errno, "cannot make '%s' durable", path);
    return false;
}

bool save_writer_commit(struct save_writer *w, struct error **err)
{
    uint8_t header[SAVE_PAGE] = {0};

    fill_header(w, header);
    /* The header vouches for the rest, which therefore comes first. */
    if (sys.ftruncate(w->fd, (off_t)w->end) < 0 || sys.fdatasync(w->fd) < 0)
        return error_set_errno(err, errno, "cannot write '%s'", w->part), false;
    if (!save_writer_write(w, 0, header, sizeof(header), err))
        return false;
    if (sys.fsync(w->fd) < 0)
        return error_set_errno(err, errno, "cannot write '%s'", w->part), false;
    if (sys.rename(w->part, w->path) < 0)
        return error_set_errno(err, errno, "cannot put '%s' in its place", w->path), false;
    free(w->part);
    w->part = NULL;
    return sync_folder(w->path, err);
}

void save_writer_close(struct save_writer *w)
{
    /* Removed while it is locked: the name is ours until then. */
    if (w->fd >= 0 && w->part)
        sys.unlink(w->part);
    if (w->fd >= 0)
        sys.close(w->fd);
    free(w->part);
    free(w->path);
    *w = (struct save_writer){.fd = -1};
}
