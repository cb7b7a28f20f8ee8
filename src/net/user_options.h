/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The options of --net user,...: forward=tcp|udp:[ADDR:]HOSTPORT:GUESTPORT (repeatable), restrict=on|off,
 * hostname=NAME. */
#ifndef NET_USER_OPTIONS_H
#define NET_USER_OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct error;

#define USER_FORWARD_MAX 64

struct user_forward {
    bool udp;
    struct in_addr host_addr; /* 127.0.0.1 unless given */
    uint16_t host_port, guest_port;
};

struct user_options {
    bool restricted;   /* the guest reaches only what is forwarded to it */
    char hostname[64]; /* for DHCP; "": none */
    unsigned forward_count;
    struct user_forward forward[USER_FORWARD_MAX];
};

bool user_options_parse(const char *text, struct user_options *out, struct error **err);

#endif
