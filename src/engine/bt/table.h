/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory for tables that are looked into at random: in huge pages where the host has some. */
#ifndef BT_TABLE_H
#define BT_TABLE_H

#include <stddef.h>

/* Zeroed, and taken from the host as it is touched; NULL: there is not enough. */
void *bt_table_new(size_t size);
/* NULL: nothing to do. */
void bt_table_free(void *table, size_t size);

#endif
