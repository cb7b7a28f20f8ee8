/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of the translator. A block is at most BT_BLOCK_INSNS guest instructions of one page, straight on,
 * with at most two direct exits. It is decoded whole first, so that it is known which status flags matter
 * after each instruction.
 *
 * Where the status flags are is tracked while emitting: in the host's flags, in cpu->status, in both, or
 * nowhere: then nothing will read them, and should a fault have to show them, cold code makes them again from
 * registers (tr_regen). A check destroys the host's flags, so those that are read later are saved once before
 * the first check and brought back before the next instruction that needs them.
 *
 *     guest                      host
 *     add  rax, rbx              add  rax, rbx
 *     mov  [rdi + 8], rax        (save flags: somebody reads ADD's later)
 *                                lea  t0, [rdi + 8]             ; all that the block touches off rdi: 8..23
 *                                mov  t1, t0; shr t1, 7; and t1d, mask; add t1, gs:tlb
 *                                sub  t0, [t1 + write_tag]      ; offset in the page, or large
 *                                cmp  t0, 4096 - 16; ja stub
 *                                mov  t1, [t1 + addend]         ; stub comes back behind this
 *                                mov  gs:addend[0], t1
 *                                mov  [rdi + t1 + 8], rax
 *     mov  rcx, [rdi + 16]       mov  rcx, [rdi + t1 + 16]
 *     jnz  somewhere             (restore flags) jnz link0; jmp link1
 */
#ifndef BT_TRANSLATE_H
#define BT_TRANSLATE_H

#include "engine/bt/cache.h"
#include "engine/bt/thunk.h"

#define BT_STUBS_MAX (BT_BLOCK_INSNS * 3 + 4)

/* A memory access of an instruction that goes through the soft TLB. */
enum { TR_OPERAND, TR_STACK, TR_ACCESSES };
struct tr_access {
    uint8_t base, index, scale; /* guest GPRs, REG_NONE or REG_PC */
    uint8_t seg;                /* SEG_FS, SEG_GS, or SEG_DS for all that have base 0 */
    uint8_t addrsize;
    uint8_t group;
    bool write;
    uint16_t size;
    int64_t disp; /* REG_PC: page offset */
    int64_t rel;  /* displacement from the values that the group's registers had first */
};

/* Accesses that one look-up serves: see trans_plan.c. */
struct tr_group {
    uint16_t base, index; /* value numbers */
    uint8_t scale, seg;
    int64_t lo, hi; /* span, as `rel` */
    bool write;
    bool alone;   /* nothing can join it */
    bool checked; /* emitted */
    bool kept; /* its addend is kept in cpu->addend[slot]; what does not fit is found out by MODE_PRECISE */
    uint8_t slot;
    uint8_t count;
    uint8_t insn, which; /* the first access */
    bool looped;         /* checked before the loop */
    uint8_t moving;      /* and when this register has moved too far; REG_NONE: it stays */
    bool down;           /* it moves down */
    uint8_t check_at;    /* the instruction that the check comes before */
};
#define TR_NO_GROUP 0xff

/* How the flags of an instruction can be had again after a check: from registers that are as it left them. */
enum tr_regen {
    REGEN_NONE,
    REGEN_AGAIN,  /* it writes only flags */
    REGEN_RESULT, /* they tell of the result only */
    REGEN_ZERO,   /* the result is always 0 */
    REGEN_ADD,    /* result minus immediate, plus immediate */
    REGEN_SUB,
};

enum stub_kind { STUB_ACCESS, STUB_EXIT, STUB_LINK, STUB_POLL, STUB_MOVED, STUB_STI };

struct stub {
    enum stub_kind kind;
    uint8_t *from;   /* displacement of the jump that leads here */
    uint8_t *resume; /* STUB_ACCESS: where to go on, T0 being the linear address and T1 the addend */
    uint32_t desc;   /* STUB_ACCESS */
    int32_t tag;     /* STUB_ACCESS: which of the TLB entry's tags */
    int32_t target;  /* STUB_EXIT, STUB_LINK: page offset of the target */
    unsigned link;   /* STUB_LINK */
    uint32_t flip;   /* STUB_LINK: bits in which the target's mode is another one */
    bool flags_host, flags_saved;
    int producer; /* instruction that the flags come from, when they are neither here nor saved */
};

/* How an instruction is put into host code. */
enum tr_form {
    FORM_NATIVE, /* copied, registers renamed */
    FORM_FLOW,   /* stack and branches */
    FORM_LEA,
    FORM_DF,         /* CLD, STD: DF is kept in cpu->df, the host's stays clear */
    FORM_BIT_STRING, /* BT family with a bit number in a register and an operand in memory */
    FORM_CLI,
    FORM_STI,
    FORM_SWAPGS,
    FORM_SYSTEM_READ, /* trans_system.c */
    FORM_STRING,      /* trans_string.c; ends the block */
    FORM_SMAP,        /* trans_smap.c; ends the block */
    FORM_NOTHING,
    FORM_OP, /* C executes it; ends the block */
};

struct tr {
    struct bt_cpu *cpu;
    struct bt_engine *engine;
    struct bt_block *block;
    struct emitter e;
    uint8_t *start; /* of the block's code */
    struct emit_places places;
    uint32_t mode;
    unsigned page_off;                            /* page offset of the first byte */
    uint8_t bytes[BT_BLOCK_INSNS * X86_INSN_MAX]; /* what is decoded */
    struct x86_insn insn[BT_BLOCK_INSNS];
    uint16_t off[BT_BLOCK_INSNS + 1]; /* guest offset of each from the first byte */
    enum tr_form form[BT_BLOCK_INSNS];
    bt_op_fn *op[BT_BLOCK_INSNS]; /* for FORM_OP */
    bool heavy[BT_BLOCK_INSNS];
    bool live[BT_BLOCK_INSNS +
              1]; /* status flags from before each are read by it or later; [count]: after the last */
    uint8_t regen[BT_BLOCK_INSNS], regen_reg[BT_BLOCK_INSNS];
    enum {
        ENTRY_HOST,
        ENTRY_DEAD,
        ENTRY_SAVED
    } entry; /* how the block wants status flags: see trans_plan.c */
    uint16_t
        trap_code[BT_BLOCK_INSNS]; /* offset of code that makes each producer's flags for a fault; 0: none */
    struct tr_access access[BT_BLOCK_INSNS][TR_ACCESSES];
    struct tr_group group[BT_BLOCK_INSNS * TR_ACCESSES];
    unsigned group_count, kept_count;
    int64_t stride[16]; /* what the block adds to each GPR ... */
    uint16_t strided;   /* ... of those for which that is all it does */
    bool loop;          /* the block is emitted as a loop: see trans_loop.c */
    uint8_t *loop_head;
    unsigned count;
    unsigned i;        /* being emitted */
    unsigned t1_group; /* whose addend is in T1 */
    int producer;      /* the last instruction that has set flags, -1: an earlier block's */
    bool flags_host, flags_saved;
    /* Where status flags are when the current instruction itself runs. Neither: to be had from
     * native_producer. */
    bool native_flags_host, native_flags_saved;
    int native_producer;
    uint8_t native_borrowed[BT_SPILLS], native_borrowed_count; /* as struct bt_trap_at has them */
    bool ended;                                                /* an exit has been emitted */
    struct stub stub[BT_STUBS_MAX];
    unsigned stub_count;
    uint8_t kept_code[BT_BLOCK_ROOM]; /* what trans_kept.c works on */
    uint8_t kept_record[BT_RECORD_ROOM] __attribute__((aligned(BT_BLOCK_LINE)));
};

/* ---- translate.c ---- */
enum bt_translate_result {
    BT_TRANSLATED,
    BT_TRANSLATE_FAULT, /* cpu->exc: the first instruction cannot be fetched */
    BT_TRANSLATE_RETRY, /* let other vCPUs come out of their blocks, then try again */
    BT_TRANSLATE_ERROR, /* cpu->why */
};
/*
 * Makes the block at linear address `lin` (physical `phys`) for cpu->mode | extra. engine->lock held;
 * clobbers vectors. On success *out is published.
 */
enum bt_translate_result bt_translate_block(struct bt_cpu *cpu, uint64_t lin, uint64_t phys, uint32_t mode,
                                            struct bt_block **out);

/* Emits the entry that takes RIP in T0. */
void tr_indirect_entry(struct tr *t);

/* Offset of a place in the code from the block's beginning. */
static inline uint16_t tr_code_offset(const struct tr *t, const uint8_t *at)
{
    return (uint16_t)(at - t->start);
}

/* Whether C may have to execute instruction i: it wants the flags, and ends the block. */
static inline bool tr_may_leave(const struct tr *t, unsigned i)
{
    return t->form[i] == FORM_OP || t->form[i] == FORM_STRING || t->form[i] == FORM_SMAP;
}

static inline bool tr_flat(const struct tr *t)
{
    return (t->mode & (MODE_FLAT | MODE_SLOW | MODE_ALIGN)) == MODE_FLAT;
}

/* The memory operand is reached through the soft TLB, not by CALLOUT_PRE. */
static inline bool tr_direct_mem(const struct tr *t, const struct x86_insn *insn)
{
    if (!(t->mode & MODE_CODE64) && insn->mem.seg == SEG_CS && insn->mem.written)
        return false; /* code segments are never writable */
    return tr_flat(t) && ((t->mode & MODE_CODE64) || (insn->mem.seg != SEG_FS && insn->mem.seg != SEG_GS));
}

/* Page offset of instruction i's end. */
static inline int32_t tr_next_off(const struct tr *t)
{
    return (int32_t)(t->page_off + t->off[t->i + 1]);
}

static inline int32_t tr_this_off(const struct tr *t)
{
    return (int32_t)(t->page_off + t->off[t->i]);
}

/* Whether the host may raise something in it, whose handler must find the flags: see fault.c. */
bool tr_may_trap(const struct x86_insn *insn);

/* ---- trans_kept.c ---- */
struct bt_kept_block;
/* Keeps the block that has just been emitted, where blocks are kept. `limited`, `avail`: see decode_block. */
void tr_keep(struct tr *t, bool limited, unsigned avail);
/* Whether it can be one of ours. */
bool tr_fits(const struct bt_kept_block *k);
/* Puts a kept block at t->start. */
void tr_place(struct tr *t, uint64_t phys, const struct bt_kept_block *k);

/* ---- trans_plan.c ---- */
/* Fills in live, regen, access and group. */
void tr_plan(struct tr *t);

/*
 * Whether the flags that instruction k leaves can be had again from `sources` as long as a check may ask for
 * them, from instruction `from` on.
 */
bool tr_regen_holds(const struct tr *t, uint16_t sources, unsigned from);
uint16_t tr_regen_sources(const struct tr *t, unsigned k);

/* ---- trans_loop.c ---- */
/* Whether the planned block ends with a branch to its own beginning and can be a loop. */
bool tr_loops(const struct tr *t);
/* Decides which groups are checked before the loop. */
void tr_plan_loop(struct tr *t);
/* Emits what comes before the loop's body. */
void tr_loop_entry(struct tr *t);

/* Whether an access is reached by its whole address in T0: it has too many parts for T1 to be added. */
static inline bool tr_whole_address(const struct tr_access *a)
{
    return a->addrsize != 8 || a->disp != (int32_t)a->disp || (a->base != REG_NONE && a->index != REG_NONE);
}

static inline bool tr_uses(const struct host_mem *mem, uint8_t reg)
{
    return mem && (mem->base == reg || mem->index == reg);
}

/* ---- flags ---- */
/* Before code that destroys the host's flags: saves them when they matter before the current instruction. */
void tr_clobber_flags(struct tr *t);
/* Before code that reads them, or keeps some of them. Keeps the registers of `mem` (NULL: any scratch may
 * go). */
void tr_need_host_flags(struct tr *t, const struct host_mem *mem);
void tr_need_saved_flags(struct tr *t);
/* In a stub: the flags of instruction t->producer into the host's. Clobbers T0 and T1. */
void tr_regen_flags(struct tr *t);
/* T1 is about to be used as scratch. */
static inline uint8_t tr_scratch(struct tr *t)
{
    t->t1_group = TR_NO_GROUP;
    return T1;
}

/* ---- trans_mem.c ---- */
/* Offset of the memory operand (flat modes: the linear address) into T0. Clobbers T1, no flags. */
void tr_address(struct tr *t, const struct x86_insn *insn);
/*
 * A planned access of the current instruction, checked: the host operand, made of T1, of T0 unless the base
 * is in a host register, and of guest registers. Clobbers both and the flags.
 */
struct host_mem tr_mem(struct tr *t, unsigned which);
/* T1 = the entry of the soft TLB for the linear address in host register `lin`. Clobbers the flags. */
void tr_tlb_entry(struct tr *t, uint8_t lin);
/* Checks the groups that are to be checked before the current instruction, not by their first access. */
void tr_check_early(struct tr *t);
/* Looks a looped group up before the block, and how far its moving register may go. */
void tr_check_loop(struct tr *t, unsigned group);
/* As tr_mem, for an access with more to tell: DESC_ALIGNED, DESC_X87. */
struct host_mem tr_mem_desc(struct tr *t, unsigned which, uint32_t more);
/* T0: linear address -> host address of `size` accessible bytes. Clobbers T1; the flags must have been saved
 * (tr_clobber_flags). */
void tr_check(struct tr *t, unsigned size, bool write, unsigned seg);
/* Value of a guest GPR in some host register: its own, or `scratch` after loading it there. */
uint8_t tr_gpr(struct tr *t, unsigned guest, uint8_t scratch);

/* ---- trans_native.c ---- */
/* True when the instruction can be copied with its registers renamed. */
bool tr_is_native(const struct x86_insn *insn);
/* Whether it uses x87, MMX, SSE or AVX state, and must trap when that is switched off. */
bool tr_is_fpu(const struct x86_insn *insn);
bool tr_is_avx(const struct x86_insn *insn);
bool tr_is_sse(const struct x86_insn *insn);
/* Emits it; `mem` is its memory operand's place, NULL when it has none. */
void tr_emit_native(struct tr *t, const struct x86_insn *insn, const struct host_mem *mem);
void tr_native(struct tr *t, const struct x86_insn *insn);
void tr_lea(struct tr *t, const struct x86_insn *insn);
void tr_bit_string(struct tr *t, const struct x86_insn *insn);

/* ---- trans_string.c ---- */
bool tr_is_string(const struct tr *t, const struct x86_insn *insn);
void tr_string(struct tr *t, const struct x86_insn *insn);

/* ---- trans_system.c ---- */
bool tr_is_system_read(const struct tr *t, const struct x86_insn *insn, bool kernel);
void tr_system_read(struct tr *t, const struct x86_insn *insn);

/* ---- trans_smap.c ---- */
bool tr_is_smap(const struct tr *t, const struct x86_insn *insn);
void tr_smap(struct tr *t, const struct x86_insn *insn);

/* ---- trans_flow.c ---- */
bool tr_is_jcc(const struct x86_insn *insn);
enum tr_form tr_classify(const struct tr *t, const struct x86_insn *insn);
/* Emits the current instruction; FORM_OP is tr_exit_op's. */
void tr_emit(struct tr *t, const struct x86_insn *insn, enum tr_form form);
/* Leaves the block for page offset `target` (direct). `link`: which of the block's links to use, when it can
 * be chained. */
void tr_exit_direct(struct tr *t, unsigned link, int32_t target);
/* The same, by link 1, when the current instruction has changed cpu->mode in the bits `flip`. */
void tr_exit_to_mode(struct tr *t, int32_t target, uint32_t flip);
/* Leaves for C to run the current instruction. */
void tr_exit_op(struct tr *t, const struct x86_insn *insn, bt_op_fn *fn, bool heavy);
void tr_emit_stubs(struct tr *t);
struct stub *tr_stub(struct tr *t, enum stub_kind kind, uint8_t *from);
/*
 * T0 holds the target RIP: goes there by the jump cache. `rsp_undo` is what to add to RSP if the branch turns
 * out to fault, or NOT_A_BRANCH when the target cannot be bad.
 */
#define NOT_A_BRANCH INT32_MIN
void tr_exit_indirect(struct tr *t, int32_t rsp_undo);

/* ---- trans_stack.c ---- */
void tr_push_gpr(struct tr *t, const struct x86_insn *insn);
void tr_push_imm(struct tr *t, const struct x86_insn *insn);
void tr_push_mem(struct tr *t, const struct x86_insn *insn);
void tr_pushf(struct tr *t);
void tr_pop_gpr(struct tr *t, const struct x86_insn *insn);
void tr_call(struct tr *t, const struct x86_insn *insn);
void tr_ret(struct tr *t, const struct x86_insn *insn);
void tr_leave(struct tr *t, const struct x86_insn *insn);

#endif
