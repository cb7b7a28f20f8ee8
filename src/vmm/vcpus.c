/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vCPU threads: see vcpus.h. A thread parks and is counted under the machine lock, which it takes only when
 * `run` returned; `pausing` is read there, so a request made before the kick is never missed: either the
 * thread sees it before it enters `run`, or the kick makes that `run` return.
 */
#include "vmm/vcpus.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"

struct vcpu_thread {
    struct vcpus *all;
    unsigned index;
    struct vcpu *cpu;
    pthread_t thread;
    long tid;
    bool started;
};

struct vcpus {
    struct machine *machine;
    const struct engine_ops *ops;
    vcpus_exit_fn *exited;
    void *opaque;
    bool pausing, ending; /* atomic */
    unsigned parked;      /* under the machine lock, as the conditions are */
    pthread_cond_t parked_cond, resume_cond;
    unsigned count;
    struct vcpu_thread thread[];
};

static bool is_set(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static void set(bool *flag, bool value)
{
    __atomic_store_n(flag, value, __ATOMIC_RELEASE); /* pairs with is_set */
}

/* Machine lock held, dropped while waiting. */
static void park(struct vcpus *v)
{
    v->parked++;
    pthread_cond_broadcast(&v->parked_cond);
    while (is_set(&v->pausing) && !is_set(&v->ending))
        pthread_cond_wait(&v->resume_cond, &v->machine->lock);
    v->parked--;
}

static void *vcpu_main(void *opaque)
{
    struct vcpu_thread *t = opaque;
    struct vcpus *v = t->all;
    struct vm_exit exit;

    machine_lock(v->machine);
    t->tid = gettid();
    while (!is_set(&v->ending)) {
        if (is_set(&v->pausing)) {
            park(v);
            continue;
        }
        machine_unlock(v->machine);
        v->ops->run(t->cpu, &exit);
        machine_lock(v->machine);
        if (exit.kind != VM_EXIT_INTERRUPTED) {
            vcpus_pause_soon(v);
            v->exited(v->opaque, t->index, &exit);
        }
    }
    machine_unlock(v->machine);
    return NULL;
}

static bool start_thread(struct vcpus *v, struct engine *engine, unsigned index, struct error **err)
{
    struct vcpu_thread *t = &v->thread[index];
    char name[16];

    t->all = v;
    t->index = index;
    t->cpu = v->ops->vcpu_new(engine, index, err);
    if (!t->cpu)
        return false;
    int code = pthread_create(&t->thread, NULL, vcpu_main, t);
    if (code != 0) {
        error_set_errno(err, code, "cannot start the thread of processor %u", index);
        return false;
    }
    t->started = true;
    snprintf(name, sizeof(name), "vcpu %u", index & 0xff);
    pthread_setname_np(t->thread, name);
    return true;
}

struct vcpus *vcpus_new(struct machine *m, const struct engine_ops *ops, struct engine *engine,
                        vcpus_exit_fn *exited, void *opaque, struct error **err)
{
    struct vcpus *v = calloc(1, sizeof(*v) + m->cpu_count * sizeof(v->thread[0]));

    if (!v) {
        error_set_errno(err, ENOMEM, "cannot start %u processors", m->cpu_count);
        return NULL;
    }
    v->machine = m;
    v->ops = ops;
    v->exited = exited;
    v->opaque = opaque;
    v->pausing = true;
    v->count = m->cpu_count;
    pthread_cond_init(&v->parked_cond, NULL);
    pthread_cond_init(&v->resume_cond, NULL);
    for (unsigned i = 0; i < v->count; i++) {
        if (!start_thread(v, engine, i, err)) {
            vcpus_free(v);
            return NULL;
        }
    }
    return v;
}

static void kick_all(struct vcpus *v)
{
    for (unsigned i = 0; i < v->count; i++)
        if (v->thread[i].cpu)
            v->ops->kick(v->thread[i].cpu);
}

void vcpus_free(struct vcpus *v)
{
    if (!v)
        return;
    set(&v->ending, true);
    kick_all(v);
    machine_lock(v->machine);
    pthread_cond_broadcast(&v->resume_cond);
    machine_unlock(v->machine);
    for (unsigned i = 0; i < v->count; i++)
        if (v->thread[i].started)
            pthread_join(v->thread[i].thread, NULL);
    pthread_cond_destroy(&v->parked_cond);
    pthread_cond_destroy(&v->resume_cond);
    free(v);
}

void vcpus_pause_soon(struct vcpus *v)
{
    set(&v->pausing, true);
    kick_all(v);
}

void vcpus_pause(struct vcpus *v)
{
    vcpus_pause_soon(v);
    while (v->parked < v->count)
        pthread_cond_wait(&v->parked_cond, &v->machine->lock);
}

void vcpus_resume(struct vcpus *v)
{
    set(&v->pausing, false);
    pthread_cond_broadcast(&v->resume_cond);
}

struct vcpu *vcpus_get(const struct vcpus *v, unsigned index)
{
    return v->thread[index].cpu;
}

long vcpus_thread_id(const struct vcpus *v, unsigned index)
{
    return v->thread[index].tid;
}
