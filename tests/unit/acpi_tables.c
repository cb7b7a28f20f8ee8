/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ACPI tables: reachable from the root pointer with right checksums, the same through fw_cfg's loader
 * script, accepted by the reference disassembler and compiler, and their methods run by the reference
 * interpreter (iasl and acpiexec, of acpica-tools).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/util.h"
#include "core/memory.h"
#include "device/pci/pci.h"
#include "vmm/acpi/acpi.h"
#include "vmm/boot/space.h"

static const struct acpi_config small = {.cpu_count = 1, .pci32_base = 0x80000000, .pci32_end = 0xfec00000};
static const struct acpi_config large = {.cpu_count = 32,
                                         .pci32_base = 0x80000000,
                                         .pci32_end = 0xfec00000,
                                         .pci64_base = 8 * GIB,
                                         .pci64_len = 32 * GIB};

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;
    for (size_t i = 0; i < len; i++)
        s = (uint8_t)(s + p[i]);
    return s;
}

static const uint8_t *table_at(const struct guest_memory *mem, uint64_t gpa, const char *signature)
{
    const uint8_t *head = guest_ptr(mem, gpa, 36, false);
    assert_non_null(head);
    if (signature)
        assert_memory_equal(head, signature, 4);
    uint32_t len = load_le32(head + 4);
    assert_non_null(guest_ptr(mem, gpa, len, false));
    assert_int_equal(sum(head, len), 0);
    return head;
}

static struct guest_memory *place(const struct acpi_config *config)
{
    struct error *err = NULL;
    struct acpi_tables t;
    struct guest_memory *mem = guest_memory_new(2 * MIB, &err);
    assert_non_null(mem);
    assert_true(acpi_build(&t, config, &err));
    assert_true(acpi_place(&t, mem, BOOT_FIRMWARE, BOOT_FIRMWARE_SIZE, &err));
    acpi_free(&t);
    return mem;
}

/* The table named `signature` by way of the XSDT (and the RSDT, which must agree). */
static const uint8_t *find_table(const struct guest_memory *mem, const char *signature)
{
    const uint8_t *rsdp = guest_ptr(mem, BOOT_FIRMWARE, ACPI_RSDP_LEN, false);
    assert_memory_equal(rsdp, "RSD PTR ", 8);
    assert_int_equal(sum(rsdp, 20), 0);
    assert_int_equal(sum(rsdp, ACPI_RSDP_LEN), 0);
    const uint8_t *rsdt = table_at(mem, load_le32(rsdp + 16), "RSDT");
    const uint8_t *xsdt = table_at(mem, load_le64(rsdp + 24), "XSDT");
    unsigned n = (load_le32(xsdt + 4) - 36) / 8;
    assert_int_equal(n, (load_le32(rsdt + 4) - 36) / 4);
    for (unsigned i = 0; i < n; i++) {
        uint64_t gpa = load_le64(xsdt + 36 + 8 * (size_t)i);
        assert_int_equal(gpa, load_le32(rsdt + 36 + 4 * (size_t)i));
        const uint8_t *t = table_at(mem, gpa, NULL);
        if (!memcmp(t, signature, 4))
            return t;
    }
    fail_msg("no %s", signature);
    return NULL;
}

static void tables_are_reachable(void **state)
{
    struct guest_memory *mem = place(&large);
    static const char *const names[] = {"FACP", "APIC", "HPET", "MCFG", "WAET"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        find_table(mem, names[i]);
    const uint8_t *fadt = find_table(mem, "FACP");
    assert_int_equal(load_le32(fadt + 4), 276);
    assert_int_equal(load_le32(fadt + 40), load_le64(fadt + 140));
    assert_int_equal(load_le32(fadt + 36), load_le64(fadt + 132));
    table_at(mem, load_le64(fadt + 140), "DSDT");
    const uint8_t *facs = guest_ptr(mem, load_le64(fadt + 132), 64, false);
    assert_memory_equal(facs, "FACS", 4);
    assert_int_equal(load_le32(fadt + 36) % 64, 0);
    guest_memory_free(mem);
}

static void madt_names_every_processor(void **state)
{
    struct guest_memory *mem = place(&large);
    const uint8_t *madt = find_table(mem, "APIC");
    uint32_t len = load_le32(madt + 4);
    unsigned cpus = 0, ioapics = 0, overrides = 0;

    for (uint32_t at = 44; at < len; at += madt[at + 1]) {
        assert_true(madt[at + 1] >= 2 && at + madt[at + 1] <= len);
        if (madt[at] == 0) {
            assert_int_equal(madt[at + 3], cpus);
            cpus++;
        }
        ioapics += madt[at] == 1;
        overrides += madt[at] == 2;
    }
    assert_int_equal(cpus, 32);
    assert_int_equal(ioapics, 1);
    assert_int_equal(overrides, 5);
    guest_memory_free(mem);
}

static void too_little_room_is_an_error(void **state)
{
    struct error *err = NULL;
    struct acpi_tables t;
    struct guest_memory *mem = guest_memory_new(2 * MIB, &err);

    assert_true(acpi_build(&t, &small, &err));
    assert_false(acpi_place(&t, mem, BOOT_FIRMWARE, 512, &err));
    assert_non_null(strstr(error_text(err), "do not fit"));
    error_free(err);
    acpi_free(&t);
    guest_memory_free(mem);
}

/* Executes the loader script as firmware would, with files "allocated" at the given addresses. */
static void run_script(struct acpi_firmware_files *f, uint64_t tables_at)
{
    for (size_t at = 0; at < f->loader_len; at += 128) {
        const uint8_t *e = f->loader + at;
        bool on_rsdp = !strcmp((const char *)e + 4, "etc/acpi/rsdp");
        uint8_t *dest = on_rsdp ? f->rsdp : f->tables;
        size_t dest_len = on_rsdp ? f->rsdp_len : f->tables_len;
        uint64_t value = 0;
        switch (load_le32(e)) {
        case 1:
            assert_true(is_pow2(load_le32(e + 60)));
            break;
        case 2:
            assert_string_equal((const char *)e + 60, "etc/acpi/tables");
            assert_true(load_le32(e + 116) + e[120] <= dest_len);
            memcpy(&value, dest + load_le32(e + 116), e[120]);
            value += tables_at;
            memcpy(dest + load_le32(e + 116), &value, e[120]);
            break;
        case 3:
            assert_true(load_le32(e + 64) + load_le32(e + 68) <= dest_len);
            dest[load_le32(e + 60)] = 0;
            dest[load_le32(e + 60)] = (uint8_t)-sum(dest + load_le32(e + 64), load_le32(e + 68));
            break;
        default:
            fail_msg("unknown command %u", load_le32(e));
        }
    }
}

static void loader_script_gives_the_same_tables(void **state)
{
    struct error *err = NULL;
    struct acpi_tables t;
    struct acpi_firmware_files f;
    struct guest_memory *mem = place(&large);

    assert_true(acpi_build(&t, &large, &err));
    assert_true(acpi_firmware_files(&t, &f, &err));
    run_script(&f, BOOT_FIRMWARE + 64);
    assert_memory_equal(f.rsdp, guest_ptr(mem, BOOT_FIRMWARE, f.rsdp_len, false), f.rsdp_len);
    assert_memory_equal(f.tables, guest_ptr(mem, BOOT_FIRMWARE + 64, f.tables_len, false), f.tables_len);
    acpi_firmware_files_free(&f);
    acpi_free(&t);
    guest_memory_free(mem);
}

/* Runs iasl in `dir`; its output must count no error and no warning. */
static void run_iasl(const char *dir, const char *args)
{
    char command[512], line[512], log[8192] = "";
    size_t used = 0;
    snprintf(command, sizeof(command), "cd %s && iasl %s 2>&1", dir, args);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    while (fgets(line, sizeof(line), p)) {
        int n = snprintf(log + used, sizeof(log) - used, "%s", line);
        used = MIN(used + (size_t)n, sizeof(log) - 1);
    }
    int status = pclose(p);
    if (status != 0 || strstr(log, " error") || strstr(log, "Error ") || strstr(log, "Warning ") ||
        (strstr(log, "Compilation") && !strstr(log, "0 Errors, 0 Warnings")))
        fail_msg("iasl %s (from acpica-tools) says:\n%s", args, log);
}

static void write_table(const char *dir, const char *name, const uint8_t *t)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(t, 1, load_le32(t + 4), out), load_le32(t + 4));
    fclose(out);
}

static void check_with_iasl(const struct acpi_config *config)
{
    char dir[] = "/tmp/ruche-acpi-XXXXXX", path[64], args[64];
    struct guest_memory *mem = place(config);
    static const char *const names[] = {"FACP", "APIC", "HPET", "MCFG", "WAET", "DSDT"};

    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        bool dsdt = !strcmp(names[i], "DSDT");
        const uint8_t *t = dsdt ? table_at(mem, load_le64(find_table(mem, "FACP") + 140), "DSDT")
                                : find_table(mem, names[i]);
        write_table(dir, names[i], t);
        snprintf(args, sizeof(args), "-d %s.aml", names[i]);
        run_iasl(dir, args);
        snprintf(args, sizeof(args), "-p again %s.dsl", names[i]);
        run_iasl(dir, args);
    }
    snprintf(path, sizeof(path), "rm -rf %s", dir);
    assert_int_equal(system(path), 0);
    guest_memory_free(mem);
}

static void iasl_accepts_one_processor(void **state)
{
    check_with_iasl(&small);
}

static void iasl_accepts_many_processors(void **state)
{
    check_with_iasl(&large);
}

/* Runs _PRT after _PIC was told `model`; each of its entries must name the input that the board has for it.
 */
static void check_routing(const char *dir, unsigned model, unsigned (*input)(uint8_t devfn, unsigned pin))
{
    char command[256], line[256];
    unsigned long value[4];
    unsigned n = 0, entries = 0;

    snprintf(command, sizeof(command),
             "acpiexec -b 'execute \\_PIC %u; execute \\_SB.PCI0._PRT' %s/DSDT.aml 2>&1", model, dir);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    while (fgets(line, sizeof(line), p)) {
        if (sscanf(line, " [Integer] = %lx", &value[n]) != 1)
            continue;
        if (++n < 4)
            continue;
        n = 0;
        assert_int_equal(value[0], (entries / 4) << 16 | 0xffff);
        assert_int_equal(value[1], entries % 4);
        assert_int_equal(value[2], 0);
        assert_int_equal(value[3], input(PCI_DEVFN(entries / 4, 0), entries % 4 + 1));
        entries++;
    }
    pclose(p);
    assert_int_equal(entries, 32 * 4);
}

/* Systems without I/O APIC, or told to leave it alone, get the lines that reach the PIC. */
static void interrupts_are_routed_to_either_controller(void **state)
{
    char dir[] = "/tmp/ruche-acpi-XXXXXX", command[64];
    struct guest_memory *mem = place(&small);

    assert_non_null(mkdtemp(dir));
    write_table(dir, "DSDT", table_at(mem, load_le64(find_table(mem, "FACP") + 140), "DSDT"));
    check_routing(dir, 0, pci_intx_isa_line);
    check_routing(dir, 1, pci_intx_gsi);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    guest_memory_free(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_reachable),
        cmocka_unit_test(madt_names_every_processor),
        cmocka_unit_test(too_little_room_is_an_error),
        cmocka_unit_test(loader_script_gives_the_same_tables),
        cmocka_unit_test(iasl_accepts_one_processor),
        cmocka_unit_test(iasl_accepts_many_processors),
        cmocka_unit_test(interrupts_are_routed_to_either_controller),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
