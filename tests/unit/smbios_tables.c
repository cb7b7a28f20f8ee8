/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The SMBIOS tables: found and walked as a kernel does, with what inventory programs read from them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/util.h"
#include "core/memory.h"
#include "vmm/boot/space.h"
#include "vmm/smbios.h"

#define ROOM (BOOT_FIRMWARE + BOOT_FIRMWARE_SIZE - BOOT_SMBIOS)

static const struct smbios_config small = {
    .uuid = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x8d, 0xef, 0x80, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77},
    .cpu_count = 1,
    .cpu_id = {0x000b0f21, 0x178bfbff},
    .cpu_vendor = "AuthenticAMD",
    .cpu_name = "Some Processor",
    .ram_size = 512 * MIB,
    .ram_low = 512 * MIB,
};

static struct guest_memory *place(const struct smbios_config *config)
{
    struct error *err = NULL;
    struct smbios s;
    struct guest_memory *mem = guest_memory_new(2 * MIB, &err);

    assert_non_null(mem);
    assert_true(smbios_build(&s, config, &err));
    assert_true(smbios_place(&s, mem, BOOT_SMBIOS, ROOM, &err));
    smbios_free(&s);
    return mem;
}

/* The tables by way of an anchor with a right checksum; *end is behind them. */
static const uint8_t *find_tables(const struct guest_memory *mem, const uint8_t **end)
{
    for (uint64_t gpa = 0xf0000; gpa < 0x100000; gpa += 16) {
        const uint8_t *a = guest_ptr(mem, gpa, 24, false);
        uint8_t sum = 0;
        if (memcmp(a, "_SM3_", 5) != 0)
            continue;
        assert_int_equal(a[6], 24);
        for (int i = 0; i < 24; i++)
            sum = (uint8_t)(sum + a[i]);
        assert_int_equal(sum, 0);
        assert_int_equal(a[7], 3);
        uint32_t len = load_le32(a + 12);
        uint64_t at = load_le64(a + 16);
        assert_true(at >= BOOT_FIRMWARE && at + len <= BOOT_FIRMWARE + BOOT_FIRMWARE_SIZE);
        const uint8_t *tables = guest_ptr(mem, at, len, false);
        assert_non_null(tables);
        *end = tables + len;
        return tables;
    }
    fail_msg("no anchor");
    return NULL;
}

/* Behind the structure and its strings. */
static const uint8_t *next(const uint8_t *s, const uint8_t *end)
{
    const uint8_t *p = s + s[1];

    while (p + 1 < end && (p[0] || p[1]))
        p++;
    assert_true(p + 1 < end);
    return p + 2;
}

/* The structure number `index` of a type; NULL when there are fewer. All handles must differ. */
static const uint8_t *find(const struct guest_memory *mem, uint8_t type, unsigned index)
{
    const uint8_t *end;
    const uint8_t *found = NULL;

    for (const uint8_t *s = find_tables(mem, &end); s < end; s = next(s, end)) {
        assert_true(end - s >= 4 && s[1] >= 4 && s + s[1] < end);
        for (const uint8_t *t = next(s, end); t < end; t = next(t, end))
            assert_int_not_equal(load_le16(t + 2), load_le16(s + 2));
        if (s[0] == type && index-- == 0)
            found = s;
        assert_int_equal(s[0] == 127, next(s, end) == end);
    }
    return found;
}

static const char *string_of(const uint8_t *s, uint8_t number)
{
    const char *text = (const char *)s + s[1];

    assert_int_not_equal(number, 0);
    while (--number) {
        assert_int_not_equal(*text, 0);
        text += strlen(text) + 1;
    }
    assert_int_not_equal(*text, 0);
    return text;
}

static void every_required_structure_is_there(void **state)
{
    struct guest_memory *mem = place(&small);
    static const struct {
        uint8_t type, length;
    } want[] = {{0, 0x18},  {1, 0x1b},  {3, 0x16},  {4, 0x30}, {16, 0x17},
                {17, 0x28}, {19, 0x1f}, {32, 0x0b}, {127, 4}};

    for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
        const uint8_t *s = find(mem, want[i].type, 0);
        assert_non_null(s);
        assert_int_equal(s[1], want[i].length);
        assert_null(find(mem, want[i].type, 1));
    }
    guest_memory_free(mem);
}

static void system_and_firmware(void **state)
{
    static const uint8_t uuid[] = {0x67, 0x45, 0x23, 0x01, 0xab, 0x89, 0xef, 0x8d,
                                   0x80, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77};
    struct guest_memory *mem = place(&small);
    const uint8_t *bios = find(mem, 0, 0);
    const uint8_t *system = find(mem, 1, 0);
    unsigned month, day, year;

    assert_string_equal(string_of(bios, bios[4]), "Ruche");
    assert_int_equal(sscanf(string_of(bios, bios[8]), "%2u/%2u/%4u", &month, &day, &year), 3);
    assert_true(month <= 12 && day <= 31 && year > 2020);
    assert_true(bios[19] & 0x10); /* a virtual machine */
    assert_string_equal(string_of(system, system[4]), "Ruche");
    assert_memory_equal(system + 8, uuid, sizeof(uuid));
    guest_memory_free(mem);
}

static void processor(void **state)
{
    struct smbios_config config = small;

    config.cpu_count = 3;
    struct guest_memory *mem = place(&config);
    const uint8_t *cpu = find(mem, 4, 0);
    assert_string_equal(string_of(cpu, cpu[7]), "AuthenticAMD");
    assert_string_equal(string_of(cpu, cpu[16]), "Some Processor");
    assert_int_equal(load_le32(cpu + 8), small.cpu_id[0]);
    assert_int_equal(load_le32(cpu + 12), small.cpu_id[1]);
    for (int i = 0x23; i <= 0x25; i++)
        assert_int_equal(cpu[i], 3);
    for (int i = 0x2a; i <= 0x2e; i += 2)
        assert_int_equal(load_le16(cpu + i), 3);
    guest_memory_free(mem);
}

/* Sizes of the array and the device, and the ranges, in the fields for small and for large machines. */
static void check_memory(uint64_t size, uint64_t low, uint64_t device_mib, bool extended_array)
{
    struct smbios_config config = small;

    config.ram_size = size;
    config.ram_low = low;
    struct guest_memory *mem = place(&config);
    const uint8_t *array = find(mem, 16, 0);
    const uint8_t *device = find(mem, 17, 0);
    assert_int_equal(load_le32(array + 7), extended_array ? 0x80000000u : size / KIB);
    assert_int_equal(load_le64(array + 15), extended_array ? size : 0);
    assert_int_equal(load_le16(device + 4), load_le16(array + 2));
    assert_int_equal(load_le16(device + 12) == 0x7fff ? load_le32(device + 28) : load_le16(device + 12),
                     device_mib);
    const uint8_t *first = find(mem, 19, 0);
    const uint8_t *second = find(mem, 19, 1);
    assert_int_equal(load_le32(first + 4), 0);
    assert_int_equal(load_le32(first + 8), low / KIB - 1);
    assert_int_equal(second != NULL, size > low);
    if (second && !extended_array) {
        assert_int_equal(load_le32(second + 4), 4 * GIB / KIB);
        assert_int_equal(load_le32(second + 8), (4 * GIB + size - low) / KIB - 1);
    } else if (second) {
        assert_int_equal(load_le32(second + 4), UINT32_MAX);
        assert_int_equal(load_le32(second + 8), UINT32_MAX);
        assert_int_equal(load_le64(second + 15), 4 * GIB);
        assert_int_equal(load_le64(second + 23), 4 * GIB + size - low - 1);
    }
    guest_memory_free(mem);
}

static void memory_of_any_size(void **state)
{
    check_memory(512 * MIB, 512 * MIB, 512, false);
    check_memory(3 * GIB, 2 * GIB, 3072, false);
    check_memory(32 * GIB - MIB, 2 * GIB, 32767, false);
    check_memory(32 * GIB, 2 * GIB, 32768, false);
    check_memory(4096 * GIB, 2 * GIB, 4096 * 1024, true);
}

static void too_little_room_is_an_error(void **state)
{
    struct error *err = NULL;
    struct smbios s;
    struct guest_memory *mem = guest_memory_new(2 * MIB, &err);

    assert_true(smbios_build(&s, &small, &err));
    assert_false(smbios_place(&s, mem, BOOT_SMBIOS, 128, &err));
    assert_non_null(strstr(error_text(err), "do not fit"));
    error_free(err);
    smbios_free(&s);
    guest_memory_free(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_required_structure_is_there),
        cmocka_unit_test(system_and_firmware),
        cmocka_unit_test(processor),
        cmocka_unit_test(memory_of_any_size),
        cmocka_unit_test(too_little_room_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
