/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sources of backups: see backup_source.h. */
#include "cli/backup_source.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/file.h"
#include "catalog/image.h"
#include "catalog/machine_state.h"
#include "cli/interrupt.h"
#include "cli/machine_process.h"
#include "cli/machine_words.h"

#define ANSWER_MS 60000 /* what is in flight is waited for before an answer */
#define POLL_US   20000

/* As much as holds a kernel; it is loaded and never run. */
#define HELPER_MEMORY "512M"

static bool add_words(const struct machine *m, const char *socket_path, struct words *w, struct error **err)
{
    struct image image = {0};
    const char *engine = json_string_value(json_object_get(m->config, "engine"));
    if (!machine_image(m, &image, err))
        return false;
    words_option(w, "name", m->name);
    words_option(w, "paused", NULL);
    if (engine)
        words_option(w, "engine", engine);
    words_option(w, "memory", HELPER_MEMORY);
    words_option(w, "net", "none");
    words_option(w, "serial", "none");
    words_option(w, "kernel", machine_boot(m, image.name ? &image : NULL).kernel);
    words_option(w, "control", socket_path);
    machine_disk_words(m, w);
    image_release(&image);
    return true;
}

/* Until it is ready or says why it is not. */
static bool await_ready(int fd, struct error **err)
{
    char line[1024] = "";
    cleanup(file) FILE *f = fdopen(fd, "r");
    if (!f || !fgets(line, sizeof(line), f))
        return error_set(err, 0, interrupt_pending() ? "interrupted" : "ruche-vmm ended without saying why"),
               false;
    line[strcspn(line, "\n")] = 0;
    return strcmp(line, "ready") == 0 || (error_set(err, 0, "%s", line), false);
}

static bool start_helper(struct backup_source *s, struct error **err)
{
    struct machine_process p;
    struct words words = {0};
    cleanup(mem) char *dir = catalog_runtime_dir(err);
    cleanup(mem) char *program = dir ? machine_program(err) : NULL;
    if (!program)
        return false;
    cleanup(mem) char *socket_path = catalog_format("%s/backup-%s.sock", dir, s->m->uuid);
    unlink(socket_path); /* of one that was killed */
    bool ok = add_words(s->m, socket_path, &words, err) &&
              machine_start(program, &words, -1, STDERR_FILENO, false, &p, err);
    words_free(&words);
    if (!ok)
        return false;
    s->pid = p.pid;
    ok = await_ready(p.ready_fd, err) && (s->control = control_open(socket_path, ANSWER_MS, err));
    unlink(socket_path);
    return ok;
}

bool backup_source_open(const struct machine *m, struct backup_source *s, struct error **err)
{
    struct machine_state state;
    struct error *why = NULL;
    *s = (struct backup_source){.m = m, .turn = -1, .lock = -1};
    cleanup(mem) char *turn = catalog_format("%s/backup.lock", m->dir);
    s->turn = catalog_lock(turn, &why);
    if (s->turn < 0 && why->code == EBUSY)
        error_set(err, EBUSY, "another command is backing it up"), error_free(why);
    else if (s->turn < 0)
        error_prefix(err, why, "begin");
    if (s->turn < 0)
        return false;
    machine_state_read(m, &state);
    if (state.life == MACHINE_STARTING)
        return error_set(err, EAGAIN, "it is just being started"), false;
    s->running = state.life == MACHINE_RUNNING;
    if (s->running)
        return (s->control = control_open(state.control, ANSWER_MS, err)) != NULL;
    s->lock = machine_lock(m, err);
    return s->lock >= 0 && machine_is_here(m, err) && start_helper(s, err);
}

void backup_source_close(struct backup_source *s)
{
    if (s->pid && s->control)
        control_command(s->control, "quit", NULL);
    else if (s->pid)
        kill(s->pid, SIGTERM);
    control_close(s->control);
    while (s->pid && waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    fd_cleanup(&s->lock);
    fd_cleanup(&s->turn);
    *s = (struct backup_source){.turn = -1, .lock = -1};
}

/* True when there are none left. */
static bool stop_each(struct backup_source *s, json_t *jobs)
{
    json_t *job;
    size_t i;
    json_array_foreach(jobs, i, job)
    {
        json_t *id = json_object_get(job, "device");
        const char *status = json_string_value(json_object_get(job, "status"));
        bool ended = status && strcmp(status, "concluded") == 0;
        json_decref(
            ended ? control_call(s->control, "block-job-dismiss", json_pack("{s:O}", "id", id), NULL)
                  : control_call(s->control, "block-job-cancel", json_pack("{s:O}", "device", id), NULL));
    }
    return json_array_size(jobs) == 0;
}

bool backup_source_stop_jobs(struct backup_source *s, struct error **err)
{
    for (;;) {
        json_t *jobs = control_call(s->control, "query-block-jobs", NULL, err);
        bool done = jobs && stop_each(s, jobs), failed = !jobs;
        json_decref(jobs);
        if (done || failed)
            return done;
        usleep(POLL_US);
    }
}
