/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Byte streams: sockets that come and go, files, pipes; output that nobody takes; input that has no room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "os/chardev.h"
#include "os/loop.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct loop *loop;
static char dir[] = "/tmp/ruche-chardev-XXXXXX";
static char path[sizeof(dir) + 16], spec[sizeof(path) + 8];

struct front {
    size_t room;
    uint8_t got[1 << 16];
    size_t len;
    int connects, disconnects;
};

static size_t can_receive(void *opaque)
{
    return ((struct front *)opaque)->room;
}

static void receive(void *opaque, const uint8_t *data, size_t len)
{
    struct front *f = opaque;
    assert_true(len > 0 && len <= f->room && f->len + len <= sizeof(f->got));
    memcpy(f->got + f->len, data, len);
    f->len += len;
    f->room -= len;
}

static void connected(void *opaque, bool yes)
{
    struct front *f = opaque;
    f->connects += yes;
    f->disconnects += !yes;
}

static int setup(void **state)
{
    loop = loop_new(&lock, NULL);
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    loop_free(loop);
    return 0;
}

static void stop(void *opaque)
{
    loop_stop(loop);
}

static void run_for(unsigned ms)
{
    struct loop_timer t;
    loop_timer_init(&t, loop, stop, NULL);
    loop_timer_arm(&t, monotonic_ns() + ms * 1000000ull);
    loop_run(loop);
}

static struct chardev *open_ok(const char *what)
{
    struct error *err = NULL;
    struct chardev *c = chardev_open(what, loop, &err);
    if (!c)
        fail_msg("%s", error_text(err));
    assert_string_equal(chardev_spec(c), what);
    return c;
}

static void attach(struct chardev *c, struct front *f)
{
    struct chardev_client client = {f, can_receive, receive, connected};
    chardev_attach(c, &client);
}

static void write_text(struct chardev *c, const char *text)
{
    chardev_write(c, (const uint8_t *)text, strlen(text));
}

static const char *unix_spec(const char *name)
{
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    snprintf(spec, sizeof(spec), "unix:%s", path);
    return spec;
}

static int dial(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static void expect_read(int fd, const char *text)
{
    char buf[64] = "";
    run_for(3);
    assert_int_equal(recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT), strlen(text));
    assert_string_equal(buf, text);
}

static void test_none(void **state)
{
    struct chardev *c = open_ok("none");
    struct front f = {.room = 10};
    attach(c, &f);
    assert_int_equal(f.connects, 0);
    write_text(c, "lost");
    chardev_accept_input(c);
    run_for(2);
    chardev_close(c);
}

static void test_bad_specs(void **state)
{
    static const char *const bad[] = {
        "",       "disk", "fd:", "fd:x", "fd:999", "unix:", "file:/nowhere/x", "file:", "unix:/nowhere/x",
        "stdio:", "fd:-1"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error *err = NULL;
        assert_null(chardev_open(bad[i], loop, &err));
        assert_non_null(err);
        error_free(err);
    }
    char longer[300] = "unix:/";
    memset(longer + 6, 'x', sizeof(longer) - 7);
    assert_null(chardev_open(longer, loop, NULL));
}

static void test_file(void **state)
{
    char text[16] = "";
    snprintf(path, sizeof(path), "%s/out", dir);
    snprintf(spec, sizeof(spec), "file:%s", path);
    struct chardev *c = open_ok(spec);
    struct front f = {0};
    attach(c, &f);
    write_text(c, "hello");
    chardev_close(c);
    int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, text, sizeof(text)), 5);
    assert_string_equal(text, "hello");
    close(fd);
    unlink(path);
}

static void test_socket_both_ways(void **state)
{
    struct chardev *c = open_ok(unix_spec("both"));
    struct front f = {.room = 100};
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    attach(c, &f);
    write_text(c, "nobody hears");
    int peer = dial();
    run_for(3);
    assert_int_equal(f.connects, 1);
    write_text(c, "hello");
    expect_read(peer, "hello");
    assert_int_equal(send(peer, "abc", 3, 0), 3);
    run_for(3);
    assert_int_equal(f.len, 3);

    int second = dial(); /* turned away */
    run_for(3);
    char byte;
    assert_int_equal(recv(second, &byte, 1, MSG_DONTWAIT), 0);
    close(second);

    close(peer);
    run_for(3);
    assert_int_equal(f.disconnects, 1);
    peer = dial();
    run_for(3);
    assert_int_equal(f.connects, 2);
    write_text(c, "again");
    expect_read(peer, "again");
    chardev_close(c);
    assert_int_equal(access(path, F_OK), -1);
    close(peer);
}

/* Single bytes wait for more for a moment; many, and whole texts, go out at once. */
static void test_gathers_output(void **state)
{
    static uint8_t block[5000];
    int fd[2];
    char byte;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    snprintf(spec, sizeof(spec), "fd:%d", fd[0]);
    struct chardev *c = open_ok(spec);
    write_text(c, "a");
    write_text(c, "b");
    assert_int_equal(recv(fd[1], &byte, 1, MSG_DONTWAIT), -1);
    expect_read(fd[1], "ab");
    for (size_t i = 0; i < sizeof(block); i++)
        chardev_write(c, &block[i], 1);
    assert_int_equal(recv(fd[1], block, sizeof(block), MSG_DONTWAIT), 4096);
    chardev_write(c, block, 2); /* takes along what waits */
    assert_int_equal(recv(fd[1], block, sizeof(block), MSG_DONTWAIT), sizeof(block) - 4096 + 2);
    write_text(c, "!");
    chardev_close(c);
    assert_int_equal(recv(fd[1], &byte, 1, MSG_DONTWAIT), 1);
    assert_int_equal(byte, '!');
    close(fd[1]);
}

/* A front end without room is not given anything, and gets everything later. */
static void test_input_waits_for_room(void **state)
{
    struct chardev *c = open_ok(unix_spec("room"));
    struct front f = {.room = 2};
    attach(c, &f);
    int peer = dial();
    assert_int_equal(send(peer, "abcdef", 6, 0), 6);
    run_for(3);
    assert_memory_equal(f.got, "ab", 2);
    assert_int_equal(f.len, 2);
    f.room = 4;
    chardev_accept_input(c);
    run_for(3);
    assert_int_equal(f.len, 6);
    /* No room: the peer's end is not seen, but a new peer takes its place. */
    f.room = 0;
    chardev_accept_input(c);
    close(peer);
    run_for(3);
    peer = dial();
    run_for(3);
    assert_int_equal(f.connects, 2);
    write_text(c, "new");
    expect_read(peer, "new");
    close(peer);
    chardev_close(c);
}

static void test_stale_and_live_sockets(void **state)
{
    struct error *err = NULL;
    struct chardev *c = open_ok(unix_spec("live"));
    assert_null(chardev_open(spec, loop, &err));
    assert_non_null(strstr(error_text(err), "in use"));
    error_free(err);
    chardev_close(c);

    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd); /* its file stays behind */
    c = open_ok(spec);
    chardev_close(c);

    fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
    assert_null(chardev_open(spec, loop, NULL)); /* an ordinary file is not replaced */
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
}

/* A log has what nobody heard, and whoever connects gets its end and then what follows. */
static void test_log_is_replayed(void **state)
{
    char log[sizeof(path)], text[32] = "";
    struct chardev *c = open_ok(unix_spec("logged"));
    struct front f = {.room = 100};
    snprintf(log, sizeof(log), "%s/log", dir);
    assert_true(chardev_log(c, log, NULL));
    attach(c, &f);
    write_text(c, "a");
    write_text(c, "b");
    for (unsigned round = 0; round < 2; round++) {
        int peer = dial();
        run_for(3);
        assert_int_equal(recv(peer, text, sizeof(text), MSG_DONTWAIT), round ? 5 : 2);
        assert_memory_equal(text, round ? "ab123" : "ab", round ? 5 : 2);
        if (!round) {
            write_text(c, "123");
            expect_read(peer, "123");
        }
        close(peer);
        run_for(3);
    }
    assert_int_equal(f.connects, 2);
    write_text(c, "!"); /* is not written out yet */
    chardev_close(c);
    int fd = open(log, O_RDONLY);
    assert_int_equal(read(fd, text, sizeof(text)), 6);
    assert_memory_equal(text, "ab123!", 6);
    close(fd);
    unlink(log);
}

/* A peer that does not read: 1 MiB is kept, the oldest of it goes first, and nobody blocks. */
static void test_slow_reader_keeps_the_newest(void **state)
{
    enum { LINE = 1024, LINES = 4096 };
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    snprintf(spec, sizeof(spec), "fd:%d", fd[0]);
    struct chardev *c = open_ok(spec);
    struct front f = {0};
    attach(c, &f);
    assert_int_equal(f.connects, 1);
    for (unsigned i = 0; i < LINES; i++) {
        uint8_t line[LINE];
        memset(line, 0, sizeof(line));
        store_le32(line, i);
        chardev_write(c, line, sizeof(line));
    }
    static uint8_t all[LINES * LINE];
    size_t len = 0;
    for (int i = 0; i < 400; i++) {
        ssize_t n = recv(fd[1], all + len, sizeof(all) - len, MSG_DONTWAIT);
        len += n > 0 ? (size_t)n : 0;
        run_for(1);
    }
    assert_true(len >= MIB && len < sizeof(all));
    /* The last MiB is whole and in order. */
    for (unsigned i = 0; i < MIB / LINE; i++)
        assert_int_equal(load_le32(all + len - (i + 1) * LINE), LINES - 1 - i);
    chardev_close(c);
    close(fd[1]);
}

static void test_peer_dies_while_we_write(void **state)
{
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    snprintf(spec, sizeof(spec), "fd:%d", fd[0]);
    struct chardev *c = open_ok(spec);
    struct front f = {.room = 10};
    attach(c, &f);
    close(fd[1]);
    write_text(c, "no SIGPIPE");
    write_text(c, "still none");
    run_for(2);
    assert_int_equal(f.disconnects, 1);
    chardev_close(c);
}

/* A pipe: one direction, and its other users keep their blocking mode. */
static void test_pipe_output(void **state)
{
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    int kept = dup(fd[1]);
    snprintf(spec, sizeof(spec), "fd:%d", fd[1]);
    struct chardev *c = open_ok(spec);
    struct front f = {0};
    attach(c, &f);
    static const uint8_t block[1 << 18];
    chardev_write(c, block, sizeof(block)); /* more than a pipe holds, yet it returns */
    assert_int_equal(fcntl(kept, F_GETFL) & O_NONBLOCK, 0);
    close(kept);
    size_t len = 0;
    static uint8_t sink[1 << 16];
    while (len < sizeof(block)) {
        ssize_t n = read(fd[0], sink, sizeof(sink));
        assert_true(n > 0);
        len += (size_t)n;
        run_for(1);
    }
    chardev_close(c);
    close(fd[0]);
}

/* A regular file as input, which epoll does not know. */
static void test_file_input(void **state)
{
    snprintf(path, sizeof(path), "%s/in", dir);
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
    assert_int_equal(write(fd, "0123456789", 10), 10);
    close(fd);
    fd = open(path, O_RDONLY);
    snprintf(spec, sizeof(spec), "fd:%d", fd);
    struct chardev *c = open_ok(spec);
    struct front f = {.room = 4};
    attach(c, &f);
    run_for(3);
    assert_int_equal(f.len, 4);
    f.room = 100;
    chardev_accept_input(c);
    run_for(3);
    assert_int_equal(f.len, 10);
    assert_memory_equal(f.got, "0123456789", 10);
    chardev_accept_input(c);
    chardev_close(c);
    unlink(path);
}

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
#define CHARDEV_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CHARDEV_TEST(test_none),
        CHARDEV_TEST(test_bad_specs),
        CHARDEV_TEST(test_file),
        CHARDEV_TEST(test_socket_both_ways),
        CHARDEV_TEST(test_gathers_output),
        CHARDEV_TEST(test_input_waits_for_room),
        CHARDEV_TEST(test_stale_and_live_sockets),
        CHARDEV_TEST(test_log_is_replayed),
        CHARDEV_TEST(test_slow_reader_keeps_the_newest),
        CHARDEV_TEST(test_peer_dies_while_we_write),
        CHARDEV_TEST(test_pipe_output),
        CHARDEV_TEST(test_file_input),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
