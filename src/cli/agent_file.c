/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files by a guest agent: see agent_file.h. */
#include "cli/agent_file.h"

#include <errno.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"

static bool nonsense(struct error **err)
{
    error_set(err, EPROTO, "the guest agent's reply on a file is not what the protocol has");
    return false;
}

int64_t agent_file_open(struct agent *a, const char *path, const char *mode, struct error **err)
{
    json_t *arguments = json_pack("{s:s, s:s}", "path", path, "mode", mode);
    if (!arguments)
        return error_set(err, EINVAL, "'%s' is not UTF-8, which the guest agent's protocol wants", path), -1;
    json_t *handle = agent_call(a, "guest-file-open", arguments, AGENT_REPLY, err);
    int64_t number = json_is_integer(handle) ? json_integer_value(handle) : -1;
    if (handle && number < 0)
        nonsense(err);
    json_decref(handle);
    return number;
}

bool agent_file_close(struct agent *a, int64_t handle, struct error **err)
{
    return agent_do(a, "guest-file-close", json_pack("{s:I}", "handle", (json_int_t)handle), err);
}

/* How much of it was written; 0 and *err on failure. */
static size_t write_some(struct agent *a, int64_t handle, const char *data, size_t len, struct error **err)
{
    cleanup(mem) char *text = base64_encode(data, len);
    json_t *reply = agent_call(
        a, "guest-file-write",
        json_pack("{s:I, s:s}", "handle", (json_int_t)handle, "buf-b64", text ? text : ""), AGENT_REPLY, err);
    json_int_t n = json_integer_value(json_object_get(reply, "count"));
    bool ok = n > 0 && (size_t)n <= len;
    if (reply && !ok)
        nonsense(err);
    json_decref(reply);
    return ok ? (size_t)n : 0;
}

bool agent_file_write(struct agent *a, int64_t handle, const void *data, size_t len, struct error **err)
{
    for (size_t done = 0, n; done < len; done += n) {
        n = write_some(a, handle, (const char *)data + done, len - done, err);
        if (!n)
            return false;
    }
    return true;
}

ssize_t agent_file_read(struct agent *a, int64_t handle, uint8_t data[AGENT_CHUNK], struct error **err)
{
    json_t *reply = agent_call(a, "guest-file-read",
                               json_pack("{s:I, s:i}", "handle", (json_int_t)handle, "count", AGENT_CHUNK),
                               AGENT_REPLY, err);
    const json_t *text = json_object_get(reply, "buf-b64");
    json_int_t count = json_integer_value(json_object_get(reply, "count"));
    size_t len = 0;
    bool ok = json_string_length(text) <= AGENT_CHUNK / 3 * 4 &&
              base64_decode(json_is_string(text) ? json_string_value(text) : "", json_string_length(text),
                            data, &len) &&
              count == (json_int_t)len && (len || json_is_true(json_object_get(reply, "eof")));
    if (reply && !ok)
        nonsense(err);
    json_decref(reply);
    return ok ? (ssize_t)len : -1;
}
