/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the two ends of a migration say to each other, in frames (os/frame.h). docs/migration.md has the order
 * and who may run when. Any thread.
 */
#ifndef VMM_MIGRATE_STREAM_H
#define VMM_MIGRATE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/memory.h"
#include "os/frame.h"

struct error;

#define MIGRATE_VERSION    1u
#define MIGRATE_SESSION    16u  /* bytes of the random number that names one migration */
#define MIGRATE_BATCH      256u /* pages of one frame, at most */
#define MIGRATE_TIMEOUT_MS 30000

enum migrate_kind {
    MIGRATE_HELLO = 1,   /* both: who speaks, version, session */
    MIGRATE_DESCRIPTION, /* source: as in a saved machine */
    MIGRATE_OBJECTS,     /* source: what there will be states of, with their versions */
    MIGRATE_ACCEPT,      /* destination: it can take that machine; one byte: the claim's name is seen there */
    MIGRATE_PAGES,       /* source: some memory */
    MIGRATE_STATE,       /* source: one byte: the machine runs; all states. Memory is complete with it */
    MIGRATE_READY,       /* destination: it has everything */
    MIGRATE_GO,          /* source: it has let go */
    MIGRATE_RUNNING,     /* destination: the machine is here now */
    MIGRATE_FAILED,      /* both: this end gives up, and why; it has not run, and will not by this stream */
};

/* For struct frame_stream. */
uint32_t migrate_limit(uint32_t kind);

/* The source begins, and names the session. */
bool migrate_hello(struct frame_stream *s, const uint8_t session[MIGRATE_SESSION], struct error **err);
/* The destination answers. */
bool migrate_answer_hello(struct frame_stream *s, uint8_t session[MIGRATE_SESSION], struct error **err);

/* The next frame, which must be of that kind. False and *err; EREMOTEIO when the peer gave up and said why,
 * also when that is the kind. */
bool migrate_receive(struct frame_stream *s, enum migrate_kind kind, struct frame *f, struct error **err);
/* The second half of that, of a frame that has been received. */
bool migrate_expect(const struct frame_stream *s, enum migrate_kind kind, const struct frame *f,
                    struct error **err);
/* After a connection that broke: the peer may have said why before. Then *err becomes that. */
void migrate_hear_reason(struct frame_stream *s, struct error **err);
/* Says that this end gives up; the peer may not hear it. */
void migrate_fail(struct frame_stream *s, const struct error *why);

/* Memory, gathered into frames. */
struct page_writer {
    struct frame_stream *stream;
    const struct guest_memory *mem;
    void *zstd; /* context, made when first needed */
    uint8_t *data, *packed;
    unsigned region, count; /* of the batch under way */
    uint32_t index[MIGRATE_BATCH];
    size_t len;          /* of data */
    uint64_t full, zero; /* atomic: pages sent, and of zeros */
};

bool page_writer_init(struct page_writer *w, struct frame_stream *s, const struct guest_memory *mem,
                      struct error **err);
void page_writer_release(struct page_writer *w);
/* Adds a page as it is now. One of zeros is left out, unless `known`: then the other end may have something
 * else. */
bool page_writer_add(struct page_writer *w, unsigned region, size_t page, bool known, bool compress,
                     struct error **err);
/* Sends what has been gathered. */
bool page_writer_flush(struct page_writer *w, bool compress, struct error **err);

/* Room for unpacking. All zero at first. */
struct page_reader {
    void *zstd;
    uint8_t *data;
};

/* Puts the pages of a frame into memory, which no one else uses. False and *err when it is not well formed;
 * some of it may have been put then. */
bool page_reader_apply(struct page_reader *r, const struct guest_memory *mem, const uint8_t *data, size_t len,
                       struct error **err);
void page_reader_release(struct page_reader *r);

#endif
