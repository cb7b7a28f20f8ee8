/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading the command line of ruche-vmm: see options.h. */
#include "vmm/options.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"
#include "base/util.h"
#include "os/address.h"

#define MEMORY_MIN     (1 * MIB)
#define MEMORY_MAX     (1024 * GIB) /* what guest memory can be */
#define MEMORY_DEFAULT (512 * MIB)
#define NAME_MAX_LEN   64

const char options_help[] =
    "usage: ruche-vmm --kernel FILE [OPTION]...\n"
    "       ruche-vmm --restore FILE [OPTION]...\n"
    "       ruche-vmm --incoming unix:PATH|tcp:HOST:PORT|fd:N [OPTION]...\n"
    "\n"
    "Runs one machine. Usually started by `ruche run`, whose options of the same names are described in\n"
    "ruche(1). Further ones:\n"
    "  --uuid UUID      identity of the machine\n"
    "  --serial fd:N    the first serial line is an open descriptor\n"
    "  --serial-log F   file that keeps the end of its output\n"
    "  --agent CHARDEV  a port for QEMU's guest agent, as --device virtio-console would make it\n"
    "  --paused         the guest runs only once the control socket says so\n"
    "  --control fd:N   the control socket is an open, listening descriptor\n"
    "  --no-cache       keep no translations for other machines, and use none of theirs\n"
    "  --ready-fd N     write \"ready\" or a one-line reason there once the machine runs or has failed\n"
    "  --probe          print as JSON which engines work here, and with which CPU model\n"
    "  --help, --version\n";

enum option_id {
    OPT_NAME = 1,
    OPT_UUID,
    OPT_ENGINE,
    OPT_CPU,
    OPT_CPUS,
    OPT_MEMORY,
    OPT_KERNEL,
    OPT_INITRD,
    OPT_MODULE,
    OPT_CMDLINE,
    OPT_DISK,
    OPT_NET,
    OPT_DEVICE,
    OPT_SERIAL,
    OPT_SERIAL_LOG,
    OPT_AGENT,
    OPT_CONTROL,
    OPT_READY_FD,
    OPT_NO_REBOOT,
    OPT_PAUSED,
    OPT_RESTORE,
    OPT_INCOMING,
    OPT_VERIFY,
    OPT_TRACE,
    OPT_NO_CACHE,
    OPT_HELP,
    OPT_VERSION,
    OPT_PROBE,
};

static const struct option long_options[] = {
    {"name", required_argument, NULL, OPT_NAME},
    {"uuid", required_argument, NULL, OPT_UUID},
    {"engine", required_argument, NULL, OPT_ENGINE},
    {"cpu", required_argument, NULL, OPT_CPU},
    {"cpus", required_argument, NULL, OPT_CPUS},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"kernel", required_argument, NULL, OPT_KERNEL},
    {"initrd", required_argument, NULL, OPT_INITRD},
    {"module", required_argument, NULL, OPT_MODULE},
    {"cmdline", required_argument, NULL, OPT_CMDLINE},
    {"disk", required_argument, NULL, OPT_DISK},
    {"net", required_argument, NULL, OPT_NET},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"serial", required_argument, NULL, OPT_SERIAL},
    {"serial-log", required_argument, NULL, OPT_SERIAL_LOG},
    {"agent", required_argument, NULL, OPT_AGENT},
    {"control", required_argument, NULL, OPT_CONTROL},
    {"ready-fd", required_argument, NULL, OPT_READY_FD},
    {"no-reboot", no_argument, NULL, OPT_NO_REBOOT},
    {"paused", no_argument, NULL, OPT_PAUSED},
    {"restore", required_argument, NULL, OPT_RESTORE},
    {"incoming", required_argument, NULL, OPT_INCOMING},
    {"verify", no_argument, NULL, OPT_VERIFY},
    {"trace", required_argument, NULL, OPT_TRACE},
    {"no-cache", no_argument, NULL, OPT_NO_CACHE},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {"probe", no_argument, NULL, OPT_PROBE},
    {0},
};

/* Parsing in progress. `wrong` is set through refuse(). */
struct parser {
    struct machine_config *config;
    struct error **err;
    enum options_result result;
    uint32_t given; /* bits by enum option_id */
};

__attribute__((format(printf, 2, 3))) static bool refuse(struct parser *p, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (p->result != OPTIONS_WRONG)
        error_set(p->err, EINVAL, "%s", text);
    p->result = OPTIONS_WRONG;
    return false;
}

static char *copy(struct parser *p, const char *text)
{
    char *s = strdup(text);

    if (!s)
        refuse(p, "out of memory");
    return s;
}

/* For options that may be given once; the last one wins, as in most programs. */
static bool set_text(struct parser *p, char **field, const char *value, const char *option)
{
    if (!*value)
        return refuse(p, "--%s: an empty value", option);
    free(*field);
    *field = copy(p, value);
    return *field != NULL;
}

static bool has_room(struct parser *p, unsigned count, const char *option)
{
    return count < OPTIONS_LIST_MAX || refuse(p, "--%s: given more than %d times", option, OPTIONS_LIST_MAX);
}

/* The name ends up in file names, logs and thread names. */
static bool take_name(struct parser *p, const char *value)
{
    size_t len = strlen(value);
    size_t good = strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    if (len == 0 || len > NAME_MAX_LEN || good != len || value[0] == '.' || value[0] == '-')
        return refuse(p,
                      "--name '%.80s': 1 to %d letters, digits, '.', '_', '-', not beginning with '.' or '-'",
                      value, NAME_MAX_LEN);
    return set_text(p, &p->config->name, value, "name");
}

static bool take_cpus(struct parser *p, const char *value)
{
    uint64_t n;

    if (!parse_uint(value, &n) || n < 1 || n > OPTIONS_CPUS_MAX)
        return refuse(p, "--cpus '%s': a number from 1 to %d is wanted", value, OPTIONS_CPUS_MAX);
    p->config->cpus = (unsigned)n;
    return true;
}

/* A bare number means MiB, as other machine monitors have it. */
static bool take_memory(struct parser *p, const char *value)
{
    uint64_t size;

    if (parse_uint(value, &size) ? size > UINT64_MAX / MIB : !parse_size(value, &size))
        return refuse(p, "--memory '%s': a size such as 512M or 4G is wanted", value);
    if (value[strlen(value) - 1] >= '0' && value[strlen(value) - 1] <= '9')
        size *= MIB;
    if (size < MEMORY_MIN)
        return refuse(p, "--memory '%s': at least 1M is needed", value);
    if (size > MEMORY_MAX)
        return refuse(p, "--memory '%s': more than 1T", value);
    if (size % (4 * KIB))
        return refuse(p, "--memory '%s': not a multiple of 4K", value);
    p->config->memory = size;
    return true;
}

static bool take_fd(struct parser *p, const char *option, const char *value, int *fd)
{
    uint64_t n;

    if (!parse_uint(value, &n) || n > INT_MAX || fcntl((int)n, F_GETFD) < 0)
        return refuse(p, "--%s '%s': not an open file descriptor", option, value);
    *fd = (int)n;
    return true;
}

/* FILE[,format=raw|qcow2][,readonly]; a comma in the file's name is written twice. */
static char *take_file_name(struct parser *p, const char **rest)
{
    const char *from = *rest;
    char *name = malloc(strlen(from) + 1), *to = name;

    if (!name) {
        refuse(p, "out of memory");
        return NULL;
    }
    while (*from && (*from != ',' || from[1] == ',')) {
        from += *from == ',';
        *to++ = *from++;
    }
    *to = '\0';
    *rest = from;
    return name;
}

static bool take_disk(struct parser *p, const char *value)
{
    const char *rest = value;

    if (!has_room(p, p->config->disk_count, "disk"))
        return false;
    struct disk_config *d = &p->config->disk[p->config->disk_count++];
    d->path = take_file_name(p, &rest);
    if (!d->path)
        return false;
    if (!*d->path)
        return refuse(p, "--disk '%s': no file is named", value);
    while (*rest == ',') {
        size_t len = strcspn(++rest, ",");
        if (len == 10 && !memcmp(rest, "format=raw", len))
            d->format = "raw";
        else if (len == 12 && !memcmp(rest, "format=qcow2", len))
            d->format = "qcow2";
        else if (len == 8 && !memcmp(rest, "readonly", len))
            d->readonly = true;
        else
            return refuse(p, "--disk '%s': unknown setting '%.*s' (format=raw, format=qcow2, readonly)",
                          value, (int)len, rest);
        rest += len;
    }
    return true;
}

static bool take_net(struct parser *p, const char *value)
{
    if (!strcmp(value, "none")) {
        p->config->no_net = true;
        return true;
    }
    if (!*value)
        return refuse(p, "--net: an empty value");
    if (!has_room(p, p->config->net_count, "net"))
        return false;
    char *spec = copy(p, value);
    p->config->net[p->config->net_count] = spec;
    p->config->net_count += spec != NULL;
    return spec != NULL;
}

static bool take_device_prop(struct parser *p, struct device_config *d, const char *text, size_t len)
{
    const char *equals = memchr(text, '=', len);

    if (!equals || equals == text)
        return refuse(p, "--device %s: '%.*s' is not PROP=VALUE", d->cls, (int)len, text);
    if (d->prop_count == OPTIONS_PROPS_MAX)
        return refuse(p, "--device %s: too many properties", d->cls);
    struct device_prop *prop = &d->prop[d->prop_count++];
    prop->name = strndup(text, (size_t)(equals - text));
    prop->value = strndup(equals + 1, len - (size_t)(equals + 1 - text));
    return (prop->name && prop->value) || refuse(p, "out of memory");
}

/* help; CLASS,help; CLASS[,PROP=VALUE]... */
static bool take_device(struct parser *p, const char *value)
{
    size_t len = strcspn(value, ",");

    if (!has_room(p, p->config->device_count, "device"))
        return false;
    if (len == 0)
        return refuse(p, "--device '%s': no class is named", value);
    struct device_config *d = &p->config->device[p->config->device_count++];
    d->cls = strndup(value, len);
    if (!d->cls)
        return refuse(p, "out of memory");
    bool help = !strcmp(value, "help") || !strcmp(value + len, ",help");
    for (const char *rest = value + len; !help && *rest == ','; rest += len) {
        len = strcspn(++rest, ",");
        if (!take_device_prop(p, d, rest, len))
            return false;
    }
    if (help && p->result == OPTIONS_RUN) {
        struct device_config asked = *d, first = p->config->device[0];
        p->config->device[p->config->device_count - 1] = first;
        p->config->device[0] = asked;
        if (!strcmp(value, "help")) {
            free(p->config->device[0].cls);
            p->config->device[0].cls = NULL;
        }
        p->result = OPTIONS_DEVICE_HELP;
    }
    return true;
}

static bool take_native(struct parser *p, const char *word)
{
    static const char *const words[] = {
        [ENGINE_NATIVE_AUTO] = "auto", [ENGINE_NATIVE_OFF] = "off", [ENGINE_NATIVE_ALWAYS] = "always"};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (!strcmp(word, words[i])) {
            p->config->native = (enum engine_native)i;
            return true;
        }
    }
    return refuse(p, "--engine native='%s': not auto, off or always", word);
}

/* `off`, or a folder. */
static bool take_cache(struct parser *p, const char *word)
{
    p->config->no_cache = !strcmp(word, "off");
    return p->config->no_cache || set_text(p, &p->config->translations, word, "engine cache");
}

/* NAME[,native=auto|off|always][,cache=off|FOLDER][,jitdump=FOLDER] */
static bool take_engine(struct parser *p, const char *value)
{
    if (!set_text(p, &p->config->engine, value, "engine"))
        return false;
    char *rest = strchr(p->config->engine, ',');
    while (rest) {
        *rest++ = 0;
        char *option = rest;
        if ((rest = strchr(rest, ',')))
            *rest = 0;
        bool ok = false;
        if (!strncmp(option, "native=", 7))
            ok = take_native(p, option + 7);
        else if (!strncmp(option, "cache=", 6))
            ok = take_cache(p, option + 6);
        else if (!strncmp(option, "jitdump=", 8))
            ok = set_text(p, &p->config->jitdump, option + 8, "engine jitdump");
        else
            refuse(p, "--engine '%s': not NAME[,native=auto|off|always][,cache=off|FOLDER][,jitdump=FOLDER]",
                   value);
        if (!ok)
            return false;
        if (rest)
            *rest = ',';
    }
    return true;
}

static bool take_control(struct parser *p, const char *value)
{
    int fd;

    if (!strncmp(value, "fd:", 3) && !take_fd(p, "control", value + 3, &fd))
        return false;
    return set_text(p, &p->config->control, value, "control");
}

static bool take_cmdline(struct parser *p, const char *value)
{
    free(p->config->cmdline);
    p->config->cmdline = copy(p, value);
    return p->config->cmdline != NULL;
}

static bool take_module(struct parser *p, const char *value)
{
    struct machine_config *c = p->config;

    if (!has_room(p, c->module_count, "module") || !set_text(p, &c->module[c->module_count], value, "module"))
        return false;
    c->module_count++;
    return true;
}

static bool take(struct parser *p, int option, const char *value)
{
    struct machine_config *c = p->config;

    switch (option) {
    case OPT_NAME:
        return take_name(p, value);
    case OPT_UUID:
        return parse_uuid(value, c->uuid) || refuse(p, "--uuid '%.80s': not a UUID", value);
    case OPT_ENGINE:
        return take_engine(p, value);
    case OPT_CPU:
        return set_text(p, &c->cpu, value, "cpu");
    case OPT_CPUS:
        return take_cpus(p, value);
    case OPT_MEMORY:
        return take_memory(p, value);
    case OPT_KERNEL:
        return set_text(p, &c->kernel, value, "kernel");
    case OPT_INITRD:
        return set_text(p, &c->initrd, value, "initrd");
    case OPT_MODULE:
        return take_module(p, value);
    case OPT_CMDLINE:
        return take_cmdline(p, value);
    case OPT_DISK:
        return take_disk(p, value);
    case OPT_NET:
        return take_net(p, value);
    case OPT_DEVICE:
        return take_device(p, value);
    case OPT_SERIAL:
        return set_text(p, &c->serial, value, "serial");
    case OPT_SERIAL_LOG:
        return set_text(p, &c->serial_log, value, "serial-log");
    case OPT_AGENT:
        return set_text(p, &c->agent, value, "agent");
    case OPT_CONTROL:
        return take_control(p, value);
    case OPT_READY_FD:
        return take_fd(p, "ready-fd", value, &c->ready_fd);
    case OPT_NO_REBOOT:
        c->no_reboot = true;
        return true;
    case OPT_PAUSED:
        c->paused = true;
        return true;
    case OPT_RESTORE:
        return set_text(p, &c->restore, value, "restore");
    case OPT_INCOMING:
        return address_check(value, NULL)
                   ? set_text(p, &c->incoming, value, "incoming")
                   : refuse(p, "--incoming '%.200s': not unix:PATH, tcp:HOST:PORT or fd:N", value);
    case OPT_VERIFY:
        c->verify = true;
        return true;
    case OPT_TRACE:
        return set_text(p, &c->trace, value, "trace");
    case OPT_NO_CACHE:
        c->no_cache = true;
        return true;
    case OPT_HELP:
        p->result = OPTIONS_HELP;
        return true;
    case OPT_VERSION:
        p->result = OPTIONS_VERSION;
        return true;
    case OPT_PROBE:
        p->result = OPTIONS_PROBE;
        return true;
    default:
        return false;
    }
}

/* A saved machine, and one that comes, has all that it is made of; only its surroundings may be others. */
static void finish_restore(struct parser *p, const char *how)
{
    static const uint32_t own = BIT(OPT_CPU) | BIT(OPT_CPUS) | BIT(OPT_MEMORY) | BIT(OPT_KERNEL) |
                                BIT(OPT_INITRD) | BIT(OPT_MODULE) | BIT(OPT_CMDLINE) | BIT(OPT_DEVICE);

    for (const struct option *o = long_options; o->name; o++)
        if (own & p->given & BIT(o->val))
            refuse(p, "--%s does not go with --%s: the machine has its own", o->name, how);
    if (p->config->no_net)
        refuse(p, "--net none does not go with --%s: the machine has its networks", how);
}

/* Where programs keep what they can make again (XDG Base Directory Specification). */
static void default_cache(struct machine_config *c)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool own = base && base[0] == '/';
    if (!own && (!home || home[0] != '/'))
        return;
    if (asprintf(&c->translations, own ? "%s/ruche" : "%s/.cache/ruche", own ? base : home) < 0)
        c->translations = NULL;
}

/* What options left open, and what does not go together. */
static void finish(struct parser *p)
{
    struct machine_config *c = p->config;

    if (!c->no_cache && !c->translations)
        default_cache(c);
    if (c->no_net && c->net_count > 0)
        refuse(p, "--net none: another --net asks for a network");
    if (c->restore && c->incoming)
        refuse(p, "--incoming does not go with --restore");
    if (c->restore) {
        finish_restore(p, "restore");
        return;
    }
    if (c->verify)
        refuse(p, "--verify is for a saved machine: --restore FILE is missing");
    if (c->incoming) {
        finish_restore(p, "incoming");
        return;
    }
    if (!c->kernel)
        refuse(p, "nothing to boot: --kernel FILE is missing");
    if (!c->no_net && c->net_count == 0 && (c->net[0] = copy(p, "user")))
        c->net_count = 1;
    if (!c->serial)
        c->serial = copy(p, "stdio");
}

enum options_result options_parse(struct machine_config *config, int argc, char **argv, struct error **err)
{
    struct parser p = {.config = config, .err = err, .result = OPTIONS_RUN};
    int option;

    *config = (struct machine_config){.cpus = 1, .memory = MEMORY_DEFAULT, .ready_fd = -1};
    optind = 0; /* getopt's state may be of an earlier call */
    opterr = 0;
    while (p.result == OPTIONS_RUN) {
        const char *word = argv[optind ? optind : 1];
        option = getopt_long(argc, argv, "+:", long_options, NULL);
        if (option == -1)
            break;
        if (option == ':')
            refuse(&p, "%s wants a value", word);
        else if (option == '?')
            refuse(&p, "unknown option '%s'", word);
        else if (take(&p, option, optarg))
            p.given |= (uint32_t)BIT(option);
    }
    if (p.result == OPTIONS_RUN && optind < argc)
        refuse(&p, "unexpected argument '%s'", argv[optind]);
    if (p.result == OPTIONS_RUN)
        finish(&p);
    return p.result;
}

void options_free(struct machine_config *c)
{
    char *single[] = {c->name,   c->engine,  c->translations, c->jitdump, c->cpu,
                      c->kernel, c->initrd,  c->cmdline,      c->serial,  c->serial_log,
                      c->agent,  c->control, c->restore,      c->trace,   c->incoming};

    for (size_t i = 0; i < ARRAY_SIZE(single); i++)
        free(single[i]);
    for (unsigned i = 0; i < c->module_count; i++)
        free(c->module[i]);
    for (unsigned i = 0; i < c->disk_count; i++)
        free(c->disk[i].path);
    for (unsigned i = 0; i < c->net_count; i++)
        free(c->net[i]);
    for (unsigned i = 0; i < c->device_count; i++) {
        free(c->device[i].cls);
        for (unsigned k = 0; k < c->device[i].prop_count; k++) {
            free(c->device[i].prop[k].name);
            free(c->device[i].prop[k].value);
        }
    }
    *c = (struct machine_config){.ready_fd = -1};
}
