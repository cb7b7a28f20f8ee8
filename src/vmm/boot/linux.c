/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Linux bzImage (Documentation/arch/x86/boot.rst in the kernel's source). The kernel proper is unpacked here
 * and entered where its own decompressor would jump to, which spares the guest most of a short boot. The
 * kernel runs at its link address then, so the relocations that follow the ELF file in the payload are not
 * needed. What cannot be unpacked (an unknown format, or an image that is no Linux at all, such as
 * memtest86+) is entered like a boot loader would.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "vmm/boot/boot.h"
#include "vmm/boot/elf.h"
#include "vmm/boot/unpack.h"

#define SECTOR             512u
#define HEADER_OFFSET      0x1f1u /* struct setup_header in the file and in struct boot_params */
#define HEADER_MAGIC       0x53726448u
#define BOOT_FLAG          0xaa55u
#define VERSION_MIN        0x0206u /* has cmdline_size; Linux 2.6.22 */
#define VERSION_PAYLOAD    0x0208u
#define VERSION_SETUP_DATA 0x0209u
#define VERSION_PREF       0x020au
#define VERSION_XLOADFLAGS 0x020cu
#define LOADER_UNDEFINED   0xff
#define VGA_NORMAL         0xffff
#define SETUP_TYPE_SEED    9 /* SETUP_RNG_SEED, Linux 5.20 */
#define SEED_LEN           32
#define ENTRY_64_OFFSET    0x200u
#define UNPACKED_MAX       (1 * GIB)

/* A bzImage being loaded. */
struct linux_image {
    struct boot_job *job;
    const char *name;
    struct setup_header hdr; /* fields past the version's end are zero */
    uint64_t code_offset;    /* the protected-mode part in the file */
    uint64_t code_size;
    /* The unpacked kernel, as a stream. */
    struct elf_image elf;
    bool elf_parsed;
    uint8_t *head; /* its first bytes, until they are enough for the ELF headers */
    size_t head_len;
    uint64_t unpacked, unpacked_size;
};

static bool refuse(const struct linux_image *li, const char *why, struct error **err)
{
    error_set(err, EINVAL, "cannot boot %s: %s", li->name, why);
    return false;
}

bool linux_probe(const struct boot_job *job)
{
    return job->head_len >= HEADER_OFFSET + sizeof(struct setup_header) &&
           load_le32(job->head + HEADER_OFFSET + offsetof(struct setup_header, header)) == HEADER_MAGIC &&
           load_le16(job->head + HEADER_OFFSET + offsetof(struct setup_header, boot_flag)) == BOOT_FLAG;
}

static bool read_header(struct linux_image *li, struct error **err)
{
    const uint8_t *head = li->job->head;
    struct setup_header *h = &li->hdr;
    /* The header ends where the jump at its beginning leads to; 0x202 is the byte after that jump. */
    size_t end = 0x202u + head[0x201];
    size_t len = MIN(MAX(end, HEADER_OFFSET) - HEADER_OFFSET, sizeof(*h));

    memset(h, 0, sizeof(*h));
    memcpy(h, head + HEADER_OFFSET, len);
    if (h->version < VERSION_MIN)
        return refuse(li, "its boot protocol is older than 2.06", err);
    if (!(h->loadflags & LOADED_HIGH))
        return refuse(li, "it is a zImage, which loads below 1 MiB", err);
    li->code_offset = ((uint64_t)(h->setup_sects ? h->setup_sects : 4) + 1) * SECTOR;
    if (li->code_offset >= li->job->src->kernel.size)
        return refuse(li, "the file is truncated within its setup code", err);
    li->code_size = li->job->src->kernel.size - li->code_offset;
    /* syssize counts paragraphs, rounded up. */
    if ((uint64_t)h->syssize * 16 >= li->code_size + 16) {
        error_set(err, EINVAL, "cannot boot %s: the file is truncated: %llu bytes of code wanted, %llu there",
                  li->name, (unsigned long long)h->syssize * 16, (unsigned long long)li->code_size);
        return false;
    }
    return true;
}

static bool is_64bit(const struct linux_image *li)
{
    return li->hdr.version >= VERSION_XLOADFLAGS && (li->hdr.xloadflags & XLF_KERNEL_64);
}

static bool parse_unpacked(struct linux_image *li, struct error **err)
{
    li->elf_parsed = true;
    if (!elf_parse(&li->elf, li->head, li->head_len, li->unpacked_size, li->name, err))
        return false;
    if (!elf_covers(&li->elf, li->elf.entry))
        return refuse(li, "the entry point of the unpacked kernel is outside of it", err);
    if (!elf_claim(&li->elf, &li->job->space, li->name, err))
        return false;
    elf_scatter(&li->elf, &li->job->space, 0, li->head, li->head_len);
    return true;
}

/* unpack_sink: gathers the headers first, then puts each piece where the segments want it. */
static bool take_unpacked(void *opaque, const uint8_t *data, size_t len, struct error **err)
{
    struct linux_image *li = opaque;
    uint64_t start = li->unpacked;

    if (len > li->unpacked_size - start)
        return refuse(li, "its payload unpacks to more than it says (damaged file)", err);
    li->unpacked += len;
    if (!li->elf_parsed) {
        size_t n = MIN(len, ELF_HEAD_MAX - li->head_len);
        memcpy(li->head + li->head_len, data, n);
        li->head_len += n;
        if (li->head_len < MIN(ELF_HEAD_MAX, li->unpacked_size))
            return true;
        if (!parse_unpacked(li, err))
            return false;
        data += n;
        len -= n;
        start += n;
    }
    elf_scatter(&li->elf, &li->job->space, start, data, len);
    return true;
}

/* The payload's range in the file, which it is known to fit in, and its format; UNPACK_UNKNOWN when the guest
 * must see to it. */
static enum unpack_format find_payload(struct linux_image *li, uint64_t *offset, uint64_t *len)
{
    const struct setup_header *h = &li->hdr;
    uint8_t magic[UNPACK_MAGIC_LEN];

    if (h->version < VERSION_PAYLOAD || h->payload_length < sizeof(magic) + 4)
        return UNPACK_UNKNOWN;
    *offset = li->code_offset + h->payload_offset;
    *len = h->payload_length;
    if (!boot_file_read(&li->job->src->kernel, *offset, magic, sizeof(magic), NULL))
        return UNPACK_UNKNOWN;
    return unpack_probe(magic);
}

/* gzip ends with the unpacked size by itself; for the other formats the kernel's build appends it. */
static bool unpack_kernel(struct linux_image *li, enum unpack_format format, uint64_t offset, uint64_t len,
                          struct error **err)
{
    const struct boot_file *f = &li->job->src->kernel;
    uint8_t word[4];

    if (!boot_file_read(f, offset + len - 4, word, sizeof(word), err))
        return false;
    li->unpacked_size = load_le32(word);
    if (li->unpacked_size == 0 || li->unpacked_size > UNPACKED_MAX)
        return refuse(li, "the size of its unpacked kernel makes no sense (damaged file)", err);
    cleanup(mem) uint8_t *head = malloc(ELF_HEAD_MAX);
    if (!head)
        return refuse(li, "out of memory", err);
    li->head = head;
    bool ok = unpack(f, offset, format == UNPACK_GZIP ? len : len - 4, format, take_unpacked, li, err);
    li->head = NULL;
    if (!ok)
        return false;
    if (li->unpacked != li->unpacked_size)
        return refuse(li, "its payload unpacks to less than it says (damaged file)", err);
    return true;
}

/* Places the whole image for its own decompressor; the entry is left in entry->rip. */
static bool load_packed(struct linux_image *li, struct error **err)
{
    const struct setup_header *h = &li->hdr;
    struct boot_space *s = &li->job->space;
    bool moves = h->version >= VERSION_PREF && h->relocatable_kernel;
    uint64_t base = moves ? h->pref_address : h->code32_start;
    uint64_t size = h->version >= VERSION_PREF ? MAX(h->init_size, li->code_size) : li->code_size;

    if (base >= 4 * GIB)
        return refuse(li, "it wants to be loaded above 4 GiB", err);
    if (!boot_space_claim(s, base, size, "kernel", li->name, err) ||
        !boot_space_load(s, base, &li->job->src->kernel, li->code_offset, li->code_size, err))
        return false;
    boot_space_zero(s, base + li->code_size, size - li->code_size);
    li->hdr.code32_start = (uint32_t)base;
    li->job->entry->rip = base + (is_64bit(li) ? ENTRY_64_OFFSET : 0);
    return true;
}

static bool load_initrd(struct linux_image *li, struct boot_params *bp, struct error **err)
{
    const struct boot_file *f = &li->job->src->initrd;
    struct boot_space *s = &li->job->space;
    uint64_t max = MIN((uint64_t)li->hdr.initrd_addr_max + 1, 4 * GIB);
    uint64_t at = boot_space_find(s, f->size, GUEST_PAGE_SIZE, BOOT_HIGH_START, max, true, "initrd", NULL);

    if (at == BOOT_NOWHERE) {
        bool high = is_64bit(li) && (li->hdr.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G);
        at = boot_space_find(s, f->size, GUEST_PAGE_SIZE, BOOT_HIGH_START, high ? UINT64_MAX : max, true,
                             "initrd", err);
        if (at == BOOT_NOWHERE)
            return false;
    }
    if (!boot_space_load(s, at, f, 0, f->size, err))
        return false;
    bp->hdr.ramdisk_image = (uint32_t)at;
    bp->hdr.ramdisk_size = (uint32_t)f->size;
    bp->ext_ramdisk_image = (uint32_t)(at >> 32);
    bp->ext_ramdisk_size = (uint32_t)(f->size >> 32);
    return true;
}

static bool put_cmdline(struct linux_image *li, struct boot_params *bp, struct error **err)
{
    const char *text = li->job->src->cmdline ? li->job->src->cmdline : "";

    if (strlen(text) > li->hdr.cmdline_size) {
        error_set(err, E2BIG, "cannot boot %s: the command line has %zu characters, the kernel takes %u",
                  li->name, strlen(text), li->hdr.cmdline_size);
        return false;
    }
    uint64_t at = boot_put_string(li->job, text, "command line", err);
    if (at == BOOT_NOWHERE)
        return false;
    bp->hdr.cmd_line_ptr = (uint32_t)at;
    return true;
}

/* Randomness for the guest's generator, so that it need not wait for any. */
static bool put_seed(struct linux_image *li, struct boot_params *bp, struct error **err)
{
    struct { /* struct setup_data */
        uint64_t next;
        uint32_t type, len;
        uint8_t seed[SEED_LEN];
    } item = {.type = SETUP_TYPE_SEED, .len = SEED_LEN};

    if (li->hdr.version < VERSION_SETUP_DATA || getrandom(item.seed, SEED_LEN, 0) != SEED_LEN)
        return true;
    uint64_t at =
        boot_space_find(&li->job->space, sizeof(item), 16, 0, BOOT_LOW_END, false, "random seed", err);
    if (at == BOOT_NOWHERE)
        return false;
    boot_space_write(&li->job->space, at, &item, sizeof(item));
    bp->hdr.setup_data = at;
    return true;
}

static void put_memory_map(const struct linux_image *li, struct boot_params *bp)
{
    struct boot_memory_range map[BOOT_MEMORY_MAP_MAX];
    unsigned n = boot_memory_map(li->job->space.mem, map);

    for (unsigned i = 0; i < n; i++)
        bp->e820_table[i] = (struct boot_e820_entry){
            .addr = map[i].start, .size = map[i].size, .type = (uint32_t)map[i].type};
    bp->e820_entries = (uint8_t)n;
    uint64_t above_1m =
        (li->job->space.mem->ram_low - MIN(li->job->space.mem->ram_low, BOOT_HIGH_START)) / KIB;
    bp->alt_mem_k = (uint32_t)above_1m;
    bp->screen_info.ext_mem_k = (uint16_t)MIN(above_1m, 0xfc00u);
}

/* The zero page (Documentation/arch/x86/zero-page.rst) and what it points to. */
static bool put_boot_params(struct linux_image *li, struct error **err)
{
    struct boot_params bp = {.hdr = li->hdr};
    struct boot_job *job = li->job;
    uint64_t at = boot_space_find(&job->space, sizeof(bp), GUEST_PAGE_SIZE, 0, BOOT_LOW_END, false,
                                  "boot parameters", err);

    if (at == BOOT_NOWHERE)
        return false;
    bp.hdr.type_of_loader = LOADER_UNDEFINED;
    bp.hdr.vid_mode = VGA_NORMAL;
    bp.hdr.ramdisk_image = bp.hdr.ramdisk_size = 0;
    bp.hdr.setup_data = 0;
    bp.acpi_rsdp_addr = job->rsdp;
    put_memory_map(li, &bp);
    if (!put_cmdline(li, &bp, err) || !put_seed(li, &bp, err))
        return false;
    if (job->src->initrd.name && !load_initrd(li, &bp, err))
        return false;
    boot_space_write(&job->space, at, &bp, sizeof(bp));
    job->entry->rsi = at;
    return true;
}

static bool load_kernel(struct linux_image *li, enum boot_mode *mode, struct error **err)
{
    uint64_t offset, len;
    const struct setup_header *h = &li->hdr;
    if (h->version >= VERSION_PAYLOAD && !range_fits(h->payload_offset, h->payload_length, li->code_size))
        return refuse(li, "the file is truncated within its packed kernel", err);
    enum unpack_format format = find_payload(li, &offset, &len);

    if (format == UNPACK_UNKNOWN) {
        *mode = is_64bit(li) ? BOOT_MODE_LONG : BOOT_MODE_PROTECTED;
        return load_packed(li, err);
    }
    if (!unpack_kernel(li, format, offset, len, err))
        return false;
    *mode = li->elf.is_64 ? BOOT_MODE_LONG : BOOT_MODE_PROTECTED;
    li->job->entry->rip = li->elf.entry;
    return true;
}

bool linux_load(struct boot_job *job, struct error **err)
{
    struct linux_image li = {.job = job, .name = job->src->kernel.name};
    enum boot_mode mode;

    if (job->src->module_count > 0)
        return refuse(&li, "it is a Linux kernel and takes no modules", err);
    if (!read_header(&li, err) || !load_kernel(&li, &mode, err))
        return false;
    uint64_t rip = job->entry->rip;
    if (!boot_entry_prepare(job->entry, &job->space, mode, err))
        return false;
    job->entry->rip = rip;
    return put_boot_params(&li, err);
}
