/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Choosing a loader for a kernel file. */
#include "vmm/boot/boot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "vmm/boot/elf.h"

void boot_source_init(struct boot_source *src)
{
    memset(src, 0, sizeof(*src));
    src->kernel.fd = src->initrd.fd = -1;
}

void boot_source_free(struct boot_source *src)
{
    boot_file_close(&src->kernel);
    boot_file_close(&src->initrd);
    for (unsigned i = 0; i < src->module_count; i++) {
        boot_file_close(&src->module[i].file);
        free(src->module[i].string);
    }
    free(src->cmdline);
    boot_source_init(src);
}

bool boot_source_add_module(struct boot_source *src, const char *spec, struct error **err)
{
    if (src->module_count == BOOT_MODULE_MAX) {
        error_set(err, E2BIG, "cannot load %s: at most %d modules", spec, BOOT_MODULE_MAX);
        return false;
    }
    cleanup(mem) char *path = strdup(spec);
    cleanup(mem) char *string = strdup(spec);
    if (!path || !string) {
        error_set_errno(err, ENOMEM, "cannot load %s", spec);
        return false;
    }
    if (access(path, F_OK) < 0)
        path[strcspn(path, " ")] = '\0';
    struct boot_module *m = &src->module[src->module_count];
    if (!boot_file_open(&m->file, path, err))
        return false;
    m->string = steal_ptr(&string);
    src->module_count++;
    return true;
}

uint64_t boot_put_string(struct boot_job *job, const char *text, const char *what, struct error **err)
{
    size_t len = strlen(text) + 1;
    uint64_t at = boot_space_find(&job->space, len, 16, 0, 4 * GIB, false, what, err);

    if (at != BOOT_NOWHERE)
        boot_space_write(&job->space, at, text, len);
    return at;
}

static bool load_by_kind(struct boot_job *job, struct error **err)
{
    if (linux_probe(job))
        return linux_load(job, err);
    if (multiboot_probe(job))
        return multiboot_load(job, err);
    if (elf_is_elf(job->head, job->head_len))
        return pvh_load(job, err);
    error_set(err, ENOEXEC, "cannot boot %s: neither a Linux bzImage nor a Multiboot or PVH kernel",
              job->src->kernel.name);
    return false;
}

bool boot_load(const struct boot_source *src, struct guest_memory *mem, bool fresh, uint64_t rsdp,
               struct boot_entry *entry, struct error **err)
{
    size_t head_len = MIN(src->kernel.size, ELF_HEAD_MAX);
    cleanup(mem) uint8_t *head = malloc(head_len);
    struct boot_job job = {.src = src, .rsdp = rsdp, .entry = entry, .head = head, .head_len = head_len};

    if (!head) {
        error_set_errno(err, ENOMEM, "cannot read %s", src->kernel.name);
        return false;
    }
    boot_space_init(&job.space, mem, fresh);
    return boot_file_read(&src->kernel, 0, head, head_len, err) && load_by_kind(&job, err);
}
