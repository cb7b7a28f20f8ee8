/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What of a page of code may run natively. Most instructions do in a process what they do in the guest, or
 * fault and are left to the translator. These do neither:
 *
 *     CPUID, XGETBV          the host's answers, not the model's
 *     XSAVE, XSAVEC, XSAVEOPT   as many components as the host has: more bytes than the guest expects
 *     RDPID, LSL, LAR        the host's processor number and descriptors
 *     SYSENTER               loses RIP
 *     INT 4                  comes back as a trap that cannot be told from a fault
 *
 * Where instructions begin is not known. So their bytes are looked for at every offset, and where they are
 * found, decoding begins at several places before them, and falls into step with the instructions soon. When
 * all say that it is such an instruction, native code gets a copy of the page in which it begins with HLT,
 * which faults. When they do not agree, the page is left to the translator. Code that hides one from this
 * only fools itself: what it would get is no secret.
 */
#include <Zydis/Mnemonic.h>

#include "base/util.h"
#include "engine/bt/native_space.h"

#define HLT        0xf4
#define SWEEPS     9u
#define SWEEP_BACK 48u /* bytes before */

static bool is_register(uint8_t modrm)
{
    return modrm >> 6 == 3;
}

static unsigned extension(uint8_t modrm)
{
    return modrm >> 3 & 7;
}

/* RDPID has F3 in front of it, perhaps with REX between. Without it is RDSEED. */
static bool is_rdpid(const uint8_t *page, unsigned i)
{
    unsigned before = i && page[i - 1] >> 4 == 4 ? 2 : 1;
    return i >= before && page[i - before] == 0xf3;
}

/* Whether the two bytes at page[i] and those after them could be one of the list. What lies beyond the end
 * could. */
static bool is_suspect(const uint8_t *page, unsigned len, unsigned i)
{
    if (page[i] != 0x0f && page[i] != 0xcd)
        return false;
    if (i + 1 >= len)
        return true;
    if (page[i] == 0xcd)
        return page[i + 1] == 0x04;
    bool known = i + 2 < len;
    uint8_t modrm = known ? page[i + 2] : 0;
    switch (page[i + 1]) {
    case 0x01:
        return !known || modrm == 0xd0;
    case 0x02:
    case 0x03:
        return !known || is_register(modrm);
    case 0x34:
    case 0xa2:
        return true;
    case 0xae:
        return !known || (!is_register(modrm) && (extension(modrm) == 4 || extension(modrm) == 6));
    case 0xc7:
        return !known ||
               (is_register(modrm) ? extension(modrm) == 7 && is_rdpid(page, i) : extension(modrm) == 4);
    default:
        return false;
    }
}

static bool is_special(const struct x86_insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_SYSENTER:
        return true;
    case ZYDIS_MNEMONIC_INT:
        return insn->imm[0] == 4;
    default:
        return false;
    }
}

/* The instruction that covers page[i] when decoding begins at `at`: whether it is special, or cut off at the
 * end. */
static bool covered_by_special(const uint8_t *page, unsigned len, unsigned at, unsigned i)
{
    for (;;) {
        struct x86_insn insn;
        enum x86_decode_result r = x86_decode(&insn, page + at, len - at, 64);
        unsigned size = r == DECODE_OK ? insn.len : 1;
        if (r == DECODE_MORE || at + size > i)
            return r == DECODE_MORE || (r == DECODE_OK && is_special(&insn));
        at += size;
    }
}

enum native_code native_code_prepare(uint8_t *page, unsigned len)
{
    enum native_code result = NATIVE_CODE_AS_IS;
    for (unsigned i = 0; i < GUEST_PAGE_SIZE; i++) {
        if (!is_suspect(page, len, i))
            continue;
        unsigned yes = 0;
        for (unsigned k = 0; k < SWEEPS; k++)
            yes += covered_by_special(page, len, i > SWEEP_BACK + k ? i - SWEEP_BACK - k : MIN(i, k), i);
        if (yes && yes < SWEEPS)
            return NATIVE_CODE_REFUSED;
        if (yes) {
            page[i] = HLT;
            result = NATIVE_CODE_CHANGED;
        }
    }
    return result;
}
