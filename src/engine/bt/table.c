/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory for large tables: see table.h. */
#include "engine/bt/table.h"

#include <stdint.h>
#include <sys/mman.h>

#include "base/util.h"

void *bt_table_new(size_t size)
{
    size_t span = size + BT_HUGE_PAGE;
    uint8_t *area =
        mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)area & (BT_HUGE_PAGE - 1), used = round_up(size, 4096);
    if (before)
        munmap(area, before);
    munmap(area + before + used, span - before - used);
    if (used >= BT_HUGE_PAGE)
        madvise(area + before, used, MADV_HUGEPAGE);
    return area + before;
}

void bt_table_small_pages(void *at, size_t size)
{
    madvise(at, size, MADV_NOHUGEPAGE);
}

void bt_table_free(void *table, size_t size)
{
    if (table)
        munmap(table, round_up(size, 4096));
}
