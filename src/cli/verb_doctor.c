/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche doctor: what this host offers, and how to have what it lacks. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/doctor.h"
#include "cli/machine_process.h"
#include "cli/verb.h"

#define EXIT_NO_ENGINE 1

struct report {
    struct finding finding[FINDING_MAX];
    unsigned count;
    char engine[16]; /* what --engine auto takes; empty: none */
};

void finding_set(struct finding *f, enum finding_status status, const char *fmt, ...)
{
    va_list ap;
    f->status = status;
    f->remedy[0] = 0;
    va_start(ap, fmt);
    vsnprintf(f->text, sizeof(f->text), fmt, ap);
    va_end(ap);
}

void finding_remedy(struct finding *f, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->remedy, sizeof(f->remedy), fmt, ap);
    va_end(ap);
}

void doctor_read(const char *path, char *text, size_t size)
{
    cleanup(file) FILE *f = fopen(path, "re");
    text[0] = 0;
    if (f && !fgets(text, (int)size, f))
        text[0] = 0;
    text[strcspn(text, "\n")] = 0;
}

static struct finding *add(struct report *r, const char *name)
{
    struct finding *f = &r->finding[r->count];
    r->count += r->count + 1 < FINDING_MAX;
    f->name = name;
    return f;
}

/* What `ruche-vmm --probe` prints; NULL and *err on failure. */
static json_t *ask_machine_program(struct error **err)
{
    char *program = machine_program(err);
    json_t *answer = NULL;
    if (!program)
        return NULL;
    int out[2];
    if (pipe2(out, O_CLOEXEC) < 0) {
        error_set_errno(err, errno, "start '%s'", program);
        free(program);
        return NULL;
    }
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        execl(program, "ruche-vmm", "--probe", (char *)NULL);
        _exit(EXIT_RUCHE);
    }
    close(out[1]);
    cleanup(file) FILE *f = fdopen(out[0], "r");
    int status = 0;
    if (f)
        answer = json_loadf(f, 0, NULL);
    if (pid > 0)
        waitpid(pid, &status, 0);
    if (!json_is_array(answer))
        error_set(err, 0, "'%s --probe' gave no answer (status %d)", program, machine_status(status));
    free(program);
    return answer;
}

/* One finding an engine, best first: the first usable one is what `auto` takes. */
static void check_engines(struct report *r)
{
    static const char *const names[] = {"engine", "engine", "engine", "engine"};
    struct error *err = NULL;
    json_t *all = ask_machine_program(&err), *one;
    size_t i;
    if (!all)
        finding_set(add(r, names[0]), FINDING_BROKEN, "%s", error_text(err));
    error_free(err);
    json_array_foreach(all, i, one)
    {
        const char *engine = "?", *cpu = "", *reason = NULL;
        int usable = 0;
        json_unpack(one, "{s:s, s:b, s:s, s:s?}", "engine", &engine, "usable", &usable, "cpu", &cpu, "reason",
                    &reason);
        struct finding *f = add(r, names[MIN(i, ARRAY_SIZE(names) - 1)]);
        if (usable)
            finding_set(f, FINDING_OK, "%s works, with CPU model %s", engine, cpu);
        else
            finding_set(f, FINDING_ABSENT, "%s does not work: %s", engine,
                        reason ? reason : "unknown reason");
        if (usable && !r->engine[0])
            snprintf(r->engine, sizeof(r->engine), "%s", engine);
    }
    json_decref(all);
    struct finding *f = add(r, "verdict");
    if (r->engine[0])
        finding_set(f, FINDING_OK, "machines run here; --engine auto takes %s", r->engine);
    else
        finding_set(f, FINDING_BROKEN, "no engine works: no machine can run here");
}

static const char *status_name(enum finding_status status)
{
    static const char *const names[] = {"ok", "absent", "broken"};
    return names[status];
}

static void print_table(const struct report *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        const struct finding *f = &r->finding[i];
        printf("%-7s %-16s %s\n", status_name(f->status), f->name, f->text);
        if (f->remedy[0])
            printf("%-24s -> %s\n", "", f->remedy);
    }
}

static int print_report(const struct report *r)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < r->count; i++) {
        const struct finding *f = &r->finding[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s?}", "name", f->name, "status",
                                              status_name(f->status), "finding", f->text, "remedy",
                                              f->remedy[0] ? f->remedy : NULL));
    }
    json_t *all = json_pack("{s:s?, s:o}", "engine", r->engine[0] ? r->engine : NULL, "checks", list);
    int failed = !all || json_dumpf(all, stdout, JSON_INDENT(1)) < 0;
    putchar('\n');
    json_decref(all);
    return failed ? EXIT_RUCHE : EXIT_OK;
}

static int run(int argc, char **argv)
{
    bool json = argc == 2 && strcmp(argv[1], "--json") == 0;
    struct report r = {0};
    if (argc > 1 && !json)
        return usage_error("doctor", "unknown argument '%s'", argv[1]);
    for (const struct doctor_entry *e = doctor_host_checks; e->name; e++)
        e->check(add(&r, e->name));
    check_engines(&r);
    int status = EXIT_OK;
    if (json)
        status = print_report(&r);
    else
        print_table(&r);
    return status || r.engine[0] ? status : EXIT_NO_ENGINE;
}

const struct verb verb_doctor = {
    .name = "doctor",
    .summary = "say what this host offers, and how to have what it lacks",
    .help =
        "usage: ruche doctor [--json]\n"
        "\n"
        "Tries what Ruche makes use of: KVM, user namespaces, cgroups, io_uring, huge pages, TUN, and its\n"
        "engines. Each line is \"ok\"; \"absent\", when Ruche does without; or \"broken\", when no machine "
        "can\n"
        "run without it. Below what is not there stands how to have it.\n"
        "\n"
        "Exit status: 0 when machines can run here, 1 when no engine works.\n",
    .run = run,
};
