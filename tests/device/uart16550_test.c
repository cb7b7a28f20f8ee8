/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 16550A: what drivers probe and rely on: interrupts in order of urgency, FIFO, loopback, both directions. */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"

enum { DATA = 0x3f8, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH };
#define FCR IIR

static struct test_machine *t;
static int peer;

static int setup(void **state)
{
    int fd[2];
    char props[32];
    t = test_machine_new();
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) < 0)
        return -1;
    peer = fd[1];
    snprintf(props, sizeof(props), "chardev=fd:%d", fd[0]);
    test_machine_add(t, "uart16550", props);
    return 0;
}

static int teardown(void **state)
{
    test_machine_free(t);
    close(peer);
    return 0;
}

static void send_text(const char *text)
{
    assert_int_equal(send(peer, text, strlen(text), 0), strlen(text));
    test_machine_run(t, 3);
}

static void test_output(void **state)
{
    char buf[8] = "";
    test_out(t, DATA, 1, 'o');
    test_out(t, DATA, 1, 'k');
    assert_int_equal(test_in(t, LSR, 1), 0x60);
    test_machine_run(t, 3);
    assert_int_equal(recv(peer, buf, sizeof(buf), MSG_DONTWAIT), 2);
    assert_string_equal(buf, "ok");
}

static void test_input_without_fifo(void **state)
{
    test_out(t, IER, 1, 1);
    send_text("ab");
    assert_true(t->gsi_level[4]);
    assert_int_equal(test_in(t, IIR, 1), 0x04);
    assert_int_equal(test_in(t, LSR, 1), 0x61);
    assert_int_equal(test_in(t, DATA, 1), 'a');
    assert_false(t->gsi_level[4]); /* only one is in the holding register */
    test_machine_run(t, 3);
    assert_true(t->gsi_level[4]);
    assert_int_equal(test_in(t, DATA, 1), 'b');
    assert_int_equal(test_in(t, LSR, 1), 0x60);
    assert_int_equal(test_in(t, IIR, 1), 0x01);
}

static void test_fifo_trigger_and_timeout(void **state)
{
    test_out(t, FCR, 1, 0x81); /* trigger at 8 */
    test_out(t, IER, 1, 1);
    assert_int_equal(test_in(t, IIR, 1), 0xc1);
    send_text("1234");
    assert_true(t->gsi_level[4]);
    assert_int_equal(test_in(t, IIR, 1), 0xcc);
    send_text("5678");
    assert_int_equal(test_in(t, IIR, 1), 0xc4);
    for (char c = '1'; c <= '8'; c++)
        assert_int_equal(test_in(t, DATA, 1), c);
    assert_false(t->gsi_level[4]);
    /* More than fits: nothing is lost. */
    send_text("abcdefghijklmnopqrstuvwxyz");
    for (char c = 'a'; c <= 'z'; c++) {
        if (!(test_in(t, LSR, 1) & 1))
            test_machine_run(t, 3);
        assert_int_equal(test_in(t, DATA, 1), c);
    }
    send_text("gone");
    test_out(t, FCR, 1, 0x83);
    assert_int_equal(test_in(t, LSR, 1), 0x60);
}

/* The start-up test of Linux's 8250 driver: enabling the interrupt anew with the transmitter empty raises it
 * anew. */
static void test_transmitter_interrupt(void **state)
{
    test_out(t, IER, 1, 2);
    assert_true(t->gsi_level[4]);
    assert_int_equal(test_in(t, IIR, 1), 0x02);
    assert_int_equal(test_in(t, IIR, 1), 0x01); /* reading it answered it */
    assert_false(t->gsi_level[4]);
    test_out(t, IER, 1, 0);
    test_out(t, IER, 1, 2);
    assert_int_equal(test_in(t, IIR, 1), 0x02);
    test_out(t, IER, 1, 2);
    assert_int_equal(test_in(t, IIR, 1), 0x01); /* no change, no interrupt */
    test_out(t, DATA, 1, 'x');
    assert_true(t->gsi_level[4]); /* sent, empty again */
    test_out(t, IER, 1, 0);
    assert_false(t->gsi_level[4]);
}

static void test_loopback_and_modem(void **state)
{
    assert_int_equal(test_in(t, MSR, 1), 0xb0);
    test_out(t, MCR, 1, 0x1a); /* loop, OUT2, RTS: what autoconfig writes */
    assert_int_equal(test_in(t, MSR, 1) & 0xf0, 0x90);
    test_out(t, DATA, 1, 0x5a);
    assert_int_equal(test_in(t, LSR, 1), 0x61);
    assert_int_equal(test_in(t, DATA, 1), 0x5a);
    char byte;
    assert_int_equal(recv(peer, &byte, 1, MSG_DONTWAIT), -1);
    /* Delta bits, and their interrupt. */
    test_in(t, MSR, 1);
    test_out(t, IER, 1, 8);
    test_out(t, MCR, 1, 0x11);
    assert_true(t->gsi_level[4]);
    assert_int_equal(test_in(t, IIR, 1), 0x00);
    assert_int_equal(test_in(t, MSR, 1), 0x2b); /* CTS and DCD fell, DSR rose */
    assert_false(t->gsi_level[4]);
}

static void test_overrun(void **state)
{
    test_out(t, MCR, 1, 0x10);
    test_out(t, IER, 1, 5);
    test_out(t, DATA, 1, 1);
    test_out(t, DATA, 1, 2);
    assert_int_equal(test_in(t, IIR, 1), 0x06); /* more urgent than the byte */
    assert_int_equal(test_in(t, LSR, 1), 0x63);
    assert_int_equal(test_in(t, IIR, 1), 0x04);
    assert_int_equal(test_in(t, DATA, 1), 1);
    assert_false(t->gsi_level[4]);
}

static void test_registers(void **state)
{
    test_out(t, LCR, 1, 0x83);
    test_out(t, DATA, 1, 0x01);
    test_out(t, IER, 1, 0x02);
    assert_int_equal(test_in(t, DATA, 1), 0x01);
    assert_int_equal(test_in(t, IER, 1), 0x02);
    test_out(t, LCR, 1, 0x03);
    assert_int_equal(test_in(t, IER, 1), 0);
    test_out(t, IER, 1, 0xff);
    assert_int_equal(test_in(t, IER, 1), 0x0f);
    test_out(t, SCRATCH, 1, 0xa5);
    assert_int_equal(test_in(t, SCRATCH, 1), 0xa5);
    test_out(t, FCR, 1, 0xc0); /* without the enable bit the rest means nothing */
    assert_int_equal(test_in(t, IIR, 1) & 0xc0, 0);
}

static void test_other_ports(void **state)
{
    test_machine_add(t, "uart16550", "com=2");
    test_out(t, 0x2f9, 1, 2);
    assert_true(t->gsi_level[3]);
    assert_false(t->gsi_level[4]);
    test_machine_add(t, "uart16550", "com=3");
    test_machine_add(t, "uart16550", "com=4");
    assert_int_equal(test_in(t, 0x3ed, 1), 0x60);
    assert_int_equal(test_in(t, 0x2ed, 1), 0x60);
    struct error *err = NULL;
    struct device *twice = device_new(&t->m, "uart16550", NULL, NULL);
    assert_false(device_realize(twice, &err));
    error_free(err);
}

int main(void)
{
#define UART_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        UART_TEST(test_output),
        UART_TEST(test_input_without_fifo),
        UART_TEST(test_fifo_trigger_and_timeout),
        UART_TEST(test_transmitter_interrupt),
        UART_TEST(test_loopback_and_modem),
        UART_TEST(test_overrun),
        UART_TEST(test_registers),
        UART_TEST(test_other_ports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
