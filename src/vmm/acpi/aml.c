/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The encodings of ACPI machine language and of resource descriptors. */
#include "vmm/acpi/aml.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    PREFIX_BYTE = 0x0a,
    PREFIX_WORD = 0x0b,
    PREFIX_DWORD = 0x0c,
    PREFIX_STRING = 0x0d,
    PREFIX_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    PREFIX_DUAL = 0x2e,
    PREFIX_MULTI = 0x2f,
    PREFIX_EXT = 0x5b,
    EXT_DEVICE = 0x82,
};

void aml_bytes(struct aml *a, const void *data, size_t len)
{
    if (a->failed)
        return;
    if (a->cap - a->len < len) {
        size_t cap = MAX(a->cap * 2, a->len + len + 256);
        uint8_t *grown = realloc(a->data, cap);
        if (!grown) {
            a->failed = true;
            return;
        }
        a->data = grown;
        a->cap = cap;
    }
    if (len)
        memcpy(a->data + a->len, data, len);
    a->len += len;
}

void aml_byte(struct aml *a, uint8_t value)
{
    aml_bytes(a, &value, 1);
}

static void word(struct aml *a, uint16_t value)
{
    aml_bytes(a, &value, sizeof(value));
}

static void dword(struct aml *a, uint32_t value)
{
    aml_bytes(a, &value, sizeof(value));
}

static void qword(struct aml *a, uint64_t value)
{
    aml_bytes(a, &value, sizeof(value));
}

static void begin(struct aml *a)
{
    if (a->depth == AML_DEPTH_MAX)
        a->failed = true;
    else
        a->open[a->depth++] = a->len;
}

/* PkgLength (section 20.2.4) counts itself; it takes as few bytes as hold it. */
void aml_end(struct aml *a)
{
    uint8_t length[4];
    size_t n = 1;

    if (a->failed || a->depth == 0) {
        a->failed = true;
        return;
    }
    size_t start = a->open[--a->depth];
    size_t body = a->len - start;
    if (body + 1 > 0x3f)
        n = body + 2 <= 0xfff ? 2 : body + 3 <= 0xfffff ? 3 : 4;
    size_t whole = body + n;
    if (n == 1) {
        length[0] = (uint8_t)whole;
    } else {
        length[0] = (uint8_t)((n - 1) << 6 | (whole & 0xf));
        for (size_t i = 1; i < n; i++)
            length[i] = (uint8_t)(whole >> (4 + 8 * (i - 1)));
    }
    aml_bytes(a, length, n);
    if (a->failed)
        return;
    memmove(a->data + start + n, a->data + start, body);
    memcpy(a->data + start, length, n);
}

static void name_segment(struct aml *a, const char *text, size_t len)
{
    char seg[4] = {'_', '_', '_', '_'};

    memcpy(seg, text, MIN(len, sizeof(seg)));
    aml_bytes(a, seg, sizeof(seg));
}

void aml_path(struct aml *a, const char *path)
{
    unsigned count = 1;

    if (*path == '\\') {
        aml_byte(a, (uint8_t)*path++);
        if (!*path) {
            aml_byte(a, 0);
            return;
        }
    }
    for (const char *p = path; *p; p++)
        count += *p == '.';
    if (count == 2) {
        aml_byte(a, PREFIX_DUAL);
    } else if (count > 2) {
        aml_byte(a, PREFIX_MULTI);
        aml_byte(a, (uint8_t)count);
    }
    for (unsigned i = 0; i < count; i++) {
        size_t len = strcspn(path, ".");
        name_segment(a, path, len);
        path += len + 1;
    }
}

void aml_int(struct aml *a, uint64_t value)
{
    if (value == 0) {
        aml_byte(a, OP_ZERO);
    } else if (value == 1) {
        aml_byte(a, OP_ONE);
    } else if (value <= UINT8_MAX) {
        aml_byte(a, PREFIX_BYTE);
        aml_byte(a, (uint8_t)value);
    } else if (value <= UINT16_MAX) {
        aml_byte(a, PREFIX_WORD);
        word(a, (uint16_t)value);
    } else if (value <= UINT32_MAX) {
        aml_byte(a, PREFIX_DWORD);
        dword(a, (uint32_t)value);
    } else {
        aml_byte(a, PREFIX_QWORD);
        qword(a, value);
    }
}

void aml_string(struct aml *a, const char *text)
{
    aml_byte(a, PREFIX_STRING);
    aml_bytes(a, text, strlen(text) + 1);
}

void aml_eisa_id(struct aml *a, const char *id)
{
    uint32_t letters =
        (uint32_t)(id[0] & 0x1f) << 10 | (uint32_t)(id[1] & 0x1f) << 5 | (uint32_t)(id[2] & 0x1f);

    aml_byte(a, PREFIX_DWORD);
    dword(a, __builtin_bswap32(letters << 16 | (uint32_t)strtoul(id + 3, NULL, 16)));
}

void aml_uuid(struct aml *a, const char *uuid)
{
    /* ToUUID: the first three groups are little-endian. */
    static const uint8_t place[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    uint8_t bytes[16] = {0};

    for (unsigned i = 0; i < 16 && *uuid; i++, uuid += 2) {
        uuid += *uuid == '-';
        const char digits[3] = {uuid[0], uuid[1], '\0'};
        bytes[place[i]] = (uint8_t)strtoul(digits, NULL, 16);
    }
    aml_byte(a, OP_BUFFER);
    begin(a);
    aml_int(a, sizeof(bytes));
    aml_bytes(a, bytes, sizeof(bytes));
    aml_end(a);
}

void aml_name(struct aml *a, const char *path)
{
    aml_byte(a, OP_NAME);
    aml_path(a, path);
}

void aml_name_int(struct aml *a, const char *path, uint64_t value)
{
    aml_name(a, path);
    aml_int(a, value);
}

void aml_name_string(struct aml *a, const char *path, const char *text)
{
    aml_name(a, path);
    aml_string(a, text);
}

void aml_scope(struct aml *a, const char *path)
{
    aml_byte(a, OP_SCOPE);
    begin(a);
    aml_path(a, path);
}

void aml_device(struct aml *a, const char *path)
{
    aml_byte(a, PREFIX_EXT);
    aml_byte(a, EXT_DEVICE);
    begin(a);
    aml_path(a, path);
}

void aml_method(struct aml *a, const char *path, unsigned args, bool serialized)
{
    aml_byte(a, OP_METHOD);
    begin(a);
    aml_path(a, path);
    aml_byte(a, (uint8_t)(args | (serialized ? 8 : 0)));
}

void aml_op(struct aml *a, enum aml_op op)
{
    aml_byte(a, (uint8_t)op);
}

void aml_block(struct aml *a, enum aml_op op)
{
    aml_op(a, op);
    begin(a);
}

void aml_package(struct aml *a, uint8_t elements)
{
    aml_byte(a, OP_PACKAGE);
    begin(a);
    aml_byte(a, elements);
}

void aml_resources(struct aml *a, struct aml *descriptors)
{
    aml_byte(descriptors, 0x79); /* end tag, checksum 0: not checked */
    aml_byte(descriptors, 0);
    aml_byte(a, OP_BUFFER);
    begin(a);
    aml_int(a, descriptors->len);
    aml_bytes(a, descriptors->data, descriptors->len);
    aml_end(a);
    a->failed |= descriptors->failed;
    free(descriptors->data);
    *descriptors = (struct aml){0};
}

void aml_res_port(struct aml *t, uint16_t base, uint8_t len)
{
    aml_byte(t, 0x47);
    aml_byte(t, 1); /* 16-bit decode */
    word(t, base);
    word(t, base);
    aml_byte(t, 1); /* alignment */
    aml_byte(t, len);
}

void aml_res_irq(struct aml *t, unsigned irq)
{
    aml_byte(t, 0x22); /* without flags: edge, active high, not shared */
    word(t, (uint16_t)(1u << irq));
}

void aml_res_memory32(struct aml *t, bool writable, uint32_t base, uint32_t len)
{
    aml_byte(t, 0x86);
    word(t, 9);
    aml_byte(t, writable);
    dword(t, base);
    dword(t, len);
}

enum { WINDOW_MEMORY, WINDOW_PORTS, WINDOW_BUSES };

/* Producer, minimum and maximum fixed, positive decode. */
#define WINDOW_GENERAL 0x0c
#define PORTS_ENTIRE   0x03
#define MEMORY_RW      0x01

static void window_head(struct aml *t, uint8_t tag, uint16_t body, uint8_t type, uint8_t specific)
{
    aml_byte(t, tag);
    word(t, body);
    aml_byte(t, type);
    aml_byte(t, WINDOW_GENERAL);
    aml_byte(t, specific);
}

static void window16(struct aml *t, uint8_t type, uint8_t specific, uint16_t base, uint16_t len)
{
    window_head(t, 0x88, 13, type, specific);
    word(t, 0); /* granularity */
    word(t, base);
    word(t, (uint16_t)(base + len - 1));
    word(t, 0); /* translation */
    word(t, len);
}

void aml_res_bus_window(struct aml *t, uint16_t base, uint16_t len)
{
    window16(t, WINDOW_BUSES, 0, base, len);
}

void aml_res_port_window(struct aml *t, uint16_t base, uint16_t len)
{
    window16(t, WINDOW_PORTS, PORTS_ENTIRE, base, len);
}

void aml_res_memory_window32(struct aml *t, uint32_t base, uint32_t len)
{
    window_head(t, 0x87, 23, WINDOW_MEMORY, MEMORY_RW);
    dword(t, 0);
    dword(t, base);
    dword(t, base + len - 1);
    dword(t, 0);
    dword(t, len);
}

void aml_res_memory_window64(struct aml *t, uint64_t base, uint64_t len)
{
    window_head(t, 0x8a, 43, WINDOW_MEMORY, MEMORY_RW);
    qword(t, 0);
    qword(t, base);
    qword(t, base + len - 1);
    qword(t, 0);
    qword(t, len);
}
