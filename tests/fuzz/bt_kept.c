/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzing of kept translations: a block is kept and found again after the input has taken its place in the
 * file, with a checksum that is right, so that what it protects is reached. It is found or not; all of what
 * is found can be read.
 */
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/util.h"
#include "core/engine.h"
#include "engine/bt/kept.h"

#define LOG_START (4096 + (4 << 20))
#define ENTRY_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t bytes[64] = {0x90, 0xc3};
static char folder[] = "/tmp/ruche-fuzz-XXXXXX";
static int file = -1;

static void clean_up(void)
{
    char command[64];
    snprintf(command, sizeof(command), "rm -rf --one-file-system %s", folder);
    if (system(command) != 0)
        abort();
}

static struct bt_kept *open_it(void)
{
    static struct cpuid_model model;
    struct bt_kept *k = bt_kept_open(folder, &model, 0);
    if (!k)
        abort();
    return k;
}

/* The only file in the folder. */
static int open_file(void)
{
    char pattern[64];
    glob_t found;
    snprintf(pattern, sizeof(pattern), "%s/bt-*", folder);
    if (glob(pattern, 0, NULL, &found))
        abort();
    int fd = open(found.gl_pathv[0], O_RDWR | O_CLOEXEC);
    globfree(&found);
    return fd;
}

/* A file with one block in it. */
static void prepare(void)
{
    static const uint8_t record[32], code[512];
    static const uint16_t far[] = {3};
    const struct bt_kept_block block = {.bytes = bytes,
                                        .bytes_len = 2,
                                        .code = code,
                                        .code_len = sizeof(code),
                                        .record = record,
                                        .record_len = sizeof(record),
                                        .far = far,
                                        .far_count = 1};
    if (!mkdtemp(folder))
        abort();
    atexit(clean_up);
    struct bt_kept *k = open_it();
    struct bt_kept_block none;
    bt_kept_find(k, 0, 0, bytes, sizeof(bytes), &none); /* wakes it */
    for (unsigned i = 0; i < 8; i++)                    /* so that the log is as long as an entry can be */
        bt_kept_add(k, &block, sizeof(bytes));
    bt_kept_close(k);
    file = open_file();
    if (lseek(file, 0, SEEK_END) < LOG_START + ENTRY_MAX)
        abort();
}

static volatile uint8_t sink;

static void look_at(const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        sink ^= ((const uint8_t *)data)[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t entry[ENTRY_MAX] = {0};
    struct bt_kept_block found;
    if (file < 0)
        prepare();
    memcpy(entry + 4, data, MIN(size, sizeof(entry) - 4));
    uint32_t length = load_le32(entry + 4);
    if (length > 4 && length <= sizeof(entry))
        store_le32(entry, crc32c(0, entry + 4, length - 4));
    if (pwrite(file, entry, sizeof(entry), LOG_START) != sizeof(entry))
        abort();
    struct bt_kept *k = open_it();
    if (bt_kept_find(k, 0, 0, bytes, sizeof(bytes), &found)) {
        look_at(found.code, found.code_len);
        look_at(found.record, found.record_len);
        look_at(found.bytes, found.bytes_len);
        look_at(found.far, sizeof(uint16_t) * found.far_count);
        look_at(found.pointer, sizeof(uint16_t) * found.pointer_count);
        for (unsigned i = 0; i < found.far_count; i++)
            if (found.far[i] + 4 > found.code_len)
                abort();
    }
    bt_kept_close(k);
    return 0;
}
