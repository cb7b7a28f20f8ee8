/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The processor oracle's program: batches of random sequences through both sides, comparison, and a report of
 * the smallest part of a sequence that still differs.
 *
 *     oracle [--engine NAME] [--cpu MODEL] [--seed N] [--first K] [--count N] [--passes N] [--keep-going]
 * [--native]
 *
 * Sequence number K of a seed is always the same, so `--seed N --first K --count 1` repeats one. --native
 * runs the native side against itself, which checks the oracle.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "oracle.h"

static struct {
    const char *engine, *cpu;
    uint64_t seed, first, count;
    unsigned passes, wanted_failures;
    bool native, list, show, stats, whole;
} options = {.passes = 2, .count = 20000, .wanted_failures = 1};

/* More than these without an end are a mistake of the oracle. */
#define ENDLESS_MAX 100u

/* Shared with the supervising process, which tells where a worker died. */
struct progress {
    uint64_t batch; /* first sequence of the batch in work */
    uint64_t done;
    unsigned failures;
};

struct oracle {
    struct oracle_native *native, *second; /* second: instead of the engine, for --native */
    struct harness *harness;
    struct oracle_guest *guest;
    struct oracle_seq seq[ORACLE_BATCH];
    uint8_t code[ORACLE_CODE_SIZE], guest_code[ORACLE_CODE_SIZE];
    struct oracle_regs in[ORACLE_BATCH];
    uint8_t window[ORACLE_BATCH][ORACLE_WINDOW];
    struct progress *progress;
    uint64_t endless;     /* sequences left out */
    uint64_t unsteady;    /* native runs that another native run did not repeat */
    uint64_t endings[33]; /* by vector; 32: came to its end */
};

/* --- one side or the other --- */

static const struct oracle_regs *engine_out(struct oracle *o, unsigned slot)
{
    return (o->second ? oracle_native_out(o->second) : oracle_guest_out(o->guest)) + slot;
}

static const uint8_t *engine_window(struct oracle *o, unsigned slot)
{
    return o->second ? oracle_native_window(o->second, slot) : oracle_guest_peek(o->guest, slot);
}

static void set_code(struct oracle *o)
{
    memcpy(oracle_native_code(o->native), o->code, sizeof(o->code));
    if (o->second)
        memcpy(oracle_native_code(o->second), o->code, sizeof(o->code));
    else
        oracle_guest_code(o->guest, o->guest_code);
}

static void set_inputs(struct oracle *o, struct oracle_native *n, unsigned first, unsigned count)
{
    memcpy(oracle_native_in(n) + first, o->in + first, count * sizeof(*o->in));
    for (unsigned i = first; i < first + count; i++)
        memcpy(oracle_native_window(n, i), o->window[i], ORACLE_WINDOW);
}

/* A sequence that overwrites its own return address can run for ever, on the processor and so in the guest.
 */
static const char NO_END[] = "it has no end on the host's processor";

/* Runs slots [first, first + count) on both sides with the inputs of a pass. False: *why and the slot it was
 * in. */
static bool run_both(struct oracle *o, unsigned first, unsigned count, unsigned pass, unsigned *slot,
                     const char **why)
{
    for (unsigned i = first; i < first + count; i++)
        oracle_inputs(&o->seq[i], pass, &o->in[i], o->window[i]);
    set_inputs(o, o->native, first, count);
    oracle_native_start(o->native, first, count);
    for (unsigned i = first; i < first + count && !o->second; i++) {
        oracle_guest_selectors(&o->seq[i], &o->in[i]);
        o->in[i].rip -= oracle_guest_code_base(&o->seq[i]);
    }
    bool good = true;
    if (o->second) {
        set_inputs(o, o->second, first, count);
        oracle_native_start(o->second, first, count);
        good = oracle_native_wait(o->second);
        *why = "the second native child was lost";
        *slot = first;
    } else {
        for (unsigned i = first; i < first + count; i++)
            oracle_guest_window(o->guest, i, o->window[i]);
        good = oracle_guest_run(o->guest, o->in, first, count, slot, why);
    }
    if (!oracle_native_wait(o->native)) {
        *slot = oracle_native_current(o->native);
        *why = NO_END;
        return false;
    }
    return good;
}

/* --- comparing --- */

/* What XSAVE leaves out because it has its initial value, and the pointers that are not compared. */
static void normalise_xsave(const uint8_t *in, uint8_t *x)
{
    memcpy(x, in, ORACLE_XSAVE_SIZE);
    uint64_t present = load_le64(x + 512);
    if (!(present & 1)) {
        memset(x, 0, 24);
        store_le16(x, 0x37f);
        memset(x + 32, 0, 128);
    }
    if (!(present & 2))
        memset(x + 160, 0, 256);
    if (!(present & 4))
        memset(x + 576, 0, 256);
    memset(x + 6, 0, 18); /* FOP, FIP, FDP */
    memset(x + 28, 0, 4); /* MXCSR_MASK */
    for (unsigned i = 0; i < 8; i++)
        memset(x + 42 + 16 * i, 0, 6);
    memset(x + 416, 0, 160);
}

/* A sequence that left its code, by a return address that it wrote over, did so at an unknown place. */
static uint32_t undefined_at(const struct oracle_seq *seq, uint64_t rip)
{
    uint32_t anywhere = seq->undefined_after;
    for (unsigned i = 0; i < seq->count; i++) {
        if (seq->base + seq->insn[i].offset == rip)
            return seq->insn[i].undefined_before;
        anywhere |= seq->insn[i].undefines;
    }
    return anywhere;
}

/* The linear address of a page fault above the canonical middle says nothing about the page being there. */
static uint64_t error_code(const struct oracle_seq *seq, const struct oracle_regs *r)
{
    uint64_t mask = r->vector == VEC_PF && seq->mode == ORACLE_KERNEL ? ~UINT64_C(4) : ~UINT64_C(0);
    if (r->vector == VEC_PF && (int64_t)r->cr2 < 0)
        mask &= ~UINT64_C(1);
    return r->error & mask;
}

/* Lines about one difference go to `out` when it is not NULL. */
struct report {
    FILE *out;
    bool differs;
};

static void differ(struct report *r, const char *what, uint64_t native, uint64_t engine)
{
    r->differs = true;
    if (r->out)
        fprintf(r->out, "    %-8s native %016llx  engine %016llx\n", what, (unsigned long long)native,
                (unsigned long long)engine);
}

static void differ_bytes(struct report *r, const char *what, unsigned number, const uint8_t *native,
                         const uint8_t *engine, unsigned len)
{
    if (!memcmp(native, engine, len))
        return;
    r->differs = true;
    if (!r->out)
        return;
    fprintf(r->out, "    %s%-4u native ", what, number);
    for (unsigned i = len; i-- > 0;)
        fprintf(r->out, "%02x", native[i]);
    fprintf(r->out, "  engine ");
    for (unsigned i = len; i-- > 0;)
        fprintf(r->out, "%02x", engine[i]);
    fprintf(r->out, "\n");
}

static const char *const gpr_names[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                        "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};

static void compare_vectors(struct report *r, const struct oracle_regs *native,
                            const struct oracle_regs *engine)
{
    uint8_t a[ORACLE_XSAVE_SIZE], b[ORACLE_XSAVE_SIZE];
    normalise_xsave(native->xsave, a);
    normalise_xsave(engine->xsave, b);
    if (!memcmp(a, b, sizeof(a) - 256) && !memcmp(a + 576, b + 576, 256))
        return;
    if (load_le16(a) != load_le16(b))
        differ(r, "FCW", load_le16(a), load_le16(b));
    if (load_le16(a + 2) != load_le16(b + 2))
        differ(r, "FSW", load_le16(a + 2), load_le16(b + 2));
    if (a[4] != b[4])
        differ(r, "FTW", a[4], b[4]);
    if (load_le32(a + 24) != load_le32(b + 24))
        differ(r, "MXCSR", load_le32(a + 24), load_le32(b + 24));
    for (unsigned i = 0; i < 8; i++)
        differ_bytes(r, "ST", i, a + 32 + 16 * i, b + 32 + 16 * i, 10);
    for (unsigned i = 0; i < 16; i++) {
        differ_bytes(r, "XMM", i, a + 160 + 16 * i, b + 160 + 16 * i, 16);
        differ_bytes(r, "YMMH", i, a + 576 + 16 * i, b + 576 + 16 * i, 16);
    }
}

/* Narrow code meets the limit of a 4 GiB segment where 64-bit code goes on to an absent page. */
static bool met_limit(const struct oracle_seq *seq, const struct oracle_regs *native,
                      const struct oracle_regs *engine)
{
    return oracle_is_narrow(seq->mode) && native->vector == VEC_PF &&
           (engine->vector == VEC_GP || engine->vector == VEC_SS) && !engine->error &&
           native->cr2 + 64 - UINT32_MAX < 128;
}

static bool is_access_fault(uint64_t vector)
{
    return vector == VEC_PF || vector == VEC_GP || vector == VEC_SS;
}

/* CMPS, after any prefixes. */
static bool is_cmps(const struct oracle_seq *seq, uint64_t rip)
{
    static const uint8_t prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3};
    uint64_t at = rip - seq->base;
    while (at < seq->len && (memchr(prefixes, seq->code[at], sizeof(prefixes)) || seq->code[at] >> 4 == 4))
        at++;
    return at < seq->len && seq->code[at] >> 1 == 0xa6 >> 1;
}

/* Manuals leave open which operand of CMPS is read first, and processors differ: when both fault, either may.
 */
static bool other_operand_first(const struct oracle_seq *seq, const struct oracle_regs *native,
                                const struct oracle_regs *engine)
{
    return is_access_fault(native->vector) && is_access_fault(engine->vector) && is_cmps(seq, native->rip);
}

/* True when both sides agree. */
static bool compare(struct oracle *o, unsigned slot, FILE *out)
{
    const struct oracle_seq *seq = &o->seq[slot];
    const struct oracle_regs *native = oracle_native_out(o->native) + slot, *engine = engine_out(o, slot);
    struct report r = {.out = out};
    if (met_limit(seq, native, engine))
        return true;
    bool either = other_operand_first(seq, native, engine);
    if (native->vector != engine->vector && !either)
        differ(&r, "vector", native->vector, engine->vector);
    uint64_t mask = ~UINT64_C(0);
    if (native->vector != ORACLE_DONE_VECTOR) {
        mask &= ~(uint64_t)undefined_at(seq, native->rip);
        uint64_t rip = engine->rip + (o->second ? 0 : oracle_guest_code_base(seq));
        if (native->rip != rip)
            differ(&r, "RIP", native->rip, rip);
        if (native->vector == engine->vector && !either && error_code(seq, native) != error_code(seq, engine))
            differ(&r, "error", error_code(seq, native), error_code(seq, engine));
        if (native->vector == VEC_PF && engine->vector == VEC_PF && !either && native->cr2 != engine->cr2)
            differ(&r, "CR2", native->cr2, engine->cr2);
    } else {
        mask &= ~(uint64_t)seq->undefined_after;
    }
    for (unsigned i = 0; i < (oracle_is_narrow(seq->mode) ? 8 : 16); i++)
        if (native->gpr[i] != engine->gpr[i])
            differ(&r, gpr_names[i], native->gpr[i], engine->gpr[i]);
    if ((native->rflags ^ engine->rflags) & mask)
        differ(&r, "RFLAGS", native->rflags & mask, engine->rflags & mask);
    compare_vectors(&r, native, engine);
    const uint8_t *a = oracle_native_window(o->native, slot), *b = engine_window(o, slot);
    if (memcmp(a, b, ORACLE_WINDOW) != 0) {
        unsigned shown = 0;
        for (unsigned i = 0; i < ORACLE_WINDOW; i += 8)
            if (memcmp(a + i, b + i, 8) != 0 && shown++ < 8) {
                char where[32];
                snprintf(where, sizeof(where), "[+%x]", i);
                differ(&r, where, load_le64(a + i), load_le64(b + i));
            }
    }
    return !r.differs;
}

/* --- reporting and minimising --- */

static void put_code(struct oracle *o, unsigned slot)
{
    /* What follows the sequence may be read, and must be the same on both sides. */
    memcpy(o->code + slot * ORACLE_CODE_STRIDE, o->seq[slot].code, ORACLE_CODE_STRIDE);
    memcpy(o->guest_code + slot * ORACLE_CODE_STRIDE, o->seq[slot].guest_code, ORACLE_CODE_STRIDE);
}

#define NOP 0x90

static void remove_insn(struct oracle_seq *seq, unsigned number)
{
    struct oracle_insn *insn = &seq->insn[number];
    unsigned next = number + 1 < seq->count ? insn[1].offset : seq->len - ORACLE_END_SIZE;
    /* Also what an indirect jump leaps over. */
    memset(seq->code + insn->offset, NOP, next - insn->offset);
    memset(seq->guest_code + insn->offset, NOP, next - insn->offset);
    *insn = (struct oracle_insn){.offset = insn->offset, .len = insn->len, .target = -1};
}

static bool is_removed(const struct oracle_seq *seq, const struct oracle_insn *insn)
{
    for (unsigned i = 0; i < insn->len; i++)
        if (seq->code[insn->offset + i] != NOP)
            return false;
    return true;
}

/* Runs passes 0..pass of one slot; true when the last one differs (or does not get through) as it did at
 * first. */
static bool still_differs(struct oracle *o, unsigned slot, unsigned pass)
{
    unsigned where;
    const char *why;
    put_code(o, slot);
    set_code(o);
    for (unsigned p = 0; p < pass; p++)
        if (!run_both(o, slot, 1, p, &where, &why))
            return false;
    return run_both(o, slot, 1, pass, &where, &why) && !compare(o, slot, NULL);
}

static void minimise(struct oracle *o, unsigned slot, unsigned pass)
{
    struct oracle_seq *seq = &o->seq[slot];
    for (bool again = true; again;) {
        again = false;
        for (unsigned i = seq->count; i-- > 0;) {
            if (is_removed(seq, &seq->insn[i]))
                continue;
            struct oracle_seq before = *seq;
            unsigned tie = seq->insn[i].tie;
            for (unsigned j = 0; tie && j < seq->count; j++)
                if (seq->insn[j].tie == tie)
                    remove_insn(seq, j);
            remove_insn(seq, i);
            if (oracle_track_flags(seq) && still_differs(o, slot, pass))
                again = true;
            else
                *seq = before;
        }
    }
    still_differs(o, slot, pass);
}

static void print_sequence(const struct oracle *o, unsigned slot)
{
    const struct oracle_seq *seq = &o->seq[slot];
    char line[160];
    for (unsigned i = 0; i < seq->count; i++) {
        const struct oracle_insn *insn = &seq->insn[i];
        if (is_removed(seq, insn))
            continue;
        oracle_print_insn(seq->code + insn->offset, insn->len, seq->base + insn->offset, line, sizeof(line));
        printf("    %llx  %s", (unsigned long long)(seq->base + insn->offset), line);
        for (unsigned j = 0; oracle_is_narrow(seq->mode) && j < insn->len; j++)
            printf("%s%02x", j ? "" : "  = ", seq->guest_code[insn->offset + j]);
        printf("\n");
    }
}

static void print_inputs(const struct oracle *o, unsigned slot)
{
    const struct oracle_regs *in = &o->in[slot];
    for (unsigned i = 0; i < 16; i++)
        printf("    %-3s %016llx%s", gpr_names[i], (unsigned long long)in->gpr[i], i % 4 == 3 ? "\n" : "");
    printf("    RFLAGS %llx, window %llx, FCW %04x, FSW %04x, MXCSR %08x\n", (unsigned long long)in->rflags,
           (unsigned long long)oracle_window(slot), load_le16(in->xsave), load_le16(in->xsave + 2),
           load_le32(in->xsave + 24));
}

/* What `compare` says of a slot right now; to be freed. */
static char *difference_text(struct oracle *o, unsigned slot)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    compare(o, slot, f);
    fclose(f);
    return text;
}

static const char *const mode_names[ORACLE_MODES] = {"CPL 3", "CPL 0", "32-bit code", "16-bit code"};

static void report(struct oracle *o, uint64_t number, unsigned slot, unsigned pass)
{
    struct oracle_seq whole = o->seq[slot];
    cleanup(mem) char *first = difference_text(o, slot);
    printf("difference: --seed %llu --first %llu --count 1 (pass %u, %s)\n", (unsigned long long)options.seed,
           (unsigned long long)number, pass, mode_names[whole.mode]);
    bool alone = !options.whole && still_differs(o, slot, pass);
    if (alone)
        minimise(o, slot, pass);
    printf("  %s:\n", alone           ? "smallest part that still differs"
                      : options.whole ? "the sequence"
                                      : "alone it does not differ; the whole sequence");
    print_sequence(o, slot);
    printf("  from:\n");
    print_inputs(o, slot);
    cleanup(mem) char *last = alone ? difference_text(o, slot) : NULL;
    printf("  differs in:\n%s", alone ? last : first);
    fflush(stdout);
    o->seq[slot] = whole;
    put_code(o, slot);
    set_code(o);
}

/* --- the run --- */

/* Which mode a batch is in depends on its number alone. */
static enum oracle_mode mode_of(uint64_t batch)
{
    static const enum oracle_mode modes[8] = {[3] = ORACLE_CODE16, [5] = ORACLE_CODE32, [7] = ORACLE_KERNEL};
    return modes[batch % 8];
}

static void generate(struct oracle *o, uint64_t number)
{
    uint64_t state = options.seed + number * UINT64_C(0xd1342543de82ef95);
    unsigned slot = (unsigned)(number % ORACLE_BATCH);
    oracle_generate(&o->seq[slot], oracle_random(&state), slot, mode_of(number / ORACLE_BATCH));
    put_code(o, slot);
}

static void count_ending(struct oracle *o, unsigned slot)
{
    uint64_t vector = oracle_native_out(o->native)[slot].vector;
    o->endings[vector == ORACLE_DONE_VECTOR ? 32 : vector & 31]++;
}

/*
 * A host that is itself virtual may get in the way: hypervisors emulate an instruction now and then and give
 * #UD for what they do not know. So a slot that differs runs natively again; a native run that agrees settles
 * it.
 */
static bool agrees_with_another_run(struct oracle *o, unsigned slot)
{
    for (unsigned i = 0; i < 4; i++) {
        set_inputs(o, o->native, slot, 1);
        oracle_native_start(o->native, slot, 1);
        if (oracle_native_wait(o->native) && compare(o, slot, NULL)) {
            o->unsteady++;
            return true;
        }
    }
    return false;
}

/* False when a side could not run at all, or enough differences were found. */
static bool run_batch(struct oracle *o, uint64_t number, unsigned count)
{
    unsigned first = (unsigned)(number % ORACLE_BATCH), slot = 0;
    const char *why = "";
    for (unsigned i = 0; i < count; i++)
        generate(o, number + i);
    for (unsigned i = 0; options.show && i < count; i++) {
        printf("sequence %llu\n", (unsigned long long)number + i);
        print_sequence(o, first + i);
    }
    set_code(o);
    for (unsigned pass = 0; pass < options.passes; pass++) {
        if (!run_both(o, first, count, pass, &slot, &why)) {
            if (why == NO_END && o->endless++ < ENDLESS_MAX) {
                oracle_blank(&o->seq[slot]);
                put_code(o, slot);
                set_code(o);
                pass--;
                continue;
            }
            uint64_t where = number + (slot - first);
            printf("cannot run: %s\n  in --seed %llu --first %llu --count 1, pass %u\n", why,
                   (unsigned long long)options.seed, (unsigned long long)where, pass);
            print_sequence(o, slot);
            print_inputs(o, slot);
            o->progress->failures++;
            return false;
        }
        for (unsigned i = first; i < first + count; i++) {
            count_ending(o, i);
            if (compare(o, i, NULL) || agrees_with_another_run(o, i))
                continue;
            report(o, number + (i - first), i, pass);
            o->progress->failures++;
            if (o->progress->failures >= options.wanted_failures)
                return false;
            /* Both sides have now other results; the rest of this pass is lost. */
            break;
        }
    }
    return true;
}

static bool open_sides(struct oracle *o)
{
    struct cpuid_model model;
    struct error *err = NULL;
    const char *cpu = options.cpu ? options.cpu : "host";
    if (!cpuid_model_build(&model, cpu, 1, &err)) {
        fprintf(stderr, "oracle: %s\n", error_text(err));
        return false;
    }
    oracle_forms_init(&model);
    o->native = oracle_native_new();
    if (options.native) {
        o->second = oracle_native_new();
        return true;
    }
    struct harness_options machine = {.engine = options.engine, .cpu = cpu};
    o->harness = harness_open(&machine);
    o->guest = o->harness ? oracle_guest_new(o->harness) : NULL;
    return o->guest;
}

static void print_endings(const struct oracle *o)
{
    printf("endings:");
    for (unsigned i = 0; i < 33; i++)
        if (o->endings[i])
            printf(" %s%.0u %llu", i == 32 ? "end" : "vector ", i % 32, (unsigned long long)o->endings[i]);
    printf("\n%llu native runs were not repeatable, %llu sequences had no end\n",
           (unsigned long long)o->unsteady, (unsigned long long)o->endless);
}

static int work(struct progress *progress)
{
    struct oracle *o = calloc(1, sizeof(*o));
    if (!o)
        return 1;
    o->progress = progress;
    if (!open_sides(o))
        return 1;
    for (uint64_t n = options.first; n < options.first + options.count;) {
        uint64_t rest = options.first + options.count - n, room = ORACLE_BATCH - n % ORACLE_BATCH;
        unsigned count = (unsigned)MIN(rest, room);
        progress->batch = n;
        if (!run_batch(o, n, count))
            break;
        n += count;
        progress->done += count;
    }
    if (options.stats)
        print_endings(o);
    if (o->guest) {
        oracle_guest_free(o->guest);
        harness_close(o->harness);
    }
    if (o->second)
        oracle_native_free(o->second);
    oracle_native_free(o->native);
    free(o);
    return progress->failures ? 1 : 0;
}

/* Runs the work in a process of its own; gives its wait status. */
static int supervise(struct progress *progress)
{
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return -1;
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int result = work(progress);
        fflush(NULL);
        _exit(result);
    }
    waitpid(pid, &status, 0);
    return status;
}

/* The process that held the engine died: which sequence does that? */
static void find_crash(struct progress *progress, int status)
{
    uint64_t batch = progress->batch, seed = options.seed;
    printf("the process died by signal %d in the batch of --seed %llu --first %llu\n", WTERMSIG(status),
           (unsigned long long)seed, (unsigned long long)batch);
    options.count = 1;
    for (uint64_t n = batch; n < batch + ORACLE_BATCH; n++) {
        options.first = n;
        if (!WIFSIGNALED(supervise(progress)))
            continue;
        printf("  alone it dies with --first %llu --count 1\n", (unsigned long long)n);
        options.show = true;
        supervise(progress);
        return;
    }
    printf("  no sequence of it does so alone\n");
}

static void usage(void)
{
    fprintf(stderr,
            "usage: oracle [--engine NAME] [--cpu MODEL] [--seed N] [--first K] [--count N] [--passes N]\n"
            "              [--failures N] [--native] [--list] [--show] [--stats] [--whole]\n");
    exit(2);
}

static void parse(int argc, char **argv)
{
    enum { ENGINE = 1, CPU, SEED, FIRST, COUNT, PASSES, FAILURES, NATIVE, LIST, SHOW, STATS, WHOLE };
    static const struct option known[] = {{"engine", 1, 0, ENGINE},
                                          {"cpu", 1, 0, CPU},
                                          {"seed", 1, 0, SEED},
                                          {"first", 1, 0, FIRST},
                                          {"count", 1, 0, COUNT},
                                          {"passes", 1, 0, PASSES},
                                          {"failures", 1, 0, FAILURES},
                                          {"native", 0, 0, NATIVE},
                                          {"list", 0, 0, LIST},
                                          {"show", 0, 0, SHOW},
                                          {"stats", 0, 0, STATS},
                                          {"whole", 0, 0, WHOLE},
                                          {0}};
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        uint64_t n = optarg ? strtoull(optarg, NULL, 0) : 0;
        switch (c) {
        case ENGINE:
            options.engine = optarg;
            break;
        case CPU:
            options.cpu = optarg;
            break;
        case SEED:
            options.seed = n;
            break;
        case FIRST:
            options.first = n;
            break;
        case COUNT:
            options.count = n;
            break;
        case PASSES:
            options.passes = (unsigned)n;
            break;
        case FAILURES:
            options.wanted_failures = (unsigned)n;
            break;
        case NATIVE:
            options.native = true;
            break;
        case LIST:
            options.list = true;
            break;
        case SHOW:
            options.show = true;
            break;
        case STATS:
            options.stats = true;
            break;
        case WHOLE:
            options.whole = true;
            break;
        default:
            usage();
        }
    }
    if (optind != argc)
        usage();
}

int main(int argc, char **argv)
{
    options.seed = (uint64_t)time(NULL);
    parse(argc, argv);
    const char *factor = getenv("RUCHE_LONG");
    if (factor)
        options.count *= strtoull(factor, NULL, 10);
    struct progress *progress =
        mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (progress == MAP_FAILED) {
        perror("oracle");
        return 1;
    }
    if (options.list) {
        struct cpuid_model model;
        if (cpuid_model_build(&model, options.cpu ? options.cpu : "host", 1, NULL))
            oracle_forms_init(&model);
        oracle_forms_print();
        return 0;
    }
    printf("oracle: seed %llu, %llu sequences from %llu, %u passes\n", (unsigned long long)options.seed,
           (unsigned long long)options.count, (unsigned long long)options.first, options.passes);
    int status = supervise(progress);
    if (WIFSIGNALED(status))
        find_crash(progress, status);
    printf("oracle: %llu sequences, %s\n", (unsigned long long)progress->done,
           status ? "FAILED" : "no difference");
    return status ? 1 : 0;
}
