/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making kernel images for tests: see boot_images.h. */
#include "boot_images.h"

#include <asm/bootparam.h>
#include <bzlib.h>
#include <elf.h>
#include <lz4.h>
#include <lz4hc.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/error.h"
#include "base/util.h"

#define NOTE_OFFSET 0x1000u
#define CODE_OFFSET 0x2000u
#define SETUP_SIZE  1024u /* one setup sector behind the boot sector */

/* cmocka's assertions are for tests; here a failure is a broken test program. */
static void must(bool ok)
{
    if (!ok)
        abort();
}

uint8_t image_pattern(size_t i)
{
    return (uint8_t)(i * 7 + i / 251 + 1);
}

static void put_code(struct image *im, size_t at)
{
    for (size_t i = 0; i < IMAGE_CODE; i++)
        im->data[at + i] = image_pattern(i);
    im->len = MAX(im->len, at + IMAGE_CODE);
}

static size_t put_note(struct image *im, size_t at)
{
    const struct {
        uint32_t name_len, desc_len, type;
        char name[4];
        uint32_t entry;
    } other = {4, 4, 99, "Xen", 0}, pvh = {4, 4, 18, "Xen", IMAGE_ENTRY};

    memcpy(im->data + at, &other, sizeof(other));
    memcpy(im->data + at + sizeof(other), &pvh, sizeof(pvh));
    return sizeof(other) + sizeof(pvh);
}

static void put_multiboot(struct image *im, size_t at)
{
    const uint32_t header[3] = {0x1badb002, 3, 0u - 0x1badb002u - 3u};
    memcpy(im->data + at, header, sizeof(header));
}

static void put_headers_64(struct image *im, size_t note_len)
{
    Elf64_Ehdr e = {.e_type = ET_EXEC,
                    .e_machine = EM_X86_64,
                    .e_version = EV_CURRENT,
                    .e_entry = IMAGE_ENTRY,
                    .e_phoff = sizeof(e),
                    .e_ehsize = sizeof(e),
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 2};
    const Elf64_Phdr p[2] = {{.p_type = PT_LOAD,
                              .p_offset = CODE_OFFSET,
                              .p_vaddr = 0xffffffff80000000u + IMAGE_BASE,
                              .p_paddr = IMAGE_BASE,
                              .p_filesz = IMAGE_CODE,
                              .p_memsz = IMAGE_MEM},
                             {.p_type = PT_NOTE, .p_offset = NOTE_OFFSET, .p_filesz = note_len}};

    memcpy(e.e_ident, ELFMAG, SELFMAG);
    e.e_ident[EI_CLASS] = ELFCLASS64;
    e.e_ident[EI_DATA] = ELFDATA2LSB;
    e.e_ident[EI_VERSION] = EV_CURRENT;
    memcpy(im->data, &e, sizeof(e));
    memcpy(im->data + sizeof(e), p, sizeof(p));
}

static void put_headers_32(struct image *im, size_t note_len)
{
    Elf32_Ehdr e = {.e_type = ET_EXEC,
                    .e_machine = EM_386,
                    .e_version = EV_CURRENT,
                    .e_entry = IMAGE_ENTRY,
                    .e_phoff = sizeof(e),
                    .e_ehsize = sizeof(e),
                    .e_phentsize = sizeof(Elf32_Phdr),
                    .e_phnum = 2};
    const Elf32_Phdr p[2] = {{.p_type = PT_LOAD,
                              .p_offset = CODE_OFFSET,
                              .p_vaddr = IMAGE_BASE,
                              .p_paddr = IMAGE_BASE,
                              .p_filesz = IMAGE_CODE,
                              .p_memsz = IMAGE_MEM},
                             {.p_type = PT_NOTE, .p_offset = NOTE_OFFSET, .p_filesz = (Elf32_Word)note_len}};

    memcpy(e.e_ident, ELFMAG, SELFMAG);
    e.e_ident[EI_CLASS] = ELFCLASS32;
    e.e_ident[EI_DATA] = ELFDATA2LSB;
    e.e_ident[EI_VERSION] = EV_CURRENT;
    memcpy(im->data, &e, sizeof(e));
    memcpy(im->data + sizeof(e), p, sizeof(p));
}

void image_elf(struct image *im, bool is_64, enum elf_extra extra)
{
    size_t note_len = 0;

    memset(im, 0, sizeof(*im));
    put_code(im, CODE_OFFSET);
    if (extra == ELF_PVH)
        note_len = put_note(im, NOTE_OFFSET);
    if (extra == ELF_MULTIBOOT)
        put_multiboot(im, 0x800);
    if (is_64)
        put_headers_64(im, note_len);
    else
        put_headers_32(im, note_len);
}

void image_kludge(struct image *im, size_t skip)
{
    const uint32_t header[8] = {0x1badb002,
                                0x10000,
                                0u - 0x1badb002u - 0x10000u,
                                IMAGE_BASE + 0x10,
                                IMAGE_BASE,
                                IMAGE_BASE + IMAGE_CODE,
                                IMAGE_BASE + IMAGE_MEM,
                                IMAGE_ENTRY};

    memset(im, 0, sizeof(*im));
    put_code(im, skip);
    memcpy(im->data + skip + 0x10, header, sizeof(header));
}

static size_t pack_lz4(const struct image *in, uint8_t *out, size_t room)
{
    const uint8_t magic[4] = {2, 0x21, 0x4c, 0x18};
    int n = LZ4_compress_HC((const char *)in->data, (char *)out + 8, (int)in->len, (int)room - 8, 9);

    must(n > 0);
    memcpy(out, magic, 4);
    store_le32(out + 4, (uint32_t)n);
    return (size_t)n + 8;
}

static size_t pack_lzma(const struct image *in, uint8_t *out, size_t room, bool xz)
{
    lzma_options_lzma lzma2;
    lzma_stream alone = LZMA_STREAM_INIT;
    size_t pos = 0;

    must(!lzma_lzma_preset(&lzma2, 6));
    if (xz) { /* as Linux's xz_wrap.sh: x86 branch filter, CRC32 */
        lzma_filter filters[] = {
            {LZMA_FILTER_X86, NULL}, {LZMA_FILTER_LZMA2, &lzma2}, {LZMA_VLI_UNKNOWN, NULL}};
        must(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, in->data, in->len, out, &pos, room) ==
             LZMA_OK);
        return pos;
    }
    must(lzma_alone_encoder(&alone, &lzma2) == LZMA_OK);
    alone.next_in = in->data;
    alone.avail_in = in->len;
    alone.next_out = out;
    alone.avail_out = room;
    must(lzma_code(&alone, LZMA_FINISH) == LZMA_STREAM_END);
    pos = alone.total_out;
    lzma_end(&alone);
    return pos;
}

static size_t pack_gzip(const struct image *in, uint8_t *out, size_t room)
{
    z_stream z = {0};

    must(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    z.next_in = (Bytef *)(uintptr_t)in->data;
    z.avail_in = (uInt)in->len;
    z.next_out = out;
    z.avail_out = (uInt)room;
    must(deflate(&z, Z_FINISH) == Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

static size_t pack(enum unpack_format format, const struct image *in, uint8_t *out, size_t room)
{
    unsigned bz_len = (unsigned)room;
    size_t n;

    switch (format) {
    case UNPACK_GZIP:
        return pack_gzip(in, out, room); /* brings its size along */
    case UNPACK_XZ:
    case UNPACK_LZMA:
        n = pack_lzma(in, out, room, format == UNPACK_XZ);
        break;
    case UNPACK_BZIP2:
        must(BZ2_bzBuffToBuffCompress((char *)out, &bz_len, (char *)(uintptr_t)in->data, (unsigned)in->len, 9,
                                      0, 0) == BZ_OK);
        n = bz_len;
        break;
    case UNPACK_LZ4:
        n = pack_lz4(in, out, room);
        break;
    case UNPACK_ZSTD:
        n = ZSTD_compress(out, room, in->data, in->len, 19);
        must(!ZSTD_isError(n));
        break;
    default:
        return 0;
    }
    store_le32(out + n, (uint32_t)in->len);
    return n + 4;
}

void image_bzimage(struct image *im, enum unpack_format format)
{
    static struct image kernel;
    const uint32_t payload_offset = 0x300;
    struct setup_header h = {.setup_sects = 1,
                             .boot_flag = 0xaa55,
                             .jump = 0x6aeb,
                             .header = 0x53726448,
                             .version = 0x020f,
                             .loadflags = LOADED_HIGH,
                             .code32_start = 0x100000,
                             .initrd_addr_max = 0x7fffffff,
                             .kernel_alignment = 0x200000,
                             .relocatable_kernel = 1,
                             .min_alignment = 21,
                             .xloadflags = XLF_KERNEL_64,
                             .cmdline_size = 2047,
                             .pref_address = IMAGE_BASE,
                             .init_size = 0x100000};

    memset(im, 0, sizeof(*im));
    put_code(im, SETUP_SIZE);
    if (format != UNPACK_UNKNOWN) {
        image_elf(&kernel, true, ELF_PLAIN);
        h.payload_offset = payload_offset;
        h.payload_length = (uint32_t)pack(format, &kernel, im->data + SETUP_SIZE + payload_offset,
                                          sizeof(im->data) - SETUP_SIZE - payload_offset);
        im->len = MAX(im->len, SETUP_SIZE + payload_offset + h.payload_length);
    }
    im->len = round_up(im->len, 16);
    h.syssize = (uint32_t)((im->len - SETUP_SIZE) / 16);
    memcpy(im->data + 0x1f1, &h, sizeof(h));
}

struct boot_file image_file(const void *data, size_t len)
{
    struct boot_file f;
    int fd = memfd_create("image", MFD_CLOEXEC);

    must(fd >= 0 && write(fd, data, len) == (ssize_t)len);
    if (!boot_file_adopt(&f, "image", fd, NULL))
        f.name = NULL; /* an empty file is refused */
    return f;
}
