/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bt engine's instructions that save and restore vector state, against the host's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "bt_ops.h"

#define IMAGE __attribute__((aligned(64)))

static void random_state(uint8_t *area)
{
    for (unsigned i = 0; i < XS_END; i++)
        area[i] = (uint8_t)rand();
    store_le16(area + XS_FCW, FCW_DEFAULT);
    store_le16(area + XS_FSW, (uint16_t)((rand() & 7) << 11));
    memset(area + XS_FTW, 0, XS_MXCSR - XS_FTW);
    area[XS_FTW] = (uint8_t)rand();
    store_le32(area + XS_MXCSR, MXCSR_DEFAULT | ((uint32_t)rand() & 0x3f));
    memset(area + XS_BV, 0, 64);
    for (unsigned i = 0; i < 8; i++)
        memset(area + XS_ST + 16 * i + 10, 0, 6);
}

/* Between two states of the host's registers: load `from` wholly, perhaps load `image`, save with `kind`. */
static void host_exchange(const uint8_t *from, const uint8_t *image, uint32_t rfbm, uint8_t *out, int kind)
{
    uint8_t own[XS_END + 64] IMAGE = {0};
    __asm__ volatile("xsave64 (%0)" : : "r"(own), "a"(7), "d"(0) : "memory");
    __asm__ volatile("xrstor64 (%0)" : : "r"(from), "a"(7), "d"(0) : "memory");
    if (image)
        __asm__ volatile("xrstor64 (%0)" : : "r"(image), "a"(rfbm), "d"(0) : "memory");
    if (kind == 0)
        __asm__ volatile("fxsave64 (%0)" : : "r"(out) : "memory");
    else if (kind == 1)
        __asm__ volatile("xsave64 (%0)" : : "r"(out), "a"(rfbm), "d"(0) : "memory");
    else if (kind == 2)
        __asm__ volatile("xsavec64 (%0)" : : "r"(out), "a"(rfbm), "d"(0) : "memory");
    else
        __asm__ volatile("xsaveopt64 (%0)" : : "r"(out), "a"(rfbm), "d"(0) : "memory");
    __asm__ volatile("xrstor64 (%0)" : : "r"(own), "a"(7), "d"(0) : "memory");
}

/* The tests of XSAVE mean something only where there is AVX. */
static void require_avx(void)
{
    if (!(model.xcr0_mask & XSTATE_AVX))
        fail_msg("this host has no AVX");
}

static void set_rfbm(uint32_t rfbm)
{
    cpu->gpr[R_RAX] = rfbm;
    cpu->gpr[R_RDX] = 0;
}

struct save_case {
    uint8_t in[XS_END] IMAGE, area[XS_END] IMAGE; /* registers, and what is in memory before */
    int kind;
    uint32_t rfbm;
    unsigned offset; /* within a page, or over its end */
};

static void random_case(struct save_case *c)
{
    c->kind = rand() & 3;
    c->rfbm = (uint32_t)rand() & 7;
    c->offset = 64u * ((unsigned)rand() % ((WINDOW_SIZE - 1024) / 64));
    random_state(c->in);
    store_le64(c->in + XS_BV, (uint64_t)rand() & 7);
    for (unsigned i = 0; i < XS_END; i++)
        c->area[i] = (uint8_t)rand();
    memset(c->area + XS_BV, 0, 64);
}

/* The first byte that the engine saves unlike the host, or XS_END. */
static unsigned save_differs(const struct save_case *c)
{
    static const char *const codes[] = {"\x48\x0f\xae\x03", "\x48\x0f\xae\x23", "\x48\x0f\xc7\x23",
                                        "\x48\x0f\xae\x33"};
    uint8_t expected[XS_END] IMAGE, got[XS_END] IMAGE;
    memcpy(expected, c->area, XS_END);
    write_window(c->offset, c->area, XS_END);
    memcpy(cpu->xsave, c->in, XS_END);
    host_exchange(c->in, NULL, c->rfbm, expected, c->kind);
    set_rfbm(c->rfbm);
    cpu->gpr[R_RBX] = WINDOW + c->offset;
    assert_int_equal(run(codes[c->kind], 4), DONE);
    read_window(c->offset, got, XS_END);
    if (c->kind == 0 || (c->rfbm & 1)) {
        memset(expected + XS_FOP, 0, XS_MXCSR - XS_FOP);
        if (c->kind < 2 || (load_le64(got + XS_BV) & 1))
            assert_memory_equal(got + XS_FOP, expected + XS_FOP, XS_MXCSR - XS_FOP);
        memset(got + XS_FOP, 0, XS_MXCSR - XS_FOP);
    }
    /* The registers themselves are what they were. */
    assert_memory_equal(cpu->xsave + XS_XMM + 128, c->in + XS_XMM + 128,
                        load_le64(c->in + XS_BV) & 2 ? 128 : 0);
    unsigned i = 0;
    while (i < XS_END && got[i] == expected[i])
        i++;
    return i;
}

/*
 * A switch of threads between loading and saving puts a component into use that was not (XINUSE), in the
 * host's run or in the engine's, which has the host save: what differs is tried again.
 */
static void test_saves(void **state)
{
    require_avx();
    seed();
    for (int n = 0; n < 2000; n++) {
        struct save_case c;
        random_case(&c);
        unsigned byte = 0;
        for (unsigned tries = 0; tries < 5 && byte < XS_END; tries++)
            byte = save_differs(&c);
        if (byte < XS_END)
            fail_msg("case %d kind %d rfbm %x: byte %u is saved unlike the host does", n, c.kind, c.rfbm,
                     byte);
    }
}

static void test_restores(void **state)
{
    require_avx();
    seed();
    for (int n = 0; n < 2000; n++) {
        uint8_t before[XS_END] IMAGE, image[XS_END] IMAGE, expected[XS_END] IMAGE = {0};
        uint32_t rfbm = (uint32_t)rand() & 7;
        unsigned offset = 64u * ((unsigned)rand() % ((WINDOW_SIZE - 1024) / 64));
        random_state(before);
        store_le64(before + XS_BV, 7);
        random_state(image);
        store_le64(image + XS_BV, (uint64_t)rand() & 7);
        if ((model.xsave_features & BIT(1)) && (rand() & 1))
            store_le64(image + XS_COMP_BV, BIT(63) | load_le64(image + XS_BV) | ((uint64_t)rand() & 3) | 4);
        write_window(offset, image, XS_END);
        memcpy(cpu->xsave, before, XS_END);
        host_exchange(before, image, rfbm, expected, 1);
        /* What XSAVE with a part of the components left out: all of them once more. */
        uint8_t all[XS_END] IMAGE = {0};
        host_exchange(before, image, rfbm, all, 1);
        set_rfbm(rfbm);
        cpu->gpr[R_RBX] = WINDOW + offset;
        assert_int_equal(RUN("\x48\x0f\xae\x2b"), DONE);
        uint8_t own[XS_END] IMAGE = {0};
        host_exchange(cpu->xsave, NULL, rfbm, own, 1);
        memset(own + XS_FOP, 0, XS_MXCSR - XS_FOP);
        memset(all + XS_FOP, 0, XS_MXCSR - XS_FOP);
        store_le64(own + XS_BV, 0);
        store_le64(all + XS_BV, 0);
        if (memcmp(own, all, XS_END))
            for (unsigned i = 0; i < XS_END; i++)
                if (own[i] != all[i])
                    fail_msg("case %d rfbm %x: byte %u is %02x, expected %02x", n, rfbm, i, own[i], all[i]);
        /* Components that were not asked for stay. */
        if (!(rfbm & XSTATE_AVX))
            assert_memory_equal(cpu->xsave + XS_AVX, before + XS_AVX, XS_END - XS_AVX);
        if (!(rfbm & XSTATE_SSE))
            assert_memory_equal(cpu->xsave + XS_XMM, before + XS_XMM, 256);
    }
}

static void restore_fails(const uint8_t *image)
{
    uint8_t before[XS_END];
    write_window(0, image, XS_END);
    memcpy(before, cpu->xsave, XS_END);
    set_rfbm(7);
    cpu->gpr[R_RBX] = WINDOW;
    ASSERT_GP("\x48\x0f\xae\x2b");
    assert_memory_equal(cpu->xsave + XS_XMM, before + XS_XMM, 256);
}

/* Images that the host's instruction would not take: #GP for the guest, nothing for the engine. */
static void test_bad_images(void **state)
{
    uint8_t good[XS_END] IMAGE, bad[XS_END] IMAGE;
    require_avx();
    random_state(good);
    random_state(cpu->xsave);
    store_le64(cpu->xsave + XS_BV, 7);
    store_le64(good + XS_BV, 7);
    for (unsigned bit = 3; bit < 64; bit++) {
        memcpy(bad, good, XS_END);
        store_le64(bad + XS_BV, 7 | BIT(bit));
        restore_fails(bad);
        memcpy(bad, good, XS_END);
        store_le64(bad + XS_COMP_BV, bit == 63 ? BIT(63) | 3 : BIT(bit)); /* AVX is not in XCOMP_BV */
        restore_fails(bad);
        memcpy(bad, good, XS_END);
        store_le64(bad + XS_COMP_BV, BIT(63) | 7 | (bit == 63 ? BIT(62) : BIT(bit)));
        restore_fails(bad);
    }
    for (unsigned i = XS_BV + 16; i < XS_AVX; i++) {
        memcpy(bad, good, XS_END);
        bad[i] = 1;
        if (i < XS_BV + 24)
            restore_fails(bad);
        store_le64(bad + XS_COMP_BV, BIT(63) | 7);
        restore_fails(bad);
    }
    for (unsigned bit = 0; bit < 32; bit++) {
        memcpy(bad, good, XS_END);
        store_le32(bad + XS_MXCSR, (uint32_t)BIT(bit));
        if (bt_mxcsr_mask() & BIT(bit))
            continue;
        restore_fails(bad);
        ASSERT_GP("\x48\x0f\xae\x0b"); /* FXRSTOR */
    }
    cpu->gpr[R_RBX] = WINDOW + 32; /* alignment */
    ASSERT_GP("\x48\x0f\xae\x2b");
    ASSERT_GP("\x48\x0f\xae\x23");
    cpu->gpr[R_RBX] = WINDOW + 8;
    ASSERT_GP("\x48\x0f\xae\x03");
    /* Saved machines are made loadable. */
    struct x86_state *saved = calloc(1, sizeof(*saved));
    struct vcpu *vcpu = (struct vcpu *)(void *)cpu;
    assert_non_null(saved);
    ops->get_state(vcpu, saved);
    memset(saved->xsave, 0xff, sizeof(saved->xsave));
    assert_true(ops->set_state(vcpu, saved, NULL));
    free(saved);
    cpu->gpr[R_RBX] = WINDOW;
    ASSERT_OK("\x48\x0f\xae\x03");
}

/* 32-bit code sees eight vector registers only. */
static void test_low_registers(void **state)
{
    uint8_t before[XS_END] IMAGE, image[XS_END] IMAGE;
    require_avx();
    random_state(before);
    store_le64(before + XS_BV, 7);
    memcpy(cpu->xsave, before, XS_END);
    compatibility_mode();
    for (unsigned p = 0; p < PAGES; p++)
        memset(window_host(p * GUEST_PAGE_SIZE), 0xee, GUEST_PAGE_SIZE);
    for (unsigned i = 0; i < 64; i++)
        *window_host(XS_BV + i) = 0;
    set_rfbm(7);
    cpu->gpr[R_RBX] = WINDOW;
    ASSERT_OK("\x0f\xae\x23"); /* XSAVE */
    read_window(0, image, XS_END);
    assert_memory_equal(image + XS_XMM, before + XS_XMM, 128);
    assert_memory_equal(image + XS_AVX, before + XS_AVX, 128);
    for (unsigned i = 0; i < 128; i++) {
        assert_int_equal(image[XS_XMM + 128 + i], 0xee);
        assert_int_equal(image[XS_AVX + 128 + i], 0xee);
    }
    memset(window_host(XS_XMM), 0x11, 256);
    ASSERT_OK("\x0f\xae\x2b"); /* XRSTOR */
    assert_int_equal(cpu->xsave[XS_XMM], 0x11);
    assert_memory_equal(cpu->xsave + XS_XMM + 128, before + XS_XMM + 128, 128);
    assert_memory_equal(cpu->xsave + XS_AVX, before + XS_AVX, 256);
    memset(window_host(XS_XMM), 0x22, 256);
    ASSERT_OK("\x0f\xae\x0b"); /* FXRSTOR */
    assert_int_equal(cpu->xsave[XS_XMM], 0x22);
    assert_memory_equal(cpu->xsave + XS_XMM + 128, before + XS_XMM + 128, 128);
    assert_memory_equal(cpu->xsave + XS_ST, before + XS_ST, 128);
}

static void test_environments(void **state)
{
    uint8_t before[XS_END] IMAGE, image[108];
    random_state(before);
    store_le64(before + XS_BV, 7);
    memcpy(cpu->xsave, before, XS_END);
    cpu->gpr[R_RBX] = WINDOW + 100;
    ASSERT_OK("\xdd\x33"); /* FNSAVE */
    read_window(100, image, sizeof(image));
    assert_int_equal(load_le16(image), load_le16(before + XS_FCW));
    assert_int_equal(load_le16(image + 4), load_le16(before + XS_FSW));
    for (unsigned i = 12; i < 26; i++)
        assert_int_equal(image[i], 0); /* nothing of the host's addresses */
    for (unsigned i = 0; i < 8; i++)
        assert_memory_equal(image + 28 + 10 * i, before + XS_ST + 16 * i, 10);
    assert_int_equal(cpu->xsave[XS_FTW], 0); /* as FNINIT leaves it */
    assert_int_equal(load_le16(cpu->xsave + XS_FSW), 0);
    ASSERT_OK("\xdd\x23"); /* FRSTOR */
    assert_memory_equal(cpu->xsave + XS_ST, before + XS_ST, 128);
    assert_int_equal(load_le16(cpu->xsave + XS_FSW), load_le16(before + XS_FSW));
    assert_int_equal(cpu->xsave[XS_FTW], before[XS_FTW]);
    assert_memory_equal(cpu->xsave + XS_XMM, before + XS_XMM, 256);
    /* The 16-bit forms, and a fault that must change nothing. */
    ASSERT_OK("\x66\xdd\x33");
    ASSERT_OK("\x66\xdd\x23");
    assert_memory_equal(cpu->xsave + XS_ST, before + XS_ST, 128);
    cpu->gpr[R_RBX] = WINDOW + WINDOW_SIZE - 50;
    assert_exception(RUN("\xdd\x33"), VEC_PF);
    assert_memory_equal(cpu->xsave + XS_ST, before + XS_ST, 128);
    assert_int_equal(cpu->xsave[XS_FTW], before[XS_FTW]);
    /* A pending exception is reported by those that wait. */
    store_le16(cpu->xsave + XS_FCW, 0x37e);
    store_le16(cpu->xsave + XS_FSW, 0x8081);
    cpu->gpr[R_RBX] = WINDOW + 100;
    assert_exception(RUN("\x9b"), VEC_MF);
    assert_exception(RUN("\xd9\x23"), VEC_MF);
    ASSERT_OK("\xd9\x33");
    store_le16(cpu->xsave + XS_FSW, 0);
    cpu->cr0 |= CR0_TS;
    assert_exception(RUN("\x9b"), VEC_NM);
    assert_exception(RUN("\xdd\x33"), VEC_NM);
    assert_exception(RUN("\x48\x0f\xae\x03"), VEC_NM);
    cpu->cr0 &= ~CR0_MP;
    ASSERT_OK("\x9b");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, bt_ops_setup, bt_ops_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_saves),         TEST(test_restores),     TEST(test_bad_images),
        TEST(test_low_registers), TEST(test_environments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
