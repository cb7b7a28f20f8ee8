/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks on their way to the file of kept translations, and back: see kept.h. */
#include <string.h>

#include "base/util.h"
#include "engine/bt/kept.h"
#include "engine/bt/translate.h"

/* A block's record as it is kept: this, its links, its traps, and the instructions that C executes. */
struct kept_record {
    uint16_t entry, entry_poll, entry_saved;
    uint8_t link_count, trap_count, op_count;
};
struct kept_link {
    uint16_t at, stub, target, mode;
    uint8_t saved;
};
struct kept_op {
    int32_t run; /* from the anchor */
    uint16_t page_off;
    uint8_t heavy, len, bytes[X86_INSN_MAX]; /* no bytes: an instruction that is none */
};

/* C functions are kept as distances from this one: a file is for one program. */
static uint8_t *anchor(void)
{
    return (uint8_t *)(uintptr_t)bt_translate_block;
}

/* Where a record's instructions are; bt_cache_record rounds up. */
static struct bt_op *first_op(struct bt_block *b)
{
    return (struct bt_op *)(void *)((uint8_t *)b +
                                    round_up((size_t)((uint8_t *)(bt_block_traps(b) + b->trap_count) -
                                                      (uint8_t *)b),
                                             8));
}

static size_t kept_size(const struct kept_record *r)
{
    return sizeof(*r) + r->link_count * sizeof(struct kept_link) + r->trap_count * sizeof(struct bt_trap_at) +
           r->op_count * sizeof(struct kept_op);
}

static uint8_t *put(uint8_t *to, const void *from, size_t size)
{
    memcpy(to, from, size);
    return to + size;
}

static const uint8_t *get(const uint8_t *from, void *to, size_t size)
{
    memcpy(to, from, size);
    return from + size;
}

/* Gives the size. */
static size_t pack_record(struct tr *t)
{
    struct bt_block *b = t->block;
    struct bt_op *op = first_op(b);
    size_t ops = bt_cache_record_size(t->engine->cache, b) - (size_t)((uint8_t *)op - (uint8_t *)b);
    struct kept_record r = {.entry = b->entry,
                            .entry_poll = b->entry_poll,
                            .entry_saved = b->entry_saved,
                            .link_count = b->link_count,
                            .trap_count = b->trap_count,
                            .op_count = (uint8_t)(ops / sizeof(*op))};
    uint8_t *p = put(t->kept_record, &r, sizeof(r));
    for (unsigned i = 0; i < r.link_count; i++) {
        const struct bt_link *l = &b->link[i];
        struct kept_link link = {l->at, l->stub, l->target, l->mode, l->saved};
        p = put(p, &link, sizeof(link));
    }
    p = put(p, bt_block_traps(b), r.trap_count * sizeof(struct bt_trap_at));
    for (unsigned i = 0; i < r.op_count; i++) {
        struct kept_op kept = {.run = (int32_t)((uint8_t *)(uintptr_t)op[i].run - anchor()),
                               .page_off = op[i].page_off,
                               .heavy = op[i].heavy,
                               .len = op[i].insn.len};
        memcpy(kept.bytes, op[i].insn.bytes, sizeof(kept.bytes));
        p = put(p, &kept, sizeof(kept));
    }
    return (size_t)(p - t->kept_record);
}

static void unpack_op(const struct tr *t, const struct kept_op *kept, struct bt_op *op)
{
    unsigned size = t->mode & MODE_CODE64 ? 64 : t->mode & MODE_CODE32 ? 32 : 16;
    op->run = (bt_op_fn *)(uintptr_t)(anchor() + kept->run);
    op->heavy = kept->heavy;
    op->page_off = kept->page_off;
    if (x86_decode(&op->insn, kept->bytes, kept->len, size) != DECODE_OK)
        op->insn = (struct x86_insn){.len = kept->len, .mode = (uint8_t)size};
}

static void unpack_record(struct tr *t, const uint8_t *p)
{
    struct kept_record r;
    p = get(p, &r, sizeof(r));
    size_t fixed =
        sizeof(*t->block) + r.link_count * sizeof(struct bt_link) + r.trap_count * sizeof(struct bt_trap_at);
    struct bt_block *b =
        bt_cache_record(t->engine->cache, round_up(fixed, 8) + r.op_count * sizeof(struct bt_op));
    t->block = b;
    b->entry = r.entry;
    b->entry_poll = r.entry_poll;
    b->entry_saved = r.entry_saved;
    b->link_count = r.link_count;
    b->trap_count = r.trap_count;
    for (unsigned i = 0; i < r.link_count; i++) {
        struct kept_link link;
        p = get(p, &link, sizeof(link));
        b->link[i] = (struct bt_link){.back = (uint16_t)((uint8_t *)&b->link[i] - (uint8_t *)b),
                                      .at = link.at,
                                      .stub = link.stub,
                                      .target = link.target,
                                      .mode = link.mode,
                                      .saved = link.saved};
    }
    p = get(p, bt_block_traps(b), r.trap_count * sizeof(struct bt_trap_at));
    for (unsigned i = 0; i < r.op_count; i++) {
        struct kept_op kept;
        p = get(p, &kept, sizeof(kept));
        unpack_op(t, &kept, &first_op(b)[i]);
    }
}

/* What depends on where the code and the record lie, for keeping them; see kept.h. */
static void make_relative(const struct tr *t, uint8_t *code)
{
    const struct emit_places *places = &t->places;
    for (unsigned i = 0; i < places->far_count; i++) {
        uint8_t *at = code + places->far[i];
        store_le32(at, (uint32_t)(t->start - t->engine->cache->write) + places->far[i] + 4 + load_le32(at));
    }
    for (unsigned i = 0; i < places->pointer_count; i++) {
        uint8_t *at = code + places->pointer[i];
        store_le64(at, load_le64(at) - (uint64_t)(uintptr_t)t->block);
    }
}

void tr_keep(struct tr *t, bool limited, unsigned avail)
{
    const struct emit_places *places = &t->places;
    struct bt_kept_block kept = {.mode = t->block->mode,
                                 .page_off = (uint16_t)t->page_off,
                                 .bytes_len = t->block->len,
                                 .code_len = (uint16_t)(t->e.p - t->start),
                                 .far_count = (uint16_t)places->far_count,
                                 .pointer_count = (uint16_t)places->pointer_count,
                                 .bytes = t->bytes,
                                 .code = t->kept_code,
                                 .record = t->kept_record,
                                 .far = places->far,
                                 .pointer = places->pointer};
    if (!t->engine->kept || limited || t->block->page2 || places->far_count > EMIT_PLACES ||
        places->pointer_count > EMIT_PLACES)
        return;
    memcpy(t->kept_code, t->start, kept.code_len);
    make_relative(t, t->kept_code);
    kept.record_len = (uint16_t)pack_record(t);
    bt_kept_add(t->engine->kept, &kept, avail);
}

bool tr_fits(const struct bt_kept_block *k)
{
    struct kept_record r;
    if (k->code_len > BT_BLOCK_ROOM || k->record_len < sizeof(r))
        return false;
    memcpy(&r, k->record, sizeof(r));
    return kept_size(&r) == k->record_len && sizeof(struct bt_block) + r.link_count * sizeof(struct bt_link) +
                                                     r.trap_count * sizeof(struct bt_trap_at) + 8 +
                                                     r.op_count * sizeof(struct bt_op) <=
                                                 BT_RECORD_ROOM;
}

void tr_place(struct tr *t, uint64_t phys, const struct bt_kept_block *k)
{
    uint32_t base = (uint32_t)(t->start - t->engine->cache->write);
    unpack_record(t, k->record);
    t->block->phys = phys;
    t->block->mode = k->mode;
    t->block->len = k->bytes_len;
    memcpy(t->start, k->code, k->code_len);
    t->e.p = t->start + k->code_len;
    for (unsigned i = 0; i < k->far_count; i++) {
        uint8_t *at = t->start + k->far[i];
        store_le32(at, load_le32(at) - (base + k->far[i] + 4));
    }
    for (unsigned i = 0; i < k->pointer_count; i++) {
        uint8_t *at = t->start + k->pointer[i];
        store_le64(at, load_le64(at) + (uint64_t)(uintptr_t)t->block);
    }
}
