/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copies of an instant, of disks that are written to all the time meanwhile: the copy is what the disk was,
 * the disk is what was written to it, and whatever happens to the copy does no harm to the disk.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/util.h"
#include "block/aio.h"
#include "block/copy.h"
#include "os/loop.h"
#include "os/sys.h"
#include "support.h"

#define SIZE      (24 * MIB + 512)
#define WRITERS   6
#define WRITE_MAX (256 * KIB)

struct scene;

struct writer {
    struct scene *scene;
    struct block_request req;
    struct iovec iov;
    uint8_t *data;
};

struct scene {
    struct loop *loop;
    struct block *source;
    struct block_copy *copy;
    struct random random;
    uint8_t *now; /* what the disk is, as far as it is known: a writer has its own part of it */
    struct writer writer[WRITERS];
    unsigned in_flight, writes;
    int result;
    bool ended, looping;
    struct loop_timer timer;
};

static void write_on(struct writer *w);

static void wrote(struct block_request *req, int result)
{
    struct writer *w = CONTAINER_OF(req, struct writer, req);
    struct scene *s = w->scene;
    assert_int_equal(result, 0);
    if (req->op == BLOCK_WRITE)
        memcpy(s->now + req->offset, w->data, req->length);
    else
        memset(s->now + req->offset, 0, req->length);
    s->in_flight--;
    if (!s->ended)
        write_on(w);
    else if (!s->in_flight && !s->copy && s->looping)
        loop_stop(s->loop);
}

/* Each in its part of the disk, as requests at once have no order. */
static void write_on(struct writer *w)
{
    struct scene *s = w->scene;
    uint64_t part = SIZE / 512 / WRITERS, first = part * (uint64_t)(w - s->writer);
    uint64_t n = 1 + random_below(&s->random, random_below(&s->random, 4) ? 8 : WRITE_MAX / 512);
    uint64_t at = first + random_below(&s->random, part - n);
    bool zeroes = random_below(&s->random, 5) == 0;
    random_fill(&s->random, w->data, n * 512);
    w->iov = (struct iovec){w->data, n * 512};
    w->req = (struct block_request){.op = zeroes ? BLOCK_WRITE_ZEROES : BLOCK_WRITE,
                                    .may_unmap = true,
                                    .offset = at * 512,
                                    .length = n * 512,
                                    .iov = &w->iov,
                                    .iov_count = 1,
                                    .done = wrote,
                                    .block = s->source};
    s->in_flight++;
    s->writes++;
    block_submit(&w->req);
}

static void copied(void *opaque, int result)
{
    struct scene *s = opaque;
    s->result = result;
    s->ended = true;
    block_copy_free(s->copy);
    s->copy = NULL;
    if (!s->in_flight && s->looping)
        loop_stop(s->loop);
}

static void save_model(const struct scene *s)
{
    FILE *f = fopen("model", "w");
    assert_non_null(f);
    assert_int_equal(fwrite(s->now, 1, SIZE, f), SIZE);
    assert_int_equal(fclose(f), 0);
}

static void scene_begin(struct scene *s, const char *what)
{
    struct error *err = NULL;
    memset(s, 0, sizeof(*s));
    random_init(&s->random, what);
    s->loop = loop_new(NULL, &err);
    s->now = calloc(1, SIZE);
    must_run(
        "rm -f img full part; qemu-img create -q -f qcow2 img %llu; qemu-img create -q -f qcow2 full %llu",
        (unsigned long long)SIZE, (unsigned long long)SIZE);
    s->source = block_open("img", NULL, 0, s->loop, &err);
    if (!s->loop || !s->source)
        fail_msg("%s", error_text(err));
    for (int i = 0; i < WRITERS; i++) {
        s->writer[i] = (struct writer){.scene = s, .data = malloc(WRITE_MAX)};
        for (int k = 0; k < 20; k++) {
            write_on(&s->writer[i]);
            s->ended = true; /* just the one */
            block_drain(s->source);
            s->ended = false;
        }
    }
    s->writes = 0;
}

static void scene_end(struct scene *s)
{
    block_close(s->source);
    save_model(s);
    must_run("qemu-img check img && qemu-img compare -f raw -F qcow2 model img");
    for (int i = 0; i < WRITERS; i++)
        free(s->writer[i].data);
    free(s->now);
    loop_free(s->loop);
}

static void open_copy(struct scene *s, const char *target, const char *bitmap, uint64_t speed)
{
    struct error *err = NULL;
    s->ended = false;
    s->copy = block_copy_open(&(struct block_copy_order){.source = s->source,
                                                         .target = target,
                                                         .bitmap = bitmap,
                                                         .speed = speed,
                                                         .done = copied,
                                                         .opaque = s},
                              &err);
    if (!s->copy)
        fail_msg("%s", error_text(err));
}

static void all_write(struct scene *s)
{
    for (int i = 0; i < WRITERS; i++)
        write_on(&s->writer[i]);
}

/* From the instant on everybody writes until the copy has ended. Gives the number of writes. */
static unsigned copy_meanwhile(struct scene *s)
{
    block_drain(s->source);
    save_model(s);
    s->writes = 0;
    block_copy_begin(s->copy);
    all_write(s);
    s->looping = true;
    loop_run(s->loop);
    s->looping = false;
    return s->writes;
}

static void test_full_and_parts(void **state)
{
    struct scene s;
    (void)state;
    scene_begin(&s, "copy");
    open_copy(&s, "full", NULL, 0);
    assert_true(block_bitmap_add(s.source, "b0", 65536, NULL));
    assert_true(copy_meanwhile(&s) > WRITERS);
    assert_int_equal(s.result, 0);
    must_run("qemu-img check full && qemu-img compare -f raw -F qcow2 model full && cp full last");
    for (int i = 1; i < 4; i++) {
        char name[8], before[8], target[8];
        snprintf(name, sizeof(name), "b%d", i);
        snprintf(before, sizeof(before), "b%d", i - 1);
        snprintf(target, sizeof(target), "part%d", i);
        must_run("rm -f %s; qemu-img create -q -f qcow2 -b %s -F qcow2 %s", target, i == 1 ? "full" : before,
                 target);
        open_copy(&s, target, before, 0);
        assert_true(block_bitmap_add(s.source, name, 65536, NULL));
        copy_meanwhile(&s);
        assert_int_equal(s.result, 0);
        assert_true(block_bitmap_remove(s.source, before, NULL));
        must_run("qemu-img check %s && qemu-img compare -f raw -F qcow2 model %s && ln -f %s b%d", target,
                 target, target, i);
    }
    scene_end(&s);
}

/* Much of it read and not copied: nothing is in the file that was zero. */
static void test_empty_disk(void **state)
{
    struct error *err = NULL;
    struct scene s = {.loop = loop_new(NULL, NULL)};
    struct stat st;
    (void)state;
    must_run("rm -f big copy; qemu-img create -q -f qcow2 big 400G; qemu-img create -q -f qcow2 copy 400G");
    s.source = block_open("big", NULL, 0, s.loop, &err);
    assert_non_null(s.source);
    uint8_t data[4096] = {1};
    assert_int_equal(do_io(s.source, BLOCK_WRITE, 300 * GIB, data, sizeof(data), false), 0);
    open_copy(&s, "copy", NULL, 0);
    block_copy_begin(s.copy);
    s.looping = true;
    loop_run(s.loop);
    assert_int_equal(s.result, 0);
    block_close(s.source);
    loop_free(s.loop);
    assert_int_equal(stat("copy", &st), 0);
    assert_true((uint64_t)st.st_size < MIB);
    must_run("qemu-img compare big copy");
}

/* --- that come to nothing --- */

static void cancel(void *opaque)
{
    struct scene *s = opaque;
    if (s->copy)
        block_copy_cancel(s->copy);
}

static void give_up(void *opaque)
{
    struct scene *s = opaque;
    copied(s, -ECANCELED); /* as if it had said so itself */
}

static void drain_often(void *opaque)
{
    struct scene *s = opaque;
    s->ended = true; /* or those who write would never come to an end */
    block_drain(s->source);
    assert_int_equal(s->in_flight, 0);
    if (!s->copy)
        return;
    s->ended = false;
    all_write(s);
    loop_timer_arm(&s->timer, monotonic_ns() + 3000000);
}

static void faster(void *opaque)
{
    struct scene *s = opaque;
    uint64_t done, total;
    block_copy_progress(s->copy, &done, &total);
    assert_true(total > 0 && done < total);
    block_copy_set_speed(s->copy, 0);
}

static void check_timed(void (*fn)(void *opaque), uint64_t after_ms, uint64_t speed, int result)
{
    struct scene s;
    scene_begin(&s, "copy that is disturbed");
    loop_timer_init(&s.timer, s.loop, fn, &s);
    open_copy(&s, "full", NULL, speed);
    loop_timer_arm(&s.timer, monotonic_ns() + after_ms * 1000000);
    copy_meanwhile(&s);
    loop_timer_cancel(&s.timer);
    assert_int_equal(s.result, result);
    if (result == 0)
        must_run("qemu-img compare -f raw -F qcow2 model full");
    scene_end(&s);
}

static void test_disturbed(void **state)
{
    (void)state;
    check_timed(cancel, 30, 8 * MIB, -ECANCELED);
    check_timed(give_up, 30, 8 * MIB, -ECANCELED);
    check_timed(drain_often, 3, 64 * MIB, 0);
    check_timed(faster, 200, 64 * KIB, 0);
}

static ssize_t (*real_pwritev)(int fd, const struct iovec *iov, int n, off_t off);
static ino_t full_disk; /* that has no room */
static off_t room;

static ssize_t bounded_pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
    struct stat st;
    if (off > room && fstat(fd, &st) == 0 && st.st_ino == full_disk) {
        errno = ENOSPC;
        return -1;
    }
    return real_pwritev(fd, iov, n, off);
}

static void test_no_room(void **state)
{
    struct scene s;
    struct stat st;
    (void)state;
    aio_select(AIO_BACKEND_THREADS);
    real_pwritev = sys.pwritev;
    sys.pwritev = bounded_pwritev;
    scene_begin(&s, "copy without room");
    assert_int_equal(stat("full", &st), 0);
    full_disk = st.st_ino;
    room = 4 * MIB;
    open_copy(&s, "full", NULL, 0);
    copy_meanwhile(&s);
    assert_int_equal(s.result, -ENOSPC);
    scene_end(&s);
    sys.pwritev = real_pwritev;
    aio_select(AIO_BACKEND_AUTO);
}

static void must_not_open(struct scene *s, const char *target, const char *bitmap, const char *part)
{
    struct error *err = NULL;
    struct block_copy_order order = {.source = s->source, .target = target, .bitmap = bitmap};
    assert_null(block_copy_open(&order, &err));
    if (!strstr(error_text(err), part))
        fail_msg("'%s' instead of '%s'", error_text(err), part);
    error_free(err);
}

static void test_refusals(void **state)
{
    struct scene s;
    (void)state;
    scene_begin(&s, "copies that cannot be");
    must_run("rm -f small; qemu-img create -q -f qcow2 small 1M");
    must_not_open(&s, "nothing", NULL, "No such file");
    must_not_open(&s, "small", NULL, "their sizes differ");
    must_not_open(&s, "img", NULL, "in use");
    must_not_open(&s, "full", "b", "there is none of that name");
    open_copy(&s, "full", NULL, MIB);
    block_copy_begin(s.copy);
    must_not_open(&s, "small", NULL, "it is being copied");
    assert_false(block_resize(s.source, MIB, NULL));
    block_copy_free(s.copy);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_and_parts), cmocka_unit_test(test_empty_disk),
        cmocka_unit_test(test_disturbed),      cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
