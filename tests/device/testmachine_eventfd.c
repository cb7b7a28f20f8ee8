/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The test machine's engine with doorbells and lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/util.h"
#include "testmachine.h"

static struct test_machine *of(struct machine *m)
{
    return CONTAINER_OF(m, struct test_machine, m);
}

struct test_eventfd *test_eventfd_find(struct test_eventfd *table, uint64_t addr)
{
    for (unsigned i = 0; i < TEST_EVENTFDS; i++)
        if (table[i].addr == addr)
            return &table[i];
    return NULL;
}

/* As KVM does it, there is one doorbell at an address at most. */
static bool doorbell_add(struct machine *m, uint64_t gpa, int fd)
{
    struct test_machine *t = of(m);
    if (t->refuse_eventfds || test_eventfd_find(t->bell, gpa))
        return false;
    struct test_eventfd *bell = test_eventfd_find(t->bell, 0);
    assert_non_null(bell);
    *bell = (struct test_eventfd){.addr = gpa, .fd = fd};
    return true;
}

static void doorbell_remove(struct machine *m, uint64_t gpa, int fd)
{
    struct test_eventfd *bell = test_eventfd_find(of(m)->bell, gpa);
    assert_non_null(bell);
    assert_int_equal(bell->fd, fd);
    bell->addr = 0;
}

static struct test_eventfd *find_line(struct test_machine *t, int fd)
{
    for (unsigned i = 0; i < TEST_EVENTFDS; i++)
        if (t->line[i].addr && t->line[i].fd == fd)
            return &t->line[i];
    return NULL;
}

static bool line_set(struct machine *m, int fd, uint64_t addr, uint32_t data)
{
    struct test_machine *t = of(m);
    struct test_eventfd *line = find_line(t, fd);
    t->line_set++;
    if (t->refuse_eventfds)
        return false;
    if (!line)
        line = test_eventfd_find(t->line, 0);
    assert_non_null(line);
    *line = (struct test_eventfd){.addr = addr, .data = data, .fd = fd};
    return true;
}

static void line_drop(struct machine *m, int fd)
{
    struct test_eventfd *line = find_line(of(m), fd);
    if (!line)
        fail_msg("line %d was not set", fd);
    else
        line->addr = 0;
}

void test_machine_offer_doorbells(struct test_machine *t)
{
    t->m.doorbell_add = doorbell_add;
    t->m.doorbell_remove = doorbell_remove;
}

void test_machine_offer_lines(struct test_machine *t)
{
    t->m.line_set = line_set;
    t->m.line_drop = line_drop;
}
