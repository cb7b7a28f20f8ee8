/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzing of saved machines: the input is a description or records of state (its first byte says which), or a
 * file's header. Checksums are made right, so that what they protect is reached. Whatever is in it, it is
 * read or refused.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "block/block.h"
#include "core/engine.h"
#include "core/state_x86.h"
#include "vmm/save.h"
#include "vmm/save_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const struct engine_ops *const engines[] = {NULL};

static void try_description(const uint8_t *data, size_t size)
{
    static struct machine_config config;
    static struct saved_identity id;
    struct error *err = NULL;

    memset(&config, 0, sizeof(config));
    memset(&id, 0, sizeof(id));
    config.ready_fd = -1;
    if (saved_read_description((const char *)data, size, &config, &id, &err)) {
        struct block_info disk[OPTIONS_LIST_MAX];
        for (unsigned i = 0; i < OPTIONS_LIST_MAX; i++)
            disk[i] = (struct block_info){.format = "raw", .path = config.disk[i].path};
        saved_check_cpu(&id.cpu, NULL);
        free(save_describe(&config, &id, disk, NULL));
    } else if (!err) {
        abort();
    }
    error_free(err);
    options_free(&config);
}

static void try_state(const uint8_t *data, size_t size)
{
    static struct x86_state cpu;

    saved_check_state(data, size, "fuzz", NULL);
    state_load(&x86_cpu_state, &cpu, sizeof(cpu), data, size, NULL);
}

/* The header, and in the rest of the input what its sections point to. */
static void try_file(const uint8_t *data, size_t size)
{
    uint8_t header[SAVE_PAGE] = {0};
    struct save_file f;
    struct save_page_table table;
    int fd = memfd_create("saved", 0);

    if (fd < 0)
        abort();
    memcpy(header, data, MIN(size, sizeof(header) - 4));
    store_le32(header + sizeof(header) - 4, crc32c(0, header, sizeof(header) - 4));
    if (write(fd, header, sizeof(header)) < 0 || write(fd, data, size) < 0)
        abort();
    if (!save_file_adopt(&f, fd, "fuzz", NULL))
        return;
    free(save_file_read(&f, SAVE_DESCRIPTION, NULL));
    free(save_file_read(&f, SAVE_STATE, NULL));
    if (saved_pages_read(&f, &table, NULL)) {
        struct guest_memory *mem = guest_memory_new_private(MIB, NULL);
        if (mem)
            saved_memory_map(&f, &table, mem, NULL);
        saved_memory_verify(&f, &table, NULL, NULL);
        guest_memory_free(mem);
        free(table.sum);
    }
    save_file_close(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool quiet;

    if (!quiet)
        log_to(open("/dev/null", O_WRONLY));
    quiet = true;
    if (!size)
        return 0;
    /* A copy of the exact size, so that a sanitizer sees a read past its end. */
    uint8_t *copy = malloc(size - 1 ? size - 1 : 1);
    if (!copy)
        return 0;
    memcpy(copy, data + 1, size - 1);
    if (*data == '{')
        try_description(data, size);
    else if (*data & 1)
        try_state(copy, size - 1);
    else
        try_file(copy, size - 1);
    free(copy);
    return 0;
}
