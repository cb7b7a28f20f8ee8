/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Any bytes as a compressed stream, in the format that they seem to have. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "vmm/boot/unpack.h"

#define OUTPUT_MAX (16 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads all it is given, and has enough some time: small inputs may unpack to very much. */
static bool take(void *opaque, const uint8_t *data, size_t len, struct error **err)
{
    size_t *total = opaque;
    uint8_t seen = 0;

    for (size_t i = 0; i < len; i += 512)
        seen ^= data[i];
    __asm__ volatile("" ::"r"(seen));
    *total += len;
    if (*total > OUTPUT_MAX)
        error_set(err, 0, "enough");
    return *total <= OUTPUT_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct boot_file f;
    struct error *err = NULL;
    size_t total = 0;

    if (size < UNPACK_MAGIC_LEN)
        return 0;
    int fd = memfd_create("stream", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || !boot_file_adopt(&f, "stream", fd, NULL))
        abort();
    if (unpack(&f, 0, size, unpack_probe(data), take, &total, &err) != (err == NULL))
        abort();
    error_free(err);
    boot_file_close(&f);
    return 0;
}
