/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process is killed at any time: a child writes, flushes, and tells through a pipe what it is about to
 * write and what was flushed, until SIGKILL. Then qemu-img must find the image sound, without repair, and
 * every acknowledged write must be there; what the last change had taken for itself may be lost as space,
 * which opening the image makes good. Each sector says which write it is from, so that torn and misplaced
 * data show.
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

enum { ROUNDS = 20, SECTOR = 512, DEPTH = 8, LONGEST = 160 };
static const uint64_t disk_size = 64 * MIB;
/* Writes go to the first part, discards and zeroes to the rest, whose content is not looked at. */
static const uint64_t written_part = 48 * MIB;

/* What the child tells. `id` 0: everything told so far, up to write number `sector`, is flushed. */
struct note {
    uint64_t id, sector, count;
};

static uint8_t fill_byte(uint64_t id, uint64_t sector)
{
    return (uint8_t)(id * 31 + sector * 7 + 1);
}

static void fill_sector(uint8_t *buf, uint64_t id, uint64_t sector)
{
    memset(buf, fill_byte(id, sector), SECTOR);
    store_le64(buf, id);
    store_le64(buf + 8, sector);
}

static void tell(int fd, uint64_t id, uint64_t sector, uint64_t count)
{
    struct note n = {id, sector, count};
    if (write(fd, &n, sizeof(n)) != sizeof(n))
        _exit(2);
}

static void write_done(struct block_request *req, int result)
{
    if (result != 0)
        _exit(3);
    *(int *)req->opaque = 0;
}

struct writer {
    struct block_request req;
    struct iovec iov;
    int busy;
    uint8_t buf[LONGEST * SECTOR];
};

static void start_write(struct writer *w, struct block *b, struct random *random, uint64_t id, unsigned lane,
                        int fd)
{
    /* Each lane has its own part, so that no two writes in flight overlap. */
    uint64_t lane_sectors = written_part / SECTOR / DEPTH;
    uint64_t count = random_below(random, 4) ? 8 : random_below(random, LONGEST) + 1;
    uint64_t sector = lane * lane_sectors + random_below(random, lane_sectors - count);
    for (uint64_t i = 0; i < count; i++)
        fill_sector(w->buf + i * SECTOR, id, sector + i);
    w->iov = (struct iovec){w->buf, count * SECTOR};
    w->busy = 1;
    w->req = (struct block_request){.op = BLOCK_WRITE,
                                    .offset = sector * SECTOR,
                                    .length = count * SECTOR,
                                    .iov = &w->iov,
                                    .iov_count = 1,
                                    .done = write_done,
                                    .opaque = &w->busy,
                                    .block = b};
    tell(fd, id, sector, count);
    block_submit(&w->req);
}

static void start_trim(struct writer *w, struct block *b, struct random *random)
{
    uint64_t offset = written_part + random_below(random, (disk_size - written_part) / SECTOR / 2) * SECTOR;
    w->busy = 1;
    w->req = (struct block_request){.op = random_below(random, 2) ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES,
                                    .offset = offset,
                                    .length = (random_below(random, 1024) + 1) * SECTOR,
                                    .may_unmap = true,
                                    .done = write_done,
                                    .opaque = &w->busy,
                                    .block = b};
    block_submit(&w->req);
}

static _Noreturn void child(int fd, uint64_t seed)
{
    static struct writer lane[DEPTH], trim;
    struct random random = {.state = seed};
    struct block *b = must_open("img", "qcow2", 0);
    for (uint64_t id = 1;;) {
        for (unsigned i = 0; i < DEPTH; i++)
            start_write(&lane[i], b, &random, id++, i, fd);
        if (random_below(&random, 4) == 0)
            start_trim(&trim, b, &random);
        block_drain(b);
        if (do_io(b, BLOCK_FLUSH, 0, NULL, 0, false) != 0)
            _exit(4);
        tell(fd, 0, id - 1, 0);
    }
}

/* Per sector: the last write that was acknowledged, and the last that was begun. */
struct expectation {
    uint64_t *acknowledged, *begun;
};

static uint64_t collect(int fd, struct expectation *e)
{
    struct note n;
    uint64_t flushed = 0;
    while (read(fd, &n, sizeof(n)) == sizeof(n)) {
        if (n.id == 0) {
            flushed = n.sector;
            continue;
        }
        for (uint64_t i = n.sector; i < n.sector + n.count; i++) {
            /* The one before was begun in an earlier round; all of those are flushed by now. */
            e->acknowledged[i] = e->begun[i];
            e->begun[i] = n.id;
        }
    }
    for (uint64_t i = 0; i < written_part / SECTOR; i++)
        if (e->begun[i] <= flushed)
            e->acknowledged[i] = e->begun[i];
    return flushed;
}

/* `base` is the content before the first write: the number that all sectors of a backing file carry, or 0 for
 * none. */
static void verify(const struct expectation *e, uint64_t base)
{
    struct block *b = must_open("img", "qcow2", BLOCK_READONLY);
    uint8_t *got = malloc(MIB), want[SECTOR];
    for (uint64_t at = 0; at < written_part; at += MIB) {
        assert_int_equal(do_io(b, BLOCK_READ, at, got, MIB, false), 0);
        for (uint64_t i = 0; i < MIB / SECTOR; i++) {
            uint64_t sector = at / SECTOR + i, id = load_le64(got + i * SECTOR);
            uint64_t acknowledged = e->acknowledged[sector] ? e->acknowledged[sector] : base;
            if (id != acknowledged && id != e->begun[sector])
                fail_msg("sector %llu holds write %llu; acknowledged %llu, begun %llu",
                         (unsigned long long)sector, (unsigned long long)id, (unsigned long long)acknowledged,
                         (unsigned long long)e->begun[sector]);
            if (id)
                fill_sector(want, id, sector);
            else
                memset(want, 0, sizeof(want));
            assert_memory_equal(got + i * SECTOR, want, SECTOR);
        }
    }
    free(got);
    block_close(b);
}

static void make_base(uint64_t id)
{
    FILE *f = fopen("base", "w");
    uint8_t sector[SECTOR];
    assert_non_null(f);
    for (uint64_t i = 0; i < disk_size / SECTOR; i++) {
        fill_sector(sector, id, i);
        assert_int_equal(fwrite(sector, SECTOR, 1, f), 1);
    }
    assert_int_equal(fclose(f), 0);
}

/* qemu-img check ends with 3 when all that is wrong is clusters that are counted and not used. */
static void must_be_sound(bool leaks_allowed)
{
    int status = run("qemu-img check img");
    if (status != 3 || !leaks_allowed)
        must_run("qemu-img check img");
}

/* The kernel may let go of the files of a killed process's ring a moment after its end, and of the lock with
 * them. */
static void wait_unlocked(void)
{
    cleanup(fd) int fd = open("img", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    for (unsigned tries = 0; tries < 1000; tries++) {
        struct flock lock = {.l_type = F_WRLCK};
        assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
        if (lock.l_type == F_UNLCK)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    fail_msg("the image stays locked");
}

/* `heals`: the image has a dirty bit, so that its clusters are recounted. */
static uint64_t kill_once(struct random *random, const char *create, uint64_t base, bool heals)
{
    uint64_t sectors = written_part / SECTOR;
    struct expectation e = {calloc(sectors, 8), calloc(sectors, 8)};
    int fds[2], status;
    must_run("rm -f img && qemu-img create -f qcow2 %s", create);
    assert_int_equal(pipe(fds), 0);
    uint64_t seed = random_below(random, UINT32_MAX) + 1, wait_ns = random_below(random, 250000000);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        child(fds[1], seed);
    }
    close(fds[1]);
    /* The pipe must not fill up while we wait: a thread of its own would do, another process does too. */
    pid_t killer = fork();
    assert_true(killer >= 0);
    if (killer == 0) {
        nanosleep(&(struct timespec){.tv_nsec = (long)wait_ns}, NULL);
        kill(pid, SIGKILL);
        _exit(0);
    }
    uint64_t flushed = collect(fds[0], &e);
    close(fds[0]);
    assert_int_equal(waitpid(killer, &status, 0), killer);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    wait_unlocked();
    must_be_sound(true);
    verify(&e, base);
    /* And it goes on: what a kill left behind is taken in and put right. */
    struct block *b = must_open("img", "qcow2", 0);
    block_close(b);
    must_be_sound(!heals);
    verify(&e, base);
    free(e.acknowledged);
    free(e.begun);
    return flushed;
}

static void killed(void **state)
{
    (void)state;
    static const struct {
        const char *create;
        uint64_t base;
        bool heals;
    } images[] = {
        {"img 64M", 0, true},
        {"-o cluster_size=4096 img 64M", 0, true},
        {"-b base -F raw img", 1ull << 60, true},
        {"-o lazy_refcounts=on img 64M", 0, true},
        {"-o compat=0.10 img 64M", 0, false},
    };
    struct random random;
    random_init(&random, "qcow2_kill");
    make_base(images[2].base);
    uint64_t flushed = 0;
    for (size_t i = 0; i < ROUNDS; i++) {
        size_t k = i % ARRAY_SIZE(images);
        flushed += kill_once(&random, images[k].create, images[k].base, images[k].heals);
    }
    /* Else nothing was tested. */
    assert_true(flushed > 0);
    fprintf(stderr, "%llu writes were acknowledged\n", (unsigned long long)flushed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(killed)};
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
