/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stream sockets by name: what is a name, connecting and listening, passing a connection on. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/util.h"
#include "os/address.h"

static char dir[] = "/tmp/ruche-address-XXXXXX";
static char where[64];

static int make_folder(void **state)
{
    assert_non_null(mkdtemp(dir));
    snprintf(where, sizeof(where), "unix:%s/socket", dir);
    return 0;
}

static int remove_folder(void **state)
{
    unlink(address_path(where));
    return rmdir(dir);
}

static void names(void **state)
{
    static const char *const good[] = {"unix:/x", "unix:x", "tcp:host:1", "tcp:[::1]:65535",
                                       "tcp::80", "fd:0",   "pass:/x"};
    static const char *const bad[] = {
        "",        "unix:", "unix",  "tcp:host", "tcp:host:", "tcp:80",       "tcp:h:65536",
        "tcp:h:x", "fd:",   "fd:-1", "fd:x",     "pass:",     "ssh:somebody", "/x"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        if (!address_check(good[i], NULL))
            fail_msg("'%s' is one", good[i]);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error *err = NULL;
        if (address_check(bad[i], &err))
            fail_msg("'%s' is none", bad[i]);
        error_free(err);
    }
    assert_true(address_is_connected("fd:3"));
    assert_false(address_is_connected("unix:/x"));
    assert_string_equal(address_path("unix:/x"), "/x");
    assert_null(address_path("tcp:h:1"));
    char *host = address_host("tcp:[fe80::1]:22");
    assert_string_equal(host, "fe80::1");
    free(host);
    assert_null(address_host("unix:/x"));
}

/* Something said at one end is heard at the other. */
static void expect_line(int from, int to)
{
    char byte = 0;

    assert_int_equal(send(from, "x", 1, MSG_NOSIGNAL), 1);
    assert_int_equal(recv(to, &byte, 1, 0), 1);
    assert_int_equal(byte, 'x');
}

static void meet(const char *address)
{
    int listener = address_listen(address, NULL);
    assert_true(listener >= 0);
    int near = address_connect(address, NULL), far = accept(listener, NULL, NULL);
    assert_true(near >= 0 && far >= 0);
    expect_line(near, far);
    expect_line(far, near);
    close(near);
    close(far);
    close(listener);
}

static void unix_and_tcp(void **state)
{
    char tcp[64];
    struct error *err = NULL;

    meet(where);
    meet(where); /* a socket file that nobody listens on is replaced */
    int listener = address_listen(where, NULL);
    assert_int_equal(address_listen(where, &err), -1);
    assert_int_equal(err->code, EADDRINUSE);
    error_free(err);
    close(listener);
    err = NULL;
    assert_int_equal(address_connect(where, &err), -1);
    assert_int_equal(err->code, ECONNREFUSED);
    error_free(err);
    snprintf(tcp, sizeof(tcp), "tcp:127.0.0.1:%d", 20000 + (int)getpid() % 20000);
    meet(tcp);
}

static void *fetch(void *opaque)
{
    char address[80];

    snprintf(address, sizeof(address), "pass:%s", address_path(where));
    *(int *)opaque = address_connect(address, NULL);
    return NULL;
}

static void passing_on(void **state)
{
    int pair[2], fetched[2] = {-1, -1};
    pthread_t thread;
    int listener = address_listen(where, NULL);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&thread, NULL, fetch, &fetched[i]), 0);
        int client = accept(listener, NULL, NULL);
        assert_true(client >= 0);
        if (i == 0)
            assert_true(address_pass(client, pair[0], NULL));
        else
            assert_int_equal(send(client, "x", 1, 0), 1); /* without one */
        pthread_join(thread, NULL);
        close(client);
    }
    assert_true(fetched[0] >= 0);
    assert_int_equal(fetched[1], -1);
    expect_line(pair[1], fetched[0]);
    close(fetched[0]);
    close(pair[0]);
    close(pair[1]);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(unix_and_tcp),
                                       cmocka_unit_test(passing_on)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
