/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest that writes its first virtio disk from end to end, goes on after errors, and reads back what was
 * acknowledged. Prints one sign for each piece, + where the write was acknowledged and - where it failed;
 * ends with the number of failed checks, as every test guest does.
 */
#include "guest.h"

enum { PIECE = 64 << 10, SECTOR = 512, PIECES_MAX = 4096, QUEUE = 8 };
enum { BLK_IN, BLK_OUT, BLK_FLUSH = 4 };
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_DEVICE = 4 };
enum { DESC_NEXT = 1, DESC_WRITE = 2 };

/* struct virtio_pci_common_cfg by offsets (virtio 1.2, section 4.1.4.3). */
enum {
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    DEVICE_STATUS = 20,
    QUEUE_SELECT = 22,
    QUEUE_SIZE = 24,
    QUEUE_ENABLE = 28,
    QUEUE_NOTIFY_OFF = 30,
    QUEUE_DESC = 32,
    QUEUE_DRIVER = 40,
    QUEUE_DEVICE = 48
};

static struct {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
} desc[QUEUE] __attribute__((aligned(16)));
static volatile struct {
    uint16_t flags, idx, ring[QUEUE];
} avail;
static volatile struct {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[QUEUE];
} used __attribute__((aligned(4)));
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static volatile uint8_t status;
static uint32_t piece[PIECE / 4], found[PIECE / 4];
static bool acknowledged[PIECES_MAX];

static volatile uint8_t *common, *config;
static volatile uint16_t *notify;

static inline void outl(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static void select_config(unsigned devfn, unsigned reg)
{
    outl(0xcf8, 0x80000000u | devfn << 8 | (reg & 0xfc));
}

static uint32_t pci_read(unsigned devfn, unsigned reg)
{
    select_config(devfn, reg);
    return inl(0xcfc) >> 8 * (reg & 3);
}

static volatile uint8_t *structure(unsigned devfn, unsigned cap)
{
    uint32_t bar = pci_read(devfn, 0x10 + 4 * (pci_read(devfn, cap + 4) & 0xff)) & ~15u;
    return (volatile uint8_t *)(uintptr_t)(bar + pci_read(devfn, cap + 8));
}

static void find_structures(unsigned devfn)
{
    volatile uint8_t *base = NULL;
    uint32_t multiplier = 0;
    for (unsigned cap = pci_read(devfn, 0x34) & 0xff; cap; cap = pci_read(devfn, cap + 1) & 0xff) {
        if ((pci_read(devfn, cap) & 0xff) != 9)
            continue;
        switch (pci_read(devfn, cap + 3) & 0xff) {
        case CAP_COMMON:
            common = structure(devfn, cap);
            break;
        case CAP_NOTIFY:
            base = structure(devfn, cap);
            multiplier = pci_read(devfn, cap + 16);
            break;
        case CAP_DEVICE:
            config = structure(devfn, cap);
            break;
        }
    }
    *(volatile uint16_t *)(common + QUEUE_SELECT) = 0;
    notify = (volatile uint16_t *)(base + multiplier * *(volatile uint16_t *)(common + QUEUE_NOTIFY_OFF));
}

static void put32(unsigned at, uint32_t v)
{
    *(volatile uint32_t *)(common + at) = v;
}

static void put_address(unsigned at, const volatile void *p)
{
    put32(at, (uint32_t)(uintptr_t)p);
    put32(at + 4, 0);
}

static void start_disk(void)
{
    unsigned devfn = 0;
    while (devfn < 256 && pci_read(devfn, 0) != 0x10421af4)
        devfn++;
    if (devfn == 256)
        panic("no disk");
    select_config(devfn, 4);
    outl(0xcfc, 6); /* memory, bus master */
    find_structures(devfn);
    common[DEVICE_STATUS] = 0;
    common[DEVICE_STATUS] = 3; /* acknowledge, driver */
    put32(DRIVER_FEATURE_SELECT, 0);
    put32(DRIVER_FEATURE, 1u << 9); /* flush */
    put32(DRIVER_FEATURE_SELECT, 1);
    put32(DRIVER_FEATURE, 1); /* version 1 */
    common[DEVICE_STATUS] = 11;
    if (!(common[DEVICE_STATUS] & 8))
        panic("the disk refuses the features");
    *(volatile uint16_t *)(common + QUEUE_SIZE) = QUEUE;
    put_address(QUEUE_DESC, desc);
    put_address(QUEUE_DRIVER, &avail);
    put_address(QUEUE_DEVICE, &used);
    *(volatile uint16_t *)(common + QUEUE_ENABLE) = 1;
    common[DEVICE_STATUS] = 15;
}

/* True when the disk says that it went well. */
static bool request(uint32_t type, uint64_t sector, void *data, uint32_t len)
{
    uint16_t done = used.idx;
    header.type = type;
    header.sector = sector;
    status = 0xff;
    desc[0].addr = (uintptr_t)&header;
    desc[0].len = sizeof(header);
    desc[0].flags = DESC_NEXT;
    desc[0].next = len ? 1 : 2;
    desc[1].addr = (uintptr_t)data;
    desc[1].len = len;
    desc[1].flags = type == BLK_IN ? DESC_NEXT | DESC_WRITE : DESC_NEXT;
    desc[1].next = 2;
    desc[2].addr = (uintptr_t)&status;
    desc[2].len = 1;
    desc[2].flags = DESC_WRITE;
    avail.ring[avail.idx % QUEUE] = 0;
    barrier();
    avail.idx++;
    barrier();
    *notify = 0;
    while (used.idx == done)
        pause();
    return status == 0;
}

/* What the test on the host expects as well. */
static void fill(uint32_t number)
{
    for (uint32_t i = 0; i < PIECE / 4; i++)
        piece[i] = number << 16 | i;
}

void guest_main(void)
{
    unsigned written = 0, failed = 0, wrong = 0;
    start_disk();
    unsigned pieces = (unsigned)(*(volatile uint64_t *)config * SECTOR / PIECE);
    if (pieces > PIECES_MAX)
        panic("the disk is too large");
    for (unsigned i = 0; i < pieces; i++) {
        fill(i + 1);
        acknowledged[i] = request(BLK_OUT, (uint64_t)i * (PIECE / SECTOR), piece, PIECE);
        written += acknowledged[i];
        failed += !acknowledged[i];
        print(acknowledged[i] ? "+" : "-");
    }
    print("\n");
    check(written > 0, "some of it can be written");
    check(failed > 0, "not all of it can be written");
    check(request(BLK_FLUSH, 0, NULL, 0), "what was written becomes durable");
    for (unsigned i = 0; i < pieces; i++) {
        if (!acknowledged[i])
            continue;
        fill(i + 1);
        bool good = request(BLK_IN, (uint64_t)i * (PIECE / SECTOR), found, PIECE);
        for (unsigned k = 0; k < PIECE / 4 && good; k++)
            good = piece[k] == found[k];
        wrong += !good;
    }
    check(wrong == 0, "all that was acknowledged is there");
}
