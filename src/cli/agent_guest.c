/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guests by their agents: see agent_guest.h. */
#include "cli/agent_guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "os/standard.h"

#define ADDRESSES_MAX 32
#define CLOSE_NS      INT64_C(5000000000)

/* In the one form that there is for it, in `text`; false for no address, and for one that means something
 * inside the guest or on its link only. */
static bool usable_address(const char *said, char text[INET6_ADDRSTRLEN])
{
    struct in_addr v4;
    struct in6_addr v6;
    if (!said)
        return false;
    if (inet_pton(AF_INET, said, &v4) == 1)
        return inet_ntop(AF_INET, &v4, text, INET6_ADDRSTRLEN) && ntohl(v4.s_addr) >> 24 != 127;
    return inet_pton(AF_INET6, said, &v6) == 1 && inet_ntop(AF_INET6, &v6, text, INET6_ADDRSTRLEN) &&
           !IN6_IS_ADDR_LOOPBACK(&v6) && !IN6_IS_ADDR_LINKLOCAL(&v6);
}

/* Those of one interface; `v4` counts the IPv4 ones, which stand first. */
static void add_addresses(json_t *list, size_t *v4, const json_t *interface)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(interface, "ip-addresses"), i, one)
    {
        char text[INET6_ADDRSTRLEN];
        bool usable = usable_address(json_string_value(json_object_get(one, "ip-address")), text);
        if (!usable || json_array_size(list) >= ADDRESSES_MAX)
            continue;
        if (strchr(text, ':'))
            json_array_append_new(list, json_string(text));
        else
            json_array_insert_new(list, (*v4)++, json_string(text));
    }
}

json_t *guest_addresses(const struct machine *m)
{
    json_t *list = json_array(), *interface;
    struct agent *a = agent_open(m, AGENT_GLANCE_MS, NULL);
    json_t *reply = a ? agent_call(a, "guest-network-get-interfaces", NULL, AGENT_REPLY, NULL) : NULL;
    size_t i, v4 = 0;
    json_array_foreach(reply, i, interface)
    {
        add_addresses(list, &v4, interface);
    }
    json_decref(reply);
    agent_close(a);
    return list;
}

static int64_t host_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* The agent also wants to set the guest's real-time clock, and says no when it lacks the program for that:
 * what counts is the clock that the guest goes by. */
bool guest_set_time(struct agent *a, struct error **err)
{
    struct error *why = NULL;
    if (agent_do(a, "guest-set-time", json_pack("{s:I}", "time", (json_int_t)host_time()), &why))
        return true;
    json_t *said = why->code == EREMOTEIO ? agent_call(a, "guest-get-time", NULL, AGENT_REPLY, NULL) : NULL;
    int64_t now = host_time(), there = json_integer_value(said);
    bool right = there > now - CLOSE_NS && there < now + CLOSE_NS;
    json_decref(said);
    if (right)
        error_free(why);
    else
        error_prefix(err, why, "set the guest's time");
    return right;
}

/* By a grandchild, which nobody has to wait for. */
void guest_set_time_apart(const char *name, const char *socket_path)
{
    pid_t child = fork();
    if (child > 0)
        waitpid(child, NULL, 0);
    if (child != 0)
        return;
    if (fork() == 0) {
        standard_fds_leave(-1, -1);
        setsid();
        struct agent *a = agent_open_socket(name, socket_path, AGENT_PATIENCE_MS, NULL);
        if (a)
            guest_set_time(a, NULL);
    }
    _exit(0);
}
