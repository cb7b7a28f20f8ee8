/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copies between host and guest: see copy.h. */
#include "cli/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/sha256.h"
#include "cli/agent_command.h"
#include "cli/agent_file.h"
#include "cli/interrupt.h"
#include "cli/print.h"
#include "cli/progress.h"

#define SHOW_AFTER_S 1 /* shorter copies need no display */

struct copy {
    struct agent *agent;
    int64_t handle; /* of the guest's file; -1: none is open */
    uint64_t done, total;
    mode_t mode;
    struct sha256 sum;
    struct progress progress;
    uint8_t chunk[AGENT_CHUNK];
};

/* --- programs of the guest --- */

/* A program's exit status, with the first line that it said in `text` (else what it complained about); -1 and
 * *err when it cannot be run, with EREMOTEIO when the guest has no such program. */
static int ask(struct agent *a, const char *const *words, char *text, size_t size, struct error **err)
{
    const struct agent_command c = {.words = words};
    struct agent_result r;
    if (!agent_run(a, &c, &r, err))
        return -1;
    int status = r.status;
    bool complains = !r.out_len;
    size_t len = MIN(complains ? r.err_len : r.out_len, size - 1);
    if (len)
        memcpy(text, complains ? r.err : r.out, len);
    text[len] = 0;
    text[strcspn(text, "\n")] = 0;
    if (r.interrupted)
        error_set(err, EINTR, "interrupted");
    status = r.interrupted ? -1 : status;
    agent_result_release(&r);
    return status;
}

/* As ask, for a program that must succeed. */
static bool have_done(struct agent *a, const char *const *words, char *text, size_t size, struct error **err)
{
    int status = ask(a, words, text, size, err);
    if (status > 0) {
        cleanup(mem) char *said = print_harmless(text);
        error_set(err, EIO, "'%s' in the guest gave %d: %s", words[0], status, said);
    }
    return status == 0;
}

/* What was copied against what the guest has there. */
static bool check_sum(struct copy *c, const char *guest_path, struct error **err)
{
    const char *const words[] = {"sha256sum", guest_path, NULL};
    char there[1024], here[SHA256_HEX_SIZE];
    struct error *why = NULL;
    sha256_final(&c->sum, here);
    int status = ask(c->agent, words, there, sizeof(there), &why);
    if (status < 0 && why->code == EREMOTEIO) {
        fprintf(stderr, "ruche: the copy is not checked: %s\n", error_text(why));
        error_free(why);
        return true;
    }
    error_prefix(err, why, "check the copy");
    /* A backslash stands in front of the sum when the name has odd characters. */
    bool same = status == 0 && strncmp(there + (there[0] == '\\'), here, SHA256_HEX_SIZE - 1) == 0;
    if (status >= 0 && !same)
        error_set(err, EIO,
                  "the copy differs from the original: it was changed meanwhile, or damaged on the way");
    return same;
}

/* --- display --- */

static void moved(struct copy *c, const void *data, size_t len)
{
    struct timespec now;
    sha256_update(&c->sum, data, len);
    c->done += len;
    clock_gettime(CLOCK_MONOTONIC, &now);
    c->progress.step = (unsigned)(c->done / MIB);
    if (now.tv_sec - c->progress.start.tv_sec > SHOW_AFTER_S)
        progress_tick(&c->progress);
}

static struct copy *begin(struct agent *a, struct error **err)
{
    struct copy *c = calloc(1, sizeof(*c));
    if (!c)
        return error_set_errno(err, ENOMEM, "copy"), NULL;
    c->agent = a;
    c->handle = -1;
    sha256_init(&c->sum);
    progress_start(&c->progress, "copy");
    snprintf(c->progress.title, sizeof(c->progress.title), "MiB");
    return c;
}

static void set_total(struct copy *c, uint64_t total)
{
    c->total = total;
    c->progress.steps = (unsigned)MIN(total / MIB, UINT32_MAX);
}

static void end(struct copy *c, bool ok)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec - c->progress.start.tv_sec > SHOW_AFTER_S)
        progress_end(&c->progress, ok);
    free(c);
}

/* Of a path; NULL and *err when it names no file. */
static const char *last_name(const char *path, struct error **err)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (*name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
        return name;
    return error_set(err, EISDIR, "'%s' names a folder: files are copied one at a time", path), NULL;
}

static bool close_handle(struct copy *c, struct error **err)
{
    int64_t handle = c->handle;
    c->handle = -1;
    return handle < 0 || agent_file_close(c->agent, handle, err);
}

/* --- to the guest --- */

static int open_source(struct copy *c, const char *path, struct error **err)
{
    struct stat st;
    cleanup(fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "open '%s'", path), -1;
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "copy '%s': it is no regular file", path), -1;
    set_total(c, (uint64_t)st.st_size);
    c->mode = st.st_mode & 0777;
    return steal_fd(&fd);
}

/* Where in the guest the file is to be; NULL and *err. */
static char *guest_target(struct agent *a, const char *path, const char *source, struct error **err)
{
    const char *const words[] = {"test", "-d", path, NULL};
    const char *name = last_name(source, err);
    char text[256];
    if (!name)
        return NULL;
    if (path[strlen(path) - 1] == '/')
        return catalog_format("%s%s", path, name);
    int status = ask(a, words, text, sizeof(text), err);
    if (status < 0)
        return NULL;
    return status == 0 ? catalog_format("%s/%s", path, name) : catalog_format("%s", path);
}

static bool send_all(struct copy *c, int fd, const char *host_path, struct error **err)
{
    ssize_t n;
    while ((n = read(fd, c->chunk, sizeof(c->chunk))) > 0) {
        if (!agent_file_write(c->agent, c->handle, c->chunk, (size_t)n, err))
            return false;
        moved(c, c->chunk, (size_t)n);
    }
    return n == 0 || (error_set_errno(err, errno, "read '%s'", host_path), false);
}

static bool fill_draft(struct copy *c, int fd, const char *host_path, const char *draft, struct error **err)
{
    c->handle = agent_file_open(c->agent, draft, "w", err);
    return c->handle >= 0 && send_all(c, fd, host_path, err) && close_handle(c, err) &&
           check_sum(c, draft, err);
}

static bool name_draft(struct copy *c, const char *draft, const char *target, struct error **err)
{
    cleanup(mem) char *mode = catalog_format("%o", (unsigned)c->mode);
    const char *const words[] = {
        "sh", "-c", "chmod \"$1\" \"$2\" && mv -f \"$2\" \"$3\"", "sh", mode, draft, target, NULL};
    char text[512];
    return have_done(c->agent, words, text, sizeof(text), err);
}

static void remove_draft(struct copy *c, const char *draft)
{
    const char *const words[] = {"rm", "-f", draft, NULL};
    char text[256];
    close_handle(c, NULL);
    ask(c->agent, words, text, sizeof(text), NULL);
}

bool copy_to_guest(struct agent *a, const char *host_path, const char *guest_path, int *interrupted,
                   struct error **err)
{
    struct copy *c = begin(a, err);
    cleanup(fd) int fd = c ? open_source(c, host_path, err) : -1;
    cleanup(mem) char *target = fd >= 0 ? guest_target(a, guest_path, host_path, err) : NULL;
    cleanup(mem) char *draft = target ? catalog_format("%s.ruche-%d", target, (int)getpid()) : NULL;
    bool ok = draft && fill_draft(c, fd, host_path, draft, err) && name_draft(c, draft, target, err);
    *interrupted = ok ? 0 : interrupt_take();
    if (draft && !ok)
        remove_draft(c, draft);
    if (c)
        end(c, ok);
    return ok;
}

/* --- from the guest --- */

/* Size and permissions, as far as the guest can tell; only a regular file has an end to be waited for. */
static bool look_at_source(struct copy *c, const char *path, struct error **err)
{
    const char *const words[] = {"stat", "-L", "-c", "%f %s", path, NULL};
    char text[512];
    struct error *why = NULL;
    c->mode = 0644;
    if (!have_done(c->agent, words, text, sizeof(text), &why)) {
        if (why->code != EREMOTEIO)
            return error_prefix(err, why, "copy '%s'", path), false;
        error_free(why);
        return true;
    }
    char *rest;
    mode_t mode = (mode_t)strtoul(text, &rest, 16);
    if (!S_ISREG(mode))
        return error_set(err, EINVAL, "copy '%s': it is no regular file of the guest", path), false;
    c->mode = mode & 0777;
    set_total(c, strtoull(rest, NULL, 10));
    return true;
}

/* Where on the host the file is to be, behind all symbolic links; NULL and *err. */
static char *host_target(const char *path, const char *source, struct error **err)
{
    struct stat st;
    const char *name = last_name(source, err);
    cleanup(mem) char *inside = NULL;
    if (!name)
        return NULL;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        inside = catalog_format("%s/%s", path, name);
        path = inside;
    }
    if (stat(path, &st) < 0 && errno == ENOENT)
        return catalog_format("%s", path);
    char *real = realpath(path, NULL);
    if (!real)
        return error_set_errno(err, errno, "write '%s'", path), NULL;
    if (stat(real, &st) == 0 && S_ISREG(st.st_mode))
        return real;
    error_set(err, EINVAL, "write '%s': it is no regular file", path);
    free(real);
    return NULL;
}

static bool write_bytes(int fd, const uint8_t *data, size_t len, const char *path, struct error **err)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno != EINTR)
            return error_set_errno(err, errno, "write '%s'", path), false;
        n = MAX(n, 0);
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static bool receive_all(struct copy *c, const char *guest_path, int fd, const char *draft, struct error **err)
{
    ssize_t n;
    c->handle = agent_file_open(c->agent, guest_path, "r", err);
    if (c->handle < 0)
        return false;
    while ((n = agent_file_read(c->agent, c->handle, c->chunk, err)) > 0) {
        if (!write_bytes(fd, c->chunk, (size_t)n, draft, err))
            return false;
        moved(c, c->chunk, (size_t)n);
    }
    return n == 0 && close_handle(c, err) && check_sum(c, guest_path, err);
}

/* On the disk first, so that not even a crash of the host leaves half of it under its name. */
static bool keep_draft(const struct copy *c, int fd, const char *draft, const char *target,
                       struct error **err)
{
    mode_t mask = umask(0);
    umask(mask);
    if (fchmod(fd, c->mode & ~mask) == 0 && fsync(fd) == 0 && rename(draft, target) == 0)
        return true;
    return error_set_errno(err, errno, "write '%s'", target), false;
}

bool copy_from_guest(struct agent *a, const char *guest_path, const char *host_path, int *interrupted,
                     struct error **err)
{
    cleanup(mem) char *target = host_target(host_path, guest_path, err);
    cleanup(mem) char *draft = target ? catalog_format("%s.ruche-%d", target, (int)getpid()) : NULL;
    struct copy *c = draft ? begin(a, err) : NULL;
    cleanup(fd) int fd = -1;
    bool ok = c && look_at_source(c, guest_path, err);
    if (ok) {
        fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
            error_set_errno(err, errno, "write '%s'", target);
        ok = fd >= 0 && receive_all(c, guest_path, fd, draft, err) && keep_draft(c, fd, draft, target, err);
    }
    *interrupted = ok ? 0 : interrupt_take();
    if (fd >= 0 && !ok)
        unlink(draft);
    if (c && !ok)
        close_handle(c, NULL);
    if (c)
        end(c, ok);
    return ok;
}
