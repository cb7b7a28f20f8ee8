/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file of kept translations: see kept.h.
 *
 *     header      whose file this is, and how long the log is
 *     table       places in the log by a hash of a block's first bytes, mode and page offset
 *     log         blocks, one after the other, each with its checksum
 *
 * The log only grows. Who adds writes blocks first, then the table, then the header: whatever a kill leaves
 * behind is a table that leads to no block or to another one, which its contents tell.
 */
#include "engine/bt/kept.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/util.h"
#include "engine/bt/table.h"
#include "x86/features.h"

#define MAGIC        "RUCHE-BT-KEPT-1"
#define HEADER_SIZE  4096u
#define TABLE_BITS   20
#define TABLE_SLOTS  (1u << TABLE_BITS)
#define TABLE_SIZE   (TABLE_SLOTS * sizeof(uint32_t))
#define LOG_START    (HEADER_SIZE + TABLE_SIZE)
#define UNIT         32u /* of places in the log */
#define PLACE_BITS   23
#define LOG_MAX      ((uint64_t)UNIT << PLACE_BITS)
#define TRIES        8u    /* slots that a block may be in */
#define REST_LOOKUPS 4096u /* without an answer after a rest: what an idle machine needs is fewer */
#define KEY_BYTES    16u
#define READ_AHEAD   (32u * 1024)
#define WINDOW_SIZE  (READ_AHEAD + ENTRY_MAX)
#define WRITE_SIZE   (256u * 1024)
#define OLD_SECONDS  (30 * 24 * 3600)
#define BUILD_ID     20

struct header {
    char magic[16];
    uint8_t build[BUILD_ID];
    uint32_t crc; /* of all else */
    uint64_t model;
    uint64_t end; /* of the log, from its beginning */
};

/* Before a block's code, record, bytes and lists of places. */
struct entry {
    uint32_t crc;  /* of what follows */
    uint32_t size; /* of all */
    uint16_t mode, page_off, bytes_len, code_len, record_len, far_count, pointer_count, zero;
};
#define ENTRY_MAX (64u * 1024)

struct bt_kept {
    int fd;
    bool adds;    /* holds the file's lock */
    bool broken;  /* a write has failed: no more of them */
    bool changed; /* since the table was written */
    uint32_t
        *slot; /* place plus one, and bits of the hash that are not its number; 0: empty. NULL: to be read */
    uint64_t end;        /* of the log, with what is in `pending` */
    uint64_t end_before; /* when it was opened */
    uint64_t hits, misses;
    uint64_t wakes_at; /* look-ups are answered from this many on: see bt_kept_rest */
    struct header header;
    uint8_t *pending; /* the log's end, not written yet; NULL: nothing */
    uint32_t pending_size;
    uint8_t *window; /* what was read of the log last */
    uint64_t window_at;
    uint32_t window_size;
};

/* ---- whose file it is ---- */

static int find_build(struct dl_phdr_info *info, size_t size, void *opaque)
{
    uint8_t *out = opaque;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        const uint8_t *p = (const uint8_t *)(uintptr_t)(info->dlpi_addr + ph->p_vaddr),
                      *end = p + ph->p_memsz;
        while (ph->p_type == PT_NOTE && (size_t)(end - p) > sizeof(ElfW(Nhdr))) {
            ElfW(Nhdr) note;
            memcpy(&note, p, sizeof(note));
            const uint8_t *desc = p + sizeof(note) + round_up(note.n_namesz, 4);
            if (note.n_type == NT_GNU_BUILD_ID && note.n_descsz == BUILD_ID &&
                (size_t)(end - desc) >= BUILD_ID) {
                memcpy(out, desc, BUILD_ID);
                return 1;
            }
            p = desc + round_up(note.n_descsz, 4);
        }
    }
    return -1; /* only the program itself, which comes first */
}

static uint64_t model_hash(const struct cpuid_model *model, uint32_t layout)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ layout;
    for (const struct x86_feature_rule *r = x86_feature_rules; r->name; r++)
        hash = (hash ^ (uint64_t)cpuid_model_has(model, r->feature)) * UINT64_C(0x100000001b3);
    return hash;
}

static uint32_t header_crc(struct header header)
{
    header.crc = 0;
    return crc32c(0, &header, sizeof(header));
}

/* Whether nobody but its owner, who is the user, can write it. */
static bool trusted(int fd, mode_t type)
{
    struct stat st;
    return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == type && st.st_uid == geteuid() &&
           !(st.st_mode & (S_IWGRP | S_IWOTH));
}

/* ---- reading and writing ---- */

static bool read_all(int fd, void *buf, size_t size, uint64_t at)
{
    return pread(fd, buf, size, (off_t)at) == (ssize_t)size;
}

static bool write_all(struct bt_kept *k, const void *buf, size_t size, uint64_t at)
{
    if (!k->broken && pwrite(k->fd, buf, size, (off_t)at) != (ssize_t)size)
        k->broken = true; /* a full disk, a limit: what was written before holds */
    return !k->broken;
}

static bool flush_pending(struct bt_kept *k)
{
    uint32_t size = k->pending_size;
    k->pending_size = 0;
    return !size || write_all(k, k->pending, size, LOG_START + k->end - size);
}

static void write_table(struct bt_kept *k)
{
    struct header header = k->header;
    if (!k->adds || !k->changed || !flush_pending(k) || !write_all(k, k->slot, TABLE_SIZE, HEADER_SIZE))
        return;
    header.end = k->end;
    header.crc = header_crc(header);
    if (write_all(k, &header, sizeof(header), 0)) {
        k->header = header;
        k->changed = false;
    }
}

/* A file of nothing. */
static bool start_over(struct bt_kept *k)
{
    k->header.end = k->end = 0;
    k->header.crc = header_crc(k->header);
    return ftruncate(k->fd, 0) == 0 && ftruncate(k->fd, (off_t)LOG_START) == 0 &&
           write_all(k, &k->header, sizeof(k->header), 0);
}

/* Reads the header, or begins the file. */
static bool begin(struct bt_kept *k)
{
    struct header found;
    k->adds = flock(k->fd, LOCK_EX | LOCK_NB) == 0;
    if (read_all(k->fd, &found, sizeof(found), 0) && found.crc == header_crc(found) &&
        !memcmp(found.magic, k->header.magic, sizeof(found.magic)) &&
        !memcmp(found.build, k->header.build, BUILD_ID) && found.model == k->header.model &&
        found.end <= LOG_MAX) {
        k->header = found;
        k->end = k->end_before = found.end;
        return true;
    }
    return k->adds && start_over(k);
}

/* With the one that it is in, such as ~/.cache. */
static bool make_folder(const char *folder)
{
    cleanup(mem) char *parent = strdup(folder);
    char *slash = parent ? strrchr(parent, '/') : NULL;
    if (slash && slash != parent) {
        *slash = 0;
        mkdir(parent, 0700);
    }
    return mkdir(folder, 0700) == 0 || errno == EEXIST;
}

/* Files of programs and models that nobody has used for long: each build of the program has its own. */
static void forget_old(int dir)
{
    DIR *d = fdopendir(dup(dir));
    struct stat st;
    for (const struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        if (!strncmp(e->d_name, "bt-", 3) && fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            st.st_mtime < time(NULL) - OLD_SECONDS)
            unlinkat(dir, e->d_name, 0); /* whoever has it open goes on with it */
    if (d)
        closedir(d);
}

static int open_file(const char *folder, const struct header *header)
{
    char name[64];
    if (!make_folder(folder))
        return -1;
    cleanup(fd) int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || !trusted(dir, S_IFDIR))
        return -1;
    snprintf(name, sizeof(name), "bt-%08x-%016llx", crc32c(0, header->build, BUILD_ID),
             (unsigned long long)header->model);
    forget_old(dir);
    cleanup(fd) int fd = openat(dir, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0)
        futimens(fd, NULL); /* it is in use */
    return fd >= 0 && trusted(fd, S_IFREG) ? steal_fd(&fd) : -1;
}

struct bt_kept *bt_kept_open(const char *folder, const struct cpuid_model *model, uint32_t layout)
{
    struct bt_kept *k = calloc(1, sizeof(*k));
    if (!k)
        return NULL;
    memcpy(k->header.magic, MAGIC, sizeof(MAGIC));
    k->header.model = model_hash(model, layout);
    k->fd = dl_iterate_phdr(find_build, k->header.build) > 0 ? open_file(folder, &k->header) : -1;
    if (k->fd >= 0 && begin(k))
        return k;
    log_line(LOG_INFO, "translations are not kept: no file for them in '%s'", folder);
    bt_kept_close(k);
    return NULL;
}

void bt_kept_rest(struct bt_kept *k)
{
    if (!k)
        return;
    write_table(k);
    bt_table_free(k->slot, TABLE_SIZE);
    bt_table_free(k->pending, WRITE_SIZE);
    bt_table_free(k->window, WINDOW_SIZE);
    k->slot = NULL;
    k->pending = k->window = NULL;
    k->window_size = 0;
    k->wakes_at = k->hits + k->misses + REST_LOOKUPS;
}

void bt_kept_close(struct bt_kept *k)
{
    if (!k)
        return;
    bt_kept_rest(k);
    /* Full before, and of little use: programs have been updated. The next machine begins anew. */
    if (k->adds && k->end_before > LOG_MAX / 4 * 3 && k->hits < k->misses)
        start_over(k);
    if (k->fd >= 0)
        close(k->fd);
    free(k);
}

/* ---- the table ---- */

static bool table_ready(struct bt_kept *k)
{
    if (k->slot)
        return true;
    k->slot = bt_table_new(TABLE_SIZE);
    if (k->slot && k->end && !read_all(k->fd, k->slot, TABLE_SIZE, HEADER_SIZE))
        memset(k->slot, 0, TABLE_SIZE);
    return k->slot;
}

static uint32_t hash_of(uint32_t mode, unsigned page_off, const uint8_t *bytes, unsigned avail)
{
    uint32_t key[2] = {mode, page_off};
    return crc32c(crc32c(0, key, sizeof(key)), bytes, MIN(avail, KEY_BYTES));
}

static uint32_t tag_of(uint32_t hash)
{
    return hash >> PLACE_BITS << PLACE_BITS;
}

/* ---- blocks in the log ---- */

/* `size` bytes of the log, or as many as there are; NULL: none. */
static const uint8_t *log_at(struct bt_kept *k, uint64_t at, uint32_t size)
{
    uint64_t written = k->end - k->pending_size;
    if (at >= k->end)
        return NULL;
    if (at >= written)
        return k->pending + (at - written);
    if (k->window && at >= k->window_at && at + size <= k->window_at + k->window_size)
        return k->window + (at - k->window_at);
    if (!k->window && !(k->window = bt_table_new(WINDOW_SIZE)))
        return NULL;
    uint32_t want = (uint32_t)MIN((uint64_t)MAX(size, READ_AHEAD), written - at);
    ssize_t got = pread(k->fd, k->window, want, (off_t)(LOG_START + at));
    k->window_at = at;
    k->window_size = got > 0 ? (uint32_t)got : 0;
    return size <= k->window_size ? k->window : NULL;
}

static size_t lists_size(const struct entry *e)
{
    return sizeof(uint16_t) * ((size_t)e->far_count + e->pointer_count);
}

static size_t entry_size(const struct entry *e)
{
    return sizeof(*e) + round_up((size_t)e->code_len + e->record_len + e->bytes_len, 2) + lists_size(e);
}

static bool places_hold(const uint16_t *place, unsigned count, unsigned width, unsigned room)
{
    for (unsigned i = 0; i < count; i++)
        if (place[i] + width > room)
            return false;
    return true;
}

/* The block at that place when there is one, whole. */
static bool entry_at(struct bt_kept *k, uint64_t at, struct bt_kept_block *out)
{
    struct entry e;
    const uint8_t *p = log_at(k, at, sizeof(e));
    if (!p)
        return false;
    memcpy(&e, p, sizeof(e));
    if (e.size != entry_size(&e) || e.size > ENTRY_MAX || at + e.size > k->end ||
        !(p = log_at(k, at, e.size)) || crc32c(0, p + sizeof(e.crc), e.size - sizeof(e.crc)) != e.crc)
        return false;
    *out = (struct bt_kept_block){.mode = e.mode,
                                  .page_off = e.page_off,
                                  .bytes_len = e.bytes_len,
                                  .code_len = e.code_len,
                                  .record_len = e.record_len,
                                  .far_count = e.far_count,
                                  .pointer_count = e.pointer_count,
                                  .code = p + sizeof(e)};
    out->record = out->code + e.code_len;
    out->bytes = out->record + e.record_len;
    out->far = (const uint16_t *)(const void *)(p + e.size - lists_size(&e));
    out->pointer = out->far + e.far_count;
    return places_hold(out->far, e.far_count, 4, e.code_len) &&
           places_hold(out->pointer, e.pointer_count, 8, e.code_len);
}

bool bt_kept_find(struct bt_kept *k, uint32_t mode, unsigned page_off, const uint8_t *bytes, unsigned avail,
                  struct bt_kept_block *out)
{
    uint32_t hash = hash_of(mode, page_off, bytes, avail);
    if (k->hits + k->misses < k->wakes_at || !table_ready(k)) {
        k->misses++;
        return false;
    }
    for (unsigned i = 0; i < TRIES; i++) {
        uint32_t slot = k->slot[(hash + i) % TABLE_SLOTS];
        if (!slot)
            break;
        if (tag_of(slot) == tag_of(hash) && entry_at(k, (uint64_t)((slot ^ tag_of(slot)) - 1) * UNIT, out) &&
            out->mode == mode && out->page_off == page_off && out->bytes_len <= avail &&
            !memcmp(out->bytes, bytes, out->bytes_len)) {
            k->hits++;
            return true;
        }
    }
    k->misses++;
    return false;
}

/* An empty slot; NULL: too many blocks have nearly the same hash. */
static uint32_t *free_slot(struct bt_kept *k, uint32_t hash)
{
    for (unsigned i = 0; i < TRIES; i++)
        if (!k->slot[(hash + i) % TABLE_SLOTS])
            return &k->slot[(hash + i) % TABLE_SLOTS];
    return NULL;
}

static uint8_t *put(uint8_t *to, const void *from, size_t size)
{
    if (size)
        memcpy(to, from, size);
    return to + size;
}

static void write_entry(uint8_t *to, struct entry *e, const struct bt_kept_block *b)
{
    uint8_t *p = to + sizeof(*e);
    p = put(p, b->code, b->code_len);
    p = put(p, b->record, b->record_len);
    put(p, b->bytes, b->bytes_len);
    p = put(to + e->size - lists_size(e), b->far, sizeof(uint16_t) * b->far_count);
    put(p, b->pointer, sizeof(uint16_t) * b->pointer_count);
    memcpy(to, e, sizeof(*e));
    e->crc = crc32c(0, to + sizeof(e->crc), e->size - sizeof(e->crc));
    memcpy(to, &e->crc, sizeof(e->crc));
}

void bt_kept_add(struct bt_kept *k, const struct bt_kept_block *b, unsigned avail)
{
    struct entry e = {.mode = b->mode,
                      .page_off = b->page_off,
                      .bytes_len = b->bytes_len,
                      .code_len = b->code_len,
                      .record_len = b->record_len,
                      .far_count = b->far_count,
                      .pointer_count = b->pointer_count};
    uint32_t hash = hash_of(b->mode, b->page_off, b->bytes, avail), *slot;
    e.size = (uint32_t)entry_size(&e);
    uint32_t room = (uint32_t)round_up(e.size, UNIT);
    if (!k->adds || k->broken || e.size > ENTRY_MAX || k->end + room >= LOG_MAX || !k->slot ||
        !(slot = free_slot(k, hash)))
        return;
    if (!k->pending && !(k->pending = bt_table_new(WRITE_SIZE)))
        return;
    if (k->pending_size + room > WRITE_SIZE && !flush_pending(k))
        return;
    uint8_t *to = k->pending + k->pending_size;
    memset(to, 0, room);
    write_entry(to, &e, b);
    *slot = tag_of(hash) | (uint32_t)(k->end / UNIT + 1);
    k->end += room;
    k->pending_size += room;
    k->changed = true;
}
