/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The test that every device class must pass, taken from the class table: a class that is added is tested.
 * Make, realize, reset, random register accesses, save, restore into a second instance and save again: the
 * same bytes. Streams that are cut short or damaged leave the device as it was, or are accepted and then do
 * no harm.
 */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "device/pci/pci.h"

#define ROUNDS   3
#define ACCESSES 400
#define DAMAGES  60

static uint64_t rng;

struct subject {
    struct test_machine *t;
    struct device *dev;
};

static struct subject make(const struct device_class *cls)
{
    struct subject s = {.t = test_machine_new()};
    const char *props = test_machine_prepare(s.t, cls->name);
    s.dev = test_machine_add(s.t, cls->name, props);
    machine_lock(&s.t->m);
    if (s.t->m.pci)
        pci_assign_resources(&s.t->m);
    machine_unlock(&s.t->m);
    return s;
}

static void poke(struct test_machine *t, unsigned accesses)
{
    for (unsigned i = 0; i < accesses; i++) {
        test_random_access(t, &rng);
        if (i % 16 == 0)
            test_machine_advance(t, test_random(&rng) % 3000000);
    }
}

static struct state_buf save(struct subject *s)
{
    struct state_buf buf = {0};
    machine_lock(&s->t->m);
    state_save(s->dev->cls->state, s->dev, &buf);
    machine_unlock(&s->t->m);
    return buf;
}

static bool load(struct subject *s, const uint8_t *data, size_t len)
{
    struct error *err = NULL;
    machine_lock(&s->t->m);
    long used = state_load(s->dev->cls->state, s->dev, s->dev->cls->size, data, len, &err);
    machine_unlock(&s->t->m);
    if (used >= 0) {
        assert_int_equal(used, len);
        assert_null(err);
    } else {
        assert_non_null(err);
    }
    error_free(err);
    return used >= 0;
}

static void assert_state(struct subject *s, const struct state_buf *expected)
{
    struct state_buf now = save(s);
    assert_int_equal(now.len, expected->len);
    assert_memory_equal(now.data, expected->data, now.len);
    state_buf_free(&now);
}

static void set_quiet(struct subject *s, bool quiet)
{
    machine_lock(&s->t->m);
    if (quiet)
        devices_quiesce(&s->t->m);
    else
        devices_resume(&s->t->m);
    machine_unlock(&s->t->m);
}

/* Into a fresh machine with the same memory and time. */
static void check_restore(struct subject *from, const struct state_buf *saved)
{
    struct subject to = make(from->dev->cls);
    memcpy(to.t->m.memory->region[0].host, from->t->m.memory->region[0].host, TEST_RAM_SIZE);
    vm_clock_set(&to.t->m.clock, vm_clock_now(&from->t->m.clock));
    set_quiet(&to, true);
    assert_true(load(&to, saved->data, saved->len));
    assert_state(&to, saved);
    set_quiet(&to, false);
    poke(to.t, ACCESSES / 4);
    test_machine_free(to.t);
}

static void check_damage(struct subject *s, const struct state_buf *saved)
{
    for (unsigned i = 0; i < DAMAGES; i++) {
        struct state_buf before = save(s);
        /* A copy of the exact size, so that a sanitizer sees a read past its end. */
        size_t len = i % 2 ? test_random(&rng) % saved->len : saved->len;
        uint8_t *data = malloc(len ? len : 1);
        assert_non_null(data);
        memcpy(data, saved->data, len);
        if (len == saved->len)
            data[test_random(&rng) % len] ^= (uint8_t)(1u << test_random(&rng) % 8);
        if (!load(s, data, len)) {
            assert_state(s, &before);
        } else {
            assert_int_equal(len, saved->len); /* nothing that is cut short is accepted */
            set_quiet(s, false);
            poke(s->t, 10);
            set_quiet(s, true);
        }
        free(data);
        state_buf_free(&before);
    }
}

static void check_class(const struct device_class *cls)
{
    assert_non_null(cls->name);
    assert_non_null(cls->help);
    assert_non_null(cls->state);
    assert_true(cls->size >= sizeof(struct device));
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct subject s = make(cls);
        poke(s.t, ACCESSES);
        test_machine_run(s.t, 1);
        set_quiet(&s, true);
        struct state_buf saved = save(&s);
        assert_state(&s, &saved); /* saving changes nothing */
        check_restore(&s, &saved);
        check_damage(&s, &saved);
        state_buf_free(&saved);
        set_quiet(&s, false);
        machine_lock(&s.t->m);
        devices_reset(&s.t->m);
        machine_unlock(&s.t->m);
        poke(s.t, ACCESSES / 4);
        test_machine_free(s.t);
    }
}

static void test_all_classes(void **state)
{
    unsigned n = 0;
    for (const struct device_class *const *cls = device_classes; *cls; cls++, n++) {
        printf("%s\n", (*cls)->name);
        fflush(stdout);
        check_class(*cls);
    }
    assert_true(n >= 13); /* the platform's alone */
}

/* Two resets in a row give one state: nothing of what the guest did remains, but what a battery keeps. */
static void test_reset_is_complete(void **state)
{
    for (const struct device_class *const *cls = device_classes; *cls; cls++) {
        if (strcmp((*cls)->name, "mc146818") == 0)
            continue; /* its memory has a battery */
        struct subject fresh = make(*cls), used = make(*cls);
        poke(used.t, ACCESSES);
        vm_clock_set(&fresh.t->m.clock, vm_clock_now(&used.t->m.clock));
        struct subject *both[] = {&fresh, &used};
        for (unsigned i = 0; i < 2; i++) {
            machine_lock(&both[i]->t->m);
            devices_reset(&both[i]->t->m);
            machine_unlock(&both[i]->t->m);
            set_quiet(both[i], true);
        }
        struct state_buf expected = save(&fresh);
        struct state_buf now = save(&used);
        if (now.len != expected.len || memcmp(now.data, expected.data, now.len) != 0)
            fail_msg("%s: a reset leaves traces of what the guest did", (*cls)->name);
        state_buf_free(&now);
        state_buf_free(&expected);
        test_machine_free(fresh.t);
        test_machine_free(used.t);
    }
}

static void test_names(void **state)
{
    for (const struct device_class *const *a = device_classes; *a; a++) {
        assert_ptr_equal(device_class_find((*a)->name), *a);
        for (const struct device_class *const *b = a + 1; *b; b++)
            assert_string_not_equal((*a)->name, (*b)->name);
    }
    assert_null(device_class_find("no-such-class"));
}

int main(void)
{
    log_set_level(LOG_ERROR); /* what guests do wrong is the point here */
    rng = test_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_all_classes),
        cmocka_unit_test(test_reset_is_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
