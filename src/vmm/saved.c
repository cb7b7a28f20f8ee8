/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Waking up a saved machine: see save.h. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "block/block.h"
#include "device/platform/vmgenid.h"
#include "vmm/board.h"
#include "vmm/save.h"
#include "vmm/save_state.h"

#define NS_PER_SECOND 1000000000

static bool check_disk(const struct disk_config *d, const struct saved_disk *saved, struct error **err)
{
    struct stat st;

    if (stat(d->path, &st) < 0)
        return error_set_errno(err, errno, "cannot open disk '%s' of the saved machine", d->path), false;
    if (!saved->changed || saved->changed == (int64_t)st.st_mtim.tv_sec * NS_PER_SECOND + st.st_mtim.tv_nsec)
        return true;
    error_set(err, ESTALE, "disk '%s' was written to after the machine was saved", d->path);
    return false;
}

bool saved_check_disks(const struct machine_config *config, const struct saved_identity *id,
                       struct error **err)
{
    for (unsigned i = 0; i < id->disk_count; i++)
        if (!check_disk(&config->disk[i], &id->disk[i], err))
            return false;
    return true;
}

bool saved_check_sizes(const struct board *b, const struct saved_identity *id, struct error **err)
{
    for (unsigned i = 0; i < id->disk_count; i++) {
        struct block_info info;
        block_get_info(b->disk[i].block, &info);
        if (info.size != id->disk[i].size)
            return error_set(err, EINVAL, "disk '%s' has %llu bytes instead of %llu", b->config->disk[i].path,
                             (unsigned long long)info.size, (unsigned long long)id->disk[i].size),
                   false;
    }
    return true;
}

static bool check(struct saved_machine *s, const struct machine_config *config, struct error **err)
{
    struct error *why = NULL;

    if (s->table.count * SAVE_PAGE != config->memory)
        error_set(&why, EINVAL, "it has %zu KiB of memory, and describes %llu",
                  s->table.count * (SAVE_PAGE / 1024), (unsigned long long)(config->memory / KIB));
    if (!why)
        saved_check_disks(config, &s->id, &why);
    if (!why)
        saved_check_cpu(&s->id.cpu, &why);
    if (!why)
        return true;
    error_prefix(err, why, "saved machine '%s'", s->file.path);
    return false;
}

static bool read_description(struct saved_machine *s, struct machine_config *config, struct error **err)
{
    uint8_t *text = save_file_read(&s->file, SAVE_DESCRIPTION, err);
    struct error *why = NULL;

    if (!text)
        return false;
    saved_read_description((const char *)text, s->file.section[SAVE_DESCRIPTION].length, config, &s->id,
                           &why);
    free(text);
    if (!why)
        return true;
    error_prefix(err, why, "saved machine '%s'", s->file.path);
    return false;
}

static bool read_all(struct saved_machine *s, struct machine_config *config, struct error **err)
{
    if (!read_description(s, config, err) || !saved_pages_read(&s->file, &s->table, err))
        return false;
    s->state = save_file_read(&s->file, SAVE_STATE, err);
    s->state_len = s->file.section[SAVE_STATE].length;
    return s->state && saved_check_state(s->state, s->state_len, s->file.path, err) && check(s, config, err);
}

struct saved_machine *saved_open(const char *path, struct machine_config *config, struct error **err)
{
    struct saved_machine *s = calloc(1, sizeof(*s));

    if (!s) {
        error_set_errno(err, ENOMEM, "cannot open saved machine '%s'", path);
        return NULL;
    }
    s->file.fd = -1;
    if (save_file_open(&s->file, path, err) && read_all(s, config, err))
        return s;
    saved_free(s);
    return NULL;
}

void saved_free(struct saved_machine *s)
{
    if (!s)
        return;
    save_file_close(&s->file);
    free(s->table.sum);
    free(s->state);
    free(s);
}

struct guest_memory *saved_memory(const struct saved_machine *s, uint64_t size, struct error **err)
{
    struct guest_memory *mem = guest_memory_new_private(size, err);

    if (!mem || saved_memory_map(&s->file, &s->table, mem, err))
        return mem;
    guest_memory_free(mem);
    return NULL;
}

bool saved_restore(const struct saved_machine *s, struct board *b, struct error **err)
{
    struct error *why = NULL;

    if (!saved_check_sizes(b, &s->id, &why))
        return error_prefix(err, why, "saved machine '%s'", s->file.path), false;
    for (unsigned i = 0; i < s->id.disk_count; i++)
        b->disk[i].mark = s->id.disk[i].changed;
    /* Whoever goes on from the file may not be the only one. */
    return saved_load_state(b, s->state, s->state_len, s->file.path, err) && vmgenid_renew(b->m.vmgenid, err);
}

/* Checking in the background. */

struct saved_check {
    const struct saved_machine *saved;
    struct board *board;
    void (*damaged)(struct board *b, const struct error *why);
    pthread_t thread;
    bool cancel; /* atomic */
    struct error *why;
};

static void post_damaged(void *opaque)
{
    struct saved_check *c = opaque;

    c->damaged(c->board, c->why);
}

static void *check_main(void *opaque)
{
    struct saved_check *c = opaque;
    const struct sched_param param = {0};

    pthread_setschedparam(pthread_self(), SCHED_IDLE, &param); /* a wish */
    if (!saved_memory_verify(&c->saved->file, &c->saved->table, &c->cancel, &c->why) &&
        c->why->code != ECANCELED)
        loop_post(c->board->m.loop, post_damaged, c);
    return NULL;
}

struct saved_check *saved_check_start(const struct saved_machine *s, struct board *b,
                                      void (*damaged)(struct board *b, const struct error *why),
                                      struct error **err)
{
    struct saved_check *c = calloc(1, sizeof(*c));

    if (c)
        *c = (struct saved_check){.saved = s, .board = b, .damaged = damaged};
    int code = c ? pthread_create(&c->thread, NULL, check_main, c) : ENOMEM;
    if (code == 0)
        return c;
    error_set_errno(err, code, "cannot check the saved machine's memory");
    free(c);
    return NULL;
}

void saved_check_free(struct saved_check *c)
{
    if (!c)
        return;
    __atomic_store_n(&c->cancel, true, __ATOMIC_RELAXED);
    pthread_join(c->thread, NULL);
    error_free(c->why);
    free(c);
}
