/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ports: shared by IN, OUT and the string forms. */
#ifndef BT_IO_H
#define BT_IO_H

#include "engine/bt/bt.h"

/* Whether the current privilege may use ports [port, port + size); else cpu->exc is set. gpr-only. */
bool bt_io_allowed(struct bt_cpu *cpu, uint16_t port, unsigned size);
/* The access itself. Vectors are saved. */
uint32_t bt_io_read(struct bt_cpu *cpu, uint16_t port, unsigned size);
void bt_io_write(struct bt_cpu *cpu, uint16_t port, unsigned size, uint32_t value);

#endif
