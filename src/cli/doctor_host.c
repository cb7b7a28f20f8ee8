/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the host's kernel offers: each check tries the thing itself, and looks into settings only to say why
 * it failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/doctor.h"

#define KVM  "/dev/kvm"
#define TUN  "/dev/net/tun"
#define CGRP "/sys/fs/cgroup"
#define THP  "/sys/kernel/mm/transparent_hugepage/"

/* ---- the processor ---- */

/* The value of the first line "KEY : VALUE" of /proc/cpuinfo. */
static void cpuinfo(const char *key, char *value, size_t size)
{
    cleanup(file) FILE *f = fopen("/proc/cpuinfo", "re");
    char *line = NULL;
    size_t room = 0, len = strlen(key);
    value[0] = 0;
    while (f && !value[0] && getline(&line, &room, f) > 0) {
        const char *colon = strchr(line, ':');
        if (colon && !strncmp(line, key, len) && (line[len] == '\t' || line[len] == ' ' || line[len] == ':'))
            snprintf(value, size, "%s", colon + 1 + strspn(colon + 1, " "));
    }
    value[strcspn(value, "\n")] = 0;
    free(line);
}

static bool has_word(const char *words, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += len)
        if ((at == words || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
            return true;
    return false;
}

static void check_processor(struct finding *f)
{
    char flags[8192], name[128];
    cpuinfo("flags", flags, sizeof(flags));
    cpuinfo("model name", name, sizeof(name));
    const char *kind = has_word(flags, "svm") ? "AMD-V" : has_word(flags, "vmx") ? "VT-x" : NULL;
    const char *where = has_word(flags, "hypervisor") ? ", itself a virtual machine's" : "";
    if (kind) {
        finding_set(f, FINDING_OK, "%s%s, with %s", name, where, kind);
        return;
    }
    finding_set(f, FINDING_ABSENT, "%s%s, without hardware virtualisation", name, where);
    if (where[0])
        finding_remedy(f, "nested virtualisation is switched on for this machine by its own host, if at all");
    else
        finding_remedy(f, "look for SVM, AMD-V or VT-x in the firmware's setup");
}

/* ---- KVM ---- */

static void kvm_missing(struct finding *f)
{
    char flags[8192];
    cpuinfo("flags", flags, sizeof(flags));
    bool svm = has_word(flags, "svm"), vmx = has_word(flags, "vmx");
    finding_set(f, FINDING_ABSENT, "there is no " KVM);
    if (!svm && !vmx)
        finding_remedy(f, "the processor has no virtualisation to offer: see above");
    else if (access("/sys/module/kvm", F_OK) == 0)
        finding_remedy(
            f, "the module is loaded, so this is a container that was not given the device: start it with "
               "--device " KVM);
    else
        finding_remedy(f, "as root: modprobe kvm-%s", svm ? "amd" : "intel");
}

static void kvm_forbidden(struct finding *f)
{
    struct stat st;
    finding_set(f, FINDING_ABSENT, KVM " is there, but may not be opened: %s", strerror(EACCES));
    if (stat(KVM, &st) == 0 && (st.st_mode & 0060) == 0060 && st.st_gid != 0)
        finding_remedy(f, "as root: usermod -aG kvm USER, then log in again");
    else
        finding_remedy(f, "as root: chgrp kvm " KVM " && chmod 660 " KVM ", and usermod -aG kvm USER");
}

/* A KVM that does without the processor's help runs only kernels that were changed for it. */
static void kvm_without_hardware(struct finding *f)
{
    finding_set(f, FINDING_ABSENT,
                KVM " is there, but has no hardware virtualisation below it, so it cannot run unmodified "
                    "systems");
    finding_remedy(f, "the processor has no virtualisation to offer: see above");
}

static void check_kvm(struct finding *f)
{
    char flags[8192];
    cleanup(fd) int fd = open(KVM, O_RDWR | O_CLOEXEC);
    int code = errno;
    cpuinfo("flags", flags, sizeof(flags));
    if (fd < 0 && code == ENOENT)
        kvm_missing(f);
    else if (!has_word(flags, "svm") && !has_word(flags, "vmx"))
        kvm_without_hardware(f);
    else if (fd >= 0)
        finding_set(f, FINDING_OK, KVM " can be opened");
    else if (code == EACCES || code == EPERM)
        kvm_forbidden(f);
    else
        finding_set(f, FINDING_ABSENT, KVM " cannot be opened: %s", strerror(code));
}

/* ---- isolation ---- */

/* Tries in a child, as it cannot be undone. 0 or the errno value. */
static int try_user_namespace(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(unshare(CLONE_NEWUSER) == 0 ? 0 : errno);
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
}

static void check_user_namespaces(struct finding *f)
{
    static const struct {
        const char *path, *off, *fix;
    } switches[] = {
        {"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
        {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
         "sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
        {"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"},
    };
    int code = try_user_namespace();
    if (!code) {
        finding_set(f, FINDING_OK, "can be made");
        return;
    }
    finding_set(f, FINDING_ABSENT, "cannot be made: %s", strerror(code));
    for (unsigned i = 0; i < ARRAY_SIZE(switches); i++) {
        char value[32];
        doctor_read(switches[i].path, value, sizeof(value));
        if (!strcmp(value, switches[i].off)) {
            finding_remedy(f, "as root: %s", switches[i].fix);
            return;
        }
    }
    finding_remedy(f, "a container's filter of system calls may forbid it");
}

static void check_cgroups(struct finding *f)
{
    struct statfs fs;
    char own[256], path[320];
    if (statfs(CGRP, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC) {
        finding_set(f, FINDING_ABSENT, "there is no version 2 hierarchy at " CGRP);
        finding_remedy(f, "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none " CGRP);
        return;
    }
    doctor_read("/proc/self/cgroup", own, sizeof(own));
    const char *group = strncmp(own, "0::", 3) ? "" : own + 3;
    snprintf(path, sizeof(path), CGRP "%s", group);
    if (access(path, W_OK) == 0) {
        finding_set(f, FINDING_OK, "version 2; groups can be made in %.200s", group);
        return;
    }
    finding_set(f, FINDING_ABSENT, "version 2, but no groups can be made in %.160s", group);
    finding_remedy(f, "run within a delegated group: systemd-run --user --scope -p Delegate=yes ruche ...");
}

/* ---- speed and network ---- */

static void check_io_uring(struct finding *f)
{
    struct io_uring_params params = {0};
    char off[16];
    cleanup(fd) int fd = (int)syscall(SYS_io_uring_setup, 4, &params);
    if (fd >= 0) {
        finding_set(f, FINDING_OK, "works");
        return;
    }
    finding_set(f, FINDING_ABSENT, "does not work: %s; disks are served by threads", strerror(errno));
    doctor_read("/proc/sys/kernel/io_uring_disabled", off, sizeof(off));
    if (off[0] && strcmp(off, "0") != 0)
        finding_remedy(f, "as root: sysctl kernel.io_uring_disabled=0");
    else
        finding_remedy(f, "a container's filter of system calls may forbid it; Linux 5.6 or newer is needed");
}

static void check_huge_pages(struct finding *f)
{
    char shmem[128];
    doctor_read(THP "shmem_enabled", shmem, sizeof(shmem));
    if (strstr(shmem, "[advise]") || strstr(shmem, "[always]") || strstr(shmem, "[within_size]") ||
        strstr(shmem, "[force]")) {
        finding_set(f, FINDING_OK, "transparent, for guest memory too");
        return;
    }
    finding_set(f, FINDING_ABSENT, "not used for guest memory");
    if (shmem[0])
        finding_remedy(f, "as root: echo advise > " THP "shmem_enabled");
    else
        finding_remedy(f, "this kernel has no transparent huge pages");
}

static void check_tun(struct finding *f)
{
    cleanup(fd) int fd = open(TUN, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        finding_set(f, FINDING_OK, TUN " can be opened");
    } else if (errno == ENOENT || errno == ENODEV) {
        finding_set(f, FINDING_ABSENT, "there is no " TUN "; user-mode networking needs none");
        finding_remedy(f, "as root: modprobe tun; for a container: --device " TUN);
    } else {
        finding_set(f, FINDING_ABSENT, TUN " cannot be opened: %s; user-mode networking needs none",
                    strerror(errno));
        finding_remedy(f, "as root: chmod 666 " TUN);
    }
}

const struct doctor_entry doctor_host_checks[] = {
    {"processor", check_processor},
    {"kvm", check_kvm},
    {"user-namespaces", check_user_namespaces},
    {"cgroups", check_cgroups},
    {"io_uring", check_io_uring},
    {"huge-pages", check_huge_pages},
    {"tun", check_tun},
    {NULL, NULL},
};
