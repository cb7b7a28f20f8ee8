/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The migration stream: what is sent arrives; a bit that flips anywhere, a cut anywhere, frames of another
 * stream and out of turn are found and named; the claim has one holder.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/util.h"
#include "vmm/board.h"
#include "vmm/migrate_claim.h"
#include "vmm/migrate_stream.h"

#define MEMORY (4 * MIB)

static const uint8_t session[MIGRATE_SESSION] = "a session's name";
static unsigned seed;

static void fill(struct guest_memory *mem)
{
    uint8_t *p = mem->region[0].host;

    for (size_t page = 0; page < MEMORY / GUEST_PAGE_SIZE; page += 3)
        for (size_t i = 0; i < GUEST_PAGE_SIZE; i++)
            p[page * GUEST_PAGE_SIZE + i] = (uint8_t)(page % 2 ? page * 31 + i / 64 : (size_t)rand_r(&seed));
}

static struct frame_stream make_stream(int fd, const char *peer)
{
    return (struct frame_stream){
        .fd = fd, .stop_fd = -1, .timeout_ms = 5000, .peer = peer, .limit = migrate_limit};
}

static void make_pair(int fd[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
}

/* What a source says, but for its hello. */
static bool say_all(struct frame_stream *s, const struct guest_memory *mem, bool compress, struct error **err)
{
    static const uint8_t state[100] = {1, 2, 3};
    struct page_writer w;

    assert_true(page_writer_init(&w, s, mem, NULL));
    bool ok = frame_send_bytes(s, MIGRATE_DESCRIPTION, "{}", 2, err) &&
              frame_send_bytes(s, MIGRATE_OBJECTS, "[]", 2, err);
    for (size_t page = 0; ok && page < MEMORY / GUEST_PAGE_SIZE; page++)
        ok = page_writer_add(&w, 0, page, page % 5 == 0, compress, err);
    ok = ok && page_writer_flush(&w, compress, err) &&
         frame_send_bytes(s, MIGRATE_STATE, state, sizeof(state), err) &&
         frame_send_bytes(s, MIGRATE_GO, NULL, 0, err);
    page_writer_release(&w);
    return ok;
}

static bool hear_all(struct frame_stream *s, struct guest_memory *mem, struct error **err)
{
    struct page_reader pages = {0};
    struct frame f;

    bool ok =
        migrate_receive(s, MIGRATE_DESCRIPTION, &f, err) && migrate_receive(s, MIGRATE_OBJECTS, &f, err);
    while (ok && (ok = frame_receive(s, &f, err)) && f.kind == MIGRATE_PAGES)
        ok = page_reader_apply(&pages, mem, f.data, f.length, err);
    ok = ok && migrate_expect(s, MIGRATE_STATE, &f, err) && migrate_receive(s, MIGRATE_GO, &f, err);
    page_reader_release(&pages);
    return ok;
}

struct destination {
    struct frame_stream stream;
    struct guest_memory *mem;
    struct error *err;
    bool ok;
};

static void *destination_main(void *opaque)
{
    struct destination *d = opaque;
    uint8_t theirs[MIGRATE_SESSION];

    d->ok = migrate_answer_hello(&d->stream, theirs, &d->err) && hear_all(&d->stream, d->mem, &d->err) &&
            !memcmp(theirs, session, sizeof(session));
    return NULL;
}

static void move_whole(bool compress, size_t least, size_t most)
{
    int fd[2];
    pthread_t thread;
    struct error *err = NULL;
    struct guest_memory *from = guest_memory_new(MEMORY, NULL), *to = guest_memory_new(MEMORY, NULL);

    make_pair(fd);
    fill(from);
    memset(to->region[0].host + 5 * GUEST_PAGE_SIZE, 7, GUEST_PAGE_SIZE); /* is zeroed by a known page */
    struct destination d = {.stream = make_stream(fd[1], "the source"), .mem = to};
    struct frame_stream s = make_stream(fd[0], "the destination");
    assert_int_equal(pthread_create(&thread, NULL, destination_main, &d), 0);
    if (!migrate_hello(&s, session, &err) || !say_all(&s, from, compress, &err))
        fail_msg("%s", error_text(err));
    pthread_join(thread, NULL);
    if (!d.ok)
        fail_msg("%s", error_text(d.err));
    for (size_t page = 0; page < MEMORY / GUEST_PAGE_SIZE; page++)
        assert_memory_equal(from->region[0].host + page * GUEST_PAGE_SIZE,
                            to->region[0].host + page * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
    assert_in_range(s.bytes_sent, least, most);
    frame_stream_release(&s);
    frame_stream_release(&d.stream);
    guest_memory_free(from);
    guest_memory_free(to);
    close(fd[0]);
    close(fd[1]);
}

static void what_is_sent_arrives(void **state)
{
    /* A third of the pages hold something, of which half can be packed. */
    move_whole(false, MEMORY / 4, MEMORY / 2);
    move_whole(true, MEMORY / 8, MEMORY / 4);
}

/* A small stream as it goes over the line after the greeting; it fits a socket's buffer. */
static size_t record(uint8_t *to, size_t room, const uint8_t *name)
{
    static const uint8_t state[100] = {1, 2, 3};
    struct guest_memory *mem = guest_memory_new(MIB, NULL);
    struct page_writer w;
    int fd[2];

    make_pair(fd);
    struct frame_stream s = make_stream(fd[0], "the destination");
    s.seed = crc32c(0, name, MIGRATE_SESSION);
    memset(mem->region[0].host + GUEST_PAGE_SIZE, 9, 5 * GUEST_PAGE_SIZE);
    assert_true(page_writer_init(&w, &s, mem, NULL));
    assert_true(frame_send_bytes(&s, MIGRATE_DESCRIPTION, "{}", 2, NULL));
    assert_true(frame_send_bytes(&s, MIGRATE_OBJECTS, "[]", 2, NULL));
    for (size_t page = 0; page < 10; page++)
        assert_true(page_writer_add(&w, 0, page, page > 6, false, NULL));
    assert_true(page_writer_flush(&w, false, NULL));
    assert_true(frame_send_bytes(&s, MIGRATE_STATE, state, sizeof(state), NULL));
    assert_true(frame_send_bytes(&s, MIGRATE_GO, NULL, 0, NULL));
    page_writer_release(&w);
    frame_stream_release(&s);
    close(fd[0]);
    ssize_t len = recv(fd[1], to, room, MSG_WAITALL);
    assert_in_range(len, 5 * GUEST_PAGE_SIZE, room - 1);
    close(fd[1]);
    guest_memory_free(mem);
    return (size_t)len;
}

/* What a destination makes of these bytes: NULL, or why it refuses. */
static struct error *hear_bytes(const uint8_t *bytes, size_t len)
{
    struct guest_memory *mem = guest_memory_new(MIB, NULL);
    struct error *err = NULL;
    int fd[2];

    make_pair(fd);
    assert_int_equal(send(fd[0], bytes, len, 0), len);
    close(fd[0]);
    struct frame_stream s = make_stream(fd[1], "the source");
    s.seed = crc32c(0, session, sizeof(session));
    bool ok = hear_all(&s, mem, &err);
    assert_int_equal(ok, !err);
    frame_stream_release(&s);
    close(fd[1]);
    guest_memory_free(mem);
    return err;
}

static void must_refuse(const uint8_t *bytes, size_t len, size_t at, int code, const char *text)
{
    struct error *err = hear_bytes(bytes, len);

    if (!err || err->code != code || !strstr(err->text, text))
        fail_msg("at %zu: '%s' instead of '%s'", at, err ? err->text : "it is taken", text);
    error_free(err);
}

static uint8_t stream[64 * KIB];

static void every_flip_is_found(void **state)
{
    size_t len = record(stream, sizeof(stream), session);

    assert_null(hear_bytes(stream, len));
    for (size_t at = 0; at < len; at += 1 + (at > 200 ? (size_t)rand_r(&seed) % 5 : 0)) {
        uint8_t bit = (uint8_t)(1u << rand_r(&seed) % 8);
        stream[at] ^= bit;
        /* The very first word says what kind of stream this is. */
        must_refuse(stream, len, at, EBADMSG,
                    at < 4 ? "the source speaks another language" : "what the source sent is damaged");
        stream[at] ^= bit;
    }
}

static void every_cut_is_found(void **state)
{
    size_t len = record(stream, sizeof(stream), session);

    for (size_t at = 0; at < len; at += 1 + (size_t)rand_r(&seed) % 64)
        must_refuse(stream, at, at, ECONNRESET, "the source has closed the connection");
}

static void other_streams_are_found(void **state)
{
    static uint8_t other[sizeof(stream)];
    size_t len = record(stream, sizeof(stream), session);
    const size_t first = FRAME_HEADER + 2;

    must_refuse(other, record(other, sizeof(other), (const uint8_t *)"another session "), 0, EBADMSG,
                "damaged");
    /* Left out, and twice. */
    must_refuse(stream + first, len - first, 0, EBADMSG, "the number of frame 0");
    memcpy(other, stream, first);
    memcpy(other + first, stream, len);
    must_refuse(other, len + first, 0, EBADMSG, "the number of frame 1");
}

/* A frame that is whole, but not what is due. */
static void must_not_follow(uint32_t kind, const void *data, size_t len, int code, const char *text)
{
    struct error *err = NULL;
    int fd[2];

    make_pair(fd);
    struct frame_stream from = make_stream(fd[0], "the destination"), to = make_stream(fd[1], "the source");
    struct guest_memory *mem = guest_memory_new(MIB, NULL);
    assert_true(frame_send_bytes(&from, MIGRATE_DESCRIPTION, "{}", 2, NULL));
    assert_true(frame_send_bytes(&from, MIGRATE_OBJECTS, "[]", 2, NULL));
    assert_true(frame_send_bytes(&from, kind, data, len, NULL));
    assert_false(hear_all(&to, mem, &err));
    if (err->code != code || !strstr(err->text, text))
        fail_msg("'%s' instead of '%s'", err->text, text);
    error_free(err);
    frame_stream_release(&from);
    frame_stream_release(&to);
    guest_memory_free(mem);
    close(fd[0]);
    close(fd[1]);
}

static void pages_are_checked(void **state)
{
    static const struct {
        uint32_t word[6]; /* region, count, length, flags, pages */
        size_t len;
        const char *text;
    } table[] = {
        {{0, 0, 0, 0}, 12, "its head"},
        {{1, 0, 0, 0}, 16, "its head"},
        {{0, 257, 0, 0}, 16, "its head"},
        {{0, 3, 0, 0, 0, 0}, 24, "its head"},
        {{0, 0, 1, 0}, 17, "its head"},
        {{0, 0, 0, 2}, 16, "its head"},
        {{0, 1, 0, 0, 256}, 20, "there is no such page"},
        {{0, 1, 0, 0, 256 | 1u << 31}, 20, "there is no such page"},
        {{0, 1, 0, 0, 5}, 20, "pages are missing"},
        {{0, 0, 4096, 0}, 16, "its length"},
        {{0, 1, 4096, 1, 5}, 24, "what is packed in it"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        must_not_follow(MIGRATE_PAGES, table[i].word, table[i].len, EBADMSG, table[i].text);
}

static void turns_are_checked(void **state)
{
    must_not_follow(MIGRATE_READY, NULL, 0, EPROTO, "out of turn");
    must_not_follow(MIGRATE_STATE, NULL, 0, EPROTO, "out of turn");
    must_not_follow(MIGRATE_FAILED, "no\nway", 6, EREMOTEIO, "the source: no?way");
}

/* Frames that frame_send itself would not make. */
static void limits_are_kept(void **state)
{
    struct error *err = NULL;
    uint8_t big[5000] = {0};
    struct frame f;
    int fd[2];

    make_pair(fd);
    struct frame_stream s = make_stream(fd[0], "the destination"), other = make_stream(fd[1], "the source");
    assert_false(frame_send_bytes(&s, 99, big, 1, &err));
    assert_int_equal(err->code, EFBIG);
    error_free(err);
    err = NULL;
    assert_false(frame_send_bytes(&s, MIGRATE_HELLO, big, sizeof(big), NULL));
    assert_true(frame_send_bytes(&s, MIGRATE_HELLO, big, 50, NULL));
    assert_false(migrate_answer_hello(&other, big, &err));
    assert_non_null(strstr(error_text(err), "speaks another language"));
    error_free(err);
    err = NULL;
    frame_stream_release(&other);
    other = make_stream(fd[1], "the source");
    s.sent = 0;
    memcpy(big, "RUCHE-MIGRATION\0\2", 17);
    assert_true(frame_send_bytes(&s, MIGRATE_HELLO, big, 50, NULL));
    assert_false(migrate_answer_hello(&other, big, &err));
    assert_non_null(
        strstr(error_text(err), "speaks version 2 of the migration stream, this Ruche version 1"));
    error_free(err);
    err = NULL;
    other.timeout_ms = 30;
    assert_false(frame_receive(&other, &f, &err));
    assert_int_equal(err->code, ETIMEDOUT);
    error_free(err);
    err = NULL;
    other.stop_fd = eventfd(1, EFD_CLOEXEC);
    assert_false(frame_receive(&other, &f, &err));
    assert_int_equal(err->code, ECANCELED);
    error_free(err);
    close(other.stop_fd);
    frame_stream_release(&s);
    frame_stream_release(&other);
    close(fd[0]);
    close(fd[1]);
}

static void the_claim_has_one_holder(void **state)
{
    static const struct machine_config config;
    static struct board board = {.config = &config};
    struct migrate_claim source, there;
    struct error *err = NULL;

    assert_true(migrate_claim_begin(&source, NULL));
    there = source;
    migrate_claim_look(&there);
    assert_true(there.shared);
    source.shared = true;
    assert_true(migrate_claim_is_decisive(&there, &board));
    assert_false(migrate_claim_take(&there, &board, &err));
    error_free(err);
    assert_true(migrate_claim_let_go(&source, &board, NULL));
    assert_true(migrate_claim_take(&there, &board, NULL));
    assert_false(migrate_claim_take(&source, &board, NULL));
    migrate_claim_settle(&there, false); /* as when it is killed */
    assert_true(migrate_claim_take(&source, &board, NULL));
    migrate_claim_settle(&source, false);
    /* A name that nobody has tells nothing, as on another host. */
    migrate_claim_look(&there);
    assert_false(there.shared);
    assert_false(migrate_claim_is_decisive(&there, &board));
}

int main(void)
{
    const char *given = getenv("RUCHE_TEST_SEED");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sent_arrives), cmocka_unit_test(every_flip_is_found),
        cmocka_unit_test(every_cut_is_found),   cmocka_unit_test(other_streams_are_found),
        cmocka_unit_test(pages_are_checked),    cmocka_unit_test(turns_are_checked),
        cmocka_unit_test(limits_are_kept),      cmocka_unit_test(the_claim_has_one_holder),
    };

    seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
    printf("seed %u\n", seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
