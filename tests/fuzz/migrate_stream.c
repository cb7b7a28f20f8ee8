/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzing of the migration stream: the input's first byte says whether the rest is what goes over the line,
 * or frames whose checksums are made right (a byte for the kind, two for the length, the contents), so that
 * what these protect is reached. Whatever is in it, it is taken or refused.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "core/engine.h"
#include "vmm/board.h"
#include "vmm/migrate_objects.h"
#include "vmm/migrate_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const struct engine_ops *const engines[] = {NULL};

static struct frame_stream make_stream(int fd)
{
    return (struct frame_stream){
        .fd = fd, .stop_fd = -1, .timeout_ms = 0, .peer = "the source", .limit = migrate_limit};
}

/* What a destination does with each kind of frame. */
static void take(const struct frame_stream *s, const struct frame *f, struct page_reader *pages,
                 const struct guest_memory *mem)
{
    static const struct machine_config config;
    static struct board board = {.config = &config};
    struct error *err = NULL;
    bool ok = true;

    board.m.cpu_count = 1;
    if (f->kind == MIGRATE_PAGES)
        ok = page_reader_apply(pages, mem, f->data, f->length, &err);
    else if (f->kind == MIGRATE_OBJECTS)
        ok = migrate_objects_fit(&board, (const char *)f->data, f->length, &err);
    else
        ok = migrate_expect(s, MIGRATE_STATE, f, &err);
    if (ok != !err)
        abort();
    error_free(err);
}

static void hear(int fd)
{
    struct frame_stream s = make_stream(fd);
    struct guest_memory *mem = guest_memory_new(MIB, NULL);
    struct page_reader pages = {0};
    struct error *err = NULL;
    struct frame f;

    while (mem && frame_receive(&s, &f, &err))
        take(&s, &f, &pages, mem);
    if (mem && !err)
        abort();
    error_free(err);
    page_reader_release(&pages);
    frame_stream_release(&s);
    guest_memory_free(mem);
}

static void say_frames(int fd, const uint8_t *data, size_t size)
{
    struct frame_stream s = make_stream(fd);

    while (size >= 3) {
        size_t len = MIN((size_t)load_le16(data + 1), size - 3);
        if (!frame_send_bytes(&s, data[0], data + 3, len, NULL))
            return;
        data += 3 + len;
        size -= 3 + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd[2];

    if (!size || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) < 0)
        return 0;
    if (data[0] & 1)
        say_frames(fd[0], data + 1, size - 1);
    else if (size > 1 && send(fd[0], data + 1, size - 1, MSG_NOSIGNAL) < 0)
        size = 0; /* more than the socket takes */
    close(fd[0]);
    if (size)
        hear(fd[1]);
    close(fd[1]);
    return 0;
}
