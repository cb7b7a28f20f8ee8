/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cutting and answering QMP messages: see qmp_message.h. */
#include "vmm/qmp_message.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

/* Clients ask by version which commands and fields to expect: those are QEMU 7.2's. */
#define QEMU_MAJOR 7
#define QEMU_MINOR 2
#define QEMU_MICRO 0

const struct qmp_command *const qmp_command_tables[] = {
    qmp_block_commands, qmp_chardev_commands, qmp_cpu_commands,  qmp_job_commands,   qmp_migrate_commands,
    qmp_power_commands, qmp_query_commands,   qmp_save_commands, qmp_stats_commands, NULL,
};

const struct qmp_command *qmp_command_find(const char *name)
{
    for (unsigned t = 0; qmp_command_tables[t]; t++)
        for (const struct qmp_command *c = qmp_command_tables[t]; c->name; c++)
            if (!strcmp(c->name, name))
                return c;
    return NULL;
}

json_t *qmp_version(void)
{
    return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "major", QEMU_MAJOR, "minor", QEMU_MINOR, "micro",
                     QEMU_MICRO, "package", "Ruche " RUCHE_VERSION);
}

/* Looks at one byte; true when it ends the message. */
static bool scan_byte(struct qmp_scan *s, char c)
{
    if (s->seen == 0)
        s->bad_line = c != '{' && c != '[';
    if (s->bad_line)
        return c == '\n';
    if (s->in_string) {
        if (s->escaped)
            s->escaped = false;
        else if (c == '\\')
            s->escaped = true;
        else if (c == '"')
            s->in_string = false;
        return c == '\n';
    }
    if (c == '"')
        s->in_string = true;
    else if (c == '{' || c == '[')
        s->depth++;
    else if (c == '}' || c == ']')
        s->depth--;
    return s->depth == 0;
}

size_t qmp_scan(struct qmp_scan *s, const char *buf, size_t len)
{
    while (s->seen < len) {
        bool end = scan_byte(s, buf[s->seen]);
        s->seen++;
        if (end) {
            size_t found = s->seen;
            *s = (struct qmp_scan){0};
            return found;
        }
    }
    return 0;
}

static json_t *error_reply(const char *cls, const char *desc)
{
    json_t *o = json_pack("{s:{s:s, s:s}}", "error", "class", cls, "desc", desc);

    /* The text may quote a client's bytes; what is no UTF-8 is not repeated. */
    return o ? o : json_pack("{s:{s:s, s:s}}", "error", "class", cls, "desc", "invalid request");
}

/* As error_reply with a name in the middle. */
static json_t *error_about(const char *cls, const char *before, const char *name, const char *after)
{
    struct error *err = NULL;

    error_set(&err, 0, "%s%s%s", before, name, after);
    json_t *o = error_reply(cls, error_text(err));
    error_free(err);
    return o;
}

/* Checks the form of a request; NULL when it is right, else the error reply. */
static json_t *check_form(const json_t *request)
{
    const char *key;
    json_t *value;

    if (!json_is_object(request))
        return error_reply("GenericError", "QMP input must be a JSON object");
    /* jansson's iteration does not change the object, but is not declared so */
    json_object_foreach((json_t *)(uintptr_t)request, key, value)
    {
        if (strcmp(key, "execute") != 0 && strcmp(key, "arguments") != 0 && strcmp(key, "id") != 0)
            return error_about("GenericError", "QMP input member '", key, "' is unexpected");
    }
    const json_t *execute = json_object_get(request, "execute");
    const json_t *arguments = json_object_get(request, "arguments");
    if (!execute)
        return error_reply("GenericError", "QMP input lacks member 'execute'");
    if (!json_is_string(execute))
        return error_reply("GenericError", "QMP input member 'execute' must be a string");
    if (arguments && !json_is_object(arguments))
        return error_reply("GenericError", "QMP input member 'arguments' must be an object");
    return NULL;
}

/* qmp_capabilities: there is nothing that a client could enable. */
static json_t *negotiate(const json_t *arguments, bool *negotiated)
{
    const json_t *enable = json_object_get(arguments, "enable");

    if (*negotiated)
        return error_reply("CommandNotFound",
                           "Capabilities negotiation is already complete, command ignored");
    if (enable && (!json_is_array(enable) || json_array_size(enable) > 0))
        return error_reply("GenericError", "This server has no capabilities to enable");
    *negotiated = true;
    return json_pack("{s:{}}", "return");
}

static bool takes(const struct qmp_command *command, const char *key)
{
    size_t len = strlen(key);
    for (const char *at = command->parameters; at && *at; at += strcspn(at, ",")) {
        at += *at == ',';
        if (strcspn(at, ",") == len && !strncmp(at, key, len))
            return true;
    }
    return false;
}

static json_t *execute(const struct control_ops *ops, void *opaque, const json_t *request, bool *negotiated)
{
    const char *name = json_string_value(json_object_get(request, "execute"));
    const json_t *arguments = json_object_get(request, "arguments");
    struct qmp_call call = {ops, opaque, arguments};
    struct error *err = NULL;

    if (!strcmp(name, "qmp_capabilities"))
        return negotiate(arguments, negotiated);
    if (!*negotiated)
        return error_reply("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
    const struct qmp_command *command = qmp_command_find(name);
    if (!command)
        return error_about("CommandNotFound", "The command ", name, " has not been found");
    const char *key;
    json_t *argument;
    json_object_foreach((json_t *)(uintptr_t)arguments, key, argument)
    {
        if (!takes(command, key))
            return error_about("GenericError", "Parameter '", key, "' is unexpected");
    }
    json_t *value = command->run(&call, &err);
    if (value)
        return json_pack("{s:o}", "return", value);
    json_t *reply = error_reply("GenericError", error_text(err));
    error_free(err);
    return reply;
}

json_t *qmp_answer(const struct control_ops *ops, void *opaque, const char *text, size_t len,
                   bool *negotiated)
{
    json_t *request = json_loadb(text, len, JSON_DECODE_ANY, NULL);

    if (!request)
        return error_reply("GenericError", "JSON parse error, the input is not a JSON value");
    json_t *reply = check_form(request);
    if (!reply)
        reply = execute(ops, opaque, request, negotiated);
    const json_t *id = json_object_get(request, "id");
    if (reply && id)
        json_object_set(reply, "id", (json_t *)(uintptr_t)id);
    json_decref(request);
    return reply;
}
