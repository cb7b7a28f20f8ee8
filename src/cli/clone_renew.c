/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The identity of a running clone, as far as it is the guest's: its agent runs a script there. The script
 * names what it fails at and goes on. New ssh keys are made in the background, as that takes seconds; the old
 * ones are gone at once.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/clone.h"
#include "catalog/seed.h"
#include "cli/agent.h"
#include "cli/agent_command.h"
#include "cli/agent_guest.h"
#include "cli/clones.h"
#include "cli/machine_process.h"

#define TIMEOUT_MS 30000
#define RANDOM_LEN 64

/* $1: host name, may be empty; $2: machine-id; then old and new addresses of network cards. On standard input
 * are random bytes. Debian's perl-base is what can have the kernel use them at once: RNDADDENTROPY,
 * RNDRESEEDCRNG. */
static const char script[] =
    "failed() { echo \"$1\"; }\n"
    "perl -e 'read STDIN, $b, 64; open F, \">\", \"/dev/urandom\" or exit 1;\n"
    "    exit !(ioctl(F, 0x40085203, pack(\"iia64\", 512, 64, $b)) && ioctl(F, 0x5207, 0))' ||\n"
    "    failed 'random numbers'\n"
    "name=$1 id=$2\n"
    "shift 2\n"
    "if [ -n \"$name\" ]; then\n"
    "    echo \"$name\" >/etc/hostname && echo \"$name\" >/proc/sys/kernel/hostname || failed 'host name'\n"
    "    sed -i \"s/^127\\\\.0\\\\.1\\\\.1[[:space:]].*/127.0.1.1 $name/\" /etc/hosts || failed "
    "'/etc/hosts'\n"
    "fi\n"
    "for file in /etc/machine-id /var/lib/dbus/machine-id; do\n"
    "    [ ! -f $file ] || echo \"$id\" >$file || failed $file\n"
    "done\n"
    "while [ $# -ge 2 ]; do\n"
    "    for card in /sys/class/net/*; do\n"
    "        [ \"$(cat $card/address)\" = \"$1\" ] || continue\n"
    "        ip link set dev \"${card##*/}\" address \"$2\" || failed \"address of ${card##*/}\"\n"
    "    done\n"
    "    shift 2\n"
    "done\n"
    "set -- /etc/ssh/ssh_host_*_key\n"
    "if [ -e \"$1\" ]; then\n"
    "    rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub || failed 'ssh keys'\n"
    "    (ssh-keygen -A && { ! command -v systemctl || systemctl try-restart ssh sshd; }) </dev/null "
    ">/dev/null 2>&1 &\n"
    "fi\n";

static void add_cards(struct words *w, const json_t *old_nets, const json_t *nets)
{
    for (size_t i = 0; i < json_array_size(nets) && i < json_array_size(old_nets); i++) {
        words_add(w, json_string_value(json_object_get(json_array_get(old_nets, i), "mac")));
        words_add(w, json_string_value(json_object_get(json_array_get(nets, i), "mac")));
    }
}

/* What the script has said, with commas for its line ends; control characters of the guest's are no affair of
 * our terminal. */
static void list_failures(const struct agent_result *r, char *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < r->out_len && n + 3 < size; i++) {
        bool end = r->out[i] == '\n';
        if (end && i + 1 == r->out_len)
            break;
        if (end)
            text[n++] = ',';
        text[n++] = end ? ' ' : r->out[i] < ' ' || r->out[i] >= 0x7f ? '?' : (char)r->out[i];
    }
    text[n] = 0;
}

static bool run_script(struct agent *a, const struct machine *m, const json_t *old_nets, struct error **err)
{
    uint8_t random[RANDOM_LEN];
    char failures[256];
    struct agent_result result;
    struct words w = {0};
    cleanup(mem) char *id = clone_machine_id(m->uuid);
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return error_set_errno(err, errno, "get random numbers"), false;
    const char *const begin[] = {"sh", "-c", script, "sh", seed_is_hostname(m->name) ? m->name : ""};
    for (size_t i = 0; i < ARRAY_SIZE(begin); i++)
        words_add(&w, begin[i]);
    words_add(&w, id);
    add_cards(&w, old_nets, json_object_get(m->config, "nets"));
    const struct agent_command c = {.words = (const char *const *)w.v,
                                    .input = random,
                                    .input_len = sizeof(random),
                                    .timeout_ms = TIMEOUT_MS};
    bool ran = agent_run(a, &c, &result, err);
    words_free(&w);
    if (!ran)
        return false;
    list_failures(&result, failures, sizeof(failures));
    bool late = result.timed_out, broke = result.status != 0;
    agent_result_release(&result);
    if (late)
        error_set(err, ETIMEDOUT, "the guest takes too long");
    else if (failures[0])
        error_set(err, 0, "the guest failed at: %s", failures);
    else if (broke)
        error_set(err, 0, "the guest's shell broke off");
    return !late && !failures[0] && !broke;
}

int clone_renew(const struct machine *m, const json_t *old_nets)
{
    struct error *err = NULL;
    struct agent *a = agent_open(m, AGENT_PATIENCE_MS, &err);
    bool none = !a && err->code != ETIMEDOUT;
    bool ok = a && run_script(a, m, old_nets, &err) && guest_set_time(a, &err);
    agent_close(a);
    if (!ok && !none)
        fprintf(stderr, "ruche: machine '%s' is not in all its own: %s\n", m->name, error_text(err));
    error_free(err);
    return ok ? RENEWED : none ? RENEWED_NOTHING : RENEWED_IN_PART;
}
