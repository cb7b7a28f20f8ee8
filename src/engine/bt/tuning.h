/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sizes, and the optimisations that can be left out. Tests build the engine anew with other ones
 * (src/engine/bt/meson.build): "tiny" has so little of everything that each table overflows all the time,
 * "plain" does without whatever only makes it fast.
 */
#ifndef BT_TUNING_H
#define BT_TUNING_H

#ifdef BT_TINY
#define BT_TLB_BITS       2
#define BT_JC_BITS        4
#define BT_ITLB_SIZE      4u
#define BT_SPACES         2u
#define BT_SPACE_PAGES    3u
#define BT_LARGE_REGIONS  1u
#define BT_HASH_BITS      4
#define BT_BLOCK_INSNS    5
#define BT_MERGED_MAX     1u
#define BT_CACHE_SIZE     (2u * 1024 * 1024)
#define BT_CACHE_SEGMENTS 16
#else
#define BT_TLB_BITS       12
#define BT_JC_BITS        16
#define BT_ITLB_SIZE      256u
#define BT_SPACES         8u
#define BT_SPACE_PAGES    192u
#define BT_LARGE_REGIONS  16u
#define BT_HASH_BITS      18
#define BT_BLOCK_INSNS    48
#define BT_MERGED_MAX     8u /* checks of one block that serve more than one access */
/* A compiler of 25 MB of code fits, translated. Host memory is taken only as it fills. */
#define BT_CACHE_SIZE     (256u * 1024 * 1024)
#define BT_CACHE_SEGMENTS 16
#endif

#ifdef BT_PLAIN
enum {
    BT_MERGES = 0,
    BT_LOOPS = 0,
    BT_CHAINS = 0,
    BT_CACHES_JUMPS = 0,
    BT_LIVENESS = 0,
    BT_REGENERATES = 0,
    BT_STRINGS = 0
};
#else
enum {
    BT_MERGES = 1,       /* accesses of a block share checks */
    BT_LOOPS = 1,        /* a block that branches to itself is translated as a loop */
    BT_CHAINS = 1,       /* direct jumps go straight to their blocks */
    BT_CACHES_JUMPS = 1, /* indirect jumps go by the jump cache */
    BT_LIVENESS = 1,     /* flags that nobody reads are not kept */
    BT_REGENERATES = 1,  /* flags that only a fault would show are made again then */
    BT_STRINGS = 1,      /* REP STOS and MOVS within a page do not leave translated code */
};
#endif

#endif
