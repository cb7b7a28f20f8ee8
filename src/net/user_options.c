/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See user_options.h. */
#include "net/user_options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"

static bool parse_port(const char *text, uint16_t *port)
{
    uint64_t v;
    if (!text || !parse_uint(text, &v) || v < 1 || v > 65535)
        return false;
    *port = (uint16_t)v;
    return true;
}

/* tcp|udp:[ADDR:]HOSTPORT:GUESTPORT; cuts `text` into pieces. */
static bool parse_forward(char *text, struct user_forward *f)
{
    char *piece[4];
    unsigned count = 0;
    for (char *p; (p = strsep(&text, ":"));) {
        if (count == 4)
            return false;
        piece[count++] = p;
    }
    if (count < 3 || (strcmp(piece[0], "tcp") != 0 && strcmp(piece[0], "udp") != 0))
        return false;
    f->udp = piece[0][0] == 'u';
    f->host_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (count == 4 && inet_pton(AF_INET, piece[1], &f->host_addr) != 1)
        return false;
    return parse_port(piece[count - 2], &f->host_port) && parse_port(piece[count - 1], &f->guest_port);
}

static bool set_option(struct user_options *out, const char *key, char *value, struct error **err)
{
    if (strcmp(key, "forward") == 0) {
        if (out->forward_count == USER_FORWARD_MAX) {
            error_set(err, EINVAL, "user network: more than %d forwarded ports", USER_FORWARD_MAX);
            return false;
        }
        cleanup(mem) char *copy = strdup(value);
        if (!copy || !parse_forward(value, &out->forward[out->forward_count])) {
            error_set(err, EINVAL, "user network: forward=%s is not tcp|udp:[ADDR:]HOSTPORT:GUESTPORT",
                      copy ? copy : "");
            return false;
        }
        out->forward_count++;
        return true;
    }
    if (strcmp(key, "restrict") == 0) {
        if (parse_bool(value, &out->restricted))
            return true;
        error_set(err, EINVAL, "user network: restrict=%s is neither on nor off", value);
        return false;
    }
    if (strcmp(key, "hostname") == 0) {
        if (strlen(value) < sizeof(out->hostname)) {
            memcpy(out->hostname, value, strlen(value) + 1);
            return true;
        }
        error_set(err, EINVAL, "user network: hostname=%s is too long", value);
        return false;
    }
    error_set(err, EINVAL, "the user network has no option \"%s\"", key);
    return false;
}

bool user_options_parse(const char *text, struct user_options *out, struct error **err)
{
    *out = (struct user_options){0};
    cleanup(mem) char *copy = strdup(text);
    if (!copy) {
        error_set_errno(err, ENOMEM, "cannot read the options of the user network");
        return false;
    }
    char *rest = copy;
    for (char *item; (item = strsep(&rest, ","));) {
        if (!*item)
            continue;
        char *value = strchr(item, '=');
        if (!value) {
            error_set(err, EINVAL, "user network: option \"%s\" has no value", item);
            return false;
        }
        *value++ = '\0';
        if (!set_option(out, item, value, err))
            return false;
    }
    return true;
}
