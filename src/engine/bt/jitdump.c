/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of translated code for perf: see jitdump.h. */
#include "engine/bt/jitdump.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/util.h"

#define MAGIC     0x4a695444u
#define CODE_LOAD 0u

struct file_header {
    uint32_t magic, version, size, machine, pad, pid;
    uint64_t timestamp, flags;
};

struct code_load {
    uint32_t id, size;
    uint64_t timestamp;
    uint32_t pid, tid;
    uint64_t vma, address, code_size, index;
    /* then the name with its NUL, and the code */
};

struct symbol {
    uint64_t address;
    char *name;
};

struct bt_jitdump {
    FILE *file;
    void *marker; /* an executable mapping of the file, by which perf finds it */
    size_t marker_size;
    uint64_t index;
    struct symbol *symbol; /* by rising address */
    size_t symbol_count;
};

/* perf's clock under `perf record --clockid mono`. */
static uint64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_address(const void *a, const void *b)
{
    const struct symbol *x = a, *y = b;
    return x->address < y->address ? -1 : x->address > y->address;
}

/* The functions in a list such as /proc/kallsyms: address, type, name. Without one there are no names. */
static void read_symbols(struct bt_jitdump *dump, const char *folder)
{
    char path[4096], line[512];
    size_t room = 0;
    snprintf(path, sizeof(path), "%s/kallsyms", folder);
    cleanup(file) FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        char *type;
        uint64_t address = strtoull(line, &type, 16);
        if (*type != ' ' || !type[1] || !strchr("tTwW", type[1]) || type[2] != ' ')
            continue;
        char *name = type + 3;
        name[strcspn(name, " \t\n")] = 0;
        if (dump->symbol_count == room) {
            room = room ? 2 * room : 4096;
            struct symbol *more = realloc(dump->symbol, room * sizeof(*more));
            if (!more)
                break;
            dump->symbol = more;
        }
        if (!(dump->symbol[dump->symbol_count].name = strdup(name)))
            break;
        dump->symbol[dump->symbol_count++].address = address;
    }
    if (dump->symbol_count)
        qsort(dump->symbol, dump->symbol_count, sizeof(*dump->symbol), by_address);
}

struct bt_jitdump *bt_jitdump_open(const char *folder, struct error **err)
{
    char path[4096];
    struct file_header header = {.magic = MAGIC,
                                 .version = 1,
                                 .size = sizeof(header),
                                 .machine = EM_X86_64,
                                 .pid = (uint32_t)getpid(),
                                 .timestamp = now()};
    struct bt_jitdump *dump = calloc(1, sizeof(*dump));
    if (!dump) {
        error_set_errno(err, ENOMEM, "cannot write a jitdump");
        return NULL;
    }
    snprintf(path, sizeof(path), "%s/jit-%d.dump", folder, getpid());
    dump->marker = MAP_FAILED;
    dump->marker_size = (size_t)sysconf(_SC_PAGESIZE);
    dump->file = fopen(path, "w+xe");
    if (dump->file)
        dump->marker =
            mmap(NULL, dump->marker_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fileno(dump->file), 0);
    if (!dump->file || dump->marker == MAP_FAILED || fwrite(&header, sizeof(header), 1, dump->file) != 1) {
        error_set_errno(err, errno, "cannot write the jitdump '%s'", path);
        bt_jitdump_close(dump);
        return NULL;
    }
    read_symbols(dump, folder);
    return dump;
}

void bt_jitdump_close(struct bt_jitdump *dump)
{
    if (!dump)
        return;
    bool lost = dump->file && ferror(dump->file);
    if (dump->file && (fclose(dump->file) != 0 || lost))
        log_line(LOG_WARN, "the jitdump is not complete: it could not all be written");
    if (dump->marker != MAP_FAILED)
        munmap(dump->marker, dump->marker_size);
    for (size_t i = 0; i < dump->symbol_count; i++)
        free(dump->symbol[i].name);
    free(dump->symbol);
    free(dump);
}

/* The last symbol at or below an address; NULL: none. */
static const char *symbol_at(const struct bt_jitdump *dump, uint64_t address)
{
    size_t low = 0, high = dump->symbol_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (dump->symbol[mid].address <= address)
            low = mid + 1;
        else
            high = mid;
    }
    return low ? dump->symbol[low - 1].name : NULL;
}

void bt_jitdump_block(struct bt_jitdump *dump, uint64_t lin, bool user, const uint8_t *exec,
                      const uint8_t *code, size_t len)
{
    char name[300];
    const char *symbol = user ? NULL : symbol_at(dump, lin);
    int n = symbol ? snprintf(name, sizeof(name), "guest:%s", symbol)
                   : snprintf(name, sizeof(name), "guest:%s:%#llx", user ? "user" : "kernel",
                              (unsigned long long)lin);
    struct code_load load = {.id = CODE_LOAD,
                             .size = (uint32_t)(sizeof(load) + (size_t)n + 1 + len),
                             .timestamp = now(),
                             .pid = (uint32_t)getpid(),
                             .tid = (uint32_t)syscall(SYS_gettid),
                             .vma = (uint64_t)(uintptr_t)exec,
                             .address = (uint64_t)(uintptr_t)exec,
                             .code_size = len,
                             .index = dump->index++};
    fwrite(&load, sizeof(load), 1, dump->file);
    fwrite(name, (size_t)n + 1, 1, dump->file);
    fwrite(code, len, 1, dump->file);
}
