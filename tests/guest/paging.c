/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Paging: permissions, page sizes, accessed and dirty bits, reserved bits, flushing, PCIDs. */
#include "guest.h"

#define VA      TEST_BASE
#define VA_HUGE (TEST_BASE + (UINT64_C(64) << 30)) /* not shared with page_entry's tables */

enum access { MODIFY, READ, WRITE, EXECUTE };

SNIPPET(do_read, "", "mov (%rdi), %rax");
SNIPPET(do_write, "", "mov %rax, (%rdi)");
SNIPPET(do_modify, "", "addq $1, (%rdi)");
SNIPPET(do_execute, "", "jmp *%rdi");

static const uint8_t *const snippets[] = {do_modify, do_read, do_write, do_execute};
static const char *const access_names[] = {"modify", "read", "write", "execute"};
static const uint8_t *const snippets_at[] = {do_modify_at, do_read_at, do_write_at, do_execute_at};

#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define CR0_WP   BIT(16)
#define EFER     0xc0000080
#define EFER_NXE BIT(11)

enum { ERROR_P = 1, ERROR_W = 2, ERROR_U = 4, ERROR_RSVD = 8, ERROR_ID = 16 };
#define NO_FAULT    UINT64_MAX
#define DATA_OFFSET 64
#define FNV_PRIME   UINT64_C(1099511628211)

/* One access; gives the page fault's error code or NO_FAULT. Checks CR2 and RIP of a fault. */
static uint64_t access_at(enum access a, uint64_t va, bool user, bool ac)
{
    struct context c = user ? user_context(snippets[a]) : kernel_context(snippets[a]);
    if (a != EXECUTE)
        va += DATA_OFFSET; /* the code at the page's start stays */
    c.gpr[RDI] = va;
    if (ac)
        c.rflags |= FL_AC;
    uint64_t shift = user ? USER_ALIAS : 0;
    guest_run(&c);
    if (c.vector == VECTOR_DONE)
        return NO_FAULT;
    expect_equal(c.vector, PF, "vector");
    expect_equal(c.cr2, va, "CR2");
    expect_equal(c.rip, a == EXECUTE ? va : (uintptr_t)snippets_at[a] + shift, "RIP");
    /* QEMU's translator leaves P out here. */
    return c.error | (c.error & ERROR_RSVD && !in_harness() ? ERROR_P : 0);
}

static uint8_t *page; /* holds `int $0x81` */

static uint8_t *code_for_execution(void)
{
    uint8_t *p = new_page();
    p[0] = 0xcd;
    p[1] = VECTOR_DONE;
    return p;
}

/* What the manuals say of an access to a page whose levels together have `flags`. */
static uint64_t expected(enum access a, uint64_t flags, bool user, bool ac)
{
    bool write = a == WRITE || a == MODIFY, execute = a == EXECUTE, user_page = flags & PG_U;
    bool nxe = rdmsr(EFER) & EFER_NXE, smep = read_cr4() & CR4_SMEP, smap = read_cr4() & CR4_SMAP;
    /* A read-modify-write is a write; it needs no reading right of its own. */
    uint64_t error = (write ? ERROR_W : 0) | (user ? ERROR_U : 0) | (execute && (nxe || smep) ? ERROR_ID : 0);
    if (!(flags & PG_P))
        return error;
    if ((flags & PG_NX) && !nxe)
        return error | ERROR_P | ERROR_RSVD;
    bool denied = user && !user_page;
    denied |= write && !(flags & PG_W) && (user || (read_cr0() & CR0_WP));
    denied |= execute && (flags & PG_NX);
    denied |= execute && !user && user_page && smep;
    denied |= !execute && !user && user_page && smap && !ac;
    return denied ? error | ERROR_P : NO_FAULT;
}

static void set_bits(uint64_t cr0, uint64_t cr4, bool nxe)
{
    write_cr0((read_cr0() & ~CR0_WP) | cr0);
    write_cr4((read_cr4() & ~(CR4_SMEP | CR4_SMAP)) | cr4);
    wrmsr(EFER, (rdmsr(EFER) & ~EFER_NXE) | (nxe ? EFER_NXE : 0));
}

/* QEMU's translator reports a refused modification as a read. */
static enum access first_access(void)
{
    return in_harness() ? MODIFY : READ;
}

/*
 * Every combination of leaf permissions, control bits, privilege and kind of access. The first that is wrong
 * is shown, then how many are, and a number made of all of them: a known failure must stay exactly what it
 * is.
 */
static void permissions(void)
{
    uint64_t offered = (cpu_has(7, 1, 7) ? CR4_SMEP : 0) | (cpu_has(7, 1, 20) ? CR4_SMAP : 0);
    for (unsigned a = first_access(); a <= EXECUTE; a++)
        for (unsigned user = 0; user < 2; user++) {
            uint64_t wrong = 0, which = 0;
            for (unsigned bits = 0; bits < 512; bits++) {
                uint64_t flags = (bits & 1) | (bits & 2) | (bits & 4) | (bits & 8 ? PG_NX : 0);
                uint64_t cr4 = (bits & 16 ? CR4_SMEP : 0) | (bits & 32 ? CR4_SMAP : 0);
                bool ac = bits & 64;
                /* QEMU reports no RSVD for NX without NXE in every case; it is tested apart. */
                set_bits(bits & 128 ? CR0_WP : 0, cr4 & offered, !(bits & 256) || (flags & PG_NX));
                map_page(VA, (uintptr_t)page, flags);
                uint64_t want = expected(a, flags, user, ac), got = access_at(a, VA, user, ac);
                if (got != want) {
                    if (!wrong++) {
                        expect_equal(got, want, access_names[a]);
                        expect_equal(bits, UINT64_MAX, "combination");
                    }
                    which = (which ^ (bits << 8 | (got & 0xff))) * FNV_PRIME;
                }
                barrier();
            }
            expect_equal(wrong, 0, "combinations");
            expect_equal(which, 0, "which");
            set_bits(CR0_WP, 0, true);
            print(user ? "# CPL 3 " : "# CPL 0 ");
            print(access_names[a]);
            print("\n");
            verdict("permissions of a page by privilege and access");
        }
}

/* A permission withheld at any level counts. */
static void upper_levels(void)
{
    static const char *const names[] = {"PML4E", "PDPTE", "PDE"};
    for (unsigned level = 0; level < 3; level++) {
        map_page(VA, (uintptr_t)page, PG_P | PG_W | PG_U);
        uint64_t *table = guest_pml4;
        for (unsigned i = 0; i < level; i++)
            table = (uint64_t *)(uintptr_t)(table[VA >> (39 - 9 * i) & 511] & UINT64_C(0xffffffffff000));
        uint64_t *entry = &table[VA >> (39 - 9 * level) & 511], old = *entry;
        for (unsigned what = 0; what < 4; what++) {
            *entry = what == 0 ? old & ~(uint64_t)PG_W : what == 1 ? old & ~(uint64_t)PG_U : old;
            if (what == 2)
                *entry |= PG_NX;
            if (what == 3)
                *entry &= ~(uint64_t)PG_P;
            write_cr3(read_cr3());
            uint64_t flags =
                (what != 3) | (what == 0 ? 0 : PG_W) | (what == 1 ? 0 : PG_U) | (what == 2 ? PG_NX : 0);
            for (unsigned a = first_access(); a <= EXECUTE; a++)
                for (unsigned user = 0; user < 2; user++)
                    expect_equal(access_at(a, VA, user, false), expected(a, flags, user, false),
                                 access_names[a]);
        }
        *entry = old;
        write_cr3(read_cr3());
        verdict(names[level]);
    }
}

/* --- accessed and dirty --- */

static void accessed_dirty_page(void)
{
    uint64_t *pte = map_page(VA, (uintptr_t)page, PG_P | PG_W | PG_U);
    uint64_t *pde = directory_entry(VA);
    *pde &= ~(uint64_t)PG_A;
    write_cr3(read_cr3());
    expect_equal(*pte & (PG_A | PG_D), 0, "before any access");
    access_at(READ, VA, true, false);
    expect_equal(*pte & (PG_A | PG_D), PG_A, "after a read");
    expect_equal(*pde & (PG_A | PG_D), PG_A, "upper level after a read");
    access_at(READ, VA, true, false);
    expect_equal(*pte & (PG_A | PG_D), PG_A, "after a second read");
    access_at(WRITE, VA, true, false);
    expect_equal(*pte & (PG_A | PG_D), PG_A | PG_D, "after a write");
    expect_equal(*pde & (PG_A | PG_D), PG_A, "upper level after a write");
    verdict("accessed and dirty bits: read, then write");

    pte = map_page(VA, (uintptr_t)page, PG_P | PG_W | PG_U);
    access_at(MODIFY, VA, false, false);
    expect_equal(*pte & (PG_A | PG_D), PG_A | PG_D, "after a modification");
    pte = map_page(VA, (uintptr_t)page, PG_P | PG_W | PG_U);
    access_at(EXECUTE, VA, false, false);
    expect_equal(*pte & (PG_A | PG_D), PG_A, "after execution");
    pte = map_page(VA, (uintptr_t)page, PG_P | PG_U);
    access_at(WRITE, VA, true, false);
    expect_equal(*pte & PG_D, 0, "after a write that was refused");
    verdict("accessed and dirty bits: modify, execute, refused write");

    /* Cleaned by software and flushed: set again. */
    pte = map_page(VA, (uintptr_t)page, PG_P | PG_W | PG_U);
    for (unsigned i = 0; i < 3; i++) {
        access_at(WRITE, VA, i & 1, false);
        expect_equal(*pte & (PG_A | PG_D), PG_A | PG_D, "after a write");
        *pte &= ~(uint64_t)(PG_A | PG_D);
        invlpg(VA);
        access_at(READ, VA, i & 1, false);
        expect_equal(*pte & (PG_A | PG_D), PG_A, "cleaned, then read");
        *pte &= ~(uint64_t)PG_A;
        invlpg(VA);
    }
    verdict("accessed and dirty bits: cleaned and set again");
}

static void large_pages(void)
{
    uint64_t *pde = directory_entry(VA_HUGE);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t target = ((uintptr_t)page & ~UINT64_C(0x1fffff)) + ((uintptr_t)page & 0x1fffff);
        *pde = (target & ~UINT64_C(0x1fffff)) | PG_P | PG_W | PG_U | PG_PS;
        uint64_t va = VA_HUGE + (target & 0x1fffff);
        invlpg(va);
        expect_equal(access_at(READ, va, true, false), NO_FAULT, "read");
        expect_equal(*pde & (PG_A | PG_D), PG_A, "after a read");
        expect_equal(access_at(EXECUTE, va, true, false), NO_FAULT, "execute");
        *(volatile uint64_t *)(page + 64) = 5;
        access_at(MODIFY, va, true, false);
        expect_equal(*(volatile uint64_t *)(page + 64), 6, "data");
        expect_equal(*pde & (PG_A | PG_D), PG_A | PG_D, "after a write");
        *pde |= BIT(13);
        invlpg(va);
        expect_equal(access_at(READ, va, true, false), ERROR_P | ERROR_U | ERROR_RSVD, "reserved bit 13");
    }
    *pde = 0;
    invlpg(VA_HUGE);
    verdict("2 MiB pages");
    if (!cpu_has(0x80000001, 3, 26)) {
        check(true, "1 GiB pages: not offered");
        return;
    }
    uint64_t *pdpt = (uint64_t *)(uintptr_t)(guest_pml4[VA_HUGE >> 39 & 511] & UINT64_C(0xffffffffff000));
    uint64_t *pdpte = &pdpt[VA_HUGE >> 30 & 511], old = *pdpte;
    *pdpte = PG_P | PG_W | PG_U | PG_PS;
    write_cr3(read_cr3());
    uint64_t va = VA_HUGE + (uintptr_t)page;
    expect_equal(access_at(READ, va, true, false), NO_FAULT, "read");
    expect_equal(*pdpte & (PG_A | PG_D), PG_A, "after a read");
    expect_equal(access_at(EXECUTE, va, false, false), NO_FAULT, "execute");
    access_at(WRITE, va, true, false);
    expect_equal(*pdpte & (PG_A | PG_D), PG_A | PG_D, "after a write");
    *pdpte = old;
    write_cr3(read_cr3());
    verdict("1 GiB pages");
}

/* --- reserved bits --- */

static void reserved_bits(void)
{
    uint32_t r[4];
    cpuid(0x80000008, 0, r);
    unsigned width = r[0] & 0xff;
    uint64_t *pte = map_page(VA, (uintptr_t)page, PG_P | PG_W | PG_U);
    for (unsigned bit = width; bit < 52; bit++) {
        *pte = (uintptr_t)page | PG_P | PG_W | PG_U | BIT(bit);
        invlpg(VA);
        expect_equal(access_at(WRITE, VA, true, false), ERROR_P | ERROR_W | ERROR_U | ERROR_RSVD, "PTE");
    }
    *pte = 0;
    verdict("#PF: physical address too wide");
    *pte = (uintptr_t)page | PG_P | PG_W | PG_U | BIT(9) | BIT(10) | BIT(11) | BIT(52) | BIT(58);
    invlpg(VA);
    expect_equal(access_at(WRITE, VA, true, false), NO_FAULT, "ignored bits");
    verdict("bits for software are ignored");
    set_bits(CR0_WP, 0, false);
    *pte = (uintptr_t)page | PG_P | PG_W | PG_U | PG_NX;
    invlpg(VA);
    expect_equal(access_at(READ, VA, false, false), ERROR_P | ERROR_RSVD, "NX without NXE");
    set_bits(CR0_WP, 0, true);
    expect_equal(access_at(READ, VA, false, false), NO_FAULT, "NX with NXE");
    verdict("#PF: NX is reserved without EFER.NXE");
}

/* --- flushing --- */

static void flushing(void)
{
    uint8_t *a = new_page(), *b = new_page();
    volatile uint64_t *at = (volatile uint64_t *)VA;
    *(uint64_t *)a = 0xa;
    *(uint64_t *)b = 0xb;
    uint64_t *pte = map_page(VA, (uintptr_t)a, PG_P | PG_W);
    expect_equal(*at, 0xa, "first page");
    *pte = (uintptr_t)b | PG_P | PG_W;
    invlpg(VA + 0x123);
    expect_equal(*at, 0xb, "after INVLPG");
    *pte = (uintptr_t)a | PG_P | PG_W;
    write_cr3(read_cr3());
    expect_equal(*at, 0xa, "after MOV to CR3");
    verdict("INVLPG and MOV to CR3 show the new page");

    write_cr4(read_cr4() | BIT(7));
    *pte = (uintptr_t)a | PG_P | PG_W | PG_G;
    invlpg(VA);
    expect_equal(*at, 0xa, "global page");
    *pte = (uintptr_t)b | PG_P | PG_W | PG_G;
    invlpg(VA);
    expect_equal(*at, 0xb, "global page after INVLPG");
    *pte = (uintptr_t)a | PG_P | PG_W | PG_G;
    write_cr4(read_cr4() & ~BIT(7));
    expect_equal(*at, 0xa, "global page after CR4.PGE");
    verdict("global pages");

    *pte = 0;
    invlpg(VA);
    expect_equal(access_at(READ, VA, false, false), 0, "absent");
    *pte = (uintptr_t)b | PG_P | PG_W;
    expect_equal(*at, 0xb, "present without a flush");
    verdict("an absent page that becomes present needs no flush");

    *pte = (uintptr_t)b | PG_P;
    invlpg(VA);
    expect_equal(*at, 0xb, "read-only");
    *pte |= PG_W;
    invlpg(VA);
    *at = 0xc;
    expect_equal(*(uint64_t *)b, 0xc, "written");
    *pte &= ~(uint64_t)PG_W;
    invlpg(VA);
    expect_equal(access_at(WRITE, VA, false, false), ERROR_P | ERROR_W, "read-only again");
    *pte |= PG_W;
    invlpg(VA);
    write_cr0(read_cr0() & ~CR0_WP);
    *pte &= ~(uint64_t)PG_W;
    invlpg(VA);
    *at = 0xd;
    write_cr0(read_cr0() | CR0_WP);
    expect_equal(*(uint64_t *)b, 0xd, "written without WP");
    expect_equal(access_at(WRITE, VA, false, false), ERROR_P | ERROR_W, "read-only under WP");
    verdict("permissions taken away are seen after a flush; WP at once");
}

/* Two address spaces that differ in one page. */
static void address_spaces(void)
{
    uint64_t *other = (uint64_t *)(uintptr_t)new_page();
    uint8_t *a = new_page(), *b = new_page();
    *(uint64_t *)a = 0xa;
    *(uint64_t *)b = 0xb;
    volatile uint64_t *at = (volatile uint64_t *)(TEST_BASE + (UINT64_C(1) << 39));
    map_page((uintptr_t)at, (uintptr_t)a, PG_P | PG_W);
    memcpy(other, guest_pml4, 4096);
    uint64_t kept = guest_pml4[(uintptr_t)at >> 39 & 511];
    guest_pml4[(uintptr_t)at >> 39 & 511] = 0;
    map_page((uintptr_t)at, (uintptr_t)b, PG_P | PG_W);
    uint64_t first = read_cr3(), second = (uintptr_t)other;
    for (unsigned i = 0; i < 20; i++) {
        write_cr3(i & 1 ? second : first);
        expect_equal(*at, i & 1 ? 0xa : 0xb, "page of the address space");
    }
    write_cr3(first);
    verdict("two address spaces");
    (void)kept;
    if (!cpu_has(1, 2, 17)) {
        check(true, "PCID: not offered");
        return;
    }
    write_cr4(read_cr4() | BIT(17));
    for (unsigned i = 0; i < 40; i++) {
        bool keep = i > 3 && (i & 2);
        write_cr3((i & 1 ? second | 2 : first | 1) | (keep ? BIT(63) : 0));
        expect_equal(*at, i & 1 ? 0xa : 0xb, "page of the PCID");
        expect_equal(read_cr3(), i & 1 ? second | 2 : first | 1, "CR3");
    }
    /* Changed while away: seen after a flush of that PCID. */
    write_cr3(first | 1 | BIT(63));
    expect_equal(*at, 0xb, "PCID 1");
    uint64_t *pte = page_entry((uintptr_t)at);
    *pte = (uintptr_t)a | PG_P | PG_W;
    write_cr3(second | 2 | BIT(63));
    write_cr3(first | 1);
    expect_equal(*at, 0xa, "PCID 1 flushed by MOV to CR3");
    verdict("PCIDs");
    if (cpu_has(7, 1, 10)) {
        struct {
            uint64_t pcid, address;
        } descriptor = {1, (uintptr_t)at};
        for (uint64_t type = 0; type < 4; type++) {
            *pte = (type & 1 ? (uintptr_t)a : (uintptr_t)b) | PG_P | PG_W;
            __asm__ volatile("invpcid %0, %1" : : "m"(descriptor), "r"(type) : "memory");
            expect_equal(*at, type & 1 ? 0xa : 0xb, "after INVPCID");
        }
        verdict("INVPCID, all types");
    }
    write_cr3(first);
    write_cr4(read_cr4() & ~BIT(17));
}

void guest_main(void)
{
    page = code_for_execution();
    set_bits(CR0_WP, 0, true);
    permissions();
    upper_levels();
    accessed_dirty_page();
    large_pages();
    reserved_bits();
    flushing();
    address_spaces();
}
