/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Conformance: user code that computes, which an engine may run in ways of its own (--engine
 * bt,native=always), seen from the host: stopping, states, the dirty log, what is left behind.
 */
#include "conform.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"

#define PAGES     (16 * MIB / GUEST_PAGE_SIZE)
#define WORDS     (PAGES / 64)
#define USER_CODE UINT64_C(0x400000)
#define USER_DATA UINT64_C(0x10000000)
#define AT_USER   UINT64_C(0x200000) /* where USER_DATA lies in memory */
#define DATA_SIZE (2 * MIB)
#define RFLAGS_IF BIT(9)

/* Counts in RBX and RDX, one after the other. */
CODE(count_up, "code64", "1: add $1, %rbx; add $1, %rdx; jmp 1b");
/* Writes all over RSI's 2 MiB; R8 is a random number. */
CODE(write_about, "code64",
     "1: imul $1664525, %r8d, %r8d; add $1013904223, %r8d; mov %r8d, %eax; shr $11, %eax; and $-8, %eax;"
     "incq (%rsi,%rax); jmp 1b");
/* The same, but by an instruction that many engines leave their way for. */
CODE(write_and_ask, "code64",
     "1: imul $1664525, %r8d, %r8d; add $1013904223, %r8d; mov %r8d, %eax; shr $11, %eax; and $-8, %eax;"
     "incq (%rsi,%rax); xor %eax, %eax; cpuid; jmp 1b");

/* vCPU `cpu` at CPL 3 with interrupts on, its code not writable, and data at USER_DATA. */
static void prepare_user(struct conform *c, unsigned cpu, const uint8_t *code, uint64_t size,
                         uint64_t at_data, struct x86_state *s)
{
    struct harness_pager pager;
    const uint64_t user = PTE_P | PTE_U | PTE_A, gpa = AT_CODE + cpu * GUEST_PAGE_SIZE;
    harness_pager_init(&pager, c->h, AT_TABLES + cpu * 0x20000, 0x20000);
    harness_map(&pager, USER_CODE, gpa, GUEST_PAGE_SIZE, user);
    harness_map(&pager, USER_DATA, at_data, DATA_SIZE, user | PTE_W | PTE_NX);
    harness_state_long(c->h, s, pager.root);
    harness_write(c->h, gpa, code, size);
    s->rip = USER_CODE;
    s->rflags = 2 | RFLAGS_IF;
    s->gpr[R_RSI] = USER_DATA;
    s->gpr[R_RBX] = s->gpr[R_RDX] = 0;
    s->gpr[R_R8] = conform_random(c) | 1;
    s->lapic.id = cpu;
    if (cpu)
        s->lapic.base &= ~BIT(8);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s->seg[i] = harness_segment(0, 0, 0, ATTR_UNUSABLE);
    s->seg[SEG_CS] =
        harness_segment(0x33, 0, UINT32_MAX, ATTR_P | ATTR_S | ATTR_L | ATTR_G | 3u << ATTR_DPL_SHIFT | 0xb);
    s->seg[SEG_SS] =
        harness_segment(0x2b, 0, UINT32_MAX, ATTR_P | ATTR_S | ATTR_DB | ATTR_G | 3u << ATTR_DPL_SHIFT | 3);
}

static void get(struct conform *c, unsigned cpu, struct x86_state *s)
{
    memset(s, 0, sizeof(*s));
    c->h->ops->get_state(c->h->vcpu[cpu], s);
}

static void stopped(struct conform *c)
{
    struct x86_state s;
    uint64_t before = 0, most = 0;
    prepare_user(c, 0, count_up, CODE_SIZE(count_up), AT_USER, &s);
    conform_set(c, 0, &s);
    for (unsigned round = 0; round < 40; round++) {
        conform_run(c, HARNESS_TIMEOUT, round % 4);
        get(c, 0, &s);
        unsigned off = (unsigned)(s.rip - USER_CODE);
        if (off != 0 && off != 4 && off != 8)
            conform_fail(c, "stopped at +%u", off);
        conform_equal(c, s.gpr[R_RBX] - s.gpr[R_RDX], off == 4, "RBX before RDX");
        conform_equal(c, s.rflags & RFLAGS_IF, RFLAGS_IF, "IF");
        if (s.gpr[R_RBX] < before)
            conform_fail(c, "it went back");
        before = s.gpr[R_RBX];
        most = before > most ? before : most;
        if (round % 8 == 7) { /* the state goes round by the outside */
            before = s.gpr[R_RBX] = s.gpr[R_RDX] = round;
            s.rip = USER_CODE;
            conform_set(c, 0, &s);
        }
    }
    if (most < 1000)
        conform_fail(c, "it has not run");
}

/* Of the words of a data area at a physical address. */
static uint64_t sum_of(struct conform *c, uint64_t at)
{
    const uint64_t *words = harness_peek(c->h, at, DATA_SIZE);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < DATA_SIZE / 8; i++)
        sum += words[i];
    return sum;
}

/* Another machine in the same memory: nothing of the old one may be seen. */
static void changed_from_outside(struct conform *c)
{
    struct x86_state s;
    for (unsigned round = 0; round < 12; round++) {
        uint64_t at = AT_USER + (round % 3) * DATA_SIZE, sum[4] = {0};
        prepare_user(c, 0, round & 1 ? write_about : write_and_ask,
                     round & 1 ? CODE_SIZE(write_about) : CODE_SIZE(write_and_ask), at, &s);
        for (uint64_t a = 0; a < 4; a++)
            for (uint64_t i = 0; i < DATA_SIZE; i += GUEST_PAGE_SIZE) {
                static const uint8_t zero[GUEST_PAGE_SIZE];
                harness_write(c->h, AT_USER + a * DATA_SIZE + i, zero, sizeof(zero));
            }
        conform_set(c, 0, &s);
        for (unsigned tries = 0; tries < 500 && !sum_of(c, at);
             tries++) /* a busy host may not let it begin */
            conform_run(c, HARNESS_TIMEOUT, 10);
        if (round & 2)
            c->h->ops->reset(c->h->vcpu[0]);
        for (uint64_t a = 0; a < 4; a++) {
            sum[a] = sum_of(c, AT_USER + a * DATA_SIZE);
            if (!sum[a] != (AT_USER + a * DATA_SIZE != at))
                conform_fail(c, "round %u: memory %llu was %swritten", round, (unsigned long long)a,
                             sum[a] ? "" : "not ");
        }
    }
}

/* --- the dirty log while it runs --- */

static uint8_t *copy_of_memory;

/* As a migration does: what was dirty is copied again. */
static void copy_dirty(struct conform *c)
{
    uint64_t bits[WORDS];
    c->h->ops->dirty_fetch(c->h->engine, 0, bits, WORDS);
    const uint8_t *memory = harness_peek(c->h, 0, 16 * MIB);
    for (uint64_t i = 0; i < PAGES; i++)
        if (bits[i / 64] >> (i % 64) & 1)
            memcpy(copy_of_memory + i * GUEST_PAGE_SIZE, memory + i * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
}

static void log_for_a_while(struct conform *c)
{
    struct error *err = NULL;
    if (!c->h->ops->dirty_start(c->h->engine, &err)) {
        conform_fail(c, "the log cannot be started");
        return;
    }
    memcpy(copy_of_memory, harness_peek(c->h, 0, 16 * MIB), 16 * MIB);
    for (unsigned i = 0; i < 3; i++) {
        copy_dirty(c);
        usleep(500);
    }
}

static void logged(struct conform *c)
{
    struct x86_state s[2];
    copy_of_memory = calloc(16, MIB);
    for (unsigned cpu = 0; cpu < 2; cpu++) {
        prepare_user(c, cpu, cpu ? write_and_ask : write_about,
                     cpu ? CODE_SIZE(write_and_ask) : CODE_SIZE(write_about), AT_USER + cpu * DATA_SIZE,
                     &s[cpu]);
    }
    for (unsigned cpu = 0; cpu < 2; cpu++)
        conform_set(c, cpu, &s[cpu]);
    for (unsigned round = 0; round < 15; round++) {
        struct conform_later later;
        conform_later(&later, c, 1 + round % 4, log_for_a_while);
        conform_run(c, HARNESS_TIMEOUT, 30);
        conform_later_end(&later);
        copy_dirty(c);
        const uint8_t *memory = harness_peek(c->h, 0, 16 * MIB);
        unsigned lost = 0;
        for (uint64_t i = 0; i < PAGES; i++)
            lost +=
                !!memcmp(copy_of_memory + i * GUEST_PAGE_SIZE, memory + i * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
        conform_equal(c, lost, 0, "pages written and not in the log");
        c->h->ops->dirty_stop(c->h->engine);
    }
    free(copy_of_memory);
}

/* --- processes and descriptors --- */

static unsigned count_fds(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* A child of any thread, 0: none. */
static pid_t find_child(void)
{
    char path[300];
    long pid = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; d && !pid && (e = readdir(d));) {
        snprintf(path, sizeof(path), "/proc/self/task/%s/children", e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (f && fscanf(f, "%ld", &pid) != 1)
            pid = 0;
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return (pid_t)pid;
}

static void nothing_left(struct conform *c)
{
    struct x86_state s;
    unsigned fds = 0;
    for (unsigned round = 0; round < 5; round++) {
        const struct harness_options options = {.engine = c->engine, .cpu_count = 1, .memory = 16 * MIB};
        harness_close(c->h);
        if (round == 1)
            fds = count_fds();
        else if (round)
            conform_equal(c, count_fds(), fds, "descriptors");
        if (waitpid(-1, NULL, WNOHANG | __WALL) != -1 || errno != ECHILD)
            conform_fail(c, "there is a process left");
        c->h = harness_open(&options);
        if (!c->h)
            exit(1);
        for (unsigned i = 0; i < 6; i++) { /* address spaces */
            prepare_user(c, 0, count_up, CODE_SIZE(count_up), AT_USER, &s);
            s.cr3 = AT_TABLES;
            conform_set(c, 0, &s);
            conform_run(c, HARNESS_TIMEOUT, 2);
        }
    }
}

static void send_signals(struct conform *c)
{
    (void)c;
    for (unsigned i = 0; i < 400; i++) {
        kill(0, SIGWINCH);
        usleep(50);
    }
}

static void signals(struct conform *c)
{
    struct x86_state s;
    struct conform_later later;
    setpgid(0, 0); /* nobody else's business */
    prepare_user(c, 0, write_and_ask, CODE_SIZE(write_and_ask), AT_USER, &s);
    conform_set(c, 0, &s);
    for (unsigned round = 0; round < 3; round++) {
        conform_later(&later, c, 0, send_signals);
        conform_run(c, HARNESS_TIMEOUT, 60);
        conform_later_end(&later);
    }
}

static void kill_child(struct conform *c)
{
    pid_t pid = find_child();
    (void)c;
    if (pid > 0)
        kill(pid, SIGKILL);
}

/* The host may kill what an engine runs besides (out of memory): the machine may fail, nothing else. */
static void killed(struct conform *c)
{
    struct x86_state s;
    for (unsigned round = 0; round < 4; round++) {
        struct conform_later later;
        prepare_user(c, 0, round & 1 ? write_about : write_and_ask,
                     round & 1 ? CODE_SIZE(write_about) : CODE_SIZE(write_and_ask), AT_USER, &s);
        conform_set(c, 0, &s);
        conform_later(&later, c, 5 + round, kill_child);
        enum harness_result end = harness_run(c->h, 30);
        conform_later_end(&later);
        if (end != HARNESS_TIMEOUT && end != HARNESS_ERROR)
            conform_fail(c, "it ended with %s", harness_result_name(end));
        c->h->ops->reset(c->h->vcpu[0]);
    }
    prepare_user(c, 0, count_up, CODE_SIZE(count_up), AT_USER, &s);
    conform_set(c, 0, &s);
    conform_run(c, HARNESS_TIMEOUT, 5);
}

/* Machines of a process of their own that come and go until it is killed. */
_Noreturn static void be_killed(struct conform *c)
{
    const struct harness_options options = {.engine = c->engine, .cpu_count = 1, .memory = 16 * MIB};
    for (;;) {
        struct x86_state s;
        c->h = harness_open(&options);
        if (!c->h)
            _exit(1);
        prepare_user(c, 0, count_up, CODE_SIZE(count_up), AT_USER, &s);
        conform_set(c, 0, &s);
        harness_run(c->h, 1);
        harness_close(c->h);
    }
}

/* Whatever an engine has started ends with the process, wherever that was. */
static void killed_altogether(struct conform *c)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* what it leaves becomes our child */
    for (unsigned round = 0; round < 60 && !c->bad; round++) {
        pid_t pid = fork(), ended;
        unsigned tries = 0;
        if (!pid)
            be_killed(c);
        usleep((unsigned)(conform_random(c) % 40000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        while ((ended = waitpid(-1, NULL, WNOHANG | __WALL)) != -1) {
            if (!ended && ++tries == 2000) {
                conform_fail(c, "process %d lives on", find_child());
                break;
            }
            if (!ended)
                usleep(1000);
        }
    }
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
}

const struct conform_case conform_user_cases[] = {
    {"user code is stopped between instructions", 1, stopped},
    {"memory changed from outside between runs of user code", 1, changed_from_outside},
    {"dirty log while user code runs", 2, logged},
    {"user code leaves no processes and descriptors", 1, nothing_left},
    {"signals to the process group while user code runs", 1, signals},
    {"a process of the engine is killed", 1, killed},
    {"the engine's own process is killed", 1, killed_altogether},
    {NULL, 0, NULL},
};
