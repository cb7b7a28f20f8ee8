/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Keepers of machines: see keeper.h. */
#include "cli/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/layers.h"
#include "catalog/machine_state.h"
#include "catalog/overlay.h"
#include "catalog/snapshot.h"
#include "cli/machine_process.h"
#include "cli/machine_words.h"
#include "cli/verb.h"
#include "os/standard.h"

#define LOG_MAX ((off_t)(512 * KIB)) /* when a machine starts with more, that becomes the older log */

/* All that a keeper works with. */
struct keeper {
    const struct machine *m;
    const char *program;
    struct words words;
    struct machine_state state;
    int lock, log, verdict; /* descriptors; the last is the command's, which waits for "ready" or a reason */
    off_t log_start;        /* where this life's part of the log begins */
};

char *machine_log(const struct machine *m)
{
    return catalog_format("%s/log", m->dir);
}

char *machine_serial_log(const struct machine *m)
{
    return catalog_format("%s/console", m->dir);
}

__attribute__((format(printf, 2, 3))) static void note(const struct keeper *k, const char *fmt, ...)
{
    char when[32], text[768];
    time_t now = time(NULL);
    struct tm utc;
    va_list ap;
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    dprintf(k->log, "%s ruche: %s\n", when, text);
}

static bool open_log(struct keeper *k, struct error **err)
{
    cleanup(mem) char *path = machine_log(k->m);
    cleanup(mem) char *older = catalog_format("%s.1", path);
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size > LOG_MAX)
        rename(path, older);
    k->log = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (k->log < 0 || fstat(k->log, &st) < 0)
        return error_set_errno(err, errno, "open '%s'", path), false;
    k->log_start = st.st_size;
    return true;
}

static bool set_life(struct keeper *k, enum machine_life life, struct error **err)
{
    k->state.life = life;
    k->state.since = time(NULL);
    return machine_state_write(k->m, &k->state, err);
}

/* The last line that ruche-vmm has written in this life, without its name in front. */
static void last_words(struct keeper *k)
{
    char text[4096];
    struct stat st;
    if (fstat(k->log, &st) < 0)
        return;
    off_t from = MAX(k->log_start, st.st_size - (off_t)sizeof(text) + 1);
    ssize_t n = pread(k->log, text, sizeof(text) - 1, from);
    text[MAX(n, 0)] = 0;
    char *last = NULL, *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));)
        if (strncmp(line, "ruche-vmm: ", 11) == 0)
            last = line + 11;
    if (last)
        snprintf(k->state.reason, sizeof(k->state.reason), "%.500s", last);
}

/* What JSON cannot hold would have the whole end go unsaid. */
static void make_sayable(char *text)
{
    json_t *sayable = json_string(text);
    json_decref(sayable);
    if (sayable)
        return;
    for (; *text; text++)
        if ((unsigned char)*text >= 0x80 || (unsigned char)*text < ' ')
            *text = '?';
}

/* The machine's word on its start; false when it is a reason, which then is in the state. */
static bool take_ready(struct keeper *k, int fd)
{
    char line[sizeof(k->state.reason)] = "";
    cleanup(file) FILE *f = fdopen(fd, "r");
    if (!f || !fgets(line, sizeof(line), f))
        return false;
    line[strcspn(line, "\n")] = 0;
    if (strcmp(line, "ready") == 0)
        return true;
    memcpy(k->state.reason, line, sizeof(line));
    return false;
}

/* A machine that was killed has left them behind. */
static void remove_sockets(const struct keeper *k)
{
    unlink(k->state.control);
    unlink(k->state.serial);
    if (k->state.agent[0])
        unlink(k->state.agent);
}

/* Waits for the machine's end and writes it down while the process is still there, so that its number means
 * it as long as the state says so. */
static void take_end(struct keeper *k)
{
    siginfo_t info = {0};
    char text[640];
    struct error *err = NULL;
    while (waitid(P_PID, (id_t)k->state.pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR)
        continue;
    k->state.killed = info.si_code != CLD_EXITED;
    k->state.status = info.si_status;
    if (!k->state.reason[0])
        last_words(k);
    make_sayable(k->state.reason);
    if (!set_life(k, MACHINE_ENDED, &err))
        note(k, "%s", error_text(err));
    error_free(err);
    machine_end_text(&k->state, text, sizeof(text));
    note(k, "ended: %s", text);
    remove_sockets(k);
    waitpid(k->state.pid, NULL, 0);
}

static bool begin(struct keeper *k, struct machine_process *p, struct error **err)
{
    if (chdir(k->m->dir) < 0)
        return error_set_errno(err, errno, "go to '%s'", k->m->dir), false;
    remove_sockets(k);
    if (!open_log(k, err) || !set_life(k, MACHINE_STARTING, err) ||
        !machine_start(k->program, &k->words, k->lock, k->log, true, p, err))
        return false;
    k->state.pid = p->pid;
    set_life(k, MACHINE_STARTING, NULL);
    note(k, "started, process %d", (int)p->pid);
    return true;
}

/* Why there is no machine. Whoever reads it may start it again at once, so the lock is free before. */
static void tell(struct keeper *k, const char *reason)
{
    close(k->lock);
    dprintf(k->verdict, "%s\n", reason);
}

/* The keeper's whole life. */
static void keep(struct keeper *k)
{
    struct error *err = NULL;
    struct machine_process p;
    setsid();
    standard_fds_leave(k->lock, k->verdict);
    k->state.keeper = getpid();
    if (!begin(k, &p, &err)) {
        k->state.status = EXIT_RUCHE;
        snprintf(k->state.reason, sizeof(k->state.reason), "%s", error_text(err));
        make_sayable(k->state.reason);
        set_life(k, MACHINE_ENDED, NULL);
        tell(k, error_text(err));
        return;
    }
    bool ready = take_ready(k, p.ready_fd);
    if (ready) {
        if (!set_life(k, MACHINE_RUNNING, &err))
            note(k, "%s", error_text(err));
        dprintf(k->verdict, "ready\n");
        close(steal_fd(&k->verdict));
    }
    take_end(k);
    char text[640];
    machine_end_text(&k->state, text, sizeof(text));
    if (!ready)
        tell(k, text);
}

/*
 * The sockets are in the machine's folder, as the one of $XDG_RUNTIME_DIR goes when the user logs out and the
 * machine may not; in that one only when the path would be too long for a socket.
 */
static bool choose_sockets(struct keeper *k, struct error **err)
{
    const size_t room = sizeof(((struct sockaddr_un *)NULL)->sun_path) - strlen("/console.sock");
    cleanup(mem) char *prefix = NULL;
    if (strlen(k->m->dir) < room) {
        prefix = catalog_format("%s/", k->m->dir);
    } else {
        cleanup(mem) char *dir = catalog_runtime_dir(err);
        if (!dir)
            return false;
        prefix = catalog_format("%s/%s.", dir, k->m->uuid);
    }
    snprintf(k->state.control, sizeof(k->state.control), "%scontrol.sock", prefix);
    snprintf(k->state.serial, sizeof(k->state.serial), "%sconsole.sock", prefix);
    if (!machine_has_own_agent(k->m))
        snprintf(k->state.agent, sizeof(k->state.agent), "%sagent.sock", prefix);
    return true;
}

static bool add_places(struct keeper *k, struct error **err)
{
    if (!choose_sockets(k, err))
        return false;
    cleanup(mem) char *serial = catalog_format("unix:%s", k->state.serial);
    cleanup(mem) char *log = machine_serial_log(k->m);
    words_option(&k->words, "control", k->state.control);
    words_option(&k->words, "serial", serial);
    words_option(&k->words, "serial-log", log);
    cleanup(mem) char *agent = catalog_format("unix:%s", k->state.agent);
    if (k->state.agent[0])
        words_option(&k->words, "agent", agent);
    return true;
}

/* In the command: what the keeper says of the start. */
static bool await(int verdict, struct error **err)
{
    char line[1024] = "";
    cleanup(file) FILE *f = fdopen(verdict, "r");
    if (!f || !fgets(line, sizeof(line), f))
        return error_set(err, 0,
                         "the process that watches over it was killed (ruche ls says what became of it)"),
               false;
    line[strcspn(line, "\n")] = 0;
    return strcmp(line, "ready") == 0 || (error_set(err, 0, "%s", line), false);
}

static bool fork_keeper(struct keeper *k, struct error **err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "make a pipe"), false;
    k->verdict = ends[1];
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        keep(k);
        _exit(EXIT_OK);
    }
    int failed = errno;
    close(ends[1]);
    if (pid > 0)
        return await(ends[0], err);
    close(ends[0]);
    return error_set_errno(err, failed, "make a process"), false;
}

/* Clears up what killed commands have left of its layers. A memory that no longer fits the disk, as the
 * machine has run since, is not gone on from. */
static bool settle(struct database *db, struct machine *m, struct error **err)
{
    cleanup(layers) struct layers l = {0};
    struct image image = {0};
    if (!machine_image(m, &image, err))
        return false;
    image_release(&image);
    if (!machine_is_here(m, err) || !layers_drop_untouched(db, m, err) || !layers_load(db, m, &l, err) ||
        !layers_sweep(&l, err))
        return false;
    cleanup(mem) char *top = layer_path(m, m->disk);
    int untouched = m->resume && l.current.n ? overlay_untouched(top, err) : 1;
    if (untouched == 0)
        m->resume = false;
    return untouched == 1 || (untouched == 0 && snapshot_resumed(db, m, err));
}

/* The lock, and the machine as it is from now on, which nobody else starts or removes. */
static int lock_current(const struct machine *named, bool comes, struct machine *m, struct error **err)
{
    struct error *why = NULL;
    cleanup(fd) int lock = machine_lock(named, &why);
    if (lock < 0 && why->code == EBUSY) {
        struct machine_state state;
        machine_state_read(named, &state);
        error_set(err, EBUSY, "%s",
                  state.life == MACHINE_RUNNING    ? "it runs already"
                  : state.life == MACHINE_STARTING ? "another command is just starting it"
                                                   : "another command has its hands on it");
        error_free(why);
        return -1;
    }
    if (lock < 0 && why->code != ENOENT) {
        error_prefix(err, why, "begin");
        return -1;
    }
    error_free(why);
    cleanup(database) struct database *db = database_open(err);
    if (!db || !machine_find(db, named->uuid, m, err))
        return -1;
    if (lock < 0)
        error_set(err, ENOENT, "its folder '%s' is gone (ruche rm %s removes what is left of it)", m->dir,
                  m->name);
    /* The layers of one that comes are somebody's just now. */
    return lock >= 0 && (comes || settle(db, m, err)) ? steal_fd(&lock) : -1;
}

/* Once it runs it must not go on from that memory again: its disk has changed. Should this fail, or be
 * killed, a start refuses or finds the disk touched. */
static void has_resumed(const struct machine *m)
{
    struct error *err = NULL;
    cleanup(database) struct database *db = database_open(&err);
    cleanup(mem) char *memory = machine_memory(m);
    if (db && snapshot_resumed(db, m, &err)) {
        if (!m->snapshot)
            unlink(memory); /* the machine has it open */
        return;
    }
    log_line(LOG_WARN, "%s", error_text(err));
    error_free(err);
}

/* All else a machine that comes brings with it. */
static void incoming_words(const struct machine *m, const char *address, struct words *w)
{
    const char *engine = json_string_value(json_object_get(m->config, "engine"));
    words_option(w, "name", m->name);
    if (engine)
        words_option(w, "engine", engine);
    words_option(w, "incoming", address);
}

/* Lets go of the lock `at_snapshots`, unless that is -1, as soon as what it guards is settled. `incoming`:
 * where it comes to; NULL: it does not. */
static bool start(const struct machine *named, const char *incoming, int *at_snapshots, struct error **err)
{
    cleanup(machine) struct machine m = {0};
    struct error *why = NULL;
    cleanup(fd) int lock = lock_current(named, incoming, &m, &why);
    struct keeper k = {.m = &m, .lock = lock, .log = -1, .verdict = -1};
    cleanup(mem) char *program = lock >= 0 ? machine_program(&why) : NULL;
    k.program = program;
    if (incoming && lock >= 0)
        incoming_words(&m, incoming, &k.words);
    bool ok = program && (incoming || machine_words(&m, &k.words, &why)) && add_places(&k, &why);
    if (*at_snapshots >= 0)
        close(steal_fd(at_snapshots));
    ok = ok && fork_keeper(&k, &why);
    words_free(&k.words);
    if (ok && m.resume && !incoming)
        has_resumed(&m);
    if (!ok)
        error_prefix(err, why, "start machine '%s'", named->name);
    return ok;
}

bool keeper_start(const struct machine *m, struct error **err)
{
    struct error *why = NULL;
    cleanup(fd) int at_snapshots = layers_lock(m, &why);
    /* Without a folder there is nothing to lock, and the start itself says so. */
    if (at_snapshots < 0 && why->code != ENOENT)
        return error_prefix(err, why, "start machine '%s'", m->name), false;
    error_free(why);
    return start(m, NULL, &at_snapshots, err);
}

bool keeper_receive(const struct machine *m, const char *address, struct error **err)
{
    int none = -1;
    return start(m, address, &none, err);
}

bool keeper_start_at_snapshots(const struct machine *m, struct error **err)
{
    int none = -1;
    return start(m, NULL, &none, err);
}
