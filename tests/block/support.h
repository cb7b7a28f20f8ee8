/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the block tests share: a scratch folder, running qemu-img, synchronous requests, a small random
 * generator. */
#ifndef TESTS_BLOCK_SUPPORT_H
#define TESTS_BLOCK_SUPPORT_H

/* cmocka wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>

#include "block/block.h"

/* Makes a folder for the test program's files and goes there; removed by scratch_leave. For setup and
 * teardown. */
int scratch_enter(void **state);
int scratch_leave(void **state);

/* Runs a shell command; its exit status. Output goes to the file "out". */
int run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* As run; fails the test, showing the output, when the status is not 0. */
void must_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Opens an image that must open; no loop: completions come by block_drain. */
struct block *must_open(const char *path, const char *format, unsigned flags);
/* Opening must fail with a message that contains `part`. */
void must_refuse(const char *path, const char *format, unsigned flags, const char *part);

/* Submits a request and waits for it; sets its done and opaque. Its result. */
int do_request(struct block_request *req);
/* One request from start to end; its result. */
int do_io(struct block *b, enum block_op op, uint64_t offset, void *buf, uint64_t length, bool may_unmap);

/* A part of a disk, all of one value: writes it, and fails the test when it reads otherwise. */
#define PART (192u * 1024)
void fill_part(struct block *b, uint64_t offset, uint8_t value);
void expect_part(struct block *b, uint64_t offset, uint8_t value);

/* Reads and writes parts of a file, past the block layer. */
void poke(const char *path, uint64_t offset, const void *data, size_t length);
void peek(const char *path, uint64_t offset, void *data, size_t length);
void poke_be32(const char *path, uint64_t offset, uint32_t v);
void poke_be64(const char *path, uint64_t offset, uint64_t v);
uint64_t peek_be64(const char *path, uint64_t offset);

/* xorshift64*; the seed is printed by who makes it, RUCHE_TEST_SEED overrides it. */
struct random {
    uint64_t state;
};
void random_init(struct random *r, const char *what);
uint64_t random_below(struct random *r, uint64_t n);
void random_fill(struct random *r, void *buf, size_t length);

#endif
