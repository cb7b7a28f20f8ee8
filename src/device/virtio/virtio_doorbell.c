/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kicks that reach the main loop by an eventfd, where the engine has doorbells: the vCPU does not leave the
 * engine for them, and nobody waits for the machine lock. A queue has a doorbell as long as a kick would have
 * it looked at; otherwise, and where the engine refuses, kicks come as writes to BAR 4 (virtio_pci.c).
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "device/virtio/virtio.h"

static void on_doorbell(void *opaque, int fd, uint32_t events)
{
    struct virtqueue *vq = opaque;
    eventfd_t count;
    if (eventfd_read(fd, &count) == 0)
        virtio_notify(vq->vdev, vq->index); /* may remove the doorbell */
}

static bool watch(struct virtqueue *vq, int fd)
{
    struct error *err = NULL;
    if (loop_fd_add(vq->vdev->pci.dev.machine->loop, fd, EPOLLIN, on_doorbell, vq, &err))
        return true;
    log_line(LOG_INFO, "%s: a queue has no doorbell: %s", vq->vdev->pci.dev.id, error_text(err));
    error_free(err);
    return false;
}

static void add(struct virtqueue *vq, uint64_t gpa)
{
    struct machine *m = vq->vdev->pci.dev.machine;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return;
    if (watch(vq, fd)) {
        if (m->doorbell_add(m, gpa, fd)) {
            vq->doorbell = gpa;
            vq->doorbell_fd = fd;
            return;
        }
        loop_fd_remove(m->loop, fd);
    }
    close(fd);
}

/* What was rung and not yet heard is a kick all the same. */
static void drop(struct virtqueue *vq)
{
    struct machine *m = vq->vdev->pci.dev.machine;
    eventfd_t count;
    m->doorbell_remove(m, vq->doorbell, vq->doorbell_fd);
    loop_fd_remove(m->loop, vq->doorbell_fd);
    if (eventfd_read(vq->doorbell_fd, &count) == 0)
        virtio_kick(vq->vdev, vq->index);
    close(vq->doorbell_fd);
    vq->doorbell = 0;
}

void virtio_doorbells_update(struct virtio_device *v)
{
    const struct machine *m = v->pci.dev.machine;
    bool running = m->doorbell_add && virtio_running(v);
    for (unsigned i = 0; i < v->queue_count; i++) {
        struct virtqueue *vq = &v->vq[i];
        uint64_t gpa = running && vq->enabled ? virtio_transport_doorbell(v, i) : 0;
        if (vq->doorbell && vq->doorbell != gpa)
            drop(vq);
        if (gpa && !vq->doorbell)
            add(vq, gpa);
    }
}
