/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files of a guest, by its agent. One thread. */
#ifndef CLI_AGENT_FILE_H
#define CLI_AGENT_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "cli/agent.h"

#define AGENT_CHUNK 196608 /* bytes at a time: 256 KiB in base64 */

/* `mode` as of fopen. A handle, which outlives turns and this process; -1 and *err on failure. */
int64_t agent_file_open(struct agent *a, const char *path, const char *mode, struct error **err);
bool agent_file_close(struct agent *a, int64_t handle, struct error **err);
bool agent_file_write(struct agent *a, int64_t handle, const void *data, size_t len, struct error **err);
/* Bytes read, 0 at the end only; -1 and *err on failure. */
ssize_t agent_file_read(struct agent *a, int64_t handle, uint8_t data[AGENT_CHUNK], struct error **err);

#endif
