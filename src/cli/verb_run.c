/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ruche run: starts a machine and attaches the terminal to it. What concerns the machine goes to ruche-vmm as
 * it was written; here an image's name becomes its kernel, initial RAM disk and an overlay of its disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/image.h"
#include "catalog/kept.h"
#include "catalog/overlay.h"
#include "cli/agent_guest.h"
#include "cli/attach.h"
#include "cli/machine_process.h"
#include "cli/verb.h"

/* Options that are the machine's own affair. */
static const struct {
    const char *name;
    bool has_value;
} machine_options[] = {
    {"engine", true},  {"cpu", true},   {"cpus", true},      {"memory", true},     {"initrd", true},
    {"module", true},  {"disk", true},  {"device", true},    {"no-reboot", false}, {"restore", true},
    {"verify", false}, {"trace", true}, {"no-cache", false}, {"incoming", true},
};

struct request {
    struct words args; /* for ruche-vmm */
    const char *image, *name, *control, *serial, *kernel, *initrd, *cmdline, *net;
    bool memory_given, goes_on, detach, keep, ask_devices;
    char *default_name, *control_path; /* owned */
    char *agent;                       /* owned; socket of the guest's agent; NULL: none */
    char *overlay;                     /* owned; to be unlinked once the machine has it open; NULL: none */
    char *new_kept;                    /* owned; to be removed unless the machine comes to run; NULL: none */
};

static void request_release(struct request *r)
{
    if (r->overlay)
        unlink(r->overlay);
    if (r->new_kept)
        kept_discard(r->new_kept);
    free(r->overlay);
    free(r->new_kept);
    free(r->default_name);
    free(r->agent);
    free(r->control_path);
    words_free(&r->args);
}

static void add_option(struct request *r, const char *name, const char *value)
{
    cleanup(mem) char *option = catalog_format("--%s", name);
    words_add(&r->args, option);
    if (value)
        words_add(&r->args, value);
}

/* True when the word was an option of the machine, which then is in r->args. */
static bool take_machine_option(struct request *r, int argc, char **argv, int *i, int *status)
{
    for (size_t k = 0; k < ARRAY_SIZE(machine_options); k++) {
        const char *name = machine_options[k].name;
        const char *value = NULL;
        if (!machine_options[k].has_value) {
            if (strncmp(argv[*i], "--", 2) != 0 || strcmp(argv[*i] + 2, name) != 0)
                continue;
        } else if (!option_value(argc, argv, i, name, &value)) {
            continue;
        } else if (!value) {
            *status = usage_error("run", "--%s wants a value", name);
            return true;
        }
        add_option(r, name, value);
        size_t len = value ? strlen(value) : 0;
        r->initrd = strcmp(name, "initrd") == 0 ? value : r->initrd;
        r->memory_given |= strcmp(name, "memory") == 0;
        r->goes_on |= strcmp(name, "restore") == 0 || strcmp(name, "incoming") == 0;
        r->ask_devices |= strcmp(name, "device") == 0 && len >= 4 && strcmp(value + len - 4, "help") == 0 &&
                          (len == 4 || value[len - 5] == ',');
        return true;
    }
    return false;
}

static int parse(struct request *r, int argc, char **argv)
{
    const struct {
        const char *name;
        const char **value;
        bool pass_on;
    } own[] = {
        {"name", &r->name, true},     {"control", &r->control, false}, {"serial", &r->serial, false},
        {"kernel", &r->kernel, true}, {"cmdline", &r->cmdline, false}, {"net", &r->net, true},
    };
    for (int i = 1; i < argc; i++) {
        int status = EXIT_OK;
        size_t k = 0;
        while (k < ARRAY_SIZE(own) && !option_value(argc, argv, &i, own[k].name, own[k].value))
            k++;
        if (k < ARRAY_SIZE(own)) {
            if (!*own[k].value)
                return usage_error("run", "--%s wants a value", own[k].name);
            if (own[k].pass_on)
                add_option(r, own[k].name, *own[k].value);
        } else if (take_machine_option(r, argc, argv, &i, &status)) {
            if (status != EXIT_OK)
                return status;
        } else if (strcmp(argv[i], "--detach") == 0) {
            r->detach = true;
        } else if (strcmp(argv[i], "--keep") == 0) {
            r->keep = true;
        } else if (argv[i][0] == '-') {
            return usage_error("run", "unknown option '%s'", argv[i]);
        } else if (r->image) {
            return usage_error("run", "one image at a time: '%s' and '%s'", r->image, argv[i]);
        } else {
            r->image = argv[i];
        }
    }
    if (r->ask_devices)
        return EXIT_OK;
    if (!r->image && r->cmdline)
        add_option(r, "cmdline", r->cmdline);
    if (r->image && r->goes_on)
        return usage_error("run", "--restore and --incoming go on with a machine, '%s' boots an image",
                           r->image);
    if (!r->image && !r->kernel && !r->goes_on)
        return usage_error("run", "nothing to run: name an image or give --kernel FILE or --restore FILE");
    if (r->keep && !r->image)
        return usage_error("run", "--keep is for the disk of an image");
    struct error *err = NULL;
    if ((r->name && !catalog_name_check(r->name, &err)) ||
        (r->image && !catalog_name_check(r->image, &err))) {
        failure(err);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

/* What the image's console learns about the terminal behind it; "" when there is none. */
static char *terminal_words(void)
{
    struct winsize size;
    const char *term = getenv("TERM");
    if (!isatty(STDIN_FILENO) || ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_row || !size.ws_col)
        return catalog_format("%s", "");
    bool usable = term && term[0] && strspn(term, "abcdefghijklmnopqrstuvwxyz0123456789-+.") == strlen(term);
    return catalog_format(" ruche.rows=%u ruche.cols=%u%s%s", size.ws_row, size.ws_col,
                          usable ? " ruche.term=" : "", usable ? term : "");
}

/* An image's name becomes options. They come first, so that its disk is the machine's first whatever else it
 * has. */
static bool add_image(struct request *r, struct error **err)
{
    struct image image;
    if (!image_load(r->image, &image, err))
        return false;
    cleanup(mem) char *kept = NULL;
    bool made = false;
    if (r->keep)
        kept = kept_disk(r->name ? r->name : r->image, &image, &made, err);
    else
        r->overlay = overlay_create_temporary(image.disk, err);
    bool ok = kept || r->overlay;
    if (kept && made)
        r->new_kept = catalog_format("%s", kept);
    struct words given = r->args;
    r->args = (struct words){0};
    if (ok) {
        cleanup(mem) char *disk = catalog_format("%s,format=qcow2", kept ? kept : r->overlay);
        cleanup(mem) char *tail = terminal_words();
        cleanup(mem) char *cmdline = catalog_format("%s%s", image.cmdline, tail);
        add_option(r, "disk", disk);
        if (!r->kernel) {
            add_option(r, "kernel", image.kernel);
            if (!r->initrd)
                add_option(r, "initrd", image.initrd);
        }
        add_option(r, "cmdline", r->cmdline ? r->cmdline : cmdline);
        if (!r->net)
            add_option(r, "net", "user");
        if (!r->memory_given)
            add_option(r, "memory", "1G");
    }
    for (size_t i = 0; i < given.n; i++)
        words_add(&r->args, given.v[i]);
    words_free(&given);
    image_release(&image);
    return ok;
}

/* The names under which others find the machine. */
static bool add_names(struct request *r, struct error **err)
{
    if (!r->name) {
        r->default_name = catalog_format("%s-%ld", r->image ? r->image : "machine", (long)getpid());
        r->name = r->default_name;
        add_option(r, "name", r->name);
    }
    if (!r->control) {
        cleanup(mem) char *dir = catalog_runtime_dir(err);
        if (!dir)
            return false;
        r->control_path = catalog_format("%s/%s.sock", dir, r->name);
        r->control = r->control_path;
    }
    add_option(r, "control", r->control);
    return true;
}

/* The path of a socket beside the control socket. */
static char *beside_control(const struct request *r, const char *what)
{
    size_t len = strlen(r->control);
    if (len > 5 && strcmp(r->control + len - 5, ".sock") == 0)
        len -= 5;
    return catalog_format("%.*s.%s", (int)len, r->control, what);
}

/* The agent of a guest that goes on is wanted for its clock. Where the path is too long it stays as it is. */
static void add_agent(struct request *r)
{
    cleanup(mem) char *path = r->goes_on ? beside_control(r, "agent") : NULL;
    if (!path || strncmp(path, "fd:", 3) == 0 ||
        strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return;
    cleanup(mem) char *spec = catalog_format("unix:%s", path);
    add_option(r, "agent", spec);
    r->agent = steal_ptr(&path);
}

static char *detached_serial(const struct request *r)
{
    cleanup(mem) char *path = beside_control(r, "serial");
    return catalog_format("unix:%s", path);
}

/* A machine that nobody learns of would run unseen: it ends again. */
static int report_detached(const struct request *r, const char *serial, pid_t machine)
{
    printf("name     %s\ncontrol  %s\nserial   %s\n", r->name, r->control, serial);
    if (fflush(stdout) == 0)
        return EXIT_OK;
    kill(machine, SIGTERM);
    waitpid(machine, NULL, 0);
    return EXIT_RUCHE;
}

/* Chooses where the serial line goes. *fd is the machine's end and session->serial_fd ours when it comes
 * here. */
static bool add_serial(struct request *r, struct machine_session *session, int *fd, char **spec,
                       struct error **err)
{
    if (r->serial && strcmp(r->serial, "stdio") != 0)
        *spec = catalog_format("%s", r->serial);
    else if (r->detach)
        *spec = detached_serial(r);
    if (*spec) {
        add_option(r, "serial", *spec);
        return true;
    }
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_set_errno(err, errno, "make the serial line"), false;
    session->serial_fd = pair[0];
    *fd = pair[1];
    *spec = catalog_format("fd:%d", pair[1]);
    add_option(r, "serial", *spec);
    return true;
}

/* Where the machine's own messages go: through us when they would disturb a raw terminal. */
static bool open_errors(const struct request *r, struct machine_session *session, int *fd, struct error **err)
{
    if (r->detach) {
        *fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        return *fd >= 0 || (error_set_errno(err, errno, "open '/dev/null'"), false);
    }
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "make a pipe"), false;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    session->error_fd = ends[0];
    *fd = ends[1];
    return true;
}

static int run_machine(struct request *r, const char *program)
{
    struct error *err = NULL;
    struct machine_session session = {.signal_fd = -1, .ready_fd = -1, .serial_fd = -1, .error_fd = -1};
    cleanup(fd) int serial_fd = -1;
    cleanup(fd) int error_fd = -1;
    cleanup(mem) char *serial = NULL;
    if (!add_names(r, &err) || !add_serial(r, &session, &serial_fd, &serial, &err) ||
        !open_errors(r, &session, &error_fd, &err))
        return failure(err);
    cleanup(fd) int signals = session_signals();
    if (signals < 0) {
        error_set_errno(&err, errno, "watch for signals");
        return failure(err);
    }
    add_agent(r);
    struct machine_process machine;
    if (!machine_start(program, &r->args, serial_fd, error_fd, r->detach, &machine, &err))
        return failure(err);
    close(steal_fd(&error_fd));
    if (serial_fd >= 0)
        close(steal_fd(&serial_fd));

    session.pid = machine.pid;
    session.ready_fd = machine.ready_fd;
    session.signal_fd = signals;
    session.control = r->control;
    int status;
    if (!session_wait_ready(&session, &status))
        return status;
    if (r->overlay)
        unlink(r->overlay);
    free(steal_ptr(&r->new_kept));
    if (r->agent)
        guest_set_time_apart(r->name, r->agent);
    if (r->detach && !session.stopped_by)
        return report_detached(r, serial, machine.pid);
    status = session_serve(&session);
    /* The machine removes its sockets itself, unless it was ended by force. */
    if (r->control_path)
        unlink(r->control_path);
    if (r->agent)
        unlink(r->agent);
    return status;
}

/* `--device help`: the machine's program knows its devices and prints them. */
static int list_devices(const struct request *r, const char *program)
{
    struct words all = {0};
    words_add(&all, "ruche-vmm");
    for (size_t i = 0; i < r->args.n; i++)
        words_add(&all, r->args.v[i]);
    execv(program, all.v);
    fprintf(stderr, "ruche: start '%s': %s\n", program, strerror(errno));
    return EXIT_RUCHE;
}

static int run(int argc, char **argv)
{
    struct request r = {0};
    struct error *err = NULL;
    int status = parse(&r, argc, argv);
    if (status == EXIT_OK) {
        cleanup(mem) char *program = machine_program(&err);
        if (!program)
            status = failure(err);
        else if (r.ask_devices)
            status = list_devices(&r, program);
        else if (r.image && !add_image(&r, &err))
            status = failure(err);
        else
            status = run_machine(&r, program);
    }
    request_release(&r);
    return status;
}

const struct verb verb_run = {
    .name = "run",
    .summary = "start a machine and attach the terminal to it",
    .help =
        "usage: ruche run [OPTION]... IMAGE\n"
        "       ruche run [OPTION]... --kernel FILE\n"
        "       ruche run [OPTION]... --restore FILE\n"
        "       ruche run [OPTION]... --incoming ADDRESS\n"
        "\n"
        "Boots an image (see ruche image) on a throw-away overlay of its disk, or a kernel of your own.\n"
        "\n"
        "machine:\n"
        "  --engine auto|bt|kvm   what executes the guest: binary translation, or KVM where there is one;\n"
        "                         bt,native=off: no program of the guest runs natively\n"
        "  --cpu MODEL            processor shown to the guest: v1, v2, v3 (x86-64 levels) or host\n"
        "  --cpus N               virtual processors, 1 to 32 (default 1)\n"
        "  --memory SIZE          RAM, e.g. 512M or 4G (with an image: 1G)\n"
        "  --no-reboot            a reboot of the guest ends the machine\n"
        "what it boots:\n"
        "  --kernel FILE          Linux bzImage, PVH ELF or Multiboot 1 image\n"
        "  --initrd FILE          initial RAM disk\n"
        "  --module FILE          Multiboot module with its command line; may be repeated\n"
        "  --cmdline TEXT         kernel command line\n"
        "  --restore FILE         go on with a machine that ruche save has saved; of these options only "
        "--engine,\n"
        "                         --disk, --net, --serial and those of management go with it\n"
        "  --incoming ADDRESS     wait at unix:PATH or tcp:HOST:PORT for a machine that is moved here; the "
        "same\n"
        "                         options go with it\n"
        "  --verify               check all of the saved memory before that, instead of meanwhile\n"
        "devices:\n"
        "  --disk FILE[,format=raw|qcow2][,readonly]\n"
        "                         a virtio disk; may be repeated\n"
        "  --net none|user[,forward=tcp|udp:[ADDR:]HOSTPORT:GUESTPORT]...\n"
        "                         network: none, or the host's by address translation (with an image: user)\n"
        "  --device CLASS[,PROP=VALUE]...\n"
        "                         a further device; --device help lists them, --device CLASS,help its "
        "properties\n"
        "  --serial stdio|none|file:PATH|unix:PATH\n"
        "                         first serial line (default: this terminal)\n"
        "management:\n"
        "  --name N               name of the machine\n"
        "  --control PATH         control socket (default $XDG_RUNTIME_DIR/ruche/NAME.sock)\n"
        "  --detach               return once the machine runs, printing its name and sockets\n"
        "  --keep                 keep the disk under the machine's name (default: the image's) and go on "
        "with it\n"
        "                         the next time\n"
        "  --no-cache             engine bt: translate everything anew, and keep nothing of it\n"
        "  --trace FILE           a line for each time that guest code asks the engine for something\n"
        "\n"
        "On a terminal, Ctrl-] then: q quit, p power button, r reset, c send Ctrl-], h help.\n"
        "\n"
        "Exit status: 0 the guest powered off; 2 wrong usage; 125 Ruche failed; 126 the guest crashed;\n"
        "130 interrupted; with the debug-exit device what the guest wrote, as (value << 1) | 1.\n",
    .run = run,
};
