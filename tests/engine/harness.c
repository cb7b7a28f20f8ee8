/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bare test machine: see harness.h. */
#include "harness.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"

/* How long an engine may take to answer a kick before it counts as hung. */
#define HANG_NS (20 * UINT64_C(1000000000))

struct harness_worker {
    struct harness *h;
    unsigned index;
    pthread_t thread;
};

static uint64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

_Noreturn static void fail(const char *what, const char *why)
{
    fprintf(stderr, "harness: %s: %s\n", what, why);
    exit(1);
}

/* --- test devices, called from vCPU threads --- */

static void end_run(struct harness *h, enum harness_result result)
{
    int expected = 0;
    if (!atomic_compare_exchange_strong(&h->stop, &expected, 1 + (int)result))
        return;
    for (unsigned i = 0; i < h->cpu_count; i++)
        h->ops->kick(h->vcpu[i]);
}

static void record(struct harness *h, bool port, bool write, uint64_t address, unsigned size, uint64_t value)
{
    if (h->access_count < HARNESS_ACCESS_MAX)
        h->access[h->access_count] = (struct harness_access){
            .address = address, .value = value, .size = (uint8_t)size, .write = write, .port = port};
    h->access_count++;
}

static void put_text(struct harness *h, char c)
{
    if (h->text_length + 1 < HARNESS_TEXT_MAX) {
        h->text[h->text_length++] = c;
        h->text[h->text_length] = 0;
    }
    if (h->echo) {
        putchar(c);
        if (c == '\n')
            fflush(stdout);
    }
}

static bool scratch_port(uint16_t port, unsigned size)
{
    return port >= HARNESS_PORT && port + size <= HARNESS_PORT + HARNESS_PORT_COUNT;
}

static uint32_t port_read(void *opaque, uint16_t port, unsigned size)
{
    struct harness *h = opaque;
    uint32_t value = UINT32_MAX >> (32 - 8 * size);
    pthread_mutex_lock(&h->lock);
    if (scratch_port(port, size)) {
        value = 0;
        memcpy(&value, h->ports + (port - HARNESS_PORT), size);
        record(h, true, false, port, size, value);
    } else if (port == HARNESS_TEXT_PORT) {
        value = HARNESS_TEXT_PORT; /* as QEMU's debug console answers */
    }
    pthread_mutex_unlock(&h->lock);
    return value;
}

static void port_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct harness *h = opaque;
    pthread_mutex_lock(&h->lock);
    if (port == HARNESS_EXIT_PORT) {
        if (!atomic_load(&h->stop))
            h->exit_value = value;
        end_run(h, HARNESS_EXITED);
    } else if (port == HARNESS_TEXT_PORT) {
        put_text(h, (char)value);
    } else if (scratch_port(port, size)) {
        memcpy(h->ports + (port - HARNESS_PORT), &value, size);
        record(h, true, true, port, size, value);
    }
    pthread_mutex_unlock(&h->lock);
}

static bool scratch_mmio(uint64_t gpa, unsigned size)
{
    return gpa >= HARNESS_MMIO && range_fits(gpa - HARNESS_MMIO, size, HARNESS_MMIO_SIZE);
}

static uint64_t last_access(const struct harness *h)
{
    if (!h->access_count || h->access_count > HARNESS_ACCESS_MAX)
        return 0;
    const struct harness_access *a = &h->access[h->access_count - 1];
    return a->size | (uint64_t)a->write << 8 | (uint64_t)a->port << 9 | (a->address & 0xffff) << 16;
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    struct harness *h = opaque;
    uint64_t value = UINT64_MAX >> (64 - 8 * size);
    if (!scratch_mmio(gpa, size))
        return value;
    pthread_mutex_lock(&h->lock);
    if (gpa - HARNESS_MMIO >= HARNESS_MMIO_LIMITS && gpa - HARNESS_MMIO < HARNESS_MMIO_COUNT) {
        pthread_mutex_unlock(&h->lock);
        return h->limits;
    }
    if (gpa - HARNESS_MMIO >= HARNESS_MMIO_COUNT) {
        value = gpa - HARNESS_MMIO < HARNESS_MMIO_LAST ? h->access_count : last_access(h);
        pthread_mutex_unlock(&h->lock);
        return value;
    }
    value = 0;
    memcpy(&value, h->mmio + (gpa - HARNESS_MMIO), size);
    record(h, false, false, gpa, size, value);
    pthread_mutex_unlock(&h->lock);
    return value;
}

/* h->lock held. */
static bool ring_doorbell(const struct harness *h, uint64_t gpa)
{
    for (unsigned i = 0; i < HARNESS_EVENTFDS; i++)
        if (h->bell[i].fd >= 0 && h->bell[i].addr == gpa)
            return eventfd_write(h->bell[i].fd, 1) == 0;
    return false;
}

static void mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
    struct harness *h = opaque;
    if (!scratch_mmio(gpa, size))
        return;
    pthread_mutex_lock(&h->lock);
    if (!ring_doorbell(h, gpa)) {
        memcpy(h->mmio + (gpa - HARNESS_MMIO), &value, size);
        record(h, false, true, gpa, size, value);
    }
    pthread_mutex_unlock(&h->lock);
}

static void eoi(void *opaque, uint8_t vector)
{
    struct harness *h = opaque;
    pthread_mutex_lock(&h->lock);
    h->eoi_count++;
    h->eoi_vector = vector;
    pthread_mutex_unlock(&h->lock);
}

static int pic_acknowledge(void *opaque)
{
    struct harness *h = opaque;
    pthread_mutex_lock(&h->lock);
    int vector = h->pic_vector;
    h->pic_vector = -1;
    pthread_mutex_unlock(&h->lock);
    h->ops->set_intr(h->engine, false);
    return vector;
}

static uint64_t now(void *opaque)
{
    const struct harness *h = opaque;
    return h->stopped_ns ? h->stopped_ns : monotonic_ns() - h->start_ns;
}

void harness_run_time(struct harness *h, bool running)
{
    if (running && h->stopped_ns) {
        h->start_ns = monotonic_ns() - h->stopped_ns;
        h->stopped_ns = 0;
    } else if (!running) {
        h->stopped_ns = now(h);
    }
    h->ops->run_time(h->engine, running);
}

/* --- running --- */

/* Runs one vCPU until the run ends. */
static void run_vcpu(struct harness *h, unsigned index)
{
    while (!atomic_load(&h->stop)) {
        struct vm_exit e = {.kind = VM_EXIT_ERROR};
        h->ops->run(h->vcpu[index], &e);
        if (e.kind == VM_EXIT_INTERRUPTED)
            continue;
        static const enum harness_result results[] = {[VM_EXIT_SHUTDOWN] = HARNESS_SHUTDOWN,
                                                      [VM_EXIT_RESET] = HARNESS_RESET,
                                                      [VM_EXIT_ERROR] = HARNESS_ERROR};
        pthread_mutex_lock(&h->lock);
        if (!atomic_load(&h->stop) || e.kind == VM_EXIT_ERROR) /* one that comes after the guest's end, too */
            snprintf(h->why, sizeof(h->why), "vCPU %u: %s", index, e.text);
        end_run(h, results[e.kind]);
        pthread_mutex_unlock(&h->lock);
    }
}

static void *worker_main(void *opaque)
{
    struct harness_worker *w = opaque;
    struct harness *h = w->h;
    unsigned seen = 0;
    pthread_mutex_lock(&h->lock);
    for (;;) {
        while (!h->closing && h->generation == seen)
            pthread_cond_wait(&h->cond, &h->lock);
        if (h->closing)
            break;
        seen = h->generation;
        pthread_mutex_unlock(&h->lock);
        run_vcpu(h, w->index);
        pthread_mutex_lock(&h->lock);
        h->running--;
        pthread_cond_broadcast(&h->cond);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* Kicks at the deadline, and ends the process when that does not help. */
static void *watchdog_main(void *opaque)
{
    struct harness *h = opaque;
    pthread_mutex_lock(&h->lock);
    while (!h->closing) {
        if (!h->running) {
            pthread_cond_wait(&h->cond, &h->lock);
            continue;
        }
        uint64_t t = monotonic_ns(), wake = h->deadline_ns;
        if (t >= wake && !atomic_load(&h->stop)) {
            snprintf(h->why, sizeof(h->why), "no end within the time limit");
            end_run(h, HARNESS_TIMEOUT);
        }
        if (t >= wake + HANG_NS)
            fail(h->ops->name, "a vCPU does not return although it was kicked");
        if (t >= wake)
            wake += HANG_NS;
        struct timespec until = {.tv_sec = (time_t)(wake / 1000000000u),
                                 .tv_nsec = (long)(wake % 1000000000u)};
        pthread_cond_timedwait(&h->cond, &h->lock, &until);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

enum harness_result harness_run(struct harness *h, unsigned timeout_ms)
{
    pthread_mutex_lock(&h->lock);
    atomic_store(&h->stop, 0);
    h->why[0] = 0;
    h->deadline_ns = monotonic_ns() + timeout_ms * UINT64_C(1000000);
    h->running = h->cpu_count;
    h->generation++;
    pthread_cond_broadcast(&h->cond);
    pthread_mutex_unlock(&h->lock);

    run_vcpu(h, 0);

    pthread_mutex_lock(&h->lock);
    h->running--;
    while (h->running)
        pthread_cond_wait(&h->cond, &h->lock);
    enum harness_result result = (enum harness_result)(atomic_load(&h->stop) - 1);
    pthread_mutex_unlock(&h->lock);
    return result;
}

const char *harness_result_name(enum harness_result result)
{
    static const char *const names[] = {"exit", "shutdown", "reset", "engine error", "timeout"};
    return names[result];
}

/* --- opening and closing --- */

/* NAME[,native=auto|off|always][,cache=FOLDER]: the value after `key`, up to the end; NULL: there is none. */
static const char *engine_option(const char *name, const char *key)
{
    const char *found = name ? strstr(name, key) : NULL;
    return found ? found + strlen(key) : NULL;
}

static enum engine_native find_native(const char *name)
{
    const char *word = engine_option(name, ",native=");
    if (!word || !strncmp(word, "auto", 4))
        return ENGINE_NATIVE_AUTO;
    return !strncmp(word, "always", 6) ? ENGINE_NATIVE_ALWAYS : ENGINE_NATIVE_OFF;
}

static const struct engine_ops *find_engine(const char *name)
{
    for (const struct engine_ops *const *e = engines; *e; e++) {
        struct error *err = NULL;
        size_t len = name ? strcspn(name, ",") : 0;
        if (name && (strlen((*e)->name) != len || memcmp((*e)->name, name, len) != 0))
            continue;
        if ((*e)->probe(&err))
            return *e;
        if (name)
            fprintf(stderr, "harness: engine %s: %s\n", name, error_text(err));
        error_free(err);
    }
    return NULL;
}

/* QEMU's translator says so in the processor's name. */
static bool on_translator(void)
{
    uint32_t name[4];
    __cpuid(0x80000002, name[0], name[1], name[2], name[3]);
    return !memcmp(name, "QEMU TCG", 8);
}

static bool open_engine(struct harness *h, const struct harness_options *o)
{
    struct error *err = NULL;
    h->cpu_count = o->cpu_count ? o->cpu_count : 1;
    h->ops = find_engine(o->engine);
    if (!h->ops) {
        fprintf(stderr, "harness: no engine %s\n", o->engine ? o->engine : "works here");
        return false;
    }
    h->limits =
        (!strcmp(h->ops->name, "kvm") ? LIMIT_EMULATOR : 0) | (on_translator() ? LIMIT_TRANSLATOR : 0);
    h->memory = guest_memory_new(o->memory ? o->memory : 64 * MIB, &err);
    if (h->memory && cpuid_model_build(&h->cpu, o->cpu ? o->cpu : "host", h->cpu_count, &err) &&
        (!h->ops->cpu_fit || h->ops->cpu_fit(&h->cpu, &err))) {
        h->host =
            (struct engine_host){h, port_read, port_write, mmio_read, mmio_write, eoi, pic_acknowledge, now};
        h->config = (struct engine_config){.memory = h->memory,
                                           .host = &h->host,
                                           .cpu_count = h->cpu_count,
                                           .cpu = &h->cpu,
                                           .native = find_native(o->engine),
                                           .translations = engine_option(o->engine, ",cache="),
                                           .trace = o->trace};
        h->engine = h->ops->open(&h->config, &err);
    }
    for (unsigned i = 0; !err && h->engine && i < h->cpu_count; i++) {
        h->vcpu[i] = h->ops->vcpu_new(h->engine, i, &err);
        if (h->vcpu[i])
            h->ops->reset(h->vcpu[i]);
    }
    if (err)
        fprintf(stderr, "harness: engine %s: %s\n", h->ops->name, error_text(err));
    bool good = !err && h->engine;
    error_free(err);
    return good;
}

static void free_machine(struct harness *h)
{
    if (h->engine)
        h->ops->close(h->engine);
    guest_memory_free(h->memory);
    pthread_cond_destroy(&h->cond);
    pthread_mutex_destroy(&h->lock);
    free(h->access);
    free(h->text);
    free(h->worker);
    free(h);
}

struct harness *harness_open(const struct harness_options *options)
{
    struct harness *h = calloc(1, sizeof(*h));
    if (!h || !(h->text = calloc(1, HARNESS_TEXT_MAX)) || !(h->worker = calloc(32, sizeof(*h->worker))) ||
        !(h->access = calloc(HARNESS_ACCESS_MAX, sizeof(*h->access))))
        fail("opening", "no memory");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->cond, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&h->lock, NULL);
    for (unsigned i = 0; i < HARNESS_EVENTFDS; i++)
        h->bell[i].fd = h->line[i].fd = -1;
    h->pic_vector = -1;
    h->start_ns = monotonic_ns();
    if (!open_engine(h, options)) {
        free_machine(h);
        return NULL;
    }
    h->ops->run_time(h->engine, true);
    bool good = pthread_create(&h->watchdog, NULL, watchdog_main, h) == 0;
    for (unsigned i = 1; good && i < h->cpu_count; i++) {
        h->worker[i] = (struct harness_worker){.h = h, .index = i};
        good = pthread_create(&h->worker[i].thread, NULL, worker_main, &h->worker[i]) == 0;
    }
    if (!good)
        fail("opening", "cannot create a thread");
    return h;
}

void harness_close(struct harness *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->closing = true;
    pthread_cond_broadcast(&h->cond);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->watchdog, NULL);
    for (unsigned i = 1; i < h->cpu_count; i++)
        pthread_join(h->worker[i].thread, NULL);
    free_machine(h);
}

void harness_clear(struct harness *h)
{
    pthread_mutex_lock(&h->lock);
    h->text_length = 0;
    h->text[0] = 0;
    h->access_count = h->eoi_count = 0;
    h->eoi_vector = 0;
    h->exit_value = 0;
    pthread_mutex_unlock(&h->lock);
}

/* --- memory and state --- */

void harness_write(struct harness *h, uint64_t gpa, const void *data, uint64_t len)
{
    if (!guest_write(h->memory, gpa, data, len))
        fail("writing guest memory", "not RAM");
}

void harness_read(struct harness *h, uint64_t gpa, void *data, uint64_t len)
{
    if (!guest_read(h->memory, gpa, data, len))
        fail("reading guest memory", "not RAM");
}

const void *harness_peek(struct harness *h, uint64_t gpa, uint64_t len)
{
    const void *p = guest_ptr(h->memory, gpa, len, false);
    if (!p)
        fail("reading guest memory", "not RAM");
    return p;
}

void harness_set(struct harness *h, unsigned index, const struct x86_state *state)
{
    struct error *err = NULL;
    if (!h->ops->set_state(h->vcpu[index], state, &err))
        fail("setting a vCPU's state", error_text(err));
}

struct x86_segment harness_segment(uint16_t selector, uint64_t base, uint32_t limit, uint32_t attr)
{
    return (struct x86_segment){.selector = selector, .attr = attr, .limit = limit, .base = base};
}

/* What all starting points share. */
static void base_state(struct harness *h, struct x86_state *s)
{
    h->ops->reset(h->vcpu[0]);
    h->ops->get_state(h->vcpu[0], s);
    s->mp_state = MP_RUNNING;
    s->rip = 0;
    s->rflags = 2;
    s->cr0 = CR0_ET | CR0_NE | CR0_MP;
    s->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
    s->xcr0 = 1;
    if (cpuid_model_has(&h->cpu, X86_FEATURE(1, 2, 26))) { /* XSAVE */
        s->cr4 |= CR4_OSXSAVE;
        s->xcr0 = h->cpu.xcr0_mask & 7;
    }
    s->gdtr = s->idtr = (struct x86_table){0};
}

#define CODE_ATTR (ATTR_P | ATTR_S | 0xb)
#define DATA_ATTR (ATTR_P | ATTR_S | 0x3)

static void flat_segments(struct x86_state *s, uint32_t limit, uint32_t code, uint32_t data)
{
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s->seg[i] = harness_segment(i == SEG_CS ? 0x08 : 0x10, 0, limit, i == SEG_CS ? code : data);
    s->seg[SEG_LDTR] = harness_segment(0, 0, 0, ATTR_UNUSABLE);
    s->seg[SEG_TR] = harness_segment(0x18, 0, 0xffff, ATTR_P | 0xb);
}

void harness_state_real(struct harness *h, struct x86_state *s)
{
    base_state(h, s);
    flat_segments(s, 0xffff, ATTR_P | ATTR_S | 0x3, DATA_ATTR);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s->seg[i].selector = 0;
    s->idtr.limit = 0x3ff;
}

void harness_state_protected(struct harness *h, struct x86_state *s, bool code32)
{
    base_state(h, s);
    s->cr0 |= CR0_PE;
    uint32_t size = code32 ? ATTR_DB | ATTR_G : 0;
    flat_segments(s, code32 ? UINT32_MAX : 0xffff, CODE_ATTR | size, DATA_ATTR | size);
}

void harness_state_long(struct harness *h, struct x86_state *s, uint64_t cr3)
{
    base_state(h, s);
    s->cr0 |= CR0_PE | CR0_PG | CR0_WP;
    s->cr4 |= CR4_PAE;
    s->cr3 = cr3;
    s->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    flat_segments(s, UINT32_MAX, CODE_ATTR | ATTR_L | ATTR_G, DATA_ATTR | ATTR_DB | ATTR_G);
}

/* --- page tables --- */

static uint64_t new_table(struct harness_pager *p)
{
    static const uint8_t zero[GUEST_PAGE_SIZE];
    if (p->next >= p->end)
        fail("building page tables", "the pool is too small");
    harness_write(p->h, p->next, zero, sizeof(zero));
    p->next += GUEST_PAGE_SIZE;
    return p->next - GUEST_PAGE_SIZE;
}

void harness_pager_init(struct harness_pager *p, struct harness *h, uint64_t pool, uint64_t size)
{
    *p = (struct harness_pager){.h = h, .next = pool, .end = pool + size};
    p->root = new_table(p);
}

static void map_page(struct harness_pager *p, uint64_t va, uint64_t gpa, uint64_t flags)
{
    uint64_t table = p->root, entry;
    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint64_t slot = table + 8 * (va >> shift & 511);
        harness_read(p->h, slot, &entry, 8);
        if (!entry) {
            entry = new_table(p) | PTE_P | PTE_W | PTE_U;
            harness_write(p->h, slot, &entry, 8);
        }
        table = entry & UINT64_C(0xffffffffff000);
    }
    entry = gpa | flags;
    harness_write(p->h, table + 8 * (va >> 12 & 511), &entry, 8);
}

void harness_map(struct harness_pager *p, uint64_t va, uint64_t gpa, uint64_t size, uint64_t flags)
{
    for (uint64_t done = 0; done < size; done += GUEST_PAGE_SIZE)
        map_page(p, va + done, gpa + done, flags);
}
