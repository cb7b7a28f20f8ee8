/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The line between `ruche migrate` and `ruche receive`: see moving.h. Where it is more than a socket, a
 * program (ruche-tunnel, ssh) or a child carries it from one end of a socket pair. These end when the line
 * does, not with this process: a migration goes on without it.
 */
#include "cli/moving.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/file.h"
#include "cli/machine_process.h"
#include "cli/machine_words.h"
#include "cli/verb.h"
#include "os/address.h"

#define PASS_MS     20000
#define ANSWER_MS   30000
#define CHUNK       (64 * 1024)
#define JSON_MAX    ((uint32_t)MIB)
#define KIND_OBJECT 1u

static bool is_tcp(const char *address)
{
    return strncmp(address, "tcp:", 4) == 0;
}

static const char *ssh_host(const char *address)
{
    return strncmp(address, "ssh:", 4) == 0 && address[4] && address[4] != '-' ? address + 4 : NULL;
}

int moving_check(const char *verb, const char *address, const struct moving_safety *s)
{
    struct error *err = NULL;
    bool some = s->cert || s->key || s->ca, all = s->cert && s->key && s->ca;
    bool goes = strcmp(verb, "migrate") == 0;
    bool known =
        (goes && ssh_host(address)) || (!address_is_connected(address) && address_check(address, &err));
    error_free(err);
    if (!known)
        return usage_error(verb, "'%s' is no address: unix:PATH, tcp:HOST:PORT%s is wanted", address,
                           goes ? " or ssh:[USER@]HOST" : "");
    if (some && !all)
        return usage_error(verb, "--cert, --key and --ca belong together");
    if ((s->psk != NULL) + all + s->plain > 1)
        return usage_error(verb, "one of --psk, --cert with --key and --ca, and --plain is enough");
    if (is_tcp(address) && !s->psk && !all && !s->plain)
        return usage_error(verb, "over TCP --psk FILE, or --cert, --key and --ca, or --plain is wanted");
    if (!is_tcp(address) && (s->psk || all || s->plain))
        return usage_error(verb, "--psk, --cert and --plain are for TCP");
    return EXIT_OK;
}

static bool make_pair(int ends[2], struct error **err)
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0 ||
           (error_set_errno(err, errno, "make a socket pair"), false);
}

/* Starts a program with one end of a socket pair as its standard input, and as its output unless `said` is
 * not NULL and gets what it prints. The other end, or -1. */
static int start_carrier(const struct words *words, int keep, int *said, struct error **err)
{
    int ends[2], print[2] = {-1, -1};
    if (!make_pair(ends, err))
        return -1;
    if (said && pipe2(print, O_CLOEXEC) < 0)
        error_set_errno(err, errno, "make a pipe");
    pid_t pid = !said || print[0] >= 0 ? fork() : -1;
    if (pid == 0) {
        setsid(); /* Ctrl-C is the command's, which ends the migration in order */
        dup2(ends[1], STDIN_FILENO);
        dup2(said ? print[1] : ends[1], STDOUT_FILENO);
        if (keep >= 0)
            fcntl(keep, F_SETFD, 0);
        execvp(words->v[0], words->v);
        fprintf(stderr, "ruche: start %s: %s\n", words->v[0], strerror(errno));
        _exit(EXIT_RUCHE);
    }
    close(ends[1]);
    if (print[1] >= 0)
        close(print[1]);
    if (said)
        *said = print[0];
    if (pid > 0)
        return ends[0];
    if (!said || print[0] >= 0)
        error_set_errno(err, errno, "start %s", words->v[0]);
    close(ends[0]);
    return -1;
}

static void add_file(struct words *w, const char *option, const char *file)
{
    if (!file)
        return;
    words_add(w, option);
    words_add(w, file);
}

/* The connection made safe. */
static int guard(int net, bool server, const char *host, const struct moving_safety *s, struct error **err)
{
    cleanup(mem) char *program = tunnel_program(err);
    cleanup(mem) char *number = catalog_format("%d", net);
    char line[512] = "";
    int said = -1;
    struct words words = {0};
    if (!program)
        return -1;
    words_add(&words, program);
    if (server)
        words_add(&words, "--server");
    add_file(&words, "--net", number);
    add_file(&words, "--host", host);
    add_file(&words, "--psk", s->psk);
    add_file(&words, "--cert", s->cert);
    add_file(&words, "--key", s->key);
    add_file(&words, "--ca", s->ca);
    int fd = start_carrier(&words, net, &said, err);
    words_free(&words);
    if (fd < 0)
        return -1;
    cleanup(file) FILE *f = fdopen(said, "r");
    if (f && fgets(line, sizeof(line), f) && strcmp(line, "ready\n") == 0)
        return fd;
    line[strcspn(line, "\n")] = 0;
    error_set(err, EPROTO, "the connection is not safe: %s", *line ? line : "ruche-tunnel ended");
    close(fd);
    return -1;
}

static int connect_ssh(const char *host, struct error **err)
{
    struct words words = {0};
    static const char *const what[] = {"ssh", "-T", "-e", "none", "--"};
    for (size_t i = 0; i < ARRAY_SIZE(what); i++)
        words_add(&words, what[i]);
    words_add(&words, host);
    words_add(&words, "ruche receive --stdio");
    int fd = start_carrier(&words, -1, NULL, err);
    words_free(&words);
    return fd;
}

int moving_connect(const char *address, const struct moving_safety *s, struct error **err)
{
    if (ssh_host(address))
        return connect_ssh(ssh_host(address), err);
    int net = address_connect(address, err);
    if (net < 0 || !is_tcp(address) || s->plain)
        return net;
    cleanup(mem) char *host = address_host(address);
    int fd = guard(net, false, s->ca ? host : NULL, s, err);
    close(net);
    return fd;
}

int moving_accept(const char *address, int net, const struct moving_safety *s, struct error **err)
{
    if (!is_tcp(address) || s->plain)
        return net;
    int fd = guard(net, true, NULL, s, err);
    close(net);
    return fd;
}

/* Copies until the end of `from`. In a child. */
static void copy_all(int from, int to)
{
    static char data[CHUNK];
    ssize_t n;
    while ((n = read(from, data, sizeof(data))) > 0)
        for (ssize_t done = 0, m; done < n; done += m)
            if ((m = write(to, data + done, (size_t)(n - done))) <= 0)
                return;
}

int moving_stdio(struct error **err)
{
    int ends[2];
    if (!make_pair(ends, err))
        return -1;
    pid_t out = fork(), in = out > 0 ? fork() : -1;
    if (out == 0) {
        close(ends[0]);
        close(STDIN_FILENO);
        copy_all(ends[1], STDOUT_FILENO);
        _exit(EXIT_OK);
    }
    if (in == 0) {
        close(ends[0]);
        close(STDOUT_FILENO);
        copy_all(STDIN_FILENO, ends[1]);
        shutdown(ends[1], SHUT_WR);
        _exit(EXIT_OK);
    }
    close(ends[1]);
    if (in > 0) {
        /* The line is the children's, and ends with them. */
        dup2(STDERR_FILENO, STDOUT_FILENO);
        return ends[0];
    }
    error_set_errno(err, errno, "make a process");
    close(ends[0]);
    return -1;
}

static uint32_t limit(uint32_t kind)
{
    return kind == KIND_OBJECT ? JSON_MAX : 0;
}

struct frame_stream moving_stream(int fd, const char *peer)
{
    return (struct frame_stream){
        .fd = fd, .stop_fd = -1, .timeout_ms = ANSWER_MS, .peer = peer, .limit = limit};
}

bool moving_say(struct frame_stream *s, const json_t *o, struct error **err)
{
    cleanup(mem) char *text = json_dumps(o, JSON_COMPACT);
    if (!text)
        return error_set(err, EINVAL, "what is to be said is no JSON"), false;
    return frame_send_bytes(s, KIND_OBJECT, text, strlen(text), err);
}

json_t *moving_hear(struct frame_stream *s, struct error **err)
{
    struct frame f;
    if (!frame_receive(s, &f, err))
        return NULL;
    json_t *o = json_loadb((const char *)f.data, f.length, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(o))
        return o;
    json_decref(o);
    error_set(err, EPROTO, "what %s says is no JSON object", s->peer);
    return NULL;
}

int moving_offer(char **path, struct error **err)
{
    cleanup(mem) char *dir = catalog_runtime_dir(err);
    if (!dir)
        return -1;
    *path = catalog_format("%s/move-%ld.sock", dir, (long)getpid());
    cleanup(mem) char *address = catalog_format("unix:%s", *path);
    return address_listen(address, err);
}

bool moving_pass(int listener, int line, struct error **err)
{
    struct pollfd p = {.fd = listener, .events = POLLIN};
    if (poll(&p, 1, PASS_MS) <= 0)
        return error_set(err, ETIMEDOUT, "the machine's process did not fetch the connection"), false;
    cleanup(fd) int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0)
        return error_set_errno(err, errno, "pass the connection on"), false;
    return address_pass(client, line, err);
}

/* --- the configuration as the other end will have it: nothing in it stands for a file of this catalogue ---
 */

static void name_file(json_t *config, const char *key, const char *file)
{
    if (file && !json_object_get(config, key))
        json_object_set_new(config, key, json_string(file));
}

static bool name_image(const struct machine *m, json_t *config, struct error **err)
{
    struct image image = {0};
    if (!machine_image(m, &image, err))
        return false;
    if (!json_object_get(config, "kernel"))
        name_file(config, "initrd", image.initrd);
    name_file(config, "kernel", image.kernel);
    name_file(config, "cmdline", image.cmdline);
    image_release(&image);
    return true;
}

static void name_disk(const struct machine *m, json_t *config)
{
    if (!machine_has_disk(config))
        return;
    json_object_del(config, "image");
    json_object_del(config, "disk");
    cleanup(mem) char *disk = machine_disk(m);
    json_array_insert_new(json_object_get(config, "disks"), 0,
                          json_pack("{s:s, s:s}", "file", disk, "format", "qcow2"));
}

json_t *moving_config(const struct machine *m, struct error **err)
{
    json_t *config = json_deep_copy(m->config);
    cleanup(mem) char *seed = machine_seed(m);
    bool has_seed = json_is_true(json_object_get(config, "seed"));
    if (!name_image(m, config, err)) {
        json_decref(config);
        return NULL;
    }
    name_disk(m, config);
    json_object_del(config, "seed");
    if (has_seed)
        json_array_append_new(json_object_get(config, "disks"),
                              json_pack("{s:s, s:s, s:b}", "file", seed, "format", "raw", "readonly", true));
    return config;
}
