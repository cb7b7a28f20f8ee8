/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory for tables that are looked into at random: in huge pages where the host has some. */
#ifndef BT_TABLE_H
#define BT_TABLE_H

#include <stddef.h>

#define BT_HUGE_PAGE ((size_t)2 * 1024 * 1024)

/* Zeroed, and taken from the host as it is touched, in huge pages if it has that size; NULL: there is not
 * enough. */
void *bt_table_new(size_t size);
/* What of a table is touched little is better taken in small pages. `at` is at a huge page's beginning. */
void bt_table_small_pages(void *at, size_t size);
/* NULL: nothing to do. */
void bt_table_free(void *table, size_t size);

#endif
