/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The saved state of a processor: what a newer version added, and what older ones lack. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "core/state.h"
#include "core/state_x86.h"
#include "x86/state.h"

#define FIELDS_MAX 128

static struct x86_state *new_state(void)
{
    struct x86_state *s = aligned_alloc(_Alignof(struct x86_state), sizeof(*s));
    assert_non_null(s);
    memset(s, 0, sizeof(*s));
    return s;
}

/* The state goes through `desc` and comes back by the present version's. */
static void pass(const struct state_desc *desc, const struct x86_state *in, struct x86_state *out)
{
    struct state_buf buf = {0};
    struct error *err = NULL;
    struct x86_state *copy = new_state();
    memcpy(copy, in, sizeof(*copy));
    state_save(desc, copy, &buf);
    if (state_load(&x86_cpu_state, out, sizeof(*out), buf.data, buf.len, &err) < 0)
        fail_msg("%s", error_text(err));
    state_buf_free(&buf);
    free(copy);
}

static void test_pae_entries(void **state)
{
    struct x86_state *in = new_state(), *out = new_state();
    in->pdpte_valid = true;
    for (unsigned i = 0; i < X86_PDPTES; i++)
        in->pdpte[i] = 0x1001 + 0x1000 * i;
    pass(&x86_cpu_state, in, out);
    assert_true(out->pdpte_valid);
    assert_memory_equal(out->pdpte, in->pdpte, sizeof(in->pdpte));
    free(in);
    free(out);
}

/* As Ruche wrote it before there were PAE entries in it: they count as unknown. */
static void test_first_version(void **state)
{
    static struct state_field fields[FIELDS_MAX];
    unsigned n = 0;
    for (const struct state_field *f = x86_cpu_state.fields; f->type != STATE_END; f++) {
        assert_true(n + 1 < FIELDS_MAX);
        if (f->since == 1)
            fields[n++] = *f;
    }
    fields[n] = (struct state_field)STATE_FIELD_END;
    const struct state_desc first = {
        .name = x86_cpu_state.name, .version = 1, .min_version = 1, .fields = fields};
    struct x86_state *in = new_state(), *out = new_state();
    in->rip = 0x1234;
    in->interrupt_vector = 0x33;
    in->pdpte_valid = true;
    pass(&first, in, out);
    assert_int_equal(out->rip, 0x1234);
    assert_int_equal(out->interrupt_vector, 0x33);
    assert_false(out->pdpte_valid);
    free(in);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pae_entries),
        cmocka_unit_test(test_first_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
