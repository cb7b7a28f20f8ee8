/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing ACPI machine language (ACPI 6.4 chapter 20) from top to bottom. What has a length is opened by one
 * call and closed by aml_end; the length is filled in then. Memory running out is remembered in `failed` and
 * the rest ignored.
 */
#ifndef VMM_ACPI_AML_H
#define VMM_ACPI_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH_MAX 12

struct aml {
    uint8_t *data; /* owned; free with free() */
    size_t len, cap;
    bool failed;
    unsigned depth;
    size_t open[AML_DEPTH_MAX]; /* where the contents of the open blocks begin */
};

/* Raw bytes, for tables too. */
void aml_bytes(struct aml *a, const void *data, size_t len);
void aml_byte(struct aml *a, uint8_t value);

/* Terms. Paths are like "\\_SB", "PCI0", "\\_SB.PCI0"; segments of fewer than four characters are padded. */
void aml_path(struct aml *a, const char *path);
void aml_int(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
/* A compressed EISA id such as "PNP0A08". */
void aml_eisa_id(struct aml *a, const char *id);
/* A UUID in text form as a 16-byte buffer (ToUUID). */
void aml_uuid(struct aml *a, const char *uuid);
/* Name (path, ...): the caller writes the value next. */
void aml_name(struct aml *a, const char *path);
void aml_name_int(struct aml *a, const char *path, uint64_t value);
void aml_name_string(struct aml *a, const char *path, const char *text);

/* Blocks. */
void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *path);
void aml_method(struct aml *a, const char *path, unsigned args, bool serialized);
void aml_package(struct aml *a, uint8_t elements);
void aml_end(struct aml *a);

/* An opcode as such, or one that opens a block (AML_IF, AML_ELSE). */
enum aml_op {
    AML_LOCAL0 = 0x60,
    AML_ARG0 = 0x68,
    AML_STORE = 0x70,
    AML_NOTIFY = 0x86,
    AML_AND = 0x7b,
    AML_OR = 0x7d,
    AML_CREATE_DWORD_FIELD = 0x8a,
    AML_NOT = 0x92,
    AML_EQUAL = 0x93,
    AML_IF = 0xa0,
    AML_ELSE = 0xa1,
    AML_RETURN = 0xa4,
};
void aml_op(struct aml *a, enum aml_op op);
void aml_block(struct aml *a, enum aml_op op);

/*
 * Resource templates (chapter 6.4): descriptors are gathered in an empty `struct aml`, which aml_resources
 * writes as the value of a Name and empties. Ranges are base and length.
 */
void aml_resources(struct aml *a, struct aml *descriptors);
void aml_res_port(struct aml *t, uint16_t base, uint8_t len);
void aml_res_irq(struct aml *t, unsigned irq);
void aml_res_memory32(struct aml *t, bool writable, uint32_t base, uint32_t len);
/* Windows that a bridge passes on. */
void aml_res_bus_window(struct aml *t, uint16_t base, uint16_t len);
void aml_res_port_window(struct aml *t, uint16_t base, uint16_t len);
void aml_res_memory_window32(struct aml *t, uint32_t base, uint32_t len);
void aml_res_memory_window64(struct aml *t, uint64_t base, uint64_t len);

#endif
