/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Greeting, giving up, and what kinds of frames there are: see migrate_stream.h. */
#include "vmm/migrate_stream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/util.h"

#define WORD       "RUCHE-MIGRATION" /* with its NUL 16 bytes */
#define HELLO_SIZE (sizeof(WORD) + 4 + MIGRATE_SESSION)
#define REASON_MAX 1024u

uint32_t migrate_limit(uint32_t kind)
{
    switch (kind) {
    case MIGRATE_HELLO:
        return 4 * KIB; /* later versions may say more */
    case MIGRATE_DESCRIPTION:
    case MIGRATE_OBJECTS:
        return 4 * MIB;
    case MIGRATE_PAGES:
        return 2 * MIB;
    case MIGRATE_STATE:
        return 64 * MIB;
    case MIGRATE_ACCEPT:
    case MIGRATE_READY:
    case MIGRATE_GO:
    case MIGRATE_RUNNING:
        return 1;
    case MIGRATE_FAILED:
        return REASON_MAX;
    default:
        return 0;
    }
}

static bool say_hello(struct frame_stream *s, const uint8_t session[MIGRATE_SESSION], struct error **err)
{
    uint8_t hello[HELLO_SIZE] = WORD;

    store_le32(hello + sizeof(WORD), MIGRATE_VERSION);
    memcpy(hello + sizeof(WORD) + 4, session, MIGRATE_SESSION);
    return frame_send_bytes(s, MIGRATE_HELLO, hello, sizeof(hello), err);
}

static bool hear_hello(struct frame_stream *s, uint8_t session[MIGRATE_SESSION], struct error **err)
{
    struct frame f;

    if (!migrate_receive(s, MIGRATE_HELLO, &f, err))
        return false;
    if (f.length < HELLO_SIZE || memcmp(f.data, WORD, sizeof(WORD)) != 0)
        return error_set(err, EBADMSG, "%s speaks another language", s->peer), false;
    uint32_t version = load_le32(f.data + sizeof(WORD));
    if (version != MIGRATE_VERSION)
        return error_set(err, ENOTSUP, "%s speaks version %u of the migration stream, this Ruche version %u",
                         s->peer, version, MIGRATE_VERSION),
               false;
    memcpy(session, f.data + sizeof(WORD) + 4, MIGRATE_SESSION);
    return true;
}

/* From now on a frame of another migration has the wrong checksum. */
static void begin_session(struct frame_stream *s, const uint8_t session[MIGRATE_SESSION])
{
    s->seed = crc32c(0, session, MIGRATE_SESSION);
}

bool migrate_hello(struct frame_stream *s, const uint8_t session[MIGRATE_SESSION], struct error **err)
{
    uint8_t theirs[MIGRATE_SESSION];

    if (!say_hello(s, session, err) || !hear_hello(s, theirs, err))
        return false;
    if (memcmp(session, theirs, sizeof(theirs)) != 0)
        return error_set(err, EBADMSG, "%s answered another migration", s->peer), false;
    begin_session(s, session);
    return true;
}

bool migrate_answer_hello(struct frame_stream *s, uint8_t session[MIGRATE_SESSION], struct error **err)
{
    if (!hear_hello(s, session, err) || !say_hello(s, session, err))
        return false;
    begin_session(s, session);
    return true;
}

/* What the peer says of why ends up in logs and on terminals. */
static void take_reason(const struct frame *f, char text[REASON_MAX + 1])
{
    for (uint32_t i = 0; i < f->length; i++)
        text[i] = (char)(f->data[i] < ' ' || f->data[i] > '~' ? '?' : f->data[i]);
    text[f->length] = 0;
}

bool migrate_expect(const struct frame_stream *s, enum migrate_kind kind, const struct frame *f,
                    struct error **err)
{
    char reason[REASON_MAX + 1];

    if (f->kind == MIGRATE_FAILED) {
        take_reason(f, reason);
        return error_set(err, EREMOTEIO, "%s: %s", s->peer, reason), false;
    }
    bool flag = kind == MIGRATE_ACCEPT || kind == MIGRATE_STATE;
    if (f->kind == kind && (!flag || f->length > 0))
        return true;
    error_set(err, EPROTO, "%s sent a frame of kind %u and %u bytes out of turn", s->peer, f->kind,
              f->length);
    return false;
}

bool migrate_receive(struct frame_stream *s, enum migrate_kind kind, struct frame *f, struct error **err)
{
    return frame_receive(s, f, err) && migrate_expect(s, kind, f, err);
}

void migrate_hear_reason(struct frame_stream *s, struct error **err)
{
    struct error *reason = NULL;
    struct frame f;

    if (((*err)->code != EPIPE && (*err)->code != ECONNRESET) || !frame_waits(s) ||
        !frame_receive(s, &f, NULL) || f.kind != MIGRATE_FAILED)
        return;
    migrate_expect(s, MIGRATE_FAILED, &f, &reason);
    error_free(*err);
    *err = reason;
}

void migrate_fail(struct frame_stream *s, const struct error *why)
{
    const char *text = error_text(why);

    frame_send_bytes(s, MIGRATE_FAILED, text, MIN(strlen(text), REASON_MAX), NULL);
}
