/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which pages of code may run natively. Most instructions do in a process what they do in the guest, or fault
 * and are left to the translator. These do neither:
 *
 *     CPUID, XGETBV          the host's answers, not the model's
 *     XSAVE, XSAVEC, XSAVEOPT   as many components as the host has: more bytes than the guest expects
 *     RDPID, LSL, LAR, VERR, VERW   the host's processor number and descriptors
 *     SGDT, SIDT, SLDT, SMSW, STR   the host's tables, or what its kernel makes up in their place (but 0F 00
 *                            with memory is let through: that is 15 and zeroes in constants, and nobody uses
 * it) VMCALL, VMMCALL        go to the hypervisor below the host, if there is one SYSENTER loses RIP INT 4
 * comes back as a trap that cannot be told from a fault INT 80h                a system call by the host's
 * gate: loses half of RAX
 *
 * A page with one of them is left to the translator. A copy of it in which they fault would not do: what is
 * executed can be read too, and tables lie between functions.
 *
 * Where instructions begin is not known. So their bytes are looked for at every offset, and where they are
 * found, decoding begins at several places before them, and falls into step with the instructions soon. When
 * all say that it is part of something else, the page is good. Of 8800 pages of libraries and compilers, 29
 * are not. Code that hides one from this only fools itself: what it would get is no secret.
 */
#include <Zydis/Mnemonic.h>

#include "base/util.h"
#include "engine/bt/native_space.h"

#define SWEEPS     9u
#define SWEEP_BACK 96u /* bytes before */

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
        return page[i + 1] == 0x04 || page[i + 1] == 0x80;
    bool known = i + 2 < len;
    uint8_t modrm = known ? page[i + 2] : 0;
    switch (page[i + 1]) {
    case 0x00:
        return !known || (is_register(modrm) && (extension(modrm) < 2 || (extension(modrm) & 6) == 4));
    case 0x01:
        return !known ||
               (is_register(modrm) ? modrm == 0xc1 || modrm == 0xd0 || modrm == 0xd9
                                   : extension(modrm) < 2) ||
               extension(modrm) == 4;
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
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
        return true;
    case ZYDIS_MNEMONIC_INT:
        return insn->imm[0] == 4 || (insn->imm[0] & 0xff) == 0x80;
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

bool native_code_fits(const uint8_t *page, unsigned len)
{
    for (unsigned i = 0; i < GUEST_PAGE_SIZE; i++) {
        if (!is_suspect(page, len, i))
            continue;
        for (unsigned k = 0; k < SWEEPS; k++)
            if (covered_by_special(page, len, i > SWEEP_BACK + k ? i - SWEEP_BACK - k : MIN(i, k), i))
                return false;
    }
    return true;
}
