/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine's life: running, paused, reset, its end. Everything is decided on the main loop; other threads
 * leave a bit in `pending`, ask the vCPUs to pause so that the guest gets no further than where it asked, and
 * post the handler. Events and run states have QEMU's names (its qapi/run-state.json).
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "block/block.h"
#include "core/device.h"
#include "device/platform/ich9_pm.h"
#include "device/virtio/virtio_console.h"
#include "vmm/board.h"
#include "vmm/disk_jobs.h"
#include "vmm/migrate.h"
#include "vmm/qmp.h"
#include "vmm/save.h"

static void handle_pending(void *opaque);

static void leave_pending(struct board *b, uint32_t bits)
{
    __atomic_fetch_or(&b->pending, bits, __ATOMIC_SEQ_CST);
    loop_post(b->m.loop, handle_pending, b);
}

void runstate_event(struct machine *m, enum machine_event event, uint32_t value)
{
    struct board *b = CONTAINER_OF(m, struct board, m);

    if (event == MACHINE_DEBUG_EXIT)
        __atomic_store_n(&b->debug_exit, value, __ATOMIC_SEQ_CST);
    if (event != MACHINE_CRASHLOADED && b->vcpus)
        vcpus_pause_soon(b->vcpus);
    leave_pending(b, (uint32_t)BIT(event));
}

void runstate_cpu_exit(void *opaque, unsigned index, const struct vm_exit *exit)
{
    struct board *b = opaque;
    const uint32_t any = BIT(BOARD_TRIPLE_FAULT) | BIT(BOARD_CPU_RESET) | BIT(BOARD_CPU_ERROR);

    if (__atomic_load_n(&b->pending, __ATOMIC_SEQ_CST) & any)
        return; /* the first one counts */
    b->cpu_exit = *exit;
    b->cpu_exit_index = index;
    leave_pending(b, (uint32_t)BIT(exit->kind == VM_EXIT_SHUTDOWN ? BOARD_TRIPLE_FAULT
                                   : exit->kind == VM_EXIT_RESET  ? BOARD_CPU_RESET
                                                                  : BOARD_CPU_ERROR));
}

static json_t *reason(bool guest, const char *text)
{
    return json_pack("{s:b, s:s}", "guest", guest, "reason", text);
}

void runstate_freeze(struct board *b)
{
    vcpus_pause(b->vcpus);
    b->ops->run_time(b->engine, false);
    vm_clock_stop(&b->m.clock);
    if (!b->quiesced)
        devices_quiesce(&b->m);
    b->quiesced = true;
}

void runstate_thaw(struct board *b)
{
    save_disks_forget(b);
    if (b->quiesced)
        devices_resume(&b->m);
    b->quiesced = false;
    vm_clock_start(&b->m.clock);
    b->ops->run_time(b->engine, true);
    b->state = RUN_RUNNING;
    vcpus_resume(b->vcpus);
}

void runstate_end(struct board *b, int status, bool guest, const char *why)
{
    if (b->state == RUN_SHUTDOWN)
        return;
    if (b->state == RUN_POSTMIGRATE)
        status = BOARD_MOVED; /* whoever asks: the machine lives */
    vcpus_pause_soon(b->vcpus);
    qmp_event(b->qmp, "SHUTDOWN", reason(guest, why));
    b->state = RUN_SHUTDOWN;
    b->exit_status = status;
    loop_stop(b->m.loop);
}

/* The machine stays as it is, for whoever looks at it through the control socket. */
static void halt_with(struct board *b, enum run_state state)
{
    runstate_freeze(b);
    b->state = state;
    qmp_event(b->qmp, "STOP", NULL);
}

static void reset(struct board *b, bool guest, const char *why)
{
    struct error *err = NULL;
    bool go_on = b->state == RUN_RUNNING || b->state == RUN_INTERNAL_ERROR || b->state == RUN_PANICKED;

    runstate_freeze(b);
    if (b->save)
        save_cancel(b->save); /* not all that loading the kernel writes is in the engine's log */
    if (b->migration)
        migrate_memory_changed(b->migration);
    devices_reset(&b->m);
    for (unsigned i = 0; i < b->m.cpu_count; i++)
        b->ops->reset(vcpus_get(b->vcpus, i));
    if (!firmware_start(b, false, &err)) {
        log_line(LOG_ERROR, "cannot reset the machine: %s", error_text(err));
        error_free(err);
        runstate_end(b, BOARD_FAILED, false, "host-error");
        return;
    }
    qmp_event(b->qmp, "RESET", reason(guest, why));
    if (go_on)
        runstate_thaw(b);
    else
        b->state = RUN_PAUSED;
}

static void guest_reset(struct board *b)
{
    if (b->config->no_reboot)
        runstate_end(b, BOARD_POWERED_OFF, true, "guest-reset");
    else
        reset(b, true, "guest-reset");
}

static void triple_fault(struct board *b)
{
    runstate_freeze(b);
    if (b->config->no_reboot) {
        crash_log(b, b->cpu_exit_index, *b->cpu_exit.text ? b->cpu_exit.text : "triple fault");
        runstate_end(b, BOARD_CRASHED, true, "guest-reset");
        return;
    }
    log_guest(LOG_WARN, "triple fault on processor %u: the machine is reset", b->cpu_exit_index);
    b->state = RUN_RUNNING;
    reset(b, true, "guest-reset");
}

static void panicked(struct board *b)
{
    log_guest(LOG_WARN, "the guest has panicked");
    qmp_event(b->qmp, "GUEST_PANICKED", json_pack("{s:s}", "action", "poweroff"));
    halt_with(b, RUN_PANICKED);
    runstate_end(b, BOARD_CRASHED, true, "guest-panic");
}

static void cpu_error(struct board *b)
{
    runstate_freeze(b);
    crash_log(b, b->cpu_exit_index, b->cpu_exit.text);
    log_line(LOG_ERROR, "the engine cannot go on; the machine stands still");
    if (b->config->no_reboot)
        runstate_end(b, BOARD_FAILED, false, "host-error");
    else
        halt_with(b, RUN_INTERNAL_ERROR);
}

/* Posted by leave_pending. Ends come before resets: a guest that asks for both gets the end. */
static void handle_pending(void *opaque)
{
    struct board *b = opaque;
    uint32_t pending = __atomic_exchange_n(&b->pending, 0, __ATOMIC_SEQ_CST);

    if (b->state == RUN_SHUTDOWN || !pending)
        return;
    if (pending & BIT(MACHINE_CRASHLOADED))
        qmp_event(b->qmp, "GUEST_CRASHLOADED", json_pack("{s:s}", "action", "run"));
    if (pending & BIT(MACHINE_DEBUG_EXIT))
        runstate_end(b, (int)((b->debug_exit << 1 | 1) & 0xff), true, "guest-shutdown");
    else if (pending & BIT(MACHINE_POWEROFF))
        runstate_end(b, BOARD_POWERED_OFF, true, "guest-shutdown");
    else if (pending & BIT(MACHINE_PANICKED))
        panicked(b);
    else if (pending & BIT(BOARD_CPU_ERROR))
        cpu_error(b);
    else if (pending & BIT(BOARD_TRIPLE_FAULT))
        triple_fault(b);
    else if (pending & (BIT(MACHINE_RESET) | BIT(BOARD_CPU_RESET)))
        guest_reset(b);
}

/* The control socket's view; see control.h. */

static const char *control_status(void *opaque)
{
    static const char *const names[] = {
        [RUN_STARTING] = "prelaunch",
        [RUN_RUNNING] = "running",
        [RUN_PAUSED] = "paused",
        [RUN_SHUTDOWN] = "shutdown",
        [RUN_PANICKED] = "guest-panicked",
        [RUN_INTERNAL_ERROR] = "internal-error",
        [RUN_FINISH_MIGRATE] = "finish-migrate",
        [RUN_POSTMIGRATE] = "postmigrate",
    };
    return names[((struct board *)opaque)->state];
}

static bool control_running(void *opaque)
{
    return ((struct board *)opaque)->state == RUN_RUNNING;
}

static void control_stop(void *opaque)
{
    struct board *b = opaque;

    b->go_on_running = false; /* if it is being moved just now */
    if (b->state == RUN_RUNNING)
        halt_with(b, RUN_PAUSED);
}

/* It may run elsewhere, or does. */
static bool is_leaving(const struct board *b)
{
    return b->state == RUN_FINISH_MIGRATE || b->state == RUN_POSTMIGRATE;
}

static bool control_cont(void *opaque, struct error **err)
{
    struct board *b = opaque;

    if (is_leaving(b))
        return error_set(err, EBUSY, "The machine is moving to another host"), false;
    if (b->state == RUN_PANICKED || b->state == RUN_INTERNAL_ERROR || b->state == RUN_SHUTDOWN) {
        error_set(err, EBUSY, "Resetting the Virtual Machine is required");
        return false;
    }
    if (b->state == RUN_PAUSED) {
        runstate_thaw(b);
        qmp_event(b->qmp, "RESUME", NULL);
    }
    return true;
}

static void post_reset(void *opaque)
{
    struct board *b = opaque;

    if (b->state != RUN_SHUTDOWN && !is_leaving(b))
        reset(b, false, "host-qmp-system-reset");
}

static void control_reset(void *opaque)
{
    struct board *b = opaque;
    loop_post(b->m.loop, post_reset, b);
}

static void control_powerdown(void *opaque)
{
    struct board *b = opaque;

    if (!ich9_pm_power_button(b->m.pm))
        log_line(LOG_INFO, "power button: the guest does not listen to it");
    qmp_event(b->qmp, "POWERDOWN", NULL);
}

static void post_quit(void *opaque)
{
    runstate_end(opaque, BOARD_INTERRUPTED, false, "host-qmp-quit");
}

static void control_quit(void *opaque)
{
    struct board *b = opaque;
    loop_post(b->m.loop, post_quit, b);
}

static unsigned control_cpu_count(void *opaque)
{
    return ((struct board *)opaque)->m.cpu_count;
}

static long control_cpu_thread_id(void *opaque, unsigned index)
{
    return vcpus_thread_id(((struct board *)opaque)->vcpus, index);
}

static const char *control_engine_name(void *opaque)
{
    return ((struct board *)opaque)->ops->name;
}

static unsigned control_cpu_stats(void *opaque, unsigned index, struct engine_stat *out)
{
    const struct board *b = opaque;
    return b->ops->stats ? b->ops->stats(vcpus_get(b->vcpus, index), out, ENGINE_STATS_MAX) : 0;
}

static bool control_block_info(void *opaque, unsigned index, struct control_block *info)
{
    const struct board *b = opaque;
    struct block_info image;

    if (index >= b->config->disk_count)
        return false;
    block_get_info(b->disk[index].block, &image);
    *info = (struct control_block){.id = b->disk[index].device->id,
                                   .path = image.path,
                                   .format = image.format,
                                   .backing = image.backing,
                                   .size = image.size,
                                   .allocated = image.allocated,
                                   .cluster_size = image.cluster_size,
                                   .readonly = image.readonly,
                                   .dirty = image.dirty,
                                   .corrupt = image.corrupt};
    return true;
}

static bool control_bitmap_info(void *opaque, unsigned disk, unsigned index, struct block_bitmap *info)
{
    const struct board *b = opaque;

    return disk < b->config->disk_count && block_bitmap_info(b->disk[disk].block, index, info);
}

static bool control_chardev_info(void *opaque, unsigned index, struct control_chardev *info)
{
    const struct board *b = opaque;

    if (index == 0)
        *info = (struct control_chardev){.label = "serial0", .spec = b->config->serial, .open = true};
    else if (index == 1 && b->agent)
        *info = (struct control_chardev){
            .label = "agent", .spec = b->config->agent, .open = virtio_console_guest_open(b->agent, 1)};
    else
        return false;
    return true;
}

/* Saving. The machine runs, or stands still, or is stopped and goes on meanwhile; only a reset makes the save
 * give up. */

void runstate_hold(struct board *b)
{
    vcpus_pause(b->vcpus);
}

/* Unless they stand still for a reason of their own. */
void runstate_let_go(struct board *b)
{
    uint32_t pending = __atomic_load_n(&b->pending, __ATOMIC_SEQ_CST);

    if (b->state == RUN_RUNNING && !b->resting && !(pending & ~(uint32_t)BIT(MACHINE_CRASHLOADED)))
        vcpus_resume(b->vcpus);
}

/* The moment that is saved. */
static bool take_moment(struct board *b, struct error **err)
{
    bool running = b->state == RUN_RUNNING;

    if (b->state != RUN_RUNNING && b->state != RUN_PAUSED)
        return error_set(err, EBUSY, "the machine has stopped"), false;
    /* Most of it now, so that the guest does not stand still for it. */
    if (!save_disks_flush(b, err))
        return false;
    uint64_t begin = monotonic_ns();
    if (running)
        runstate_freeze(b);
    bool ok = !__atomic_load_n(&b->pending, __ATOMIC_SEQ_CST);
    if (!ok)
        error_set(err, EBUSY, "the guest is about to reset or end it");
    ok = ok && save_take(b->save, err);
    if (running)
        runstate_thaw(b);
    b->last_save.pause_ns = running ? monotonic_ns() - begin : 0;
    return ok;
}

static void save_done(struct board *b, const struct error *failure)
{
    struct control_save *last = &b->last_save;

    save_progress(b->save, last);
    snprintf(last->error, sizeof(last->error), "%s", failure ? error_text(failure) : "");
    last->status = !failure ? "completed" : failure->code == ECANCELED ? "cancelled" : "failed";
    save_free(b->save);
    b->save = NULL;
    if (failure)
        log_line(LOG_WARN, "the machine was not saved: %s", last->error);
    qmp_event(b->qmp, "RUCHE_SAVE",
              failure ? json_pack("{s:s, s:s, s:s}", "status", last->status, "path", last->path, "error",
                                  last->error)
                      : json_pack("{s:s, s:s}", "status", last->status, "path", last->path));
}

static const struct save_ops save_ops = {
    .hold = runstate_hold, .let_go = runstate_let_go, .take = take_moment, .done = save_done};

static bool control_save(void *opaque, const struct control_save_order *order, struct error **err)
{
    struct board *b = opaque;

    if (b->save || b->migration || (b->state != RUN_RUNNING && b->state != RUN_PAUSED))
        return error_set(err, EBUSY, "cannot save the machine: %s",
                         b->save        ? "it is being saved"
                         : b->migration ? "it is being moved"
                                        : "it has stopped"),
               false;
    struct save_job *job = save_prepare(b, order, err);
    if (!job)
        return false;
    b->last_save = (struct control_save){.status = "active"};
    snprintf(b->last_save.path, sizeof(b->last_save.path), "%s", order->path);
    b->save = job;
    if (save_start(job, &save_ops, err))
        return true;
    b->last_save.status = "failed";
    b->save = NULL;
    save_free(job);
    return false;
}

static void control_save_cancel(void *opaque)
{
    struct board *b = opaque;

    if (b->save)
        save_cancel(b->save);
}

static void control_save_info(void *opaque, struct control_save *info)
{
    const struct board *b = opaque;

    *info = b->last_save;
    if (!info->status)
        info->status = "none";
    if (b->save)
        save_progress(b->save, info);
}

/* The file that the machine began as has gone bad: what it computed with it is worth nothing. */
static void saved_is_damaged(struct board *b, const struct error *why)
{
    log_line(LOG_ERROR, "%s; the machine stands still", error_text(why));
    if (b->state != RUN_SHUTDOWN && !is_leaving(b))
        halt_with(b, RUN_INTERNAL_ERROR);
}

static const struct control_ops control_ops = {
    .status = control_status,
    .running = control_running,
    .stop = control_stop,
    .cont = control_cont,
    .reset = control_reset,
    .powerdown = control_powerdown,
    .quit = control_quit,
    .cpu_count = control_cpu_count,
    .cpu_thread_id = control_cpu_thread_id,
    .engine_name = control_engine_name,
    .cpu_stats = control_cpu_stats,
    .block_info = control_block_info,
    .bitmap_info = control_bitmap_info,
    .chardev_info = control_chardev_info,
    .save = control_save,
    .save_cancel = control_save_cancel,
    .save_info = control_save_info,
    .disks_change = disk_jobs_change,
    .job_info = disk_jobs_info,
    .job_cancel = disk_jobs_cancel,
    .job_dismiss = disk_jobs_dismiss,
    .job_set_speed = disk_jobs_set_speed,
    .migrate = runstate_migrate,
    .migrate_cancel = runstate_migrate_cancel,
    .migrate_info = runstate_migrate_info,
    .migrate_settings = runstate_migrate_settings,
    .migrate_set = runstate_migrate_set,
};

static void take_signal(void *opaque, int fd, uint32_t events)
{
    struct signalfd_siginfo info;

    if (read(fd, &info, sizeof(info)) == sizeof(info))
        runstate_end(opaque, BOARD_INTERRUPTED, false, "host-signal");
}

bool runstate_init(struct board *b, struct error **err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    b->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (b->signal_fd < 0) {
        error_set_errno(err, errno, "cannot watch for signals");
        return false;
    }
    if (!loop_fd_add(b->m.loop, b->signal_fd, EPOLLIN, take_signal, b, err))
        return false;
    if (!b->config->control)
        return true;
    b->qmp = qmp_open(b->config->control, b->m.loop, &control_ops, b, err);
    return b->qmp != NULL;
}

int board_run(struct board *b, void (*started)(void *opaque), void *opaque)
{
    struct error *err = NULL;

    engine_tell(b);
    machine_lock(&b->m);
    if (b->config->paused)
        save_disks_remember(b);
    if (b->config->paused || b->start_paused)
        b->state = RUN_PAUSED;
    else
        runstate_thaw(b);
    if (b->saved && !b->config->verify)
        b->saved_check = saved_check_start(b->saved, b, saved_is_damaged, &err);
    machine_unlock(&b->m);
    if (err)
        log_line(LOG_WARN, "%s", error_text(err));
    error_free(err);
    if (started)
        started(opaque);
    loop_run(b->m.loop);
    return b->exit_status;
}
