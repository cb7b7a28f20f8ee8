/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-console: the console, and named ports on Unix sockets, from a driver's side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_console.h>

#include "base/error.h"
#include "base/util.h"
#include "virtio_driver.h"

#define V1        (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_EVENT_IDX))
#define MULTIPORT BIT(VIRTIO_CONSOLE_F_MULTIPORT)
#define BUF       256

struct console {
    struct test_machine *t;
    struct drv d;
    struct drv_ring rx, tx, crx, ctx, rx1, tx1;
    char dir[32], path[64];
};

static void make_dir(struct console *c)
{
    memcpy(c->dir, "/tmp/ruche-test-XXXXXX", 23);
    assert_non_null(mkdtemp(c->dir));
    snprintf(c->path, sizeof(c->path), "%s/s", c->dir);
}

static void finish(struct console *c)
{
    test_machine_free(c->t);
    unlink(c->path);
    rmdir(c->dir);
}

static int dial(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void run(struct console *c)
{
    test_machine_run(c->t, 5);
}

static void offer(struct console *c, struct drv_ring *r)
{
    const struct drv_buf buf = {drv_alloc(&c->d, BUF, 1), BUF, true};
    assert_true(drv_add(r, &buf, 1, false, drv_ptr(&c->d, buf.gpa, BUF)));
    drv_kick(r);
}

static void put(struct console *c, struct drv_ring *r, const void *data, uint32_t len)
{
    const struct drv_buf buf = {drv_alloc(&c->d, len, 1), len, false};
    void *p = drv_ptr(&c->d, buf.gpa, len);
    uint32_t used;
    memcpy(p, data, len);
    assert_true(drv_add(r, &buf, 1, false, p));
    drv_kick(r);
    run(c);
    assert_ptr_equal(drv_get(r, &used), p);
}

static void control(struct console *c, uint32_t id, uint16_t event, uint16_t value)
{
    const struct virtio_console_control m = {.id = id, .event = event, .value = value};
    put(c, &c->ctx, &m, sizeof(m));
}

/* The next control message from the device must be this one. */
static void expect(struct console *c, uint32_t id, uint16_t event, uint16_t value, const char *text)
{
    uint32_t len;
    run(c);
    const uint8_t *p = drv_get(&c->crx, &len);
    if (!p)
        fail_msg("no message %u for port %u", event, id);
    struct virtio_console_control m;
    memcpy(&m, p, sizeof(m));
    assert_int_equal(m.id, id);
    assert_int_equal(m.event, event);
    assert_int_equal(m.value, value);
    assert_int_equal(len, sizeof(m) + (text ? strlen(text) : 0));
    if (text)
        assert_memory_equal(p + sizeof(m), text, strlen(text));
    offer(c, &c->crx);
}

static void test_plain_console(void **state)
{
    struct console c = {.t = pci_machine_new()};
    char props[100];
    uint32_t len;
    make_dir(&c);
    snprintf(props, sizeof(props), "chardev=unix:%s", c.path);
    struct device *dev = pci_machine_add(c.t, "virtio-console", props);
    drv_init(&c.d, c.t, dev, V1);
    drv_ring_init(&c.rx, &c.d, 0, 16);
    drv_ring_init(&c.tx, &c.d, 1, 16);
    drv_ok(&c.d);
    int fd = dial(c.path);
    run(&c);
    put(&c, &c.tx, "hello", 5);
    char buf[BUF * 32];
    assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), 5);
    assert_memory_equal(buf, "hello", 5);

    /* Input waits, within bounds, for the driver's buffers, and nothing is lost. */
    char big[6000];
    for (unsigned i = 0; i < sizeof(big); i++)
        big[i] = (char)(i * 31 >> 3);
    assert_int_equal(send(fd, big, sizeof(big), 0), sizeof(big));
    run(&c);
    size_t got = 0;
    for (unsigned i = 0; i < 60 && got < sizeof(big); i++) {
        offer(&c, &c.rx);
        run(&c);
        const uint8_t *p = drv_get(&c.rx, &len);
        if (!p)
            continue;
        assert_true(len <= BUF && got + len <= sizeof(big));
        memcpy(buf + got, p, len);
        got += len;
    }
    assert_int_equal(got, sizeof(big));
    assert_memory_equal(buf, big, got);
    close(fd);
    finish(&c);
}

static void agent_start(struct console *c, const char *more)
{
    char props[120];
    c->t = pci_machine_new();
    make_dir(c);
    snprintf(props, sizeof(props), "port1=org.qemu.guest_agent.0:unix:%s%s", c->path, more);
    struct device *dev = pci_machine_add(c->t, "virtio-console", props);
    drv_init(&c->d, c->t, dev, V1 | MULTIPORT);
    assert_int_equal(drv_read(&c->d, c->d.config + 4, 4), 2); /* max_nr_ports */
    drv_ring_init(&c->crx, &c->d, 2, 16);
    drv_ring_init(&c->ctx, &c->d, 3, 16);
    drv_ring_init(&c->rx1, &c->d, 4, 16);
    drv_ring_init(&c->tx1, &c->d, 5, 16);
    drv_ok(&c->d);
    for (unsigned i = 0; i < 8; i++)
        offer(c, &c->crx);
}

static void test_named_port(void **state)
{
    struct console c;
    uint32_t len;
    char buf[BUF];
    agent_start(&c, "");
    control(&c, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    expect(&c, 1, VIRTIO_CONSOLE_PORT_ADD, 1, NULL);
    control(&c, 1, VIRTIO_CONSOLE_PORT_READY, 1);
    expect(&c, 1, VIRTIO_CONSOLE_PORT_NAME, 1, "org.qemu.guest_agent.0");

    int fd = dial(c.path);
    expect(&c, 1, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
    /* Nothing reaches the driver before it has opened the port. */
    offer(&c, &c.rx1);
    assert_int_equal(send(fd, "ping", 4, 0), 4);
    run(&c);
    assert_null(drv_get(&c.rx1, &len));
    control(&c, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    run(&c);
    const uint8_t *p = drv_get(&c.rx1, &len);
    assert_non_null(p);
    assert_int_equal(len, 4);
    assert_memory_equal(p, "ping", 4);
    put(&c, &c.tx1, "pong!", 5);
    assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), 5);
    assert_memory_equal(buf, "pong!", 5);
    close(fd);
    expect(&c, 1, VIRTIO_CONSOLE_PORT_OPEN, 0, NULL);
    finish(&c);
}

/* Who comes and goes is no news to a driver whose ports are always open, and what nobody reads is gone. */
static void test_open_without_peer(void **state)
{
    struct console c;
    uint32_t len;
    char buf[BUF];
    agent_start(&c, ",open=on");
    control(&c, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    expect(&c, 1, VIRTIO_CONSOLE_PORT_ADD, 1, NULL);
    control(&c, 1, VIRTIO_CONSOLE_PORT_READY, 1);
    expect(&c, 1, VIRTIO_CONSOLE_PORT_NAME, 1, "org.qemu.guest_agent.0");
    expect(&c, 1, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
    control(&c, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    put(&c, &c.tx1, "lost", 4);
    int fd = dial(c.path);
    run(&c);
    put(&c, &c.tx1, "seen", 4);
    assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), 4);
    assert_memory_equal(buf, "seen", 4);
    close(fd);
    run(&c);
    assert_null(drv_get(&c.crx, &len));
    finish(&c);
}

/* The byte at a place of a stream that repeats late. */
static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 7 + (at >> 8) * 13 + (at >> 16));
}

/* A peer that does not read holds up the driver, and nothing is lost; one that leaves does not. */
static void test_output_waits(void **state)
{
    enum { SIZE = 16384, COUNT = 256 };
    struct console c;
    struct drv_buf buf = {.len = SIZE};
    static uint8_t got[SIZE];
    unsigned given = 0, taken = 0;
    size_t received = 0;
    uint32_t used;
    agent_start(&c, "");
    control(&c, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    int fd = dial(c.path);
    run(&c);
    buf.gpa = drv_alloc(&c.d, SIZE, 1);
    uint8_t *bytes = drv_ptr(&c.d, buf.gpa, SIZE);
    for (; given - taken == 0 && given < COUNT; given++) {
        for (size_t i = 0; i < SIZE; i++)
            bytes[i] = pattern((size_t)given * SIZE + i);
        assert_true(drv_add(&c.tx1, &buf, 1, false, &c));
        drv_kick(&c.tx1);
        run(&c);
        taken += drv_get(&c.tx1, &used) != NULL;
    }
    assert_true(given < COUNT); /* one is not taken */
    assert_int_equal(taken, given - 1);
    for (ssize_t n; (n = recv(fd, got, sizeof(got), MSG_DONTWAIT)) > 0; run(&c))
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(got[i], pattern(received++));
    assert_int_equal(received, (size_t)given * SIZE);
    assert_non_null(drv_get(&c.tx1, &used));

    /* It waits again, until nobody is there to wait for. */
    for (given = 0; given < COUNT; given++) {
        assert_true(drv_add(&c.tx1, &buf, 1, false, &c));
        drv_kick(&c.tx1);
        run(&c);
        if (!drv_get(&c.tx1, &used))
            break;
    }
    assert_true(given < COUNT);
    close(fd);
    run(&c);
    assert_non_null(drv_get(&c.tx1, &used));
    finish(&c);
}

/* Messages about ports that do not exist, short ones, unknown ones; a driver that gives no buffers for
 * answers. */
static void test_odd_messages(void **state)
{
    struct console c;
    uint32_t len;
    agent_start(&c, "");
    control(&c, 0, VIRTIO_CONSOLE_PORT_READY, 1);
    control(&c, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
    control(&c, 0xFFFFFFFE, VIRTIO_CONSOLE_PORT_READY, 1);
    control(&c, 1, 999, 1);
    put(&c, &c.ctx, "abc", 3);
    run(&c);
    assert_null(drv_get(&c.crx, &len));
    for (unsigned i = 0; i < 100; i++)
        control(&c, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    for (unsigned i = 0; i < 8; i++)
        assert_non_null(drv_get(&c.crx, &len));
    assert_null(
        drv_get(&c.crx, &len)); /* the eight buffers are used up, the rest came to one piece of news */
    offer(&c, &c.crx);
    expect(&c, 1, VIRTIO_CONSOLE_PORT_ADD, 1, NULL);
    run(&c);
    assert_null(drv_get(&c.crx, &len));
    finish(&c);
}

static void test_bad_properties(void **state)
{
    static const char *const bad[][2] = {{"port1", "nameonly"},   {"port1", ":none"},
                                         {"port1", "name:"},      {"port1", "name:nonsense"},
                                         {"chardev", "nonsense"}, {"chardev", "unix:/no/such/folder/s"}};
    struct test_machine *t = pci_machine_new();
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error *err = NULL;
        machine_lock(&t->m);
        struct device *dev = device_new(&t->m, "virtio-console", NULL, &err);
        assert_true(device_set(dev, bad[i][0], bad[i][1], &err));
        assert_false(device_realize(dev, &err));
        machine_unlock(&t->m);
        assert_non_null(err);
        error_free(err);
    }
    assert_int_equal(cfg_read(t, PCI_DEVFN(1, 0), 0, 4), 0xFFFFFFFF); /* nothing is left on the bus */
    test_machine_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_console), cmocka_unit_test(test_named_port),
        cmocka_unit_test(test_output_waits),  cmocka_unit_test(test_open_without_peer),
        cmocka_unit_test(test_odd_messages),  cmocka_unit_test(test_bad_properties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
