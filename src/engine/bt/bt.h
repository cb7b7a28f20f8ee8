/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of engine `bt`: the state of a translated processor and of the engine, and the contracts between its
 * files.
 *
 * How a vCPU runs. run.c loops: deliver what is pending, find (or make) the block for RIP, enter it. Blocks
 * are host code made of the guest's own instructions (translate*.c), chained to each other; they come back
 * for one of enum bt_exit. While in a block, guest GPRs live in host registers as in bt_host_reg[], status
 * flags in the host's flags, vectors and x87 in the host's own; `gs` points at struct bt_cpu. Whenever C code
 * runs, all GPRs are in cpu->gpr, RIP in cpu->rip, status flags in cpu->status (see flags.h).
 *
 * Vectors: files compiled "gpr-only" (bt_gpr_sources in meson.build: -mgeneral-regs-only) may run with guest
 * vectors live in host registers. Anything else (libc, Zydis, devices, logging) may clobber them, so
 * bt_vec_save(cpu) comes first; run.c reloads them before the next block.
 *
 * Exceptions: a C function that can fault returns bool. On false cpu->exc is filled by bt_raise* and RIP and
 * all registers are as before the instruction. run.c delivers it.
 */
#ifndef BT_BT_H
#define BT_BT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/engine.h"
#include "engine/bt/tuning.h"
#include "x86/decode.h"
#include "x86/state.h"

struct bt_engine;
struct bt_block;
struct bt_cpu;

#define BT_CPU_MAX 32

/* Soft TLB: direct-mapped, one table per access mode. Entry layout is known to translated code. */
struct bt_tlb_entry {
    uint64_t read_tag; /* linear page address, or BT_TLB_NONE of one */
    uint64_t
        write_tag;   /* the same, when writes may go ahead without asking (dirty set, no code in the page) */
    uint64_t addend; /* host address of the page minus its linear address */
    uint64_t flags;  /* BT_TLBE_* and guest physical page */
};
/* An empty entry's tag: no page's address, nor a page or less before any address that comes to `page`'s slot.
 */
#define BT_TLB_NONE(page) (((page) ^ 2 * GUEST_PAGE_SIZE) | 1)
#define BT_TLB_SIZE       (1u << BT_TLB_BITS)
#define BT_TLBE_GLOBAL    BIT(0)
#define BT_TLBE_WRITABLE  BIT(2) /* writes are allowed and the page is dirty already */
#define BT_TLBE_LARGE     BIT(1)

enum bt_tlb_mode {
    BT_TLB_KERNEL,      /* supervisor access, user pages allowed (no SMAP, or AC set) */
    BT_TLB_KERNEL_SMAP, /* supervisor access, user pages refused */
    BT_TLB_USER,
    BT_TLB_MODES
};

/* Block modes: what a translation depends on besides the bytes. Part of its key. */
enum bt_mode {
    MODE_CODE32 = 1 << 0,  /* CS.D (not in 64-bit mode) */
    MODE_CODE64 = 1 << 1,  /* CS.L in long mode */
    MODE_USER = 1 << 2,    /* CPL 3 */
    MODE_STACK32 = 1 << 3, /* SS.B; 64-bit mode: unset */
    MODE_FLAT =
        1 << 4, /* CS DS ES SS have base 0 and 4 GiB limits and allow their use; always in 64-bit mode */
    MODE_SMAP = 1 << 5,   /* supervisor with CR4.SMAP and AC clear */
    MODE_NO_FPU = 1 << 6, /* CR0.TS or CR0.EM: x87, SSE and AVX go to bt_op_no_fpu */
    MODE_SSE = 1 << 7,    /* CR4.OSFXSR */
    MODE_AVX = 1 << 8,    /* CR4.OSXSAVE and XCR0.AVX */
    MODE_SLOW = 1 << 9,   /* one instruction with checked, bounced memory accesses: MMIO, page crossings, code
                             pages, debugging */
    MODE_ALIGN =
        1 << 10, /* all accesses go through C: CPL 3 with CR0.AM and EFLAGS.AC, where they are checked for
                    alignment; 64-bit code at CPL 1 and 2, which is not known from CPL 0 by its mode */
    MODE_PRECISE = 1 << 11, /* each access is checked for itself; never in cpu->mode */
    MODE_LOOP = 1 << 12, /* a block that branches to itself, from its second round on; never in cpu->mode */
};
#define BT_MODE_BITS 11

/* Why translated code returned to run.c. */
enum bt_exit {
    BT_EXIT_NONE,
    BT_EXIT_LOOKUP,  /* go on at cpu->rip */
    BT_EXIT_LINK,    /* as LOOKUP; cpu->exit_arg says which jump may be chained (struct bt_link *) */
    BT_EXIT_POLL,    /* cpu->kick was seen at page offset cpu->exit_arg */
    BT_EXIT_OP,      /* cpu->exit_arg is to be executed by its C function (const struct bt_op *) */
    BT_EXIT_SLOW,    /* the instruction at cpu->rip wants its MODE_SLOW translation */
    BT_EXIT_FAULT,   /* cpu->exc is set, for the instruction at cpu->rip */
    BT_EXIT_DEAD,    /* what led to a block at cpu->rip does not hold any more: as LOOKUP, but not by the jump
                        cache */
    BT_EXIT_MOVED,   /* as DEAD: the block at page offset cpu->exit_arg went on in another page */
    BT_EXIT_PRECISE, /* accesses from cpu->rip on cannot share a check: go on with a MODE_PRECISE block */
    BT_EXIT_COUNT
};

/* Written by the vCPU's thread (bt_stat_add), read by any. Cycles are the host TSC's. */
struct bt_stats {
    uint64_t exits[BT_EXIT_COUNT];
    uint64_t translations, kept_translations, translate_cycles, halt_cycles, native_cycles, native_stays;
    uint64_t user_entries; /* how often CPL became 3 */
    uint64_t tlb_misses;   /* of translated code's look-ups */
    uint64_t tlb_flushes;
    uint64_t block_lookups; /* that neither a chained jump nor the jump cache answered */
    uint64_t interrupts;
};

static inline void bt_stat_add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline uint64_t bt_stat_get(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

struct bt_exception {
    bool pending;
    uint8_t vector;
    bool has_error;
    bool soft;     /* INT n, INT3, INTO: RIP to push is after the instruction, DPL is checked */
    bool external; /* hardware interrupt or NMI */
    uint32_t error;
    uint64_t cr2;      /* for #PF */
    uint64_t dr6;      /* for #DB: bits to set */
    uint64_t next_rip; /* for soft: RIP to push */
};

/*
 * An instruction that C executes: made by the translator, lives as long as its block. `run` sets cpu->rip to
 * the next instruction itself (bt_op_next) or elsewhere.
 */
struct bt_op {
    bool (*run)(struct bt_cpu *cpu, const struct bt_op *op);
    bool heavy;        /* run may clobber vector registers: run.c calls bt_vec_save first */
    uint16_t page_off; /* of the instruction */
    struct x86_insn insn;
};

/* CPU-wide requests, set by any thread in cpu->requests with cpu->kick. */
enum bt_request {
    BT_REQ_STOP = 1 << 0,      /* leave run with VM_EXIT_INTERRUPTED */
    BT_REQ_EVENT = 1 << 1,     /* interrupts, NMI, INIT, SIPI: look at the lapic */
    BT_REQ_FLUSH_JC = 1 << 2,  /* forget cached block entries */
    BT_REQ_FLUSH_TLB = 1 << 3, /* forget all translations of addresses */
};

#define BT_SPILLS  4
#define BT_JC_SIZE (1u << BT_JC_BITS)
/*
 * Jump cache: RIP to block entry, for one mode and address space at a time. All of RIP is compared, as it may
 * be anything that user code jumps to; the key is in the bits of the target that no address has.
 */
struct bt_jc_entry {
    uint64_t rip;
    uint64_t target; /* the block's indirect entry ^ cpu->jc_key; BT_JC_NONE: empty */
};
#define BT_JC_NONE      UINT64_MAX /* no key has all bits set */
#define BT_TARGET_END   BIT(BT_JC_KEY_SHIFT)
#define BT_NO_BRANCH    UINT32_MAX
#define BT_JC_KEY_SHIFT 48
#define BT_ITLB_NONE    UINT64_C(0x0000800000000001) /* no page's tag */

/* Where code pages are, by linear address: for the same mode and address space as jump cache entries. */
#define BT_CODE_PAGES  4096u
#define BT_GENERATIONS 32u
#define BT_SPACE_NONE  UINT64_MAX
/*
 * An address space whose user code has entries in the jump cache and the instruction TLB, under a generation
 * of its own, and the pages by which they came.
 */
struct bt_code_space {
    uint64_t cr3; /* BT_SPACE_NONE: none */
    uint64_t used;
    uint32_t generation;
    uint32_t count; /* beyond the array: too many to tell */
    struct bt_code_page {
        uint64_t lin, phys;
    } page[BT_SPACE_PAGES];
};
struct bt_itlb_entry {
    uint64_t tag; /* canonical linear page ^ cpu->jc_key; BT_ITLB_NONE: empty */
    uint64_t phys;
};

/* Address spaces of a vCPU that run natively at a time. */
#define BT_NATIVE_HOT  4u
#define BT_NATIVE_NONE UINT64_MAX

struct bt_lapic;
struct bt_native;

/* Executable addresses of the code between C and translated code: see thunk.h. */
#define BT_CALLOUTS 3
/* Loads guest state, puts t0 into T0, jumps to entry; returns when the guest exits. */
typedef void bt_enter_fn(struct bt_cpu *cpu, const uint8_t *entry, uint64_t t0);
struct bt_thunks {
    bt_enter_fn *enter;
    const uint8_t *leave;            /* back to C, all state is in *cpu already */
    const uint8_t *exit_flags_host;  /* jump here to leave, status flags in the host's */
    const uint8_t *exit_flags_saved; /* the same, status flags in cpu->status */
    const uint8_t *dead;             /* the indirect entry of blocks that are no more */
    /* Leaves for a reason with T1 as its cpu->exit_arg. Of each pair, here and below, the second is for
     * status flags in cpu->status, the first for those in the host's. */
    const uint8_t *exit[BT_EXIT_COUNT][2];
    /*
     * Called on a soft TLB miss with T1 the descriptor and the linear address in T0, or, flags in the host's,
     * in cpu->access_lin. Comes back with T0 the linear address, T1 the addend, and CF clear; CF set, T1
     * anything: DESC_MERGED, and the span goes across pages. The flags are saved then.
     */
    const uint8_t *access[2];
    const uint8_t *jump[2]; /* to RIP in T0, by the jump cache */
    /* RIP in T0 is not in the jump cache; branch: T1 is for cpu->branch_off and branch_undo. */
    const uint8_t *missed, *missed_branch;
    const uint8_t *callout[BT_CALLOUTS];
};

struct bt_cpu {
    /* --- known to translated code by offset (gs:) --- */
    uint64_t gpr[16];
    uint64_t rip;         /* at exits */
    uint64_t pc_base;     /* RIP that page offset 0 of the running block's page has */
    uint32_t status;      /* saved status flags: AH and AL as LAHF and SETO left them (flags.h) */
    uint32_t df;          /* 0 or FLAG_DF */
    uint32_t iflag;       /* 0 or FLAG_IF */
    uint32_t shadow;      /* interrupts are held off for one instruction */
    uint32_t irq_waiting; /* an interrupt may be waiting for IF */
    uint64_t sysflags;    /* RFLAGS without status flags, DF and IF */
    uint64_t kernel_gs_base;
    _Atomic uint32_t kick;     /* != 0: come back at the next block */
    uint32_t exit_reason;      /* enum bt_exit */
    uint64_t t0;               /* where bt_enter jumps */
    uint64_t spill[BT_SPILLS]; /* host registers borrowed within one instruction */
    uint64_t scratch;          /* RAX while flags are restored without a free register */
    uint64_t access_lin;       /* linear address that a stub looks up */
    uint64_t
        limit[BT_MERGED_MAX]; /* of a loop: how far a register may move until a page must be checked anew */
    uint64_t addend[BT_MERGED_MAX]; /* host minus linear addresses of the running block's checked pages */
    uint64_t exit_arg;
    uint64_t host_rsp;
    /* After an indirect branch that missed the jump cache: its page offset (else BT_NO_BRANCH) and what
     * undoes its RSP. */
    uint32_t branch_off;
    int32_t branch_undo;
    uint64_t jc_key;
    uint64_t target_end;          /* BT_TARGET_END, to compare with */
    struct bt_tlb_entry *tlb;     /* of the current access mode */
    uint64_t seg_base[SEG_COUNT]; /* copy of seg[].base */
    struct bt_cpu *self;
    struct bt_jc_entry *jc; /* of jcs[], for the current mode */
    void *callout[16];      /* C functions that translated code calls */
    uint8_t bounce[4096] __attribute__((aligned(64)));

    /* --- C only --- */
    struct bt_engine *engine;
    struct bt_link
        *exit_link; /* where translated code came out, to be chained; NULL: its block may be gone */
    unsigned index; /* = APIC id */
    struct x86_segment seg[SEG_COUNT];
    struct x86_table gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, xcr0, efer;
    uint64_t dr[8];
    uint64_t star, lstar, cstar, sfmask;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, misc_enable, spec_ctrl, mtrr_def_type;
    uint64_t mtrr_fixed[11], mtrr_base[X86_VAR_MTRRS], mtrr_mask[X86_VAR_MTRRS];
    uint64_t mcg_status, tsc_adjust;
    uint64_t tsc_offset; /* guest TSC = host TSC + tsc_offset */
    uint64_t pv_system_time_msr, pv_wall_clock_msr, pv_eoi_msr, pv_steal_msr, pv_async_msr;
    uint64_t pdpte[X86_PDPTES]; /* PAE paging: loaded with CR3 */
    uint8_t cpl;                /* = SS.DPL in protected mode; 0 real, 3 virtual-8086 */
    struct bt_code_space space[BT_SPACES];
    unsigned space_now;
    uint32_t space_generation;
    uint64_t space_clock;
    /* Code of other privileges: code_pages tells, by a bit of their hash for each half of the address space,
     * which pages may have had entries since. */
    struct bt_kernel_view {
        uint32_t generation;
        bool local; /* some page is not global */
        uint64_t code_pages[2 * BT_CODE_PAGES / 64];
    } kernel_view;
    uint32_t mode;    /* MODE_* bits now (bt_mode_update) */
    bool trap_shadow; /* after MOV SS and POP SS: debug traps are held off too */
    bool nmi_blocked, nmi_pending;
    bool vec_live; /* guest vectors are in host registers */
    /* The GiB-sized regions of linear memory that have pages larger than 4 KiB in the TLB; count beyond the
     * array: too many to tell. */
    uint64_t large_region[BT_LARGE_REGIONS];
    unsigned large_count;
    enum x86_mp_state mp_state;
    uint8_t sipi_vector;
    struct bt_exception exc; /* fault being raised */
    bool interrupt_pending;  /* an acknowledged interrupt to deliver before the next instruction: from
                                set_state */
    uint8_t interrupt_vector;
    uint64_t pending_db;       /* DR6 bits of debug traps to deliver before the next instruction */
    bool stop, failed;         /* run is to return: kicked; the engine cannot go on (why) */
    _Atomic bool nmi_request;  /* from another thread */
    bool event_check;          /* interrupts, NMI or INIT may be waiting */
    bool shutdown;             /* triple fault */
    char why[256];             /* what led to shutdown or error */
    _Atomic uint32_t requests; /* BT_REQ_* */
    struct bt_lapic *lapic;
    _Atomic bool sleeping;           /* in futex wait on kick */
    _Atomic uint64_t sleeping_since; /* host TSC; 0: it is not */
    _Atomic uint64_t code_epoch;     /* cache epoch when run.c last looked; 0: not using any block */
    _Atomic bool in_host;            /* a device is being asked, with no memory of the guest's at hand */
    /* Checked access in progress (CALLOUT_PRE to CALLOUT_POST). */
    uint64_t slow_lin;
    uint32_t slow_len;
    bool slow_direct; /* in RAM, not bounced */
    bool slow_locked; /* holds engine->split_lock */
    struct bt_tlb_entry *tlbs[BT_TLB_MODES];
    struct bt_itlb_entry itlb[BT_ITLB_SIZE];
    struct bt_jc_entry *jcs[2]; /* jump caches: of kernel code, and of code at CPL 3 */
    /* Which slots have taken entries that are not global since those were flushed; count beyond the array:
     * any. */
    struct {
        uint16_t slot[BT_TLB_SIZE];
        unsigned count;
    } tlb_log[BT_TLB_MODES];
    struct bt_native *native; /* native.c; NULL until it is first used */
    /* Address spaces (CR3) whose user code is to go on natively; BT_NATIVE_NONE: free. */
    uint64_t native_hot[BT_NATIVE_HOT];
    /* The page of code, and its CR3, that was last left to the translator; BT_NATIVE_NONE: none. */
    uint64_t native_refused, native_refused_cr3;
    bool native_stale;              /* the guest has flushed translations since it last did */
    _Atomic int native_fd;          /* of the process that it runs in now, + 1; 0: none */
    _Atomic uint32_t native_denied; /* grows when pages must not be written any more without being noticed */
    struct bt_stats stats;
    uint8_t xsave[X86_XSAVE_MAX] __attribute__((aligned(64))); /* standard format; valid when !vec_live */
};

/* ---- run.c ---- */
/* Sets kick and wakes a sleeping vCPU. Any thread, async-signal-safe. */
void bt_request(struct bt_cpu *cpu, uint32_t request);
/* Recomputes cpu->mode, the TLB in force, seg_base and jc_key after a change of segments, CPL, CR0, CR4,
 * EFER, XCR0 or AC. gpr-only. */
void bt_mode_update(struct bt_cpu *cpu);
/* ---- view.c (gpr-only): which entries of the jump cache and the instruction TLB hold ---- */
/* CR3 was loaded; or, when `global_too`, nothing holds any more. */
void bt_view_flush(struct bt_cpu *cpu, bool global_too);
/* The guest has flushed one page. */
void bt_view_flush_page(struct bt_cpu *cpu, uint64_t lin);
/* An entry for code at lin is about to be made. */
void bt_view_note_page(struct bt_cpu *cpu, uint64_t lin, uint64_t phys, bool global);
/* cpu->mode is another one. */
void bt_view_mode_changed(struct bt_cpu *cpu);

/* ---- vec.c: guest vector state between host registers and cpu->xsave. gpr-only callable ---- */
void bt_vec_save(struct bt_cpu *cpu);
void bt_vec_load(struct bt_cpu *cpu);

/* ---- flags.h: status flags ---- */
uint64_t bt_rflags(const struct bt_cpu *cpu); /* whole RFLAGS, bit 1 set */
void bt_set_rflags(struct bt_cpu *cpu,
                   uint64_t rflags); /* whole RFLAGS; bt_mode_update when AC or VM may have changed */

/* ---- mmu.c (gpr-only): linear memory as the guest sees it ---- */
enum bt_access {
    BT_READ = 0,
    BT_WRITE = 1,
    BT_FETCH = 2,
    BT_IMPLICIT = 4 /* supervisor access whatever CPL: descriptor tables, TSS */,
    BT_USER = 8 /* as CPL 3 */
};

/* Linear to physical with all checks; sets A/D bits. On false: cpu->exc is #PF. page_flags may be NULL
 * (BT_TLBE_*). */
bool bt_translate(struct bt_cpu *cpu, uint64_t lin, unsigned access, uint64_t *gpa, uint64_t *page_flags);
/*
 * Copies between the guest's linear memory and a buffer, at most 4096 bytes; pages and MMIO handled (MMIO as
 * one access of len 1, 2, 4, 8). All pages are checked before the first byte is written. On false cpu->exc is
 * set and nothing was written.
 */
bool bt_read_lin(struct bt_cpu *cpu, uint64_t lin, void *buf, unsigned len, unsigned access);
bool bt_write_lin(struct bt_cpu *cpu, uint64_t lin, const void *buf, unsigned len, unsigned access);
/* With segmentation: base, limit, type and canonical checks (#GP, #SS), then as above. `ea` is the offset. */
bool bt_read_seg(struct bt_cpu *cpu, unsigned seg, uint64_t ea, void *buf, unsigned len);
bool bt_write_seg(struct bt_cpu *cpu, unsigned seg, uint64_t ea, const void *buf, unsigned len);
/* Whether bt_write_seg would succeed; on false cpu->exc is set. */
bool bt_can_write_seg(struct bt_cpu *cpu, unsigned seg, uint64_t ea, unsigned len);
/* Checks an access of len bytes and gives the linear address. write: BT_READ, BT_WRITE or BT_FETCH. */
bool bt_seg_linear(struct bt_cpu *cpu, unsigned seg, uint64_t ea, unsigned len, unsigned access,
                   uint64_t *lin);
/* Offset of an instruction's memory operand (without segment base), truncated to the address size. */
uint64_t bt_effective_address(const struct bt_cpu *cpu, const struct x86_insn *insn);
/* Copies up to 15 bytes of code at RIP; returns how many could be fetched, 0 with cpu->exc set. */
unsigned bt_fetch(struct bt_cpu *cpu, uint64_t rip, uint8_t buf[16]);
/*
 * Host address of linear address lin, good to the end of its page; for page-wise string instructions. NULL
 * with cpu->exc.pending on a fault; NULL without it when the page is not plain RAM or is watched: use
 * bt_read_lin and bt_write_lin. For writing it drops translations of the page.
 */
uint8_t *bt_host_ptr(struct bt_cpu *cpu, uint64_t lin, unsigned access);

/* Dirty log: the page behind a host address (an entry of a page table). */
void bt_mark_host_dirty(struct bt_engine *engine, const void *host);
/* Releases engine->split_lock. */
void bt_split_unlock(struct bt_cpu *cpu);
uint64_t bt_callout_access(struct bt_cpu *cpu, uint64_t lin, uint64_t desc);
uint64_t bt_callout_pre(struct bt_cpu *cpu, uint64_t ea, uint64_t desc);
uint64_t bt_callout_post(struct bt_cpu *cpu, uint64_t unused, uint64_t next_off);

void bt_tlb_flush(struct bt_cpu *cpu, bool global_too);
void bt_tlb_flush_page(struct bt_cpu *cpu, uint64_t lin);
/*
 * Takes away the fast way to write the page at host address `host` (0: every page). Any thread, the vCPU may
 * be running: a look-up that is under way sees either tag, which differ by bit 63 only (see
 * bt_callout_access). A block that is running may have passed its check already, and write until the vCPU
 * comes out of it. `doubt`: pages that it was the way to are noted in doubt_bits.
 */
void bt_tlb_deny_writes(struct bt_cpu *cpu, uint64_t host, bool doubt);

/* ---- exc.c (gpr-only): raising and delivering ---- */
/* Each fills cpu->exc and returns false, so that callers can `return bt_raise(...)`. */
static inline bool bt_raise(struct bt_cpu *cpu, unsigned vector)
{
    cpu->exc = (struct bt_exception){.pending = true, .vector = (uint8_t)vector};
    return false;
}

static inline bool bt_raise_error(struct bt_cpu *cpu, unsigned vector, uint32_t error)
{
    cpu->exc =
        (struct bt_exception){.pending = true, .vector = (uint8_t)vector, .has_error = true, .error = error};
    return false;
}

static inline bool bt_raise_pf(struct bt_cpu *cpu, uint64_t lin, uint32_t error)
{
    bt_raise_error(cpu, VEC_PF, error);
    cpu->exc.cr2 = lin;
    return false;
}

/*
 * Delivers cpu->exc (fault, trap, software or external interrupt) through the IDT or IVT, in every mode, with
 * all checks, IST, task gates, double and triple fault. Afterwards cpu->rip is in the handler, or
 * cpu->shutdown is set.
 */
void bt_deliver(struct bt_cpu *cpu);

/* #MF and #XM etc. when the FPU is off: the right exception for the instruction (op_fpu.c). */
struct bt_op;
bool bt_op_no_fpu(struct bt_cpu *cpu, const struct bt_op *op);

/* ---- cache.c ---- */
/* Guest RAM [gpa, gpa + len) was written by other than translated code. Any thread; takes engine->lock when
 * code lies there. */
void bt_code_written(struct bt_engine *engine, uint64_t gpa, uint64_t len);

/* ---- ops: C functions for instructions (op_*.c, gpr-only where frequent) ---- */
typedef bool bt_op_fn(struct bt_cpu *cpu, const struct bt_op *op);
/* rip += len, wrapped to the code size. Returns true. */
bool bt_op_next(struct bt_cpu *cpu, const struct bt_op *op);
/*
 * The C function for an instruction that the translator does not handle itself; NULL when there is none
 * (#UD). Sets *heavy. Called while translating.
 */
bt_op_fn *bt_op_find(const struct x86_insn *insn, bool *heavy);

/* Lets another thread run: sched_yield without the C library, which might touch vectors (op_misc.c). */
void bt_yield(void);

/* ---- engine ---- */
struct bt_engine {
    struct engine_config config;
    struct bt_cpu *cpu[BT_CPU_MAX];
    struct bt_cache *cache; /* cache.h */
    struct bt_thunks thunks;
    struct bt_jitdump *jitdump; /* jitdump.h; NULL: nobody wants it */
    struct bt_kept *kept;       /* kept.h; NULL: none are kept */
    atomic_flag split_lock;     /* held from CALLOUT_PRE to CALLOUT_POST of a bounced read-modify-write */
    struct tr *tr;              /* the translator's workspace; guarded by lock */
    uint64_t *_Atomic dirty;    /* dirty log, a bit for each page by bt_page_index; NULL: off */
    uint64_t *dirty_bits;       /* the memory of `dirty`, kept until close */
    uint64_t *doubt_bits;       /* pages that a vCPU may be about to write although it was denied */
    uint64_t doubt_epoch;       /* until all have come out since then; guarded by lock */
    _Atomic bool intr;          /* PIC's INTR */
    pthread_mutex_t lock;       /* translations, links, invalidation */
    uint64_t frozen_tsc;        /* host TSC at which guest time stands still; 0: it runs */
    struct bt_timers *timers;   /* lapic_timer.c */
    _Atomic uint64_t idle_mark; /* idle.c: host TSC when it last looked, and all halt cycles then */
    uint64_t idle_halt;
    uint64_t pv_tsc, pv_ns; /* pvclock.c: one moment in host TSC and machine time; guarded by lock */
};

static inline uint64_t bt_host_tsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
}

/* Host TSC as guest time has it. gpr-only. */
static inline uint64_t bt_engine_tsc(const struct bt_engine *engine)
{
    return engine->frozen_tsc ? engine->frozen_tsc : bt_host_tsc();
}

/* Guest TSC now. gpr-only. */
static inline uint64_t bt_rdtsc(const struct bt_cpu *cpu)
{
    return bt_engine_tsc(cpu->engine) + cpu->tsc_offset;
}

static inline bool bt_long_mode(const struct bt_cpu *cpu)
{
    return cpu->efer & EFER_LMA;
}

/* Whether accesses that are not aligned raise #AC. */
static inline bool bt_checks_alignment(const struct bt_cpu *cpu)
{
    return (cpu->mode & MODE_ALIGN) && cpu->cpl == 3;
}

static inline bool bt_code64(const struct bt_cpu *cpu)
{
    return cpu->mode & MODE_CODE64;
}

/* RIP cut to the size of the code segment. */
static inline uint64_t bt_wrap_rip(const struct bt_cpu *cpu, uint64_t rip)
{
    if (cpu->mode & MODE_CODE64)
        return rip;
    return cpu->mode & MODE_CODE32 ? (uint32_t)rip : (uint16_t)rip;
}

static inline bool bt_protected(const struct bt_cpu *cpu)
{
    return (cpu->cr0 & CR0_PE) && !(cpu->sysflags & FLAG_VM);
}

#endif
