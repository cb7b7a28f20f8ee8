/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Streaming decompression: each library is wrapped in a `step` that turns a piece of input into a piece of
 * output; one loop feeds all of them. LZ4's legacy frame has no streaming form and is done chunk by chunk.
 */
#include "vmm/boot/unpack.h"

#include <bzlib.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <zlib.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"

#define CHUNK           (256 * KIB)
#define DICTIONARY_MAX  (256 * MIB)
#define LZ4_CHUNK       (8 * MIB) /* fixed by the legacy frame */
#define LZ4_MAGIC       0x184c2102u
#define TRAILING_MAX    8
#define ZSTD_WINDOW_LOG 28

enum step_result { STEP_MORE, STEP_END, STEP_DAMAGED, STEP_NO_MEMORY };

/* One piece of work: consumes from `in`, produces into `out`, both advanced. */
struct pieces {
    const uint8_t *in;
    size_t in_len;
    uint8_t *out;
    size_t out_len;
};

union codec_state {
    z_stream zlib;
    lzma_stream lzma;
    bz_stream bzip2;
    ZSTD_DStream *zstd;
};

struct codec {
    bool (*init)(union codec_state *s);
    enum step_result (*step)(union codec_state *s, struct pieces *p);
    void (*end)(union codec_state *s);
};

static bool gzip_init(union codec_state *s)
{
    s->zlib = (z_stream){0};
    return inflateInit2(&s->zlib, 15 + 16) == Z_OK; /* 16: gzip header and trailer */
}

static enum step_result gzip_step(union codec_state *s, struct pieces *p)
{
    z_stream *z = &s->zlib;
    /* zlib's interface predates const. */
    z->next_in = (Bytef *)(uintptr_t)p->in;
    z->avail_in = (uInt)p->in_len;
    z->next_out = p->out;
    z->avail_out = (uInt)p->out_len;
    int r = inflate(z, Z_NO_FLUSH);
    p->in = z->next_in;
    p->in_len = z->avail_in;
    p->out = z->next_out;
    p->out_len = z->avail_out;
    if (r == Z_STREAM_END)
        return STEP_END;
    if (r == Z_MEM_ERROR)
        return STEP_NO_MEMORY;
    return r == Z_OK || r == Z_BUF_ERROR ? STEP_MORE : STEP_DAMAGED;
}

static void gzip_end(union codec_state *s)
{
    inflateEnd(&s->zlib);
}

static bool xz_init(union codec_state *s)
{
    s->lzma = (lzma_stream)LZMA_STREAM_INIT;
    return lzma_stream_decoder(&s->lzma, DICTIONARY_MAX, 0) == LZMA_OK;
}

static bool lzma_init(union codec_state *s)
{
    s->lzma = (lzma_stream)LZMA_STREAM_INIT;
    return lzma_alone_decoder(&s->lzma, DICTIONARY_MAX) == LZMA_OK;
}

static enum step_result lzma_step(union codec_state *s, struct pieces *p)
{
    lzma_stream *z = &s->lzma;
    z->next_in = p->in;
    z->avail_in = p->in_len;
    z->next_out = p->out;
    z->avail_out = p->out_len;
    lzma_ret r = lzma_code(z, LZMA_RUN);
    p->in = z->next_in;
    p->in_len = z->avail_in;
    p->out = z->next_out;
    p->out_len = z->avail_out;
    if (r == LZMA_STREAM_END)
        return STEP_END;
    if (r == LZMA_MEM_ERROR || r == LZMA_MEMLIMIT_ERROR)
        return STEP_NO_MEMORY;
    return r == LZMA_OK || r == LZMA_BUF_ERROR ? STEP_MORE : STEP_DAMAGED;
}

static void lzma_finish(union codec_state *s)
{
    lzma_end(&s->lzma);
}

static bool bzip2_init(union codec_state *s)
{
    s->bzip2 = (bz_stream){0};
    return BZ2_bzDecompressInit(&s->bzip2, 0, 0) == BZ_OK;
}

static enum step_result bzip2_step(union codec_state *s, struct pieces *p)
{
    bz_stream *z = &s->bzip2;
    z->next_in = (char *)(uintptr_t)p->in;
    z->avail_in = (unsigned)p->in_len;
    z->next_out = (char *)p->out;
    z->avail_out = (unsigned)p->out_len;
    int r = BZ2_bzDecompress(z);
    p->in = (const uint8_t *)z->next_in;
    p->in_len = z->avail_in;
    p->out = (uint8_t *)z->next_out;
    p->out_len = z->avail_out;
    if (r == BZ_STREAM_END)
        return STEP_END;
    if (r == BZ_MEM_ERROR)
        return STEP_NO_MEMORY;
    return r == BZ_OK ? STEP_MORE : STEP_DAMAGED;
}

static void bzip2_end(union codec_state *s)
{
    BZ2_bzDecompressEnd(&s->bzip2);
}

static bool zstd_init(union codec_state *s)
{
    s->zstd = ZSTD_createDStream();
    if (!s->zstd)
        return false;
    ZSTD_DCtx_setParameter(s->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
    return true;
}

static enum step_result zstd_step(union codec_state *s, struct pieces *p)
{
    ZSTD_inBuffer in = {p->in, p->in_len, 0};
    ZSTD_outBuffer out = {p->out, p->out_len, 0};
    size_t r = ZSTD_decompressStream(s->zstd, &out, &in);

    p->in += in.pos;
    p->in_len -= in.pos;
    p->out += out.pos;
    p->out_len -= out.pos;
    if (ZSTD_isError(r))
        return STEP_DAMAGED;
    return r == 0 ? STEP_END : STEP_MORE;
}

static void zstd_end(union codec_state *s)
{
    ZSTD_freeDStream(s->zstd);
}

static const struct codec codecs[] = {
    [UNPACK_GZIP] = {gzip_init, gzip_step, gzip_end},    [UNPACK_XZ] = {xz_init, lzma_step, lzma_finish},
    [UNPACK_LZMA] = {lzma_init, lzma_step, lzma_finish}, [UNPACK_BZIP2] = {bzip2_init, bzip2_step, bzip2_end},
    [UNPACK_ZSTD] = {zstd_init, zstd_step, zstd_end},
};

enum unpack_format unpack_probe(const uint8_t magic[UNPACK_MAGIC_LEN])
{
    static const struct {
        uint8_t len, bytes[UNPACK_MAGIC_LEN];
        enum unpack_format format;
    } table[] = {
        {2, {0x1f, 0x8b}, UNPACK_GZIP},         {6, {0xfd, '7', 'z', 'X', 'Z', 0}, UNPACK_XZ},
        {3, {0x5d, 0, 0}, UNPACK_LZMA},         {3, {'B', 'Z', 'h'}, UNPACK_BZIP2},
        {4, {2, 0x21, 0x4c, 0x18}, UNPACK_LZ4}, {4, {0x28, 0xb5, 0x2f, 0xfd}, UNPACK_ZSTD},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (!memcmp(magic, table[i].bytes, table[i].len))
            return table[i].format;
    return UNPACK_UNKNOWN;
}

const char *unpack_format_name(enum unpack_format format)
{
    static const char *const names[] = {"unknown", "gzip", "xz", "lzma", "bzip2", "lz4", "zstd"};
    return names[format];
}

static void set_damaged(const struct boot_file *f, const char *what, struct error **err)
{
    error_set(err, EINVAL, "cannot unpack %s: the compressed data is %s", f->name, what);
}

/* What a stream has yet to read from the file. */
struct input {
    const struct boot_file *file;
    uint64_t offset, left;
    uint8_t *buf;
};

static bool refill(struct input *in, struct pieces *p, struct error **err)
{
    size_t n = MIN(in->left, CHUNK);

    if (!boot_file_read(in->file, in->offset, in->buf, n, err))
        return false;
    in->offset += n;
    in->left -= n;
    p->in = in->buf;
    p->in_len = n;
    return true;
}

/* The loop that all streaming formats share. */
static bool run_codec(const struct codec *codec, union codec_state *state, struct input *in,
                      unpack_sink *sink, void *opaque, struct error **err)
{
    cleanup(mem) uint8_t *out = malloc(CHUNK);
    struct pieces p = {0};

    if (!out) {
        error_set_errno(err, ENOMEM, "cannot unpack %s", in->file->name);
        return false;
    }
    for (;;) {
        if (p.in_len == 0 && in->left > 0 && !refill(in, &p, err))
            return false;
        size_t before = p.in_len;
        p.out = out;
        p.out_len = CHUNK;
        enum step_result r = codec->step(state, &p);
        size_t produced = CHUNK - p.out_len;
        if (produced && !sink(opaque, out, produced, err))
            return false;
        if (r == STEP_END)
            break;
        if (r == STEP_NO_MEMORY) {
            error_set(err, ENOMEM, "cannot unpack %s: its dictionary is too large", in->file->name);
            return false;
        }
        if (r == STEP_DAMAGED) {
            set_damaged(in->file, "damaged", err);
            return false;
        }
        if (produced == 0 && p.in_len == before && (before > 0 || in->left == 0)) {
            set_damaged(in->file, "truncated", err);
            return false;
        }
    }
    if (p.in_len + in->left >= TRAILING_MAX) {
        set_damaged(in->file, "shorter than its header says", err);
        return false;
    }
    return true;
}

static bool unpack_stream(const struct codec *codec, struct input *in, unpack_sink *sink, void *opaque,
                          struct error **err)
{
    union codec_state state;

    if (!codec->init(&state)) {
        error_set_errno(err, ENOMEM, "cannot unpack %s", in->file->name);
        return false;
    }
    bool ok = run_codec(codec, &state, in, sink, opaque, err);
    codec->end(&state);
    return ok;
}

/* A scratch buffer in huge pages where the host has them: touching it page by page would cost more than
 * unpacking. */
static uint8_t *scratch_new(size_t size)
{
    uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    madvise(p, size, MADV_HUGEPAGE);
    return p;
}

static bool lz4_chunk(struct input *in, uint32_t packed, uint8_t *packed_buf, uint8_t *out, int *produced,
                      struct error **err)
{
    if (packed > in->left) {
        set_damaged(in->file, "truncated", err);
        return false;
    }
    if (!boot_file_read(in->file, in->offset, packed_buf, packed, err))
        return false;
    in->offset += packed;
    in->left -= packed;
    *produced = LZ4_decompress_safe((const char *)packed_buf, (char *)out, (int)packed, (int)LZ4_CHUNK);
    if (*produced < 0) {
        set_damaged(in->file, "damaged", err);
        return false;
    }
    return true;
}

/* The legacy frame: magic, then chunks of a 32-bit packed size and that many bytes, each unpacking to at most
 * 8 MiB. */
static bool lz4_chunks(struct input *in, uint8_t *packed_buf, uint32_t packed_max, uint8_t *out,
                       unpack_sink *sink, void *opaque, struct error **err)
{
    in->offset += 4;
    in->left -= 4;
    while (in->left > 4) {
        uint8_t word[4];
        int produced;
        if (!boot_file_read(in->file, in->offset, word, sizeof(word), err))
            return false;
        in->offset += 4;
        in->left -= 4;
        uint32_t packed = load_le32(word);
        if (packed == LZ4_MAGIC) /* a further frame */
            continue;
        if (packed == 0 || packed > packed_max) {
            set_damaged(in->file, "damaged", err);
            return false;
        }
        if (!lz4_chunk(in, packed, packed_buf, out, &produced, err) ||
            !sink(opaque, out, (size_t)produced, err))
            return false;
    }
    return true;
}

static bool unpack_lz4(struct input *in, unpack_sink *sink, void *opaque, struct error **err)
{
    uint32_t packed_max = (uint32_t)LZ4_compressBound((int)LZ4_CHUNK);
    size_t packed_size = round_up(packed_max, 2 * MIB);
    uint8_t *packed = scratch_new(packed_size);
    uint8_t *out = scratch_new(LZ4_CHUNK);
    bool ok = false;

    if (!packed || !out)
        error_set_errno(err, ENOMEM, "cannot unpack %s", in->file->name);
    else
        ok = lz4_chunks(in, packed, packed_max, out, sink, opaque, err);
    if (packed)
        munmap(packed, packed_size);
    if (out)
        munmap(out, LZ4_CHUNK);
    return ok;
}

bool unpack(const struct boot_file *f, uint64_t offset, uint64_t len, enum unpack_format format,
            unpack_sink *sink, void *opaque, struct error **err)
{
    if (format == UNPACK_UNKNOWN || len < UNPACK_MAGIC_LEN || !range_fits(offset, len, f->size)) {
        set_damaged(f, "in no known format", err);
        return false;
    }
    cleanup(mem) uint8_t *buf = malloc(CHUNK);
    if (!buf) {
        error_set_errno(err, ENOMEM, "cannot unpack %s", f->name);
        return false;
    }
    struct input in = {.file = f, .offset = offset, .left = len, .buf = buf};
    if (format == UNPACK_LZ4)
        return unpack_lz4(&in, sink, opaque, err);
    return unpack_stream(&codecs[format], &in, sink, opaque, err);
}
