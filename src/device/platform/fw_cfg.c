/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fw_cfg: selector port 0x510, data port 0x511, DMA address at 0x514 (big-endian, high half first). QEMU
 * docs/specs/fw_cfg.rst. Guests cannot write to items.
 */
#include "device/platform/fw_cfg.h"

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "core/device.h"

#include <errno.h>
#include <stdlib.h>

#define ID_TRADITIONAL BIT(0)
#define ID_DMA         BIT(1)
#define DMA_SIGNATURE  0x51454d5520434647u /* "QEMU CFG" */
#define DMA_ERROR      BIT(0)
#define DMA_READ       BIT(1)
#define DMA_SKIP       BIT(2)
#define DMA_SELECT     BIT(3)
#define DMA_WRITE      BIT(4)
#define DMA_HEADER     16 /* control, length, address */
#define DIR_ENTRY      64 /* size, key, reserved, name */
#define FIXED_MAX      64 /* items that are not files */

struct item {
    uint16_t key;
    uint8_t *data;
    size_t len;
};

struct file {
    char name[FW_CFG_NAME_SIZE];
    struct item item;
};

struct fw_cfg {
    struct device dev;
    struct item fixed[FIXED_MAX];
    unsigned fixed_count;
    struct file files[FW_CFG_FILE_MAX]; /* sorted by name; keys follow the order */
    unsigned file_count;
    struct item directory;

    uint16_t key;
    uint32_t offset;
    uint64_t dma_address;
};

static const struct state_field fw_cfg_fields[] = {
    STATE_FIELD_U16(struct fw_cfg, key),
    STATE_FIELD_U32(struct fw_cfg, offset),
    STATE_FIELD_U64(struct fw_cfg, dma_address),
    STATE_FIELD_END,
};

static const struct state_desc fw_cfg_state = {
    .name = "fw-cfg", .version = 1, .min_version = 1, .fields = fw_cfg_fields};

/* Adding. */

static bool item_set(struct item *item, uint16_t key, const void *data, size_t len, struct error **err)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy || len > UINT32_MAX) {
        error_set(err, ENOMEM, "fw-cfg: cannot keep an item of %zu bytes", len);
        free(copy);
        return false;
    }
    if (len)
        memcpy(copy, data, len);
    *item = (struct item){.key = key, .data = copy, .len = len};
    return true;
}

bool fw_cfg_add(struct device *dev, uint16_t key, const void *data, size_t len, struct error **err)
{
    struct fw_cfg *s = DEVICE_OF(struct fw_cfg, dev);
    bool taken =
        key == FW_CFG_FILE_DIR || (key >= FW_CFG_FILE_FIRST && key < FW_CFG_FILE_FIRST + FW_CFG_FILE_MAX);
    for (unsigned i = 0; i < s->fixed_count; i++)
        taken |= s->fixed[i].key == key;
    if (taken || s->fixed_count == FIXED_MAX) {
        error_set(err, EEXIST, "fw-cfg: cannot add item 0x%x: %s", key,
                  taken ? "it is taken" : "too many items");
        return false;
    }
    if (!item_set(&s->fixed[s->fixed_count], key, data, len, err))
        return false;
    s->fixed_count++;
    return true;
}

bool fw_cfg_add_number(struct device *dev, uint16_t key, uint64_t value, size_t len, struct error **err)
{
    return fw_cfg_add(dev, key, &value, MIN(len, sizeof(value)), err);
}

/* The directory as the guest reads it, and the files' numbers. */
static bool build_directory(struct fw_cfg *s, struct error **err)
{
    uint8_t dir[4 + FW_CFG_FILE_MAX * DIR_ENTRY] = {0};
    store_be32(dir, s->file_count);
    for (unsigned i = 0; i < s->file_count; i++) {
        struct file *f = &s->files[i];
        uint8_t *e = dir + 4 + i * DIR_ENTRY;
        f->item.key = (uint16_t)(FW_CFG_FILE_FIRST + i);
        store_be32(e, (uint32_t)f->item.len);
        store_be16(e + 4, f->item.key);
        memcpy(e + 8, f->name, sizeof(f->name));
    }
    free(s->directory.data);
    s->directory = (struct item){0};
    return item_set(&s->directory, FW_CFG_FILE_DIR, dir, 4 + (size_t)s->file_count * DIR_ENTRY, err);
}

bool fw_cfg_add_file(struct device *dev, const char *name, const void *data, size_t len, struct error **err)
{
    struct fw_cfg *s = DEVICE_OF(struct fw_cfg, dev);
    unsigned at = 0;
    while (at < s->file_count && strcmp(s->files[at].name, name) < 0)
        at++;
    bool taken = at < s->file_count && strcmp(s->files[at].name, name) == 0;
    if (taken || s->file_count == FW_CFG_FILE_MAX || strlen(name) >= FW_CFG_NAME_SIZE) {
        error_set(err, EINVAL, "fw-cfg: cannot add file %s: %s", name,
                  taken ? "it is there already" : "too many files, or its name is too long");
        return false;
    }
    struct file file = {0};
    memcpy(file.name, name, strlen(name));
    if (!item_set(&file.item, 0, data, len, err))
        return false;
    memmove(&s->files[at + 1], &s->files[at], (s->file_count - at) * sizeof(file));
    s->files[at] = file;
    s->file_count++;
    return build_directory(s, err);
}

/* Reading. */

static const struct item *selected(const struct fw_cfg *s)
{
    if (s->key == FW_CFG_FILE_DIR)
        return &s->directory;
    unsigned n = (unsigned)s->key - FW_CFG_FILE_FIRST;
    if (n < s->file_count)
        return &s->files[n].item;
    for (unsigned i = 0; i < s->fixed_count; i++) {
        if (s->fixed[i].key == s->key)
            return &s->fixed[i];
    }
    return NULL;
}

/* What is left of the selected item; behind its end, and where there is none, everything reads as zero. */
static size_t rest(const struct fw_cfg *s, const uint8_t **data)
{
    const struct item *item = selected(s);
    if (!item || s->offset >= item->len)
        return 0;
    *data = item->data + s->offset;
    return item->len - s->offset;
}

static void advance(struct fw_cfg *s, uint32_t n)
{
    s->offset = s->offset > UINT32_MAX - n ? UINT32_MAX : s->offset + n;
}

static void select_item(struct fw_cfg *s, uint16_t key)
{
    s->key = key;
    s->offset = 0;
}

static uint64_t fw_cfg_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct fw_cfg *s = DEVICE_OF(struct fw_cfg, dev);
    const uint8_t *data;
    if (offset != 1)
        return 0;
    uint8_t byte = rest(s, &data) ? *data : 0;
    advance(s, 1);
    return byte;
}

static void fw_cfg_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset == 0 && size == 2)
        select_item(DEVICE_OF(struct fw_cfg, dev), (uint16_t)value);
}

/* DMA. */

/* Copies `len` bytes of the item to guest memory; false when that is not all RAM. */
static bool dma_copy(struct fw_cfg *s, uint64_t gpa, uint32_t len)
{
    struct guest_memory *mem = s->dev.machine->memory;
    const uint8_t *data;
    if (!len)
        return true;
    uint8_t *to = mem ? guest_ptr(mem, gpa, len, true) : NULL;
    if (!to)
        return false;
    size_t n = MIN(rest(s, &data), (size_t)len);
    if (n)
        memcpy(to, data, n);
    memset(to + n, 0, len - n);
    guest_mark_written(mem, gpa, len);
    return true;
}

static bool dma_run(struct fw_cfg *s, uint32_t control, uint32_t len, uint64_t gpa)
{
    bool ok = true;
    if (control & DMA_SELECT)
        select_item(s, (uint16_t)(control >> 16));
    if (control & DMA_READ)
        ok = dma_copy(s, gpa, len);
    else if (control & DMA_WRITE)
        return false;
    else if (!(control & DMA_SKIP))
        return true;
    if (ok)
        advance(s, len);
    return ok;
}

static void dma_start(struct fw_cfg *s)
{
    struct guest_memory *mem = s->dev.machine->memory;
    uint64_t header = s->dma_address;
    uint8_t h[DMA_HEADER];
    s->dma_address = 0;
    if (!mem || !guest_read(mem, header, h, sizeof(h))) {
        log_guest(LOG_WARN, "fw-cfg: the guest's DMA request is not in RAM");
        return;
    }
    bool ok = dma_run(s, load_be32(h), load_be32(h + 4), load_be64(h + 8));
    uint8_t result[4];
    store_be32(result, ok ? 0 : DMA_ERROR);
    guest_write(mem, header, result, sizeof(result));
}

static uint64_t dma_read(struct device *dev, uint64_t offset, unsigned size)
{
    uint8_t be[8];
    uint64_t v = 0;
    store_be64(be, DMA_SIGNATURE);
    memcpy(&v, be + offset, size);
    return v;
}

static void dma_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct fw_cfg *s = DEVICE_OF(struct fw_cfg, dev);
    uint8_t be[8];
    store_be64(be, s->dma_address);
    memcpy(be + offset, &value, size);
    s->dma_address = load_be64(be);
    if (offset + size == 8)
        dma_start(s);
}

/* Life cycle. */

static void fw_cfg_reset(struct device *dev)
{
    struct fw_cfg *s = DEVICE_OF(struct fw_cfg, dev);
    select_item(s, 0);
    s->dma_address = 0;
}

static void fw_cfg_unrealize(struct device *dev)
{
    struct fw_cfg *s = DEVICE_OF(struct fw_cfg, dev);
    for (unsigned i = 0; i < s->fixed_count; i++)
        free(s->fixed[i].data);
    for (unsigned i = 0; i < s->file_count; i++)
        free(s->files[i].item.data);
    free(s->directory.data);
    dev->machine->fw_cfg = NULL;
}

static bool fw_cfg_realize(struct device *dev, struct error **err)
{
    struct fw_cfg *s = DEVICE_OF(struct fw_cfg, dev);
    dev->machine->fw_cfg = dev;
    if (fw_cfg_add(dev, FW_CFG_SIGNATURE, "QEMU", 4, err) &&
        fw_cfg_add_number(dev, FW_CFG_ID, ID_TRADITIONAL | ID_DMA, 4, err) && build_directory(s, err))
        return true;
    fw_cfg_unrealize(dev);
    return false;
}

static const struct window_desc fw_cfg_windows[] = {
    {WINDOW_PORT, "fw-cfg", 0x510, 2, .read = fw_cfg_read, .write = fw_cfg_write, .max_access = 2},
    {WINDOW_PORT, "fw-cfg DMA", 0x514, 8, .read = dma_read, .write = dma_write, .max_access = 8},
    {WINDOW_END},
};

const struct device_class fw_cfg_class = {
    .name = "fw-cfg",
    .help = "firmware configuration",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct fw_cfg),
    .windows = fw_cfg_windows,
    .state = &fw_cfg_state,
    .realize = fw_cfg_realize,
    .reset = fw_cfg_reset,
    .unrealize = fw_cfg_unrealize,
};
