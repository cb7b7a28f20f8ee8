/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest physical memory: RAM and ROM regions backed by host memory: one memfd each, so that it can be shared,
 * or, in a machine that was saved, private memory that begins as the saved file has it. The map is fixed
 * before the first vCPU runs; look-ups are therefore lock-free from any thread. RAM lies in [0, low) and,
 * above 4 GiB, in [4 GiB, 4 GiB + rest); see DESIGN.md section 4.
 *
 * Who writes guest RAM outside an engine's own translated code must say so with guest_mark_written
 * (guest_write does): engines keep translations of code pages, and migration a dirty log.
 */
#ifndef CORE_MEMORY_H
#define CORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define GUEST_PAGE_SHIFT 12
#define GUEST_PAGE_SIZE  4096u

enum guest_region_flags { REGION_RAM = 0, REGION_ROM = 1 };

struct guest_region {
    uint64_t gpa;  /* page aligned */
    uint64_t size; /* page aligned, bytes */
    uint8_t *host; /* host address of gpa */
    int fd;        /* the memfd behind it; file offset 0 is gpa; -1: private memory */
    enum guest_region_flags flags;
    char name[32];
    uint64_t
        *touched; /* bit by piece of GUEST_PIECE bytes; NULL: private memory, which is there to be sparse */
};

/* Memory that the host is asked for at once: touched one by one, pages cost it many times as much. */
#define GUEST_PIECE (128u * 1024)

#define GUEST_REGION_MAX 16

struct guest_memory {
    struct guest_region region[GUEST_REGION_MAX];
    unsigned region_count;
    uint64_t ram_size; /* bytes of RAM in all */
    uint64_t ram_low;  /* bytes of RAM below 4 GiB */
    bool private;      /* no region has a file of its own */
    /* Called (any thread) after [gpa, gpa + len) of RAM was written by something other than guest code. May
     * be NULL. */
    void (*written)(void *opaque, uint64_t gpa, uint64_t len);
    void *written_opaque;
};

/* RAM of `size` bytes (multiple of 4 KiB, at least 1 MiB), zeroed, not yet touched. */
struct guest_memory *guest_memory_new(uint64_t size, struct error **err);
/* The same in private memory, onto which pieces of a file may be mapped. */
struct guest_memory *guest_memory_new_private(uint64_t size, struct error **err);
void guest_memory_free(struct guest_memory *mem);

/*
 * Bytes [offset, offset + len) of a private region begin as those at `file_offset` of `fd`, which are read
 * when they are first touched; writes never reach the file. All page aligned. Before vCPUs run; `fd` may be
 * closed afterwards.
 */
bool guest_memory_map_private(struct guest_memory *mem, unsigned region, uint64_t offset, uint64_t len,
                              int fd, uint64_t file_offset, struct error **err);

/* Adds a region outside of RAM (firmware). Returns its host address, or NULL and *err. Before vCPUs run. */
uint8_t *guest_memory_add(struct guest_memory *mem, const char *name, uint64_t gpa, uint64_t size,
                          enum guest_region_flags flags, struct error **err);

/* The region holding gpa, or NULL. */
const struct guest_region *guest_region_find(const struct guest_memory *mem, uint64_t gpa);

/*
 * Host address of guest RAM [gpa, gpa + len), or NULL when it is not one run of RAM (ROM counts only when
 * !write). For devices: rings, descriptors, data. The pointer stays valid as long as `mem`.
 */
void *guest_ptr(const struct guest_memory *mem, uint64_t gpa, uint64_t len, bool write);

/* Copies; false (nothing copied) when the range is not all RAM. guest_write marks the range as written. */
bool guest_read(const struct guest_memory *mem, uint64_t gpa, void *buf, uint64_t len);
bool guest_write(struct guest_memory *mem, uint64_t gpa, const void *buf, uint64_t len);

/* To be called after writing through guest_ptr. */
static inline void guest_mark_written(struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    if (mem->written && len)
        mem->written(mem->written_opaque, gpa, len);
}

/*
 * The guest touches gpa, most likely for the first time: the host is asked for the piece of memory around it.
 * Any thread.
 */
void guest_memory_touch(const struct guest_memory *mem, uint64_t gpa);

/* Whether that has nothing to do. */
static inline bool guest_memory_touched(const struct guest_memory *mem, uint64_t gpa)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_region *r = &mem->region[i];
        uint64_t piece = (gpa - r->gpa) / GUEST_PIECE;
        if (gpa - r->gpa < r->size)
            return !r->touched ||
                   (__atomic_load_n(&r->touched[piece / 64], __ATOMIC_RELAXED) >> piece % 64 & 1);
    }
    return true;
}

#endif
