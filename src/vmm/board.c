/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making the machine: memory, buses, devices in a fixed order, the engine, and the wires between them. */
#include "vmm/board.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "block/block.h"
#include "core/device.h"
#include "device/platform/i8259.h"
#include "device/platform/ioapic.h"
#include "device/virtio/virtio_blk.h"
#include "vmm/disk_jobs.h"
#include "vmm/migrate.h"
#include "vmm/qmp.h"
#include "vmm/save.h"

#define PORT_LIMIT 0x10000u
#define MMIO_LIMIT BIT(52)

static struct board *board_of(void *opaque)
{
    return opaque;
}

/* What the engine calls on vCPU threads. */

static uint32_t host_port_read(void *opaque, uint16_t port, unsigned size)
{
    struct machine *m = &board_of(opaque)->m;

    machine_lock(m);
    uint64_t value = bus_read(&m->ports, port, size);
    machine_unlock(m);
    return (uint32_t)value;
}

static void host_port_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct machine *m = &board_of(opaque)->m;

    machine_lock(m);
    bus_write(&m->ports, port, size, value);
    machine_unlock(m);
}

static uint64_t host_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    struct machine *m = &board_of(opaque)->m;

    machine_lock(m);
    uint64_t value = bus_read(&m->mmio, gpa, size);
    machine_unlock(m);
    return value;
}

static void host_mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
    struct machine *m = &board_of(opaque)->m;

    machine_lock(m);
    bus_write(&m->mmio, gpa, size, value);
    machine_unlock(m);
}

static void host_eoi(void *opaque, uint8_t vector)
{
    struct machine *m = &board_of(opaque)->m;

    machine_lock(m);
    ioapic_eoi(m->ioapic, vector);
    machine_unlock(m);
}

static int host_pic_acknowledge(void *opaque)
{
    struct machine *m = &board_of(opaque)->m;

    machine_lock(m);
    int vector = i8259_acknowledge(m->pic);
    machine_unlock(m);
    return vector;
}

static uint64_t host_now(void *opaque)
{
    return vm_clock_now(&board_of(opaque)->m.clock);
}

/* What devices call. */

static void set_gsi(struct machine *m, unsigned gsi, bool level)
{
    if (gsi < 16 && m->pic)
        i8259_set_irq(m->pic, gsi, level);
    if (m->ioapic)
        ioapic_set_gsi(m->ioapic, gsi, level);
}

static void send_msi(struct machine *m, uint64_t addr, uint32_t data)
{
    struct board *b = board_of(m);

    if (b->engine)
        b->ops->msi(b->engine, addr, data);
}

/* An engine's limit is no failure of the machine. */
static bool said(bool good, struct error *err)
{
    if (!good)
        log_line(LOG_INFO, "%s", error_text(err));
    error_free(err);
    return good;
}

static bool doorbell_add(struct machine *m, uint64_t gpa, int fd)
{
    struct board *b = board_of(m);
    struct error *err = NULL;
    return said(b->ops->doorbell_add(b->engine, gpa, fd, &err), err);
}

static void doorbell_remove(struct machine *m, uint64_t gpa, int fd)
{
    struct board *b = board_of(m);
    b->ops->doorbell_remove(b->engine, gpa, fd);
}

static bool line_set(struct machine *m, int fd, uint64_t addr, uint32_t data)
{
    struct board *b = board_of(m);
    struct error *err = NULL;
    return said(b->ops->line_set(b->engine, fd, addr, data, &err), err);
}

static void line_drop(struct machine *m, int fd)
{
    struct board *b = board_of(m);
    b->ops->line_drop(b->engine, fd);
}

static void offer_eventfds(struct board *b)
{
    if (b->ops->doorbell_add) {
        b->m.doorbell_add = doorbell_add;
        b->m.doorbell_remove = doorbell_remove;
    }
    if (b->ops->line_set) {
        b->m.line_set = line_set;
        b->m.line_drop = line_drop;
    }
}

static void set_intr(void *opaque, bool level)
{
    struct board *b = opaque;

    b->ops->set_intr(b->engine, level);
}

/* More is never there for the guest: the machine would end when the host runs out of it. */
static bool host_has_memory(uint64_t size, struct error **err)
{
    struct sysinfo host;

    if (sysinfo(&host) < 0)
        return true;
    uint64_t total = ((uint64_t)host.totalram + host.totalswap) * host.mem_unit;
    if (size <= total)
        return true;
    error_set(err, ENOMEM, "--memory: %llu MiB are wanted, the host has %llu MiB, with swap",
              (unsigned long long)(size / MIB), (unsigned long long)(total / MIB));
    return false;
}

static bool memory_fits(const struct board *b, struct error **err)
{
    uint64_t top = 4 * GIB + b->m.memory->ram_size - b->m.memory->ram_low;

    if (top <= BIT(b->cpu.phys_bits))
        return true;
    error_set(err, EINVAL, "--memory: the processor addresses no more than %llu GiB",
              (unsigned long long)(BIT(b->cpu.phys_bits) / GIB));
    return false;
}

/* b->cpu becomes what of the CPU model the engine keeps; on failure it is as it was. */
static bool open_engine(struct board *b, const struct engine_ops *ops, struct error **err)
{
    const struct engine_config config = {.memory = b->m.memory,
                                         .host = &b->host,
                                         .cpu_count = b->m.cpu_count,
                                         .cpu = &b->cpu,
                                         .native = b->config->native,
                                         .translations = b->config->translations,
                                         .jitdump = b->config->jitdump,
                                         .trace = b->trace};
    cleanup(mem) struct cpuid_model *whole = malloc(sizeof(*whole));

    if (!whole) {
        error_set_errno(err, ENOMEM, "cannot fit the CPU model");
        return false;
    }
    *whole = b->cpu;
    bool fit = !b->identity && ops->cpu_fit; /* a machine that has begun keeps its own as it is */
    if (ops->probe(err) && (!fit || ops->cpu_fit(&b->cpu, err)) && memory_fits(b, err))
        b->engine = ops->open(&config, err);
    if (b->engine)
        b->ops = ops;
    else
        b->cpu = *whole;
    return b->engine != NULL;
}

/* The first that opens. Why the best one did not is said once the machine runs: engine_tell. */
static bool open_any_engine(struct board *b, struct error **err)
{
    for (const struct engine_ops *const *e = engines; *e; e++) {
        struct error *why = NULL;
        if (open_engine(b, *e, &why))
            return true;
        if (!e[1])
            error_prefix(err, why, "no engine works here");
        else if (!b->passed_over)
            error_prefix(&b->passed_over, why, "engine %s is not used", (*e)->name);
        else
            error_free(why);
    }
    return false;
}

/*
 * In one line, to whoever wrote --engine auto, and when there is something to be mended, as a device without
 * permission. A host that has no KVM to offer is no news to who did not ask.
 */
void engine_tell(struct board *b)
{
    if (!b->passed_over)
        return;
    int code = b->passed_over->code;
    bool tell = b->config->engine || (code != ENOENT && code != EOPNOTSUPP);
    log_line(tell ? LOG_WARN : LOG_INFO, "%s", error_text(b->passed_over));
}

static bool choose_engine(struct board *b, int *status, struct error **err)
{
    const char *name = b->config->engine;
    struct error *why = NULL;

    if (b->config->trace && !(b->trace = fopen(b->config->trace, "we"))) {
        error_set_errno(err, errno, "--trace '%s': cannot write it", b->config->trace);
        return false;
    }
    if (!name || !strcmp(name, "auto"))
        return open_any_engine(b, err);
    for (const struct engine_ops *const *e = engines; *e; e++) {
        if (strcmp((*e)->name, name) != 0)
            continue;
        if (open_engine(b, *e, &why))
            return true;
        error_set(err, why->code, "engine %s does not work here: %s; --engine auto takes what does", name,
                  error_text(why));
        error_free(why);
        return false;
    }
    *status = BOARD_WRONG_USAGE;
    error_set(err, EINVAL, "--engine '%s': there is no such engine", name);
    return false;
}

static bool make_engine(struct board *b, int *status, struct error **err)
{
    static const char *const models[] = {"v1", "v2", "v3", "host"};
    const char *name = b->config->cpu;
    bool known = !name;

    for (size_t i = 0; i < ARRAY_SIZE(models); i++)
        known |= name && !strcmp(name, models[i]);
    if (!known)
        *status = BOARD_WRONG_USAGE;
    if (b->identity)
        b->cpu = b->identity->cpu;
    else if (!cpuid_model_build(&b->cpu, name, b->m.cpu_count, err))
        return false;
    b->host = (struct engine_host){
        .opaque = b,
        .port_read = host_port_read,
        .port_write = host_port_write,
        .mmio_read = host_mmio_read,
        .mmio_write = host_mmio_write,
        .eoi = host_eoi,
        .pic_acknowledge = host_pic_acknowledge,
        .now = host_now,
    };
    if (!choose_engine(b, status, err))
        return false;
    offer_eventfds(b);
    return true;
}

/* One device with a few properties, as "name", "value", ..., NULL. */
static struct device *add_device(struct board *b, const char *cls, const char *const props[],
                                 struct error **err)
{
    struct device *dev = device_new(&b->m, cls, NULL, err);

    if (!dev)
        return NULL;
    for (size_t i = 0; props && props[i]; i += 2) {
        if (!device_set(dev, props[i], props[i + 1], err)) {
            device_free(dev);
            return NULL;
        }
    }
    return device_realize(dev, err) ? dev : NULL;
}

/* Of what names a back end: one says EINVAL when it does not understand the words. */
static struct device *add_front_end(struct board *b, const char *cls, const char *const props[],
                                    const char *option, int *status, struct error **err)
{
    struct error *why = NULL;
    struct device *dev = add_device(b, cls, props, &why);

    if (dev)
        return dev;
    *status = why->code == EINVAL ? BOARD_WRONG_USAGE : BOARD_FAILED;
    error_prefix(err, why, "%s", option);
    return NULL;
}

/* The fixed part of the board. The order is that of references between them: buses and interrupt controllers
 * first. */
static bool add_platform(struct board *b, int *status, struct error **err)
{
    static const char *const classes[] = {"i8259",    "ioapic",  "q35-host", "ich9-lpc",   "i8254",
                                          "mc146818", "hpet",    "ich9-pm",  "reset-port", "i8042",
                                          "fw-cfg",   "pvpanic", "vmgenid"};
    const char *log = b->config->serial_log;
    const char *serial[] = {"chardev", b->config->serial, log ? "log" : NULL, log, NULL};

    for (size_t i = 0; i < ARRAY_SIZE(classes); i++)
        if (!add_device(b, classes[i], NULL, err))
            return false;
    return add_front_end(b, "uart16550", serial, "--serial", status, err);
}

static bool add_disks(struct board *b, struct error **err)
{
    for (unsigned i = 0; i < b->config->disk_count; i++) {
        const struct disk_config *config = &b->config->disk[i];
        struct board_disk *disk = &b->disk[i];
        bool away = b->identity && !b->saved; /* whoever it comes from has them still */
        unsigned flags = config->readonly ? BLOCK_READONLY : away ? BLOCK_AWAY : 0;
        disk->block = block_open(config->path, config->format, flags, b->m.loop, err);
        struct device *dev = disk->block ? device_new(&b->m, "virtio-blk", NULL, err) : NULL;
        if (!dev)
            return false;
        virtio_blk_set_block(dev, disk->block);
        if (!device_realize(dev, err))
            return false;
        disk->device = dev;
    }
    return true;
}

/* Cuts "mac=ADDRESS" out of what --net has: it is the card's, the rest the back end's. NULL when there is
 * none. */
static char *take_mac(char *spec)
{
    char *item = strstr(spec, ",mac="), *mac = NULL;

    if (!item)
        return NULL;
    size_t len = strcspn(item + 1, ",");
    mac = strndup(item + 5, len - 4);
    memmove(item, item + 1 + len, strlen(item + 1 + len) + 1);
    return mac;
}

static bool add_nets(struct board *b, int *status, struct error **err)
{
    for (unsigned i = 0; i < b->config->net_count; i++) {
        cleanup(mem) char *spec = strdup(b->config->net[i]);
        cleanup(mem) char *mac = spec ? take_mac(spec) : NULL;
        const char *props[] = {"net", spec, mac ? "mac" : NULL, mac, NULL};
        if (!add_front_end(b, "virtio-net", props, "--net", status, err))
            return false;
    }
    return true;
}

/* What --device asks for. Up to realize, failure means that the words were wrong. */
static bool add_wished(struct board *b, const struct device_config *d, int *status, struct error **err)
{
    const struct device_class *cls = device_class_find(d->cls);
    struct error *why = NULL;

    if (!cls || !(cls->flags & DEVICE_USER)) {
        *status = BOARD_WRONG_USAGE;
        error_set(err, EINVAL, "--device '%s': there is no such device (see --device help)", d->cls);
        return false;
    }
    struct device *dev = device_new(&b->m, d->cls, NULL, &why);
    for (unsigned i = 0; dev && i < d->prop_count; i++) {
        if (!device_set(dev, d->prop[i].name, d->prop[i].value, &why)) {
            device_free(dev);
            dev = NULL;
        }
    }
    if (!dev)
        *status = BOARD_WRONG_USAGE;
    if (dev && device_realize(dev, &why))
        return true;
    error_prefix(err, why, "--device %s", d->cls);
    return false;
}

/* It comes last, so that with it all others have the places that they have without. */
static bool add_agent(struct board *b, int *status, struct error **err)
{
    cleanup(mem) char *port = NULL;

    if (!b->config->agent)
        return true;
    if (asprintf(&port, "org.qemu.guest_agent.0:%s", b->config->agent) < 0) {
        port = NULL;
        error_set_errno(err, ENOMEM, "--agent");
        return false;
    }
    const char *props[] = {"open", "on", "port1", port, NULL};
    b->agent = add_front_end(b, "virtio-console", props, "--agent", status, err);
    return b->agent != NULL;
}

static bool add_devices(struct board *b, int *status, struct error **err)
{
    bool has_rng = false;

    if (!add_platform(b, status, err) || !add_disks(b, err) || !add_nets(b, status, err))
        return false;
    for (unsigned i = 0; i < b->config->device_count; i++)
        has_rng |= !strcmp(b->config->device[i].cls, "virtio-rng");
    if (!has_rng && !add_device(b, "virtio-rng", NULL, err))
        return false;
    for (unsigned i = 0; i < b->config->device_count; i++)
        if (!add_wished(b, &b->config->device[i], status, err))
            return false;
    if (!add_agent(b, status, err))
        return false;
    i8259_connect(b->m.pic, set_intr, b);
    return true;
}

/* FNV-1a, 64 bits. */
static uint64_t hash(const char *text, uint64_t seed)
{
    uint64_t h = 14695981039346656037u ^ seed;

    for (; *text; text++)
        h = (h ^ (uint8_t)*text) * 1099511628211u;
    return h;
}

/* A machine with a name has the same UUID (and so the same network addresses) each time; version 8 of RFC
 * 9562. */
static void make_uuid(uint8_t uuid[16], const char *name)
{
    if (name) {
        store_le64(uuid, hash(name, 0));
        store_le64(uuid + 8, hash(name, UINT64_MAX));
    } else if (getrandom(uuid, 16, 0) != 16) {
        memset(uuid, 0, 16);
    }
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

/* What everything else stands on. After it, board_free works. */
static struct board *make_frame(const struct machine_config *config, const struct saved_identity *identity,
                                const struct saved_machine *saved, struct error **err)
{
    static const uint8_t none[16] = {0};
    struct board *b = aligned_alloc(_Alignof(struct board), sizeof(*b));

    if (!b) {
        error_set_errno(err, ENOMEM, "cannot make a machine");
        return NULL;
    }
    memset(b, 0, sizeof(*b));
    b->config = config;
    b->identity = identity;
    b->saved = saved;
    b->signal_fd = -1;
    b->migrate_settings = migrate_defaults;
    boot_source_init(&b->boot);
    pthread_mutex_init(&b->m.lock, NULL);
    b->m.loop = loop_new(&b->m.lock, err);
    if (!b->m.loop) {
        pthread_mutex_destroy(&b->m.lock);
        free(b);
        return NULL;
    }
    vm_clock_init(&b->m.clock, b->m.loop);
    bus_init(&b->m.ports, PORT_LIMIT);
    bus_init(&b->m.mmio, MMIO_LIMIT);
    b->m.cpu_count = config->cpus;
    b->m.set_gsi = set_gsi;
    b->m.send_msi = send_msi;
    b->m.event = runstate_event;
    if (memcmp(config->uuid, none, sizeof(none)) != 0)
        memcpy(b->m.uuid, config->uuid, sizeof(none));
    else if (identity)
        memcpy(b->m.uuid, identity->uuid, sizeof(none));
    else
        make_uuid(b->m.uuid, config->name);
    return b;
}

static bool make_vcpus(struct board *b, struct error **err)
{
    b->vcpus = vcpus_new(&b->m, b->ops, b->engine, runstate_cpu_exit, b, err);
    return b->vcpus != NULL;
}

/* The state in which the machine will begin: booted, as it was saved, or none yet. */
static bool set_up(struct board *b, struct error **err)
{
    if (!b->identity)
        return firmware_start(b, true, err);
    devices_quiesce(&b->m);
    b->quiesced = true;
    return !b->saved || saved_restore(b->saved, b, err);
}

static struct board *make_board(const struct machine_config *config, const struct saved_identity *identity,
                                const struct saved_machine *saved, int *status, struct error **err)
{
    struct board *b = make_frame(config, identity, saved, err);

    *status = BOARD_FAILED;
    if (!b)
        return NULL;
    if (saved) /* of which only what it touches is needed */
        b->m.memory = saved_memory(saved, config->memory, err);
    else if (host_has_memory(config->memory, err))
        b->m.memory = guest_memory_new(config->memory, err);
    bool ok = b->m.memory && make_engine(b, status, err) &&
              (identity ? firmware_prepare_saved(b, err) : firmware_prepare(b, err));
    if (ok) {
        machine_lock(&b->m);
        ok = add_devices(b, status, err) && firmware_fill_fw_cfg(b, err) && make_vcpus(b, err) &&
             set_up(b, err) && runstate_init(b, err);
        machine_unlock(&b->m);
    }
    if (!ok) {
        board_free(b);
        return NULL;
    }
    return b;
}

struct board *board_new(const struct machine_config *config, int *status, struct error **err)
{
    return make_board(config, NULL, NULL, status, err);
}

struct board *board_restore(const struct machine_config *config, const struct saved_machine *saved,
                            int *status, struct error **err)
{
    return make_board(config, &saved->id, saved, status, err);
}

struct board *board_receive(const struct machine_config *config, const struct saved_identity *identity,
                            int *status, struct error **err)
{
    return make_board(config, identity, NULL, status, err);
}

/* Last made, first gone: devices at the end may refer to those before them. */
static void free_devices(struct board *b)
{
    while (b->m.devices) {
        struct device *last = b->m.devices;
        while (last->next)
            last = last->next;
        device_free(last);
    }
}

void board_free(struct board *b)
{
    migrate_free(b->migration);
    vcpus_free(b->vcpus);
    save_free(b->save);
    saved_check_free(b->saved_check);
    machine_lock(&b->m);
    if (!b->quiesced)
        devices_quiesce(&b->m);
    disk_jobs_free(b);
    qmp_close(b->qmp);
    if (b->signal_fd >= 0) {
        loop_fd_remove(b->m.loop, b->signal_fd);
        close(b->signal_fd);
    }
    free_devices(b);
    save_disks_close(b);
    machine_unlock(&b->m);
    if (b->engine)
        b->ops->close(b->engine);
    bool lost = b->trace && ferror(b->trace);
    if (b->trace && (fclose(b->trace) != 0 || lost))
        log_line(LOG_WARN, "--trace '%s': not all of it could be written", b->config->trace);
    error_free(b->passed_over);
    acpi_free(&b->acpi);
    smbios_free(&b->smbios);
    boot_source_free(&b->boot);
    guest_memory_free(b->m.memory);
    vm_clock_destroy(&b->m.clock);
    loop_free(b->m.loop);
    pthread_mutex_destroy(&b->m.lock);
    free(b);
}
