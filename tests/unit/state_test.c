/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Saved state: round trips, versions, streams that are short, wrong or damaged, refusals that change nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <time.h>

#include "base/error.h"
#include "base/util.h"
#include "core/state.h"

struct inner {
    uint32_t a;
    uint8_t not_saved;
    bool b;
};

struct outer {
    uint64_t before;
    bool flag;
    uint8_t u8;
    uint16_t u16[3];
    uint32_t u32;
    uint64_t u64;
    uint8_t bytes[5];
    struct inner in[2];
    uint32_t later; /* since version 3 */
    unsigned loads;
};

static bool refuse;

static bool outer_post_load(void *object, struct error **err)
{
    struct outer *o = object;
    if (refuse) {
        error_set(err, 0, "refused");
        return false;
    }
    o->loads++;
    return true;
}

static const struct state_field inner_fields[] = {
    STATE_FIELD_U32(struct inner, a),
    STATE_FIELD_BOOL(struct inner, b),
    STATE_FIELD_END,
};
static const struct state_desc inner_desc = {
    .name = "inner", .version = 1, .min_version = 1, .fields = inner_fields};

#define OUTER_FIELDS                                                                                         \
    STATE_FIELD_BOOL(struct outer, flag), STATE_FIELD_U8(struct outer, u8),                                  \
        STATE_FIELD_U16_ARRAY(struct outer, u16, 3), STATE_FIELD_U32(struct outer, u32),                     \
        STATE_FIELD_U64(struct outer, u64), STATE_FIELD_BYTES(struct outer, bytes, 5),                       \
        STATE_FIELD_STRUCT(struct outer, in, 2, &inner_desc)

static const struct state_field outer_fields[] = {OUTER_FIELDS, STATE_FIELD_END};
static const struct state_field new_fields[] = {
    OUTER_FIELDS,
    {.name = "later",
     .type = STATE_U32,
     .offset = offsetof(struct outer, later),
     .count = 1,
     .stride = 4,
     .since = 3},
    STATE_FIELD_END,
};

static const struct state_desc outer_desc = {
    .name = "outer", .version = 2, .min_version = 2, .fields = outer_fields, .post_load = outer_post_load};
static const struct state_desc new_desc = {
    .name = "outer", .version = 3, .min_version = 2, .fields = new_fields, .post_load = outer_post_load};
static const struct state_desc newest_desc = {
    .name = "outer", .version = 4, .min_version = 4, .fields = new_fields};

static const struct outer sample = {
    .before = 0x1122334455667788,
    .flag = true,
    .u8 = 0xfe,
    .u16 = {1, 0x8000, 0xffff},
    .u32 = 0xdeadbeef,
    .u64 = 0x8000000000000001,
    .bytes = "abcd",
    .in = {{.a = 7, .not_saved = 1, .b = true}, {.a = 9, .not_saved = 2}},
    .later = 5,
};

static struct state_buf saved(const struct state_desc *desc)
{
    struct state_buf buf = {0};
    struct outer o = sample;
    state_save(desc, &o, &buf);
    return buf;
}

static long load(const struct state_desc *desc, struct outer *o, const uint8_t *data, size_t len,
                 struct error **err)
{
    return state_load(desc, o, sizeof(*o), data, len, err);
}

static void test_round_trip(void **state)
{
    struct state_buf buf = saved(&outer_desc);
    struct outer o = {.before = 3, .in[0].not_saved = 77, .later = 99};
    assert_int_equal(load(&outer_desc, &o, buf.data, buf.len, NULL), buf.len);
    assert_int_equal(o.before, 3); /* what is not described stays */
    assert_int_equal(o.in[0].not_saved, 77);
    assert_int_equal(o.later, 99);
    assert_int_equal(o.loads, 1);
    assert_true(o.flag);
    assert_int_equal(o.u8, 0xfe);
    assert_memory_equal(o.u16, sample.u16, sizeof(o.u16));
    assert_int_equal(o.u32, 0xdeadbeef);
    assert_true(o.u64 == sample.u64);
    assert_memory_equal(o.bytes, "abcd", 5);
    assert_int_equal(o.in[0].a, 7);
    assert_true(o.in[0].b);
    assert_int_equal(o.in[1].a, 9);
    struct state_buf again = {0};
    state_save(&outer_desc, &o, &again);
    assert_int_equal(again.len, buf.len);
    assert_memory_equal(again.data, buf.data, buf.len);
    state_buf_free(&again);
    state_buf_free(&buf);
}

static void expect_refusal(const struct state_desc *desc, const uint8_t *data, size_t len, const char *reason)
{
    /* A copy of the exact size, so that a sanitizer sees a read past its end. */
    uint8_t *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, data, len);
    struct outer o = sample, untouched = sample;
    struct error *err = NULL;
    o.u32 = untouched.u32 = 1234;
    assert_int_equal(load(desc, &o, copy, len, &err), -1);
    assert_memory_equal(&o, &untouched, sizeof(o));
    if (!strstr(error_text(err), reason))
        fail_msg("\"%s\" does not say \"%s\"", error_text(err), reason);
    error_free(err);
    free(copy);
}

static void test_short_streams(void **state)
{
    struct state_buf buf = saved(&outer_desc);
    for (size_t len = 0; len < buf.len; len++)
        expect_refusal(&outer_desc, buf.data, len, "cut short");
    state_buf_free(&buf);
}

static void test_trailing_data_is_the_callers(void **state)
{
    struct state_buf buf = saved(&outer_desc);
    size_t one = buf.len;
    struct outer o = sample;
    state_save(&outer_desc, &o, &buf);
    assert_int_equal(load(&outer_desc, &o, buf.data, buf.len, NULL), one);
    state_buf_free(&buf);
}

static void test_versions(void **state)
{
    struct state_buf old = saved(&outer_desc), new = saved(&new_desc);
    struct outer o = {.later = 31};
    assert_true(load(&new_desc, &o, old.data, old.len, NULL) > 0);
    assert_int_equal(o.later, 31); /* the old stream does not know it */
    assert_true(load(&new_desc, &o, new.data, new.len, NULL) > 0);
    assert_int_equal(o.later, 5);
    expect_refusal(&outer_desc, new.data, new.len, "version 3 is not between 2 and 2");
    expect_refusal(&newest_desc, new.data, new.len, "version 3 is not between 4 and 4");
    state_buf_free(&old);
    state_buf_free(&new);
}

/* Offsets in the stream: name 6, version 4, length 4; the first field: name 5, type 1, count 4, one byte. */
static void test_wrong_content(void **state)
{
    struct {
        size_t at;
        uint8_t value;
        const char *reason;
    } cases[] = {
        {1, 'x', "no object outer"},       {0, 4, "no object outer"},
        {15, 'x', "no field flag"},        {19, STATE_U8, "has type 2 and count 1"},
        {20, 2, "has type 1 and count 2"}, {24, 2, "is no truth value"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct state_buf buf = saved(&outer_desc);
        buf.data[cases[i].at] = cases[i].value;
        expect_refusal(&outer_desc, buf.data, buf.len, cases[i].reason);
        state_buf_free(&buf);
    }
}

static void test_fields_that_are_not_known(void **state)
{
    struct state_buf buf = saved(&new_desc);
    store_le32(buf.data + 6, 2); /* says version 2, has a field of version 3 */
    expect_refusal(&outer_desc, buf.data, buf.len, "fields that are not known");
    state_buf_free(&buf);
}

static void test_post_load_refuses(void **state)
{
    struct state_buf buf = saved(&outer_desc);
    refuse = true;
    expect_refusal(&outer_desc, buf.data, buf.len, "refused");
    refuse = false;
    state_buf_free(&buf);
}

static void test_stateless(void **state)
{
    struct state_buf buf = {0};
    char object = 'x';
    state_save(&STATELESS, &object, &buf);
    assert_int_equal(state_load(&STATELESS, &object, 1, buf.data, buf.len, NULL), buf.len);
    state_buf_free(&buf);
}

static void test_random_damage(void **state)
{
    unsigned seed = (unsigned)time(NULL);
    printf("seed %u\n", seed);
    srand(seed);
    for (int i = 0; i < 20000; i++) {
        struct state_buf buf = saved(&new_desc);
        for (int n = rand() % 4; n >= 0; n--)
            buf.data[(size_t)rand() % buf.len] = (uint8_t)rand();
        struct outer o = sample;
        struct error *err = NULL;
        long used = load(&new_desc, &o, buf.data, buf.len, &err);
        if (used < 0)
            assert_memory_equal(&o, &sample, sizeof(o));
        else
            assert_null(err);
        error_free(err);
        state_buf_free(&buf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_short_streams),
        cmocka_unit_test(test_trailing_data_is_the_callers),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_wrong_content),
        cmocka_unit_test(test_fields_that_are_not_known),
        cmocka_unit_test(test_post_load_refuses),
        cmocka_unit_test(test_stateless),
        cmocka_unit_test(test_random_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
