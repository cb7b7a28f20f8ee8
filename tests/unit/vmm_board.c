/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a machine, with an engine that instead of guest code runs a script of port accesses: how each
 * end becomes an exit status, what reset does, and the control socket's hold on it all.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/board.h"

/* --- the engine --- */

enum step_kind { STEP_END, STEP_OUT, STEP_SPIN, STEP_TRIPLE_FAULT, STEP_ERROR };

/* What the first vCPU does; STEP_OUT goes on until it is stopped. */
struct step {
    enum step_kind kind;
    uint16_t port;
    uint8_t size;
    uint32_t value;
};

struct vcpu {
    struct engine *engine;
    unsigned index;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool kicked;
    struct x86_state state;
    unsigned next; /* step */
};

struct engine {
    struct engine_config config;
    struct vcpu cpu[32];
};

static const struct step *script;
static unsigned resets; /* of the first vCPU */
static uint64_t entry_rip;

static bool fake_probe(struct error **err)
{
    return true;
}

/* An engine that is better, but does not work: how, is the tests' to say. */
static int better_code = ENOENT; /* of its probe's failure */
static bool better_opens_not;    /* the probe is content, but then it does not open */

static bool better_probe(struct error **err)
{
    if (better_opens_not)
        return true;
    error_set(err, better_code, "the reason");
    return false;
}

static bool better_fit(struct cpuid_model *model, struct error **err)
{
    model->count = 0; /* must not be left to the next engine */
    return true;
}

static struct engine *better_open(const struct engine_config *config, struct error **err)
{
    error_set(err, 0, "the reason");
    return NULL;
}

static struct engine *fake_open(const struct engine_config *config, struct error **err)
{
    struct engine *e = aligned_alloc(64, sizeof(*e));
    assert_non_null(e);
    memset(e, 0, sizeof(*e));
    e->config = *config;
    return e;
}

static void fake_close(struct engine *e)
{
    free(e);
}

static struct vcpu *fake_vcpu_new(struct engine *e, unsigned index, struct error **err)
{
    struct vcpu *cpu = &e->cpu[index];
    cpu->engine = e;
    cpu->index = index;
    pthread_mutex_init(&cpu->lock, NULL);
    pthread_cond_init(&cpu->cond, NULL);
    return cpu;
}

/* Takes a kick if there is one; waits for it when told. */
static bool take_kick(struct vcpu *cpu, bool wait)
{
    pthread_mutex_lock(&cpu->lock);
    while (wait && !cpu->kicked)
        pthread_cond_wait(&cpu->cond, &cpu->lock);
    bool kicked = cpu->kicked;
    cpu->kicked = false;
    pthread_mutex_unlock(&cpu->lock);
    return kicked;
}

static void fake_run(struct vcpu *cpu, struct vm_exit *exit)
{
    const struct engine_host *host = cpu->engine->config.host;

    *exit = (struct vm_exit){.kind = VM_EXIT_INTERRUPTED};
    if (cpu->index > 0) {
        take_kick(cpu, true);
        return;
    }
    entry_rip = cpu->state.rip;
    while (!take_kick(cpu, false)) {
        const struct step *s = &script[cpu->next];
        cpu->next += s->kind != STEP_END && s->kind != STEP_SPIN;
        if (s->kind == STEP_OUT) {
            host->port_write(host->opaque, s->port, s->size, s->value);
        } else if (s->kind == STEP_TRIPLE_FAULT || s->kind == STEP_ERROR) {
            exit->kind = s->kind == STEP_ERROR ? VM_EXIT_ERROR : VM_EXIT_SHUTDOWN;
            strcpy(exit->text, "as the script says");
            return;
        } else {
            take_kick(cpu, true);
            return;
        }
    }
}

static void fake_kick(struct vcpu *cpu)
{
    pthread_mutex_lock(&cpu->lock);
    cpu->kicked = true;
    pthread_cond_signal(&cpu->cond);
    pthread_mutex_unlock(&cpu->lock);
}

static void fake_reset(struct vcpu *cpu)
{
    memset(&cpu->state, 0, sizeof(cpu->state));
    resets += cpu->index == 0;
}

static void fake_run_time(struct engine *e, bool running)
{
}

static void fake_set_intr(struct engine *e, bool level)
{
}

static void fake_nmi(struct vcpu *cpu)
{
}

static void fake_msi(struct engine *e, uint64_t addr, uint32_t data)
{
}

static void fake_get_state(struct vcpu *cpu, struct x86_state *out)
{
    *out = cpu->state;
}

static bool fake_set_state(struct vcpu *cpu, const struct x86_state *in, struct error **err)
{
    cpu->state = *in;
    return true;
}

static const struct engine_ops fake_engine = {
    .name = "fake",
    .probe = fake_probe,
    .open = fake_open,
    .close = fake_close,
    .vcpu_new = fake_vcpu_new,
    .run = fake_run,
    .kick = fake_kick,
    .reset = fake_reset,
    .run_time = fake_run_time,
    .set_intr = fake_set_intr,
    .nmi = fake_nmi,
    .msi = fake_msi,
    .get_state = fake_get_state,
    .set_state = fake_set_state,
};
static const struct engine_ops better_engine = {
    .name = "better",
    .probe = better_probe,
    .cpu_fit = better_fit,
    .open = better_open,
};
const struct engine_ops *const engines[] = {&better_engine, &fake_engine, NULL};

/* --- the machine --- */

static char dir[] = "/tmp/ruche-board-XXXXXX";
static char kernel[64], control[64];

/* A Multiboot image that is nothing but its header: loaded and entered at 2 MiB. */
static int make_kernel(void **state)
{
    const uint32_t header[8] = {
        0x1badb002, 0x10000, 0u - 0x1badb002u - 0x10000u, 0x200000, 0x200000, 0x200020, 0, 0x200000};
    assert_non_null(mkdtemp(dir));
    snprintf(kernel, sizeof(kernel), "%s/kernel", dir);
    snprintf(control, sizeof(control), "%s/control", dir);
    FILE *f = fopen(kernel, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(header, sizeof(header), 1, f), 1);
    fclose(f);
    log_to(open("/dev/null", O_WRONLY));
    /* Blocked as in ruche-vmm; the first test's threads inherit it. */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return 0;
}

static int remove_kernel(void **state)
{
    unlink(kernel);
    return rmdir(dir);
}

static struct board *make(struct machine_config *config, const struct step *steps)
{
    struct error *err = NULL;
    int status;

    config->kernel = kernel;
    config->memory = 16 * MIB;
    config->cpus = config->cpus ? config->cpus : 2;
    if (!config->serial)
        config->serial = (char *)(uintptr_t) "none";
    script = steps;
    resets = 0;
    struct board *b = board_new(config, &status, &err);
    if (!b)
        fail_msg("%s", error_text(err));
    return b;
}

static int run(struct machine_config *config, const struct step *steps)
{
    struct board *b = make(config, steps);
    int status = board_run(b, NULL, NULL);

    assert_int_equal(entry_rip, 0x200000);
    board_free(b);
    return status;
}

static const struct step power_off[] = {{STEP_OUT, 0x604, 2, 1 << 13}, {STEP_END}};

static void power_off_is_0(void **state)
{
    struct machine_config config = {0};
    assert_int_equal(run(&config, power_off), 0);
}

static void debug_exit_value(void **state)
{
    static const struct step steps[] = {{STEP_OUT, 0x501, 1, 0x10}, {STEP_END}};
    struct machine_config config = {.device_count = 1};

    config.device[0].cls = (char *)(uintptr_t) "debug-exit";
    assert_int_equal(run(&config, steps), 0x21);
}

static void panic_is_126(void **state)
{
    static const struct step steps[] = {{STEP_OUT, 0x505, 1, 1}, {STEP_END}};
    struct machine_config config = {0};
    assert_int_equal(run(&config, steps), 126);
}

static void crash_loaded_goes_on(void **state)
{
    static const struct step steps[] = {{STEP_OUT, 0x505, 1, 2}, {STEP_OUT, 0x604, 2, 1 << 13}, {STEP_END}};
    struct machine_config config = {0};
    assert_int_equal(run(&config, steps), 0);
}

static void reset_port_resets(void **state)
{
    static const struct step steps[] = {{STEP_OUT, 0xcf9, 1, 6}, {STEP_OUT, 0x604, 2, 1 << 13}, {STEP_END}};
    struct machine_config config = {0};

    assert_int_equal(run(&config, steps), 0);
    assert_int_equal(resets, 1);
}

static void no_reboot_ends(void **state)
{
    static const struct step steps[] = {{STEP_OUT, 0xcf9, 1, 6}, {STEP_END}};
    struct machine_config config = {.no_reboot = true};

    assert_int_equal(run(&config, steps), 0);
    assert_int_equal(resets, 0);
}

static void triple_fault(void **state)
{
    static const struct step steps[] = {{STEP_TRIPLE_FAULT}, {STEP_OUT, 0x604, 2, 1 << 13}, {STEP_END}};
    struct machine_config config = {0};

    assert_int_equal(run(&config, steps), 0);
    assert_int_equal(resets, 1);
    config.no_reboot = true;
    assert_int_equal(run(&config, steps), 126);
}

static void engine_error_without_reboot_is_125(void **state)
{
    static const struct step steps[] = {{STEP_ERROR}, {STEP_END}};
    struct machine_config config = {.no_reboot = true};
    assert_int_equal(run(&config, steps), 125);
}

static void send_term(void *opaque)
{
    kill(getpid(), SIGTERM);
}

static void signal_is_130(void **state)
{
    static const struct step steps[] = {{STEP_SPIN}};
    struct machine_config config = {0};
    struct board *b = make(&config, steps);

    assert_int_equal(board_run(b, send_term, NULL), 130);
    board_free(b);
}

/* A kernel file that is gone bad by the time of a reset ends the machine, with a reason and without harm. */
static void shorten_kernel(void *opaque)
{
    assert_int_equal(truncate(kernel, 8), 0);
}

static void reset_with_a_damaged_kernel_is_125(void **state)
{
    static const struct step steps[] = {{STEP_OUT, 0xcf9, 1, 6}, {STEP_END}};
    struct machine_config config = {0};
    struct board *b = make(&config, steps);

    shorten_kernel(NULL);
    assert_int_equal(board_run(b, NULL, NULL), 125);
    board_free(b);
    remove_kernel(NULL);
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    make_kernel(NULL);
}

/* --- the control socket --- */

/* Sends lines and returns what came back until `until` is seen. */
static void converse(int fd, const char *line, const char *until)
{
    char text[16384];
    size_t n = 0;

    assert_int_equal(send(fd, line, strlen(line), MSG_NOSIGNAL), strlen(line));
    memset(text, 0, sizeof(text));
    while (!strstr(text, until)) {
        ssize_t got = recv(fd, text + n, sizeof(text) - 1 - n, 0);
        if (got <= 0)
            fail_msg("'%s' after '%s' is missing: '%s'", until, line, text);
        n += (size_t)got;
    }
}

static int dial(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = 20};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(addr.sun_path, control);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    converse(fd, "{\"execute\": \"qmp_capabilities\"}", "\"return\"");
    return fd;
}

static void *drive(void *opaque)
{
    int fd = dial();

    converse(fd, "{\"execute\": \"query-status\"}", "\"running\": true");
    converse(fd, "{\"execute\": \"stop\"}", "\"event\": \"STOP\"");
    converse(fd, "{\"execute\": \"query-status\"}", "\"paused\"");
    converse(fd, "{\"execute\": \"stop\", \"id\": 5}", "\"id\": 5");
    converse(fd, "{\"execute\": \"cont\"}", "\"event\": \"RESUME\"");
    converse(fd, "{\"execute\": \"system_reset\"}", "host-qmp-system-reset");
    converse(fd, "{\"execute\": \"query-cpus-fast\"}", "\"cpu-index\"");
    converse(fd, "{\"execute\": \"system_powerdown\"}", "\"event\": \"POWERDOWN\"");
    for (int i = 0; i < 50; i++) {
        converse(fd, "{\"execute\": \"stop\"}", "STOP");
        converse(fd, "{\"execute\": \"cont\"}", "RESUME");
    }
    converse(fd, "{\"execute\": \"quit\"}", "host-qmp-quit");
    close(fd);
    return NULL;
}

static void control_socket(void **state)
{
    static const struct step steps[] = {{STEP_SPIN}};
    struct machine_config config = {.cpus = 4, .control = control};
    struct board *b = make(&config, steps);
    pthread_t thread;

    pthread_create(&thread, NULL, drive, NULL);
    assert_int_equal(board_run(b, NULL, NULL), 130);
    board_free(b);
    pthread_join(thread, NULL);
    assert_int_equal(resets, 1);
    assert_int_equal(access(control, F_OK), -1);
}

static void *drive_error(void *opaque)
{
    int fd = dial();

    for (int i = 0; i < 200; i++) { /* the error may be yet to come */
        converse(fd, "{\"execute\": \"query-status\"}", "\"return\"");
        usleep(1000);
    }
    converse(fd, "{\"execute\": \"query-status\"}", "internal-error");
    converse(fd, "{\"execute\": \"cont\"}", "Resetting the Virtual Machine is required");
    converse(fd, "{\"execute\": \"system_reset\"}", "\"event\": \"RESET\"");
    converse(fd, "{\"execute\": \"query-status\"}", "running");
    converse(fd, "{\"execute\": \"quit\"}", "SHUTDOWN");
    close(fd);
    return NULL;
}

static void engine_error_stops_the_machine(void **state)
{
    static const struct step steps[] = {{STEP_ERROR}, {STEP_SPIN}};
    struct machine_config config = {.control = control};
    struct board *b = make(&config, steps);
    pthread_t thread;

    pthread_create(&thread, NULL, drive_error, NULL);
    assert_int_equal(board_run(b, NULL, NULL), 130);
    board_free(b);
    pthread_join(thread, NULL);
}

/* --- what is refused --- */

static void refuse(struct machine_config *config, int expected, const char *words)
{
    struct error *err = NULL;
    int status;

    config->memory = config->memory ? config->memory : 16 * MIB;
    config->cpus = 1;
    config->serial = config->serial ? config->serial : (char *)(uintptr_t) "none";
    struct board *b = board_new(config, &status, &err);
    assert_null(b);
    if (status != expected || !strstr(error_text(err), words) || strchr(error_text(err), '\n'))
        fail_msg("status %d: %s", status, error_text(err));
    error_free(err);
}

static void refused(void **state)
{
    char *nowhere = (char *)(uintptr_t) "/nonexistent/file";

    refuse(&(struct machine_config){.kernel = nowhere}, 125, "/nonexistent/file: No such file");
    refuse(&(struct machine_config){.kernel = dir}, 125, "it is a directory");
    refuse(&(struct machine_config){.kernel = kernel, .initrd = nowhere}, 125, "/nonexistent/file");
    refuse(&(struct machine_config){.kernel = kernel, .module = {nowhere}, .module_count = 1}, 125,
           "nonexistent");
    refuse(&(struct machine_config){.kernel = kernel, .engine = nowhere}, 2, "there is no such engine");
    refuse(&(struct machine_config){.kernel = kernel, .cpu = nowhere}, 2, "/nonexistent/file");
    refuse(&(struct machine_config){.kernel = kernel, .disk = {{.path = dir}}, .disk_count = 1}, 125, dir);
    refuse(&(struct machine_config){.kernel = kernel, .disk = {{.path = nowhere}}, .disk_count = 1}, 125,
           "nonexistent");
    refuse(&(struct machine_config){.kernel = kernel, .device = {{.cls = nowhere}}, .device_count = 1}, 2,
           "there is no such device");
    refuse(&(struct machine_config){.kernel = kernel, .net = {nowhere}, .net_count = 1}, 2, "nonexistent");
    char *bad_mac = (char *)(uintptr_t) "user,mac=52:54:00",
         *group = (char *)(uintptr_t) "user,mac=01:00:5e:00:00:01";
    refuse(&(struct machine_config){.kernel = kernel, .net = {bad_mac}, .net_count = 1}, 2, "52:54:00");
    refuse(&(struct machine_config){.kernel = kernel, .net = {group}, .net_count = 1}, 2, "multicast");
    refuse(&(struct machine_config){.kernel = kernel,
                                    .serial_log = nowhere,
                                    .serial = (char *)(uintptr_t) "none"},
           125, "nonexistent");
    refuse(&(struct machine_config){.kernel = kernel, .serial = nowhere}, 2, "nonexistent");
    refuse(&(struct machine_config){.kernel = kernel, .control = nowhere}, 125, "nonexistent");
    refuse(&(struct machine_config){.kernel = kernel, .memory = MIB}, 125, "memory");
    struct machine_config prop = {.kernel = kernel, .device_count = 1};
    prop.device[0] = (struct device_config){.cls = (char *)(uintptr_t) "virtio-rng", .prop_count = 1};
    prop.device[0].prop[0] = (struct device_prop){nowhere, nowhere};
    refuse(&prop, 2, "--device virtio-rng");
}

/* --- the choice of the engine --- */

/* What `act` logs. */
static const char *logged(void (*act)(void *opaque), void *opaque)
{
    static char text[1024];
    FILE *f = tmpfile();
    assert_non_null(f);
    log_to(fileno(f));
    act(opaque);
    log_to(open("/dev/null", O_WRONLY));
    rewind(f);
    text[fread(text, 1, sizeof(text) - 1, f)] = 0;
    fclose(f);
    return text;
}

static void run_on_fake(void *opaque)
{
    struct board *b = make(opaque, power_off);

    assert_ptr_equal(b->ops, &fake_engine);
    assert_true(b->cpu.count > 0);
    assert_int_equal(board_run(b, NULL, NULL), 0);
    board_free(b);
}

static void refuse_missing_kernel(void *opaque)
{
    struct machine_config *config = opaque;

    config->kernel = (char *)(uintptr_t) "/nonexistent/file";
    refuse(config, 125, "/nonexistent/file: No such file");
}

static char *const engine_auto = (char *)(uintptr_t) "auto";

static void passed_over(int code, bool opens_not, bool told_unasked)
{
    static const char line[] = "warning: engine better is not used: the reason\n";

    better_code = code;
    better_opens_not = opens_not;
    for (unsigned asked = 0; asked < 2; asked++) {
        char *engine = asked ? engine_auto : NULL;
        const char *text = logged(run_on_fake, &(struct machine_config){.engine = engine});
        bool tell = asked || told_unasked;
        if (tell ? !strstr(text, line) || strchr(text, '\n')[1] : *text)
            fail_msg("code %d, asked %u: '%s'", code, asked, text);
        /* A machine that does not start has one reason, and this is not it. */
        text = logged(refuse_missing_kernel, &(struct machine_config){.engine = engine});
        if (*text)
            fail_msg("code %d, asked %u, failing: '%s'", code, asked, text);
    }
}

static void engine_auto_says_why_not_the_best(void **state)
{
    passed_over(ENOENT, false, false);
    passed_over(EOPNOTSUPP, false, false);
    passed_over(EACCES, false, true);
    passed_over(0, false, true);
    passed_over(0, true, true);
}

static void refuse_better(void *opaque)
{
    struct machine_config config = {.kernel = kernel, .engine = (char *)(uintptr_t) "better"};
    refuse(&config, 125, "engine better does not work here: the reason; --engine auto takes what does");
}

static void engine_by_name_is_taken_or_refused(void **state)
{
    better_code = EOPNOTSUPP;
    for (unsigned i = 0; i < 2; i++) {
        better_opens_not = i;
        assert_string_equal(logged(refuse_better, NULL), "");
    }
    struct machine_config config = {.engine = (char *)(uintptr_t) "fake"};
    assert_string_equal(logged(run_on_fake, &config), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_off_is_0),
        cmocka_unit_test(debug_exit_value),
        cmocka_unit_test(panic_is_126),
        cmocka_unit_test(crash_loaded_goes_on),
        cmocka_unit_test(reset_port_resets),
        cmocka_unit_test(no_reboot_ends),
        cmocka_unit_test(triple_fault),
        cmocka_unit_test(engine_error_without_reboot_is_125),
        cmocka_unit_test(signal_is_130),
        cmocka_unit_test(reset_with_a_damaged_kernel_is_125),
        cmocka_unit_test(control_socket),
        cmocka_unit_test(engine_error_stops_the_machine),
        cmocka_unit_test(refused),
        cmocka_unit_test(engine_auto_says_why_not_the_best),
        cmocka_unit_test(engine_by_name_is_taken_or_refused),
    };
    return cmocka_run_group_tests(tests, make_kernel, remove_kernel);
}
