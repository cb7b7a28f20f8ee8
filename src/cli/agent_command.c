/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands by a guest agent: see agent_command.h. */
#include "cli/agent_command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/file.h"
#include "cli/interrupt.h"
#include "cli/verb.h"
#include "os/loop.h"

#define FIRST_MS   2     /* to the first question whether it has ended, */
#define PAUSE_MS   20    /* from which others may ask meanwhile, */
#define LONGEST_MS 500   /* and at most between two */
#define GRACE_MS   10000 /* from SIGKILL to its end */

/* --- starting --- */

/* Texts as a list; NULL when one is no text. */
static json_t *list_of(const char *const *words)
{
    json_t *list = json_array();
    for (; *words; words++) {
        if (json_array_append_new(list, json_string(*words)) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* The arguments of guest-exec; NULL and *err when they cannot be said in JSON. */
static json_t *request_for(const struct agent_command *c, struct error **err)
{
    json_t *words = list_of(c->words + 1), *path = json_string(c->words[0]);
    cleanup(mem) char *input = c->input ? base64_encode(c->input, c->input_len) : NULL;
    if (!words || !path || (c->input && !input)) {
        json_decref(words);
        json_decref(path);
        error_set(err, EINVAL, "run '%s': not all of its words are UTF-8, which the agent's protocol wants",
                  c->words[0]);
        return NULL;
    }
    json_t *o = json_pack("{s:o, s:o, s:b}", "path", path, "arg", words, "capture-output", true);
    if (input)
        json_object_set_new(o, "input-data", json_string(input));
    return o;
}

/* The process's number in the guest; -1 and *err. */
static json_int_t start(struct agent *a, const struct agent_command *c, struct error **err)
{
    json_t *request = request_for(c, err);
    json_t *reply = request ? agent_call(a, "guest-exec", request, AGENT_REPLY, err) : NULL;
    const json_t *pid = json_object_get(reply, "pid");
    json_int_t number = json_is_integer(pid) ? json_integer_value(pid) : -1;
    if (reply && number < 0)
        error_set(err, EPROTO, "run '%s': the guest agent gives no process", c->words[0]);
    json_decref(reply);
    return number;
}

/* --- ending --- */

/* One of the streams; what is no base64 is no reply. */
static bool take_stream(const json_t *reply, const char *key, uint8_t **data, size_t *len)
{
    const json_t *text = json_object_get(reply, key);
    size_t size = json_string_length(text);
    *data = NULL;
    *len = 0;
    if (!text)
        return true;
    *data = malloc(size + 1);
    return *data && json_is_string(text) && base64_decode(json_string_value(text), size, *data, len);
}

static bool take_end(const json_t *reply, struct agent_result *r, struct error **err)
{
    const json_t *number = json_object_get(reply, "signal");
    r->status = number ? EXIT_SIGNAL : 0;
    number = number ? number : json_object_get(reply, "exitcode");
    r->status = (int)((r->status + json_integer_value(number)) & 0xff);
    r->cut = json_is_true(json_object_get(reply, "out-truncated")) ||
             json_is_true(json_object_get(reply, "err-truncated"));
    if (take_stream(reply, "out-data", &r->out, &r->out_len) &&
        take_stream(reply, "err-data", &r->err, &r->err_len) && json_is_integer(number))
        return true;
    agent_result_release(r);
    error_set(err, EPROTO, "the guest agent's reply on the command's end is not what the protocol has");
    return false;
}

/* 1 when it has ended, 0 when not yet; -1 and *err. */
static int ask(struct agent *a, json_int_t pid, struct agent_result *r, struct error **err)
{
    json_t *reply =
        agent_call(a, "guest-exec-status", json_pack("{s:I}", "pid", pid), AGENT_REPLY_BULKY, err);
    int ended = !reply ? -1 : json_is_true(json_object_get(reply, "exited"));
    if (ended > 0 && !take_end(reply, r, err))
        ended = -1;
    json_decref(reply);
    return ended;
}

/* Asks ever less often; gives up at the deadline (0: none) or when we are interrupted. As `ask`. */
static int await(struct agent *a, json_int_t pid, uint64_t deadline, struct agent_result *r,
                 struct error **err)
{
    unsigned ms = FIRST_MS;
    int ended;
    while ((ended = ask(a, pid, r, err)) == 0 && !interrupt_pending()) {
        uint64_t now = monotonic_ns();
        if (deadline && now >= deadline)
            break;
        if (ms >= PAUSE_MS)
            agent_pause(a);
        uint64_t ns = ms * (uint64_t)1000000;
        usleep((useconds_t)((deadline ? MIN(ns, deadline - now) : ns) / 1000));
        ms = MIN(ms * 2, LONGEST_MS);
    }
    return ended;
}

/* Has the guest's shell do it, as the protocol has no word for it. */
static void kill_process(struct agent *a, json_int_t pid)
{
    cleanup(mem) char *line = catalog_format("kill -KILL %lld", (long long)pid);
    const char *const words[] = {"sh", "-c", line, NULL};
    const struct agent_command c = {.words = words};
    struct agent_result r = {0};
    json_int_t helper = start(a, &c, NULL);
    if (helper >= 0 && await(a, helper, monotonic_ns() + GRACE_MS * (uint64_t)1000000, &r, NULL) > 0)
        agent_result_release(&r);
}

bool agent_run(struct agent *a, const struct agent_command *c, struct agent_result *r, struct error **err)
{
    struct error *why = NULL;
    uint64_t deadline = c->timeout_ms ? monotonic_ns() + (uint64_t)c->timeout_ms * 1000000 : 0;
    *r = (struct agent_result){0};
    json_int_t pid = start(a, c, err);
    if (pid < 0)
        return false;
    int ended = await(a, pid, deadline, r, &why);
    if (ended == 0 || (why && why->code == EINTR)) {
        int number = interrupt_take();
        error_free(why);
        why = NULL;
        kill_process(a, pid);
        ended = await(a, pid, monotonic_ns() + GRACE_MS * (uint64_t)1000000, r, &why);
        r->interrupted = number;
        r->timed_out = !number;
        if (ended == 0)
            error_set(&why, ETIMEDOUT, "process %lld of the guest does not end, not even killed",
                      (long long)pid);
    }
    error_prefix(err, why, "run '%s'", c->words[0]);
    return ended > 0;
}

void agent_result_release(struct agent_result *r)
{
    free(r->out);
    free(r->err);
    *r = (struct agent_result){0};
}
