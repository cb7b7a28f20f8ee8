/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The control socket with real clients: greeting, events, many and hostile clients, the socket file. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "os/loop.h"
#include "qmp_fake.h"
#include "vmm/qmp.h"

#define TIMEOUT_MS 5000
#define CAPS       "{\"execute\": \"qmp_capabilities\"}\n"

struct server {
    pthread_mutex_t lock;
    struct loop *loop;
    struct fake_machine fake;
    struct qmp *qmp;
    pthread_t thread;
    char dir[32], path[64];
};

static void *serve(void *opaque)
{
    loop_run(((struct server *)opaque)->loop);
    return NULL;
}

static int setup(void **state)
{
    struct server *s = calloc(1, sizeof(*s));
    struct error *err = NULL;

    assert_non_null(s);
    pthread_mutex_init(&s->lock, NULL);
    strcpy(s->dir, "/tmp/ruche-qmp-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->path, sizeof(s->path), "%s/control", s->dir);
    s->fake.running = true;
    s->loop = loop_new(&s->lock, &err);
    assert_non_null(s->loop);
    s->qmp = qmp_open(s->path, s->loop, &fake_ops, &s->fake, &err);
    assert_non_null(s->qmp);
    pthread_create(&s->thread, NULL, serve, s);
    log_set_level(LOG_ERROR);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct server *s = *state;

    loop_stop(s->loop);
    pthread_join(s->thread, NULL);
    qmp_close(s->qmp);
    loop_free(s->loop);
    assert_int_equal(access(s->path, F_OK), -1);
    assert_int_equal(rmdir(s->dir), 0);
    free(s);
    return 0;
}

static int dial(const struct server *s)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(addr.sun_path, s->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

/* One line, without its end; false when the connection ended instead. */
static bool read_line(int fd, char *line, size_t size)
{
    size_t n = 0;

    while (n < size - 1) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, TIMEOUT_MS) != 1)
            fail_msg("the server does not answer");
        if (recv(fd, line + n, 1, 0) <= 0)
            return false;
        if (line[n] == '\n')
            break;
        n++;
    }
    line[n] = '\0';
    return true;
}

static void expect_line(int fd, const char *part)
{
    char line[8192];

    assert_true(read_line(fd, line, sizeof(line)));
    if (!strstr(line, part))
        fail_msg("'%s' lacks '%s'", line, part);
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static int negotiated(const struct server *s)
{
    int fd = dial(s);

    expect_line(fd, "\"QMP\"");
    say(fd, CAPS);
    expect_line(fd, "{\"return\": {}}");
    return fd;
}

static void session(void **state)
{
    struct server *s = *state;
    struct stat st;
    int fd = dial(s);

    assert_int_equal(stat(s->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    expect_line(fd, "\"capabilities\": []");
    say(fd, "{\"execute\": \"query-status\"}\n");
    expect_line(fd, "CommandNotFound");
    say(fd, "{\"execute\":\n \"qmp_capabilities\"} {\"execute\": \"query-status\", \"id\": 1}");
    expect_line(fd, "\"return\": {}");
    expect_line(fd, "\"status\": \"running\"");
    say(fd, "what?\n\n{\"execute\": \"stop\"}");
    expect_line(fd, "JSON parse error");
    expect_line(fd, "\"return\": {}");
    close(fd);
}

/* What a client sent before it went away is still done. */
static void parting_words(void **state)
{
    struct server *s = *state;
    int fd = dial(s);

    say(fd, CAPS "{\"execute\": \"quit\"}\n");
    close(fd);
    for (int i = 0; i < TIMEOUT_MS; i++) {
        pthread_mutex_lock(&s->lock);
        bool done = strstr(s->fake.calls, "quit");
        pthread_mutex_unlock(&s->lock);
        if (done)
            return;
        usleep(1000);
    }
    fail_msg("quit was not executed");
}

/* A half-closed connection (as a script's here-document makes it) gets all its answers. */
static void half_closed(void **state)
{
    struct server *s = *state;
    char line[256];
    int fd = dial(s);

    say(fd, CAPS "{\"execute\": \"query-status\"}");
    shutdown(fd, SHUT_WR);
    expect_line(fd, "\"QMP\"");
    expect_line(fd, "\"return\": {}");
    expect_line(fd, "\"status\": \"running\"");
    assert_false(read_line(fd, line, sizeof(line)));
    close(fd);
}

static void post_event(struct server *s, const char *name)
{
    pthread_mutex_lock(&s->lock);
    qmp_event(s->qmp, name, json_pack("{s:b}", "guest", true));
    pthread_mutex_unlock(&s->lock);
}

static void events_reach_all(void **state)
{
    struct server *s = *state;
    int a = negotiated(s), b = negotiated(s), silent = dial(s);

    expect_line(silent, "\"QMP\"");
    post_event(s, "STOP");
    expect_line(a, "\"event\": \"STOP\"");
    expect_line(b, "\"seconds\": ");
    say(silent, CAPS);
    expect_line(silent, "{\"return\": {}}"); /* not the event, which came before */
    close(a);
    close(b);
    close(silent);
}

static void many_clients(void **state)
{
    struct server *s = *state;
    int fd[100];

    for (int i = 0; i < 100; i++)
        fd[i] = negotiated(s);
    post_event(s, "RESUME");
    for (int i = 0; i < 100; i++)
        expect_line(fd[i], "RESUME");
    for (int i = 0; i < 100; i++)
        close(fd[i]);
}

static void deaf_client_harms_only_itself(void **state)
{
    struct server *s = *state;
    int deaf = negotiated(s), good = negotiated(s);
    char line[1 << 16];

    for (int i = 0; i < 30000; i++) {
        post_event(s, "POWERDOWN");
        while (recv(good, line, sizeof(line), MSG_DONTWAIT) > 0)
            continue;
    }
    say(good, "{\"execute\": \"query-status\", \"id\": \"still here\"}");
    do
        assert_true(read_line(good, line, sizeof(line)));
    while (!strstr(line, "still here"));
    while (read_line(deaf, line, sizeof(line))) /* ends: it was cut off */
        continue;
    close(deaf);
    close(good);
}

/* Asks and asks without reading: the server stops listening to it, nothing grows, others go on. */
static void flood_of_commands(void **state)
{
    struct server *s = *state;
    static const char ask[] = "{\"execute\": \"query-commands\"}";
    int flood = negotiated(s), good;

    fcntl(flood, F_SETFL, O_NONBLOCK);
    for (int stuck = 0; stuck < 50;) {
        if (send(flood, ask, sizeof(ask) - 1, MSG_NOSIGNAL) > 0)
            continue;
        assert_int_equal(errno, EAGAIN);
        stuck++;
        usleep(1000);
    }
    good = negotiated(s);
    close(good);
    close(flood);
}

static void endless_message(void **state)
{
    struct server *s = *state;
    char junk[4096], line[256];
    int fd = negotiated(s);

    memset(junk, '[', sizeof(junk));
    while (send(fd, junk, sizeof(junk), MSG_NOSIGNAL) > 0)
        continue;
    assert_false(read_line(fd, line, sizeof(line)));
    close(fd);
    close(negotiated(s));
}

static void random_bytes(void **state)
{
    struct server *s = *state;
    unsigned seed = (unsigned)getpid();

    print_message("seed %u\n", seed);
    for (int round = 0; round < 200; round++) {
        char junk[512];
        int fd = dial(s);
        size_t len = (size_t)rand_r(&seed) % sizeof(junk);
        for (size_t i = 0; i < len; i++)
            junk[i] = rand_r(&seed) % 3 ? "{}[]\":,\\\n 1a"[rand_r(&seed) % 12] : (char)rand_r(&seed);
        send(fd, junk, len, MSG_NOSIGNAL);
        close(fd);
    }
    close(negotiated(s));
}

static void socket_file(void **state)
{
    struct server *s = *state;
    struct error *err = NULL;
    char path[64];
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    assert_null(qmp_open(s->path, s->loop, &fake_ops, &s->fake, &err));
    assert_non_null(strstr(error_text(err), "another machine is using it"));
    error_free(err);
    err = NULL;
    assert_null(qmp_open(s->dir, s->loop, &fake_ops, &s->fake, &err));
    assert_non_null(strstr(error_text(err), "a file of that name exists"));
    error_free(err);
    err = NULL;
    char *long_path = malloc(300);
    memset(long_path, 'x', 299);
    long_path[299] = '\0';
    assert_null(qmp_open(long_path, s->loop, &fake_ops, &s->fake, &err));
    error_free(err);
    err = NULL;
    free(long_path);
    assert_null(qmp_open("fd:0", s->loop, &fake_ops, &s->fake, &err));
    assert_non_null(strstr(error_text(err), "not a listening socket"));
    error_free(err);
    err = NULL;

    /* A stale one, left by a machine that was killed. */
    snprintf(path, sizeof(path), "%s/stale", s->dir);
    strcpy(addr.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
    struct loop *other = loop_new(NULL, &err);
    struct qmp *qmp = qmp_open(path, other, &fake_ops, &s->fake, &err);
    assert_non_null(qmp);
    qmp_close(qmp);
    loop_free(other);
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(session, setup, teardown),
        cmocka_unit_test_setup_teardown(parting_words, setup, teardown),
        cmocka_unit_test_setup_teardown(half_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(events_reach_all, setup, teardown),
        cmocka_unit_test_setup_teardown(many_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(deaf_client_harms_only_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(flood_of_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(endless_message, setup, teardown),
        cmocka_unit_test_setup_teardown(random_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(socket_file, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
