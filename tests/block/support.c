/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the block tests share: see support.h. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"

static char folder[64];

int scratch_enter(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/ruche-block-XXXXXX");
    return mkdtemp(folder) && chmod(folder, 0755) == 0 && chdir(folder) == 0 ? 0 : -1;
}

int scratch_leave(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return chdir("/") == 0 && system(command) == 0 ? 0 : -1;
}

static __attribute__((format(printf, 1, 0))) int run_va(const char *fmt, va_list ap)
{
    cleanup(mem) char *text = NULL;
    cleanup(mem) char *command = NULL;
    if (vasprintf(&text, fmt, ap) < 0 || asprintf(&command, "{ %s; } >out 2>&1", text) < 0)
        return -1;
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int run(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int status = run_va(fmt, ap);
    va_end(ap);
    return status;
}

void must_run(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int status = run_va(fmt, ap);
    va_end(ap);
    if (status == 0)
        return;
    char out[2048] = "";
    cleanup(file) FILE *f = fopen("out", "r");
    if (f)
        out[fread(out, 1, sizeof(out) - 1, f)] = 0;
    fail_msg("'%s...' ended with status %d and said: %s", fmt, status, out);
}

struct block *must_open(const char *path, const char *format, unsigned flags)
{
    struct error *err = NULL;
    struct block *b = block_open(path, format, flags, NULL, &err);
    if (!b)
        fail_msg("%s", error_text(err));
    return b;
}

void must_refuse(const char *path, const char *format, unsigned flags, const char *part)
{
    struct error *err = NULL;
    struct block *b = block_open(path, format, flags, NULL, &err);
    if (b)
        fail_msg("'%s' was opened; expected a refusal with '%s'", path, part);
    else if (!strstr(error_text(err), part))
        fail_msg("'%s' was refused with '%s'; expected '%s'", path, error_text(err), part);
    error_free(err);
}

static void io_done(struct block_request *req, int result)
{
    *(int *)req->opaque = result;
}

int do_request(struct block_request *req)
{
    int result = 1;
    req->done = io_done;
    req->opaque = &result;
    block_submit(req);
    block_drain(req->block);
    assert_true(result <= 0);
    return result;
}

int do_io(struct block *b, enum block_op op, uint64_t offset, void *buf, uint64_t length, bool may_unmap)
{
    struct iovec iov = {buf, length};
    struct block_request req = {.op = op,
                                .may_unmap = may_unmap,
                                .offset = offset,
                                .length = length,
                                .iov = &iov,
                                .iov_count = buf ? 1 : 0,
                                .block = b};
    return do_request(&req);
}

void fill_part(struct block *b, uint64_t offset, uint8_t value)
{
    static uint8_t data[PART];
    memset(data, value, PART);
    assert_int_equal(do_io(b, BLOCK_WRITE, offset, data, PART, false), 0);
}

void expect_part(struct block *b, uint64_t offset, uint8_t value)
{
    static uint8_t data[PART], got[PART];
    assert_int_equal(do_io(b, BLOCK_READ, offset, got, PART, false), 0);
    memset(data, value, PART);
    assert_memory_equal(got, data, PART);
}

void poke(const char *path, uint64_t offset, const void *data, size_t length)
{
    cleanup(fd) int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, length, (off_t)offset), length);
}

void peek(const char *path, uint64_t offset, void *data, size_t length)
{
    cleanup(fd) int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, data, length, (off_t)offset), length);
}

void poke_be32(const char *path, uint64_t offset, uint32_t v)
{
    uint8_t b[4];
    store_be32(b, v);
    poke(path, offset, b, sizeof(b));
}

void poke_be64(const char *path, uint64_t offset, uint64_t v)
{
    uint8_t b[8];
    store_be64(b, v);
    poke(path, offset, b, sizeof(b));
}

uint64_t peek_be64(const char *path, uint64_t offset)
{
    uint8_t b[8];
    peek(path, offset, b, sizeof(b));
    return load_be64(b);
}

void random_init(struct random *r, const char *what)
{
    const char *given = getenv("RUCHE_TEST_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_nsec * 1000003 + (uint64_t)now.tv_sec;
    fprintf(stderr, "%s: RUCHE_TEST_SEED=%llu\n", what, (unsigned long long)seed);
    r->state = seed ? seed : 1;
}

static uint64_t next(struct random *r)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 0x2545f4914f6cdd1dull;
}

uint64_t random_below(struct random *r, uint64_t n)
{
    return (next(r) >> 16) % n;
}

void random_fill(struct random *r, void *buf, size_t length)
{
    uint8_t *p = buf;
    for (; length >= 8; p += 8, length -= 8)
        store_le64(p, next(r));
    for (; length; length--)
        *p++ = (uint8_t)next(r);
}
