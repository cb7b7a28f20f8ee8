/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SMBIOS structures (DMTF DSP0134 3.0.0, chapter 7). Each is a fixed part, then its strings, each with a NUL,
 * then one more NUL (two when there are no strings); fields refer to strings by number, from 1. The
 * handles are the structures' own numbers of type times 256, and an index.
 */
#include "vmm/smbios.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "core/memory.h"
#include "vmm/acpi/aml.h"

#define STRINGS_MAX    6
#define HANDLE(type)   ((uint16_t)((type) << 8))
#define NO_HANDLE      0xffff
#define NOT_PROVIDED   0xfffe
#define UNKNOWN_WIDTH  0xffff
#define BIOS_NO_FLAGS  BIT(3)
#define BIOS_IS_VM     BIT(4) /* of the second extension byte */
#define CPU_64BIT      BIT(2)
#define CPU_MULTI_CORE BIT(3)
#define SIZE_EXTENDED  0x7fff /* the size is in `extended_size` */
#define KIB_EXTENDED   0x80000000u
#define ADDR_EXTENDED  0xffffffffu

enum { OTHER = 1, UNKNOWN = 2, SAFE = 3 };

struct header {
    uint8_t type, length;
    uint16_t handle;
} __attribute__((packed));

struct bios_information {
    struct header h;
    uint8_t vendor, version;
    uint16_t segment;
    uint8_t date, rom_size;
    uint64_t characteristics;
    uint8_t extension[2], major, minor, ec_major, ec_minor;
} __attribute__((packed));
_Static_assert(sizeof(struct bios_information) == 0x18, "type 0");

struct system_information {
    struct header h;
    uint8_t manufacturer, product, version, serial;
    uint8_t uuid[16];
    uint8_t wake_up, sku, family;
} __attribute__((packed));
_Static_assert(sizeof(struct system_information) == 0x1b, "type 1");

struct chassis {
    struct header h;
    uint8_t manufacturer, kind, version, serial, asset_tag, boot_state, power_state, thermal_state, security;
    uint32_t oem;
    uint8_t height, power_cords, element_count, element_length, sku;
} __attribute__((packed));
_Static_assert(sizeof(struct chassis) == 0x16, "type 3");

struct processor {
    struct header h;
    uint8_t socket, kind, family, manufacturer;
    uint32_t id[2];
    uint8_t version, voltage;
    uint16_t external_clock, max_speed, current_speed;
    uint8_t status, upgrade;
    uint16_t cache[3];
    uint8_t serial, asset_tag, part_number, cores, cores_enabled, threads;
    uint16_t characteristics, family2, cores2, cores_enabled2, threads2;
} __attribute__((packed));
_Static_assert(sizeof(struct processor) == 0x30, "type 4");

struct memory_array {
    struct header h;
    uint8_t location, use, correction;
    uint32_t capacity_kib;
    uint16_t error_handle, devices;
    uint64_t extended_capacity;
} __attribute__((packed));
_Static_assert(sizeof(struct memory_array) == 0x17, "type 16");

struct memory_device {
    struct header h;
    uint16_t array, error_handle, total_width, data_width, size_mib;
    uint8_t form_factor, set, locator, bank, kind;
    uint16_t detail, speed;
    uint8_t manufacturer, serial, asset_tag, part_number, attributes;
    uint32_t extended_size_mib;
    uint16_t configured_speed, voltage[3];
} __attribute__((packed));
_Static_assert(sizeof(struct memory_device) == 0x28, "type 17");

struct array_address {
    struct header h;
    uint32_t start_kib, end_kib;
    uint16_t array;
    uint8_t width;
    uint64_t start, end; /* bytes, when the fields in KiB are ADDR_EXTENDED */
} __attribute__((packed));
_Static_assert(sizeof(struct array_address) == 0x1f, "type 19");

struct boot_information {
    struct header h;
    uint8_t reserved[6], status;
} __attribute__((packed));
_Static_assert(sizeof(struct boot_information) == 0x0b, "type 32");

/* A fixed part and its strings, up to NULL. */
static void add(struct aml *out, const void *fixed, size_t len, const char *const strings[STRINGS_MAX])
{
    unsigned n = 0;

    aml_bytes(out, fixed, len);
    for (; strings && strings[n]; n++)
        aml_bytes(out, strings[n], strlen(strings[n]) + 1);
    if (n == 0)
        aml_byte(out, 0);
    aml_byte(out, 0);
}

static void add_bios(struct aml *out)
{
    const struct bios_information b = {
        .h = {0, sizeof(b), HANDLE(0)},
        .vendor = 1,
        .version = 2,
        .segment = 0xe000,
        .date = 3,
        .characteristics = BIOS_NO_FLAGS,
        .extension = {0, BIOS_IS_VM},
        .ec_major = 0xff, /* no embedded controller */
        .ec_minor = 0xff,
    };
    add(out, &b, sizeof(b), (const char *const[STRINGS_MAX]){"Ruche", RUCHE_VERSION, "01/01/2025"});
}

static void add_system(struct aml *out, const struct smbios_config *config)
{
    struct system_information s = {
        .h = {1, sizeof(s), HANDLE(1)},
        .manufacturer = 1,
        .product = 2,
        .version = 3,
        .wake_up = 6, /* power switch */
    };

    /* The first three fields are little-endian numbers here, and written with the highest digit first. */
    memcpy(s.uuid, config->uuid, sizeof(s.uuid));
    store_le32(s.uuid, load_be32(config->uuid));
    store_le16(s.uuid + 4, load_be16(config->uuid + 4));
    store_le16(s.uuid + 6, load_be16(config->uuid + 6));
    add(out, &s, sizeof(s),
        (const char *const[STRINGS_MAX]){"Ruche", "Virtual Machine (Q35)", RUCHE_VERSION});
}

static void add_chassis(struct aml *out)
{
    const struct chassis c = {
        .h = {3, sizeof(c), HANDLE(3)},
        .manufacturer = 1,
        .kind = OTHER,
        .boot_state = SAFE,
        .power_state = SAFE,
        .thermal_state = SAFE,
        .security = UNKNOWN,
    };
    add(out, &c, sizeof(c), (const char *const[STRINGS_MAX]){"Ruche"});
}

static void add_processor(struct aml *out, const struct smbios_config *config)
{
    uint8_t cores = (uint8_t)MIN(config->cpu_count, 0xffu);
    uint16_t cores2 = (uint16_t)config->cpu_count;
    const struct processor p = {
        .h = {4, sizeof(p), HANDLE(4)},
        .socket = 1,
        .kind = 3, /* central processor */
        .family = OTHER,
        .manufacturer = 2,
        .id = {config->cpu_id[0], config->cpu_id[1]},
        .version = 3,
        .status = 0x41, /* populated, enabled */
        .upgrade = OTHER,
        .cache = {NO_HANDLE, NO_HANDLE, NO_HANDLE},
        .cores = cores,
        .cores_enabled = cores,
        .threads = cores,
        .characteristics = (uint16_t)(CPU_64BIT | (cores > 1 ? CPU_MULTI_CORE : 0)),
        .family2 = OTHER,
        .cores2 = cores2,
        .cores_enabled2 = cores2,
        .threads2 = cores2,
    };
    add(out, &p, sizeof(p), (const char *const[STRINGS_MAX]){"CPU 0", config->cpu_vendor, config->cpu_name});
}

static void add_memory(struct aml *out, uint64_t ram_size)
{
    bool huge = ram_size / KIB >= KIB_EXTENDED;
    const struct memory_array a = {
        .h = {16, sizeof(a), HANDLE(16)},
        .location = OTHER,
        .use = 3,        /* system memory */
        .correction = 3, /* none */
        .capacity_kib = huge ? KIB_EXTENDED : (uint32_t)(ram_size / KIB),
        .error_handle = NOT_PROVIDED,
        .devices = 1,
        .extended_capacity = huge ? ram_size : 0,
    };
    uint64_t mib = ram_size / MIB;
    const struct memory_device d = {
        .h = {17, sizeof(d), HANDLE(17)},
        .array = HANDLE(16),
        .error_handle = NOT_PROVIDED,
        .total_width = UNKNOWN_WIDTH,
        .data_width = UNKNOWN_WIDTH,
        .size_mib = (uint16_t)MIN(mib, (uint64_t)SIZE_EXTENDED),
        .form_factor = 9, /* DIMM */
        .locator = 1,
        .kind = 7, /* RAM */
        .detail = BIT(1) /* other */,
        .manufacturer = 2,
        .extended_size_mib = mib >= SIZE_EXTENDED ? (uint32_t)mib : 0,
    };

    add(out, &a, sizeof(a), NULL);
    add(out, &d, sizeof(d), (const char *const[STRINGS_MAX]){"DIMM 0", "Ruche"});
}

/* [start, start + len): RAM as the processor addresses it. */
static void add_range(struct aml *out, uint16_t index, uint64_t start, uint64_t len)
{
    bool huge = (start + len) / KIB > UINT32_MAX;
    struct array_address r = {
        .h = {19, sizeof(r), (uint16_t)(HANDLE(19) + index)}, .array = HANDLE(16), .width = 1};

    r.start_kib = huge ? ADDR_EXTENDED : (uint32_t)(start / KIB);
    r.end_kib = huge ? ADDR_EXTENDED : (uint32_t)((start + len) / KIB - 1);
    if (huge) {
        r.start = start;
        r.end = start + len - 1;
    }
    add(out, &r, sizeof(r), NULL);
}

static uint8_t checksum(const struct smbios_anchor *a)
{
    const uint8_t *p = (const uint8_t *)a;
    uint8_t sum = 0;

    for (size_t i = 0; i < sizeof(*a); i++)
        sum = (uint8_t)(sum + p[i]);
    return (uint8_t)-sum;
}

bool smbios_build(struct smbios *s, const struct smbios_config *config, struct error **err)
{
    const struct boot_information boot = {.h = {32, sizeof(boot), HANDLE(32)}};
    const struct header end = {127, sizeof(end), HANDLE(127)};
    struct aml out = {0};

    *s = (struct smbios){.anchor = {.length = sizeof(s->anchor), .major = 3, .revision = 1}};
    memcpy(s->anchor.magic, "_SM3_", sizeof(s->anchor.magic));
    add_bios(&out);
    add_system(&out, config);
    add_chassis(&out);
    add_processor(&out, config);
    add_memory(&out, config->ram_size);
    add_range(&out, 0, 0, config->ram_low);
    if (config->ram_size > config->ram_low)
        add_range(&out, 1, 4 * GIB, config->ram_size - config->ram_low);
    add(&out, &boot, sizeof(boot), NULL);
    add(&out, &end, sizeof(end), NULL);
    if (out.failed) {
        free(out.data);
        error_set_errno(err, ENOMEM, "cannot build SMBIOS tables");
        return false;
    }
    s->tables = out.data;
    s->anchor.tables_len = (uint32_t)out.len;
    s->anchor.checksum = checksum(&s->anchor);
    return true;
}

void smbios_free(struct smbios *s)
{
    free(s->tables);
    *s = (struct smbios){0};
}

bool smbios_place(const struct smbios *s, struct guest_memory *mem, uint64_t gpa, uint64_t size,
                  struct error **err)
{
    struct smbios_anchor a = s->anchor;

    a.tables = gpa + sizeof(a);
    a.checksum = 0;
    a.checksum = checksum(&a);
    if (sizeof(a) + a.tables_len > size || !guest_write(mem, gpa, &a, sizeof(a)) ||
        !guest_write(mem, a.tables, s->tables, a.tables_len)) {
        error_set(err, ENOSPC, "cannot place SMBIOS tables: %u bytes do not fit at 0x%llx", a.tables_len,
                  (unsigned long long)gpa);
        return false;
    }
    return true;
}
