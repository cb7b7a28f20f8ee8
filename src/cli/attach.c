/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine in the foreground: see attach.h.
 *
 * Everything happens in one poll loop. Standard input is read even while the guest takes nothing, as the
 * escape key must work on a guest that hangs; what a full buffer cannot hold is lost then, as on a real
 * serial line. Only input that is no terminal waits for the guest instead, so that a file or pipe arrives
 * whole.
 */
#include "cli/attach.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/control.h"
#include "cli/machine_process.h"
#include "cli/terminal.h"
#include "cli/verb.h"

#define ESCAPE_KEY     0x1d /* Ctrl-] */
#define ANSWER_MS      2000 /* for a control command */
#define GRACE_MS       5000 /* to end before the next, harder, request */
#define DRAIN_CHUNKS   1024 /* of output left behind by a machine that ended */
#define LAST_OUTPUT_MS 500  /* for a reader that takes nothing while we are to end */

struct buffer {
    size_t used;
    char data[65536];
};

struct session {
    struct machine_session *m;
    struct buffer to_guest, to_user;
    bool terminal;    /* standard input is one and is raw */
    bool input_ended; /* nothing more to read */
    bool escaped;     /* the last key was the escape key */
    bool ended;
    int status;
};

int session_signals(void)
{
    static const int handled[] = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT, SIGCHLD};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(handled); i++)
        sigaddset(&set, handled[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -1;
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static long long now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static bool write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            poll(&p, 1, -1);
            continue;
        }
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* Text of ours; a raw terminal needs the carriage return. */
static void say(const struct session *s, const char *text, size_t len)
{
    while (len) {
        const char *end = memchr(text, '\n', len);
        size_t n = end ? (size_t)(end - text) : len;
        write_all(STDERR_FILENO, text, n);
        if (end)
            write_all(STDERR_FILENO, s->terminal ? "\r\n" : "\n", s->terminal ? 2 : 1);
        n += end != NULL;
        text += n;
        len -= n;
    }
}

static void say_line(const struct session *s, const char *what, const char *detail)
{
    char line[512];
    /* On the guest's screen it begins a line of its own. */
    int n = snprintf(line, sizeof(line), "%sruche: %s%s\n", s->terminal ? "\n" : "", what, detail);
    say(s, line, MIN((size_t)n, sizeof(line) - 1));
}

/* The session ends, the machine does not. */
static void leave(struct session *s, int status)
{
    terminal_restore();
    s->ended = true;
    s->status = status;
}

/* Asks the machine to end, each time harder. */
static void stop_machine(struct session *s)
{
    s->m->stop_step++;
    s->m->deadline = now_ms() + GRACE_MS;
    if (s->m->stop_step == 1 && control_execute(s->m->control, "quit", ANSWER_MS, NULL))
        return;
    s->m->stop_step = MAX(s->m->stop_step, 2);
    kill(s->m->pid, s->m->stop_step == 2 ? SIGTERM : SIGKILL);
}

static void command(struct session *s, const char *name, const char *done)
{
    struct error *err = NULL;
    if (control_execute(s->m->control, name, ANSWER_MS, &err))
        say_line(s, done, "");
    else
        say_line(s, "", error_text(err));
    error_free(err);
}

static void add(struct buffer *b, char c)
{
    if (b->used < sizeof(b->data))
        b->data[b->used++] = c;
}

static void help(const struct session *s)
{
    say_line(s, "after Ctrl-]:  ",
             s->m->visitor ? "d detach   q end the machine   p power button   r reset   "
                             "c send Ctrl-]   h this help"
                           : "q quit   p power button   r reset   c send Ctrl-]   h this help");
}

static void escape_key(struct session *s, char key)
{
    switch (key) {
    case 'q':
        if (s->m->visitor) {
            command(s, "quit", "ending the machine");
            break;
        }
        say_line(s, "ending the machine", "");
        stop_machine(s);
        break;
    case 'd':
        if (s->m->visitor) {
            say_line(s, "detached", "");
            leave(s, EXIT_OK);
            break;
        }
        help(s);
        break;
    case 'c':
        add(&s->to_guest, ESCAPE_KEY);
        break;
    case 'r':
        command(s, "system_reset", "reset");
        break;
    case 'p':
        command(s, "system_powerdown", "pressed the power button");
        break;
    default:
        help(s);
    }
}

static void read_input(struct session *s)
{
    char keys[4096];
    size_t room = s->terminal ? sizeof(keys) : MIN(sizeof(keys), sizeof(s->to_guest.data) - s->to_guest.used);
    ssize_t n = read(STDIN_FILENO, keys, room);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        s->input_ended = true;
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (s->escaped) {
            s->escaped = false;
            escape_key(s, keys[i]);
        } else if (s->terminal && keys[i] == ESCAPE_KEY) {
            s->escaped = true;
        } else {
            add(&s->to_guest, keys[i]);
        }
    }
}

static void consume(struct buffer *b, size_t n)
{
    memmove(b->data, b->data + n, b->used - n);
    b->used -= n;
}

static void send_to_guest(struct session *s)
{
    ssize_t n = send(s->m->serial_fd, s->to_guest.data, s->to_guest.used, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0)
        consume(&s->to_guest, (size_t)n);
}

/* False at the end of the serial line or when it has nothing now. There must be room: reading nothing means
 * the end. */
static bool receive_from_guest(struct session *s)
{
    size_t room = sizeof(s->to_user.data) - s->to_user.used;
    ssize_t n = recv(s->m->serial_fd, s->to_user.data + s->to_user.used, room, MSG_DONTWAIT);
    if (n > 0)
        s->to_user.used += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        s->m->serial_fd = -1;
    return n > 0;
}

/* Nobody takes our output, so there is no console any more. False when the machine was to end anyway. */
static bool output_lost(struct session *s)
{
    int why = errno;
    s->to_user.used = 0;
    if (s->m->stop_step)
        return false;
    say_line(s, "write to standard output: ", strerror(why));
    if (s->m->visitor)
        leave(s, EXIT_RUCHE);
    else
        s->m->stopped_by = SIGPIPE;
    return !s->m->visitor;
}

/* False when nobody takes it any more. */
static bool show_output(struct session *s)
{
    /* No more at once than a pipe that polls writable takes without blocking. */
    ssize_t n = write(STDOUT_FILENO, s->to_user.data, MIN(s->to_user.used, 4096));
    if (n > 0)
        consume(&s->to_user, (size_t)n);
    return n >= 0 || errno == EAGAIN || errno == EINTR;
}

/* Waits until standard output takes more. False when it does not and somebody wants us to end. */
static bool output_ready(struct session *s)
{
    struct pollfd p[] = {{.fd = STDOUT_FILENO, .events = POLLOUT}, {.fd = s->m->signal_fd, .events = POLLIN}};
    while (!s->m->stopped_by) {
        struct signalfd_siginfo info;
        if (poll(p, ARRAY_SIZE(p), -1) > 0 && p[0].revents)
            return true;
        if (read(s->m->signal_fd, &info, sizeof(info)) == sizeof(info) &&
            (info.ssi_signo == SIGINT || info.ssi_signo == SIGTERM || info.ssi_signo == SIGHUP))
            s->m->stopped_by = (int)info.ssi_signo;
    }
    return poll(p, 1, LAST_OUTPUT_MS) > 0;
}

/* What is in the buffer comes out, however slow the reader is. */
static bool drain_output(struct session *s)
{
    while (s->to_user.used) {
        if (!output_ready(s))
            return false;
        if (!show_output(s)) {
            output_lost(s);
            return false;
        }
    }
    return true;
}

static bool relay_errors(struct session *s)
{
    char text[4096];
    ssize_t n = read(s->m->error_fd, text, sizeof(text));
    if (n > 0)
        say(s, text, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        s->m->error_fd = -1;
    return n > 0;
}

/* The machine ended: what it still said comes out, then the terminal goes back to how it was. */
static void machine_ended(struct session *s, int wait_status)
{
    for (int i = 0; i < DRAIN_CHUNKS; i++) {
        if (!drain_output(s) || s->m->serial_fd < 0 || !receive_from_guest(s))
            break;
    }
    for (int i = 0; i < DRAIN_CHUNKS && s->m->error_fd >= 0 && relay_errors(s); i++)
        continue;
    terminal_restore();
    s->ended = true;
    if (s->m->stopped_by == SIGPIPE)
        s->status = EXIT_RUCHE;
    else if (s->m->stopped_by)
        s->status = EXIT_SIGNAL + s->m->stopped_by;
    else if (WIFSIGNALED(wait_status) && s->m->stop_step >= 2)
        s->status = EXIT_SIGNAL + WTERMSIG(wait_status);
    else
        s->status = machine_status(wait_status);
}

static void suspend(struct session *s)
{
    terminal_restore();
    kill(getpid(), SIGSTOP);
    if (s->terminal)
        terminal_raw(STDIN_FILENO);
}

static void take_signals(struct session *s)
{
    struct signalfd_siginfo info;
    while (!s->ended && read(s->m->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        int wait_status;
        switch (info.ssi_signo) {
        case SIGCHLD:
            if (waitpid(s->m->pid, &wait_status, WNOHANG) == s->m->pid)
                machine_ended(s, wait_status);
            break;
        case SIGTSTP:
            suspend(s);
            break;
        case SIGCONT:
            if (s->terminal)
                terminal_raw(STDIN_FILENO);
            break;
        default: /* a second one asks harder */
            if (s->m->visitor) {
                leave(s, EXIT_SIGNAL + (int)info.ssi_signo);
                break;
            }
            if (!s->m->stopped_by)
                s->m->stopped_by = (int)info.ssi_signo;
            stop_machine(s);
        }
    }
}

/* The machine's word on its start: "ready", or in one line why it cannot, after which it ends by itself. */
static bool take_ready(struct session *s)
{
    char line[1024];
    ssize_t n = read(s->m->ready_fd, line, sizeof(line) - 1);
    if (n < 0 && errno == EINTR)
        return false;
    s->m->ready_fd = -1;
    line[MAX(n, 0)] = 0;
    line[strcspn(line, "\n")] = 0;
    if (strcmp(line, "ready") == 0)
        return true;
    if (line[0])
        fprintf(stderr, "ruche: %s\n", line);
    return false;
}

static int timeout_of(const struct session *s)
{
    if (!s->m->deadline)
        return -1;
    long long left = s->m->deadline - now_ms();
    return left < 0 ? 0 : (int)left;
}

/* One turn of the loop. A descriptor of -1 is not looked at. */
static void serve_once(struct session *s, bool *ready)
{
    enum { SIGNALS, READY, INPUT, SERIAL, OUTPUT, ERRORS, COUNT };
    struct machine_session *m = s->m;
    bool take_input = !s->input_ended && (s->terminal || s->to_guest.used < sizeof(s->to_guest.data));
    bool room = s->to_user.used < sizeof(s->to_user.data) / 2;
    struct pollfd p[COUNT] = {
        [SIGNALS] = {.fd = m->signal_fd, .events = POLLIN},
        [READY] = {.fd = m->ready_fd, .events = POLLIN},
        [INPUT] = {.fd = take_input ? STDIN_FILENO : -1, .events = POLLIN},
        /* A line with nothing to be done on it is left out, as poll reports its end whether asked or not. */
        [SERIAL] = {.fd = room || s->to_guest.used ? m->serial_fd : -1,
                    .events = (short)((room ? POLLIN : 0) | (s->to_guest.used ? POLLOUT : 0))},
        [OUTPUT] = {.fd = s->to_user.used ? STDOUT_FILENO : -1, .events = POLLOUT},
        [ERRORS] = {.fd = m->error_fd, .events = POLLIN},
    };
    int n = poll(p, COUNT, timeout_of(s));
    if (n == 0 || (s->m->deadline && now_ms() >= s->m->deadline))
        stop_machine(s);
    if (n <= 0)
        return;
    if (p[READY].revents && (*ready = take_ready(s)))
        return; /* what else there is, even its end, is for the session that follows */
    if (p[INPUT].revents)
        read_input(s);
    if (p[SERIAL].revents & POLLOUT)
        send_to_guest(s);
    if (room && (p[SERIAL].revents & (POLLIN | POLLHUP | POLLERR)))
        receive_from_guest(s);
    if (m->visitor && m->serial_fd < 0) {
        machine_ended(s, 0);
        return;
    }
    if (p[OUTPUT].revents && !show_output(s) && output_lost(s))
        stop_machine(s);
    if (p[ERRORS].revents)
        relay_errors(s);
    if (p[SIGNALS].revents)
        take_signals(s);
}

bool session_wait_ready(struct machine_session *m, int *status)
{
    struct session *s = calloc(1, sizeof(*s));
    if (!s) {
        *status = EXIT_RUCHE;
        return false;
    }
    s->m = m;
    s->input_ended = true;
    int serial = m->serial_fd;
    m->serial_fd = -1;
    bool ready = false;
    while (!ready && !s->ended)
        serve_once(s, &ready);
    m->serial_fd = serial;
    *status = s->status;
    free(s);
    return ready;
}

int session_serve(struct machine_session *m)
{
    struct session *s = calloc(1, sizeof(*s));
    if (!s) {
        fprintf(stderr, "ruche: out of memory\n");
        kill(m->pid, SIGTERM);
        return EXIT_RUCHE;
    }
    s->m = m;
    s->input_ended = m->serial_fd < 0;
    s->terminal = m->serial_fd >= 0 && isatty(STDIN_FILENO) && terminal_raw(STDIN_FILENO);
    bool ready = false;
    while (!s->ended)
        serve_once(s, &ready);
    int status = s->status;
    free(s);
    return status;
}
