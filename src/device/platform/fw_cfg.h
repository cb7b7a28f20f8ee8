/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fw_cfg device: items by number and files by name that the board hands to firmware and kernels. Items
 * are added before the first vCPU runs and are not part of saved state: the board adds the same ones on
 * restore. Data is copied.
 */
#ifndef DEVICE_PLATFORM_FW_CFG_H
#define DEVICE_PLATFORM_FW_CFG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device;
struct error;

/* Item numbers as QEMU gives them; the signature, the ID and the file directory are there without being
 * added. */
enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_KERNEL_ADDR = 0x07,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_ACPI_TABLES = 0x8000,
    FW_CFG_SMBIOS_ENTRIES = 0x8001,
    FW_CFG_IRQ0_OVERRIDE = 0x8002,
    FW_CFG_HPET = 0x8004,
};

#define FW_CFG_FILE_MAX  128 /* files */
#define FW_CFG_NAME_SIZE 56  /* bytes of a file's name with its final zero */

/* Adds an item. False and *err when the number is taken or there is no memory. */
bool fw_cfg_add(struct device *dev, uint16_t key, const void *data, size_t len, struct error **err);
/* Adds a little-endian number as an item of 2, 4 or 8 bytes. */
bool fw_cfg_add_number(struct device *dev, uint16_t key, uint64_t value, size_t len, struct error **err);
/* Adds a file, e.g. "etc/acpi/tables". The directory is kept sorted by name. */
bool fw_cfg_add_file(struct device *dev, const char *name, const void *data, size_t len, struct error **err);

#endif
