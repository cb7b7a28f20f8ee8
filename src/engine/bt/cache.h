/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The code cache: blocks of translated code, found by physical address and mode, chained to each other,
 * dropped when their bytes change or when room is needed. Shared by all vCPUs.
 *
 * The memory is one memfd mapped twice, writable and executable, never both through one mapping. It is filled
 * segment by segment; before a segment is used again its blocks are killed, and its memory is reused only
 * after every vCPU has been seen outside of translated code (a grace period), so eviction never stops the
 * machine.
 *
 * All functions want engine->lock held, except bt_cache_find and bt_cache_at, which are lock-free.
 */
#ifndef BT_CACHE_H
#define BT_CACHE_H

#include <stddef.h>

#include "engine/bt/bt.h"
#include "engine/bt/emit.h"

/* An exit of a block that can be chained: its two branches come first, then where it goes on precisely. */
struct bt_link {
    struct bt_block *to;     /* NULL: not chained */
    struct bt_link *next_in; /* of to->in */
    uint16_t back;           /* its own offset in the block's record */
    uint16_t at;             /* offset in the block's code of the jump's displacement; 0: no such exit */
    uint16_t stub;           /* and of what it jumps to when not linked */
    uint16_t target;         /* page offset of the target */
    uint16_t mode;           /* the target's */
    bool saved;              /* the flags are in cpu->status there, not in the host's */
};

/* An instruction of a block that may fault by itself in the host. Offsets in code are from the block's. */
struct bt_trap_at {
    uint16_t code, end; /* what of the code is this instruction */
    uint16_t guest;     /* offset from the block's first guest byte */
    uint16_t fault;     /* offset in code where to go on once the registers have been taken, or BT_FAULT_* */
    uint8_t
        borrowed[BT_SPILLS]; /* registers that it uses for others; the guest's value is in cpu->spill[i] */
    uint8_t borrowed_count;
};
enum { BT_FAULT_FLAGS_HOST, BT_FAULT_FLAGS_SAVED, BT_FAULT_CODE /* from here on: offsets */ };

/*
 * A block's record: this, its links, and its traps. There are a hundred thousand of them, and a look-up is as
 * dear as the lines of memory that it touches: what it reads comes first, in one of them.
 */
struct bt_block {
    uint64_t phys; /* guest physical address of the first byte */
    struct bt_block *_Atomic hash_next;
    uint32_t page2; /* number of the last byte's page when that is another one; else 0 */
    uint32_t code;  /* offset in the cache; the code begins with its entry for indirect jumps, RIP in T0 */
    uint16_t mode;  /* MODE_* */
    uint16_t entry; /* offsets in code: flags and pc_base in place, no poll */
    bool asks;      /* with page2: its code finds out by itself when the second page is another one now */
    bool dead;
    uint8_t link_count, trap_count;

    uint16_t entry_poll;  /* as `entry`, comes back when cpu->kick is set */
    uint16_t entry_saved; /* as entry_poll, flags in cpu->status */
    uint16_t len;         /* guest bytes */
    uint16_t code_len;
    struct bt_block *page_next[2];
    struct bt_link *in; /* jumps that lead here */
    struct bt_link link[];
};
#define BT_BLOCK_LINE 32 /* records are aligned to it */
_Static_assert(offsetof(struct bt_block, trap_count) < BT_BLOCK_LINE, "what a look-up reads is in one line");

static inline struct bt_trap_at *bt_block_traps(struct bt_block *b)
{
    return (struct bt_trap_at *)(void *)&b->link[b->link_count];
}

static inline struct bt_block *bt_link_from(struct bt_link *link)
{
    return (struct bt_block *)(void *)((uint8_t *)link - link->back);
}

/* What is known of a physical page that holds, or held, translated code. */
struct bt_page {
    struct bt_block *blocks;  /* through page_next[0] or [1] */
    _Atomic uint64_t code;    /* bit n: bytes [64n, 64n + 64) are translated */
    uint64_t denied_at;       /* epoch; 0: nobody can be writing it any more without being noticed */
    bool native;              /* all of it is code that runs natively */
    _Atomic uint32_t version; /* grows when such code is written */
};

#define BT_BLOCK_ROOM  (32u * 1024) /* no block's code is larger */
#define BT_RECORD_ROOM (4u * 1024)  /* nor is what is known of it */

struct bt_segment {
    uint8_t *start, *end, *next;                  /* writable addresses */
    uint8_t *records, *records_end, *record_next; /* memory of its struct bt_block and what they refer to */
    uint8_t *code_present, *records_present;      /* the host has been asked for memory up to here */
    struct bt_block **blocks;                     /* by rising address */
    _Atomic unsigned count;
    uint64_t killed_at; /* epoch; 0: in use or never used */
};

struct bt_cache {
    uint8_t *write, *exec; /* the two mappings */
    size_t size;
    int fd;
    uint8_t *thunk_end; /* writable; code of thunk.c lies before the first segment */
    uint8_t *records;   /* of all segments */
    size_t records_size;
    struct bt_segment segment[BT_CACHE_SEGMENTS];
    unsigned current;
    unsigned max_blocks;            /* a segment's */
    struct bt_block *_Atomic *hash; /* 1 << BT_HASH_BITS of them */
    struct bt_page *_Atomic *pages; /* by RAM page index */
    size_t page_count;
    uint64_t *writable;             /* bit by page index: may be in some soft TLB as writable */
    _Atomic uint64_t epoch;         /* grows when blocks are killed */
    _Atomic uint32_t native_writes; /* grows with any page's version */
    uint64_t stat_killed, stat_evictions;
};

/* `size` bytes in all. NULL and *err on failure. */
struct bt_cache *bt_cache_new(const struct guest_memory *mem, size_t size, struct error **err);
void bt_cache_free(struct bt_cache *c);

static inline const uint8_t *bt_cache_exec(const struct bt_cache *c, const uint8_t *write)
{
    return c->exec + (write - c->write);
}

/* Executable and writable addresses of a block's code, from an offset in it. */
static inline const uint8_t *bt_block_exec(const struct bt_cache *c, const struct bt_block *b,
                                           unsigned offset)
{
    return c->exec + b->code + offset;
}

static inline uint8_t *bt_block_write(const struct bt_cache *c, const struct bt_block *b, unsigned offset)
{
    return c->write + b->code + offset;
}

static inline uint64_t bt_block_phys2(const struct bt_block *b)
{
    return (uint64_t)b->page2 << GUEST_PAGE_SHIFT;
}

/* The live block for a key, or NULL. The second page, if it has one, is checked by the caller. */
struct bt_block *bt_cache_find(struct bt_cache *c, uint64_t phys, uint32_t mode);
/* The block whose code holds executable address pc, or NULL. From a signal handler on a vCPU's thread. */
struct bt_block *bt_cache_at(struct bt_cache *c, const uint8_t *pc);

/*
 * Room for one block: fills `e`. False: a grace period has to pass first; drop the lock, let all vCPUs come
 * out, try again.
 */
bool bt_cache_reserve(struct bt_engine *engine, struct emitter *e);
/* Bytes of host memory that blocks take. */
size_t bt_cache_used(const struct bt_cache *c);
/* Kills all blocks, and gives their memory back to the host as far as no vCPU may be in it. */
void bt_cache_empty(struct bt_engine *engine);
/* Zeroed memory for the block being made, at most BT_RECORD_ROOM in all, that lives as long as the block; the
 * block itself comes first. */
void *bt_cache_record(struct bt_cache *c, size_t size);
/* How much of it the block being made has taken. */
size_t bt_cache_record_size(const struct bt_cache *c, const struct bt_block *block);
/* The block being made comes to nothing. */
void bt_cache_abandon(struct bt_cache *c, struct bt_block *block);
/* Publishes a finished block, whose bytes were read after bt_cache_protect. Takes ownership. */
void bt_cache_add(struct bt_engine *engine, struct bt_block *block, const struct emitter *e);

/* Chains a direct jump to its target, both alive. */
void bt_cache_link(struct bt_cache *c, struct bt_link *link, struct bt_block *to);

/*
 * Marks [gpa, gpa + len) as translated and takes write permission from every soft TLB, before the bytes are
 * read. False: a vCPU may still be in a block that had it; drop the lock, let all come out, try again.
 */
bool bt_cache_protect(struct bt_engine *engine, uint64_t gpa, unsigned len);
/* Every vCPU has been outside of translated code since `epoch` began. */
bool bt_cache_grace_passed(struct bt_engine *engine, uint64_t epoch);
/*
 * The same for a page whose code is to run natively, all of it; *version is what bt_cache_native_version says
 * until something in it is written.
 */
bool bt_cache_protect_native(struct bt_engine *engine, uint64_t gpa, uint32_t *version);
/* Any thread, without the lock. */
uint32_t bt_cache_native_version(const struct bt_engine *engine, uint64_t gpa);
/* The page at gpa gets into a soft TLB as writable. Any thread, before the entry is written. */
void bt_page_writable(struct bt_engine *engine, uint64_t gpa);
/* Kills the blocks that overlap [gpa, gpa + len); true if there was one. */
bool bt_cache_invalidate(struct bt_engine *engine, uint64_t gpa, uint64_t len);

/* Index of a physical page among all regions; -1: none. */
long bt_page_index(const struct guest_memory *mem, uint64_t gpa);
/* Whether translated code lies in [gpa, gpa + len) of one page. Lock-free. */
bool bt_page_has_code(const struct bt_engine *engine, uint64_t gpa, unsigned len);

#endif
