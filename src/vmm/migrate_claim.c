/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The claim: see migrate_claim.h. The name is that of a socket in the abstract name space, which the kernel
 * gives to one socket at a time and frees with it. The name comes before the disks, so that two who try at
 * once do not take half of it each.
 */
#include "vmm/migrate_claim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/block.h"
#include "vmm/board.h"

static bool take_name(struct migrate_claim *c, struct error **err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char *to = addr.sun_path + 1; /* the NUL before it makes the name an abstract one */
    size_t room = sizeof(addr.sun_path) - 1;
    int n = snprintf(to, room, "ruche-migration-");

    for (unsigned i = 0; i < MIGRATE_SESSION; i++)
        n += snprintf(to + n, room - (size_t)n, "%02x", c->session[i]);
    cleanup(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&addr, len) < 0)
        return error_set_errno(err, errno, "cannot claim the machine"), false;
    c->name = steal_fd(&fd);
    return true;
}

static void drop_name(struct migrate_claim *c)
{
    if (c->name >= 0)
        close(c->name);
    c->name = -1;
}

bool migrate_claim_begin(struct migrate_claim *c, struct error **err)
{
    *c = (struct migrate_claim){.name = -1};
    if (getrandom(c->session, sizeof(c->session), 0) != sizeof(c->session))
        return error_set_errno(err, errno, "cannot name the migration"), false;
    return take_name(c, err);
}

void migrate_claim_look(struct migrate_claim *c)
{
    struct error *err = NULL;

    c->name = -1;
    c->shared = !take_name(c, &err) && err->code == EADDRINUSE;
    error_free(err);
    drop_name(c);
}

bool migrate_claim_is_decisive(const struct migrate_claim *c, const struct board *b)
{
    bool decisive = c->shared;

    for (unsigned i = 0; i < b->config->disk_count; i++)
        decisive |= !b->config->disk[i].readonly;
    return decisive;
}

/* Takes the disks before number `count` again, of which this process has just let go. */
static void undo_release(struct board *b, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        block_take(b->disk[i].block, NULL);
}

bool migrate_claim_let_go(struct migrate_claim *c, struct board *b, struct error **err)
{
    for (unsigned i = 0; i < b->config->disk_count; i++) {
        if (block_release(b->disk[i].block, err))
            continue;
        undo_release(b, i);
        return false;
    }
    if (c->shared)
        drop_name(c);
    return true;
}

bool migrate_claim_take(struct migrate_claim *c, struct board *b, struct error **err)
{
    if (c->shared && c->name < 0 && !take_name(c, err))
        return false;
    for (unsigned i = 0; i < b->config->disk_count; i++) {
        if (block_take(b->disk[i].block, err))
            continue;
        while (i-- > 0)
            block_release(b->disk[i].block, NULL);
        if (c->shared)
            drop_name(c);
        return false;
    }
    return true;
}

void migrate_claim_settle(struct migrate_claim *c, bool needed)
{
    if (!needed)
        drop_name(c);
    c->name = -1;
}
