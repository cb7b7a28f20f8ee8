/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP without sockets: cutting a byte stream into messages, and answering one message. */
#ifndef VMM_QMP_MESSAGE_H
#define VMM_QMP_MESSAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "vmm/qmp.h"

/* How far a message under way has been looked at. All zero at its beginning. */
struct qmp_scan {
    size_t seen;
    size_t depth;
    bool bad_line, in_string, escaped;
};

/*
 * The length of the first message in buf[0, len), which begins with no white space; 0 when more bytes are
 * needed. A message is a balanced JSON object or array. Anything else, and a string with a line break in it,
 * is a message up to the end of that line, and a bad one. The scan goes on where it stopped; when a message
 * was found it is reset.
 */
size_t qmp_scan(struct qmp_scan *scan, const char *buf, size_t len);

/* The reply to one message; never NULL unless memory is short. *negotiated is the session's mode, and may
 * change. */
json_t *qmp_answer(const struct control_ops *ops, void *opaque, const char *text, size_t len,
                   bool *negotiated);

#endif
