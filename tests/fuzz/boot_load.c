/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Any file as a kernel: the loaders refuse it or load it into guest memory, and touch nothing else. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/boot/boot.h"

#define MEMORY (4 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct guest_memory *mem;
    struct boot_source src;
    struct boot_entry entry;
    struct error *err = NULL;

    log_set_level(LOG_ERROR);
    if (!mem)
        mem = guest_memory_new(MEMORY, NULL);
    boot_source_init(&src);
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    if (!mem || fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    if (boot_file_adopt(&src.kernel, "kernel", fd, NULL)) {
        if (boot_load(&src, mem, false, BOOT_FIRMWARE, &entry, &err) != (err == NULL))
            abort();
        error_free(err);
    }
    boot_source_free(&src);
    return 0;
}
