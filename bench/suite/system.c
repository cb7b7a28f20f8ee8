/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System items: what crosses from a program into the kernel and back.
 */
#include "suite.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SYSCALLS 5000

static uint64_t syscall_run(void *context)
{
    uint64_t good = 0;
    for (unsigned i = 0; i < SYSCALLS; i++)
        good += syscall(SYS_getppid) >= 0;
    return good;
}

/* Waits for a child; gives 1 if it ended as it should. */
static uint64_t reap(pid_t child)
{
    int status;
    if (waitpid(child, &status, 0) != child)
        die("waitpid");
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

#define FORKS 8

static uint64_t fork_run(void *context)
{
    uint64_t good = 0;
    for (unsigned i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child == 0)
            _exit(0);
        good += reap(child);
    }
    return good;
}

static uint64_t exec_run(void *context)
{
    char program[] = "ruche-bench", argument[] = ARGUMENT_NOTHING;
    char *const arguments[] = {program, argument, NULL}, *const environment[] = {NULL};
    uint64_t good = 0;
    for (unsigned i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child == 0) {
            execve("/proc/self/exe", arguments, environment);
            _exit(1);
        }
        good += reap(child);
    }
    return good;
}

/* A byte to another process and back. */
#define PIPE_TURNS 100

struct pipes {
    int to[2], from[2];
    pid_t child;
};

static void *pipe_setup(void)
{
    struct pipes *pipes = allocate(sizeof(*pipes));
    if (pipe(pipes->to) < 0 || pipe(pipes->from) < 0)
        die("pipe");
    pipes->child = fork();
    if (pipes->child < 0)
        die("fork");
    if (pipes->child == 0) {
        char byte;
        close(pipes->to[1]);
        while (read(pipes->to[0], &byte, 1) == 1) {
            byte++;
            if (write(pipes->from[1], &byte, 1) != 1)
                break;
        }
        _exit(0);
    }
    return pipes;
}

static uint64_t pipe_run(void *context)
{
    const struct pipes *pipes = context;
    char byte = 0;
    for (unsigned i = 0; i < PIPE_TURNS; i++)
        if (write(pipes->to[1], &byte, 1) != 1 || read(pipes->from[0], &byte, 1) != 1)
            die("pipe");
    return (uint64_t)byte;
}

static void pipe_teardown(void *context)
{
    struct pipes *pipes = context;
    close(pipes->to[0]);
    close(pipes->to[1]);
    reap(pipes->child);
    close(pipes->from[0]);
    close(pipes->from[1]);
    free(pipes);
}

#define SIGNALS 500

static volatile sig_atomic_t signals_seen;

static void on_signal(int number)
{
    signals_seen++;
}

static uint64_t signal_run(void *context)
{
    struct sigaction action = {.sa_handler = on_signal}, before;
    if (sigaction(SIGUSR1, &action, &before) < 0)
        die("sigaction");
    signals_seen = 0;
    for (unsigned i = 0; i < SIGNALS; i++)
        raise(SIGUSR1);
    sigaction(SIGUSR1, &before, NULL);
    return (uint64_t)signals_seen;
}

/* Mappings too small for huge pages: each first touch is a fault. */
#define TOUCH_PAGES   128
#define TOUCH_REPEATS 4
#define PAGE_BYTES    4096

static uint64_t touch_run(void *context)
{
    uint64_t sum = 0;
    for (unsigned repeat = 0; repeat < TOUCH_REPEATS; repeat++) {
        uint8_t *pages = mmap(NULL, (size_t)TOUCH_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED)
            die("mmap");
        for (size_t i = 0; i < TOUCH_PAGES; i++)
            pages[i * PAGE_BYTES] = (uint8_t)i;
        for (size_t i = 0; i < TOUCH_PAGES; i++)
            sum = mix(sum, pages[i * PAGE_BYTES]);
        munmap(pages, (size_t)TOUCH_PAGES * PAGE_BYTES);
    }
    return sum;
}

/* A file of one page on tmpfs. */
#define FILE_REPEATS 200

struct file {
    char path[64];
    int fd;
    uint8_t data[PAGE_BYTES];
};

static void *file_setup(void)
{
    struct file *file = allocate(sizeof(*file));
    snprintf(file->path, sizeof(file->path), SCRATCH_FOLDER "/ruche-bench-XXXXXX");
    file->fd = mkstemp(file->path);
    memset(file->data, 1, sizeof(file->data));
    if (file->fd < 0 || pwrite(file->fd, file->data, sizeof(file->data), 0) != (ssize_t)sizeof(file->data))
        die(file->path);
    return file;
}

static void file_teardown(void *context)
{
    struct file *file = context;
    close(file->fd);
    unlink(file->path);
    free(file);
}

static uint64_t open_run(void *context)
{
    const struct file *file = context;
    for (unsigned i = 0; i < FILE_REPEATS; i++) {
        int fd = open(file->path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            die(file->path);
        close(fd);
    }
    return FILE_REPEATS;
}

static uint64_t stat_run(void *context)
{
    const struct file *file = context;
    uint64_t sum = 0;
    for (unsigned i = 0; i < FILE_REPEATS * 4; i++) {
        struct stat status;
        if (stat(file->path, &status) < 0)
            die(file->path);
        sum += (uint64_t)status.st_size;
    }
    return sum;
}

static uint64_t read_run(void *context)
{
    struct file *file = context;
    uint64_t sum = 0;
    for (unsigned i = 0; i < FILE_REPEATS * 4; i++) {
        if (pread(file->fd, file->data, sizeof(file->data), 0) != (ssize_t)sizeof(file->data))
            die(file->path);
        sum = mix(sum, file->data[i]);
    }
    return sum;
}

static uint64_t write_run(void *context)
{
    const struct file *file = context;
    uint64_t sum = 0;
    for (unsigned i = 0; i < FILE_REPEATS * 4; i++)
        sum += (uint64_t)pwrite(file->fd, file->data, sizeof(file->data), 0);
    return sum;
}

/* A short sleep: the timer's programming, its interrupt, and the way out of and into the idle loop. */
#define SLEEPS 10

static uint64_t sleep_run(void *context)
{
    const struct timespec time = {.tv_nsec = 100000};
    uint64_t good = 0;
    for (unsigned i = 0; i < SLEEPS; i++)
        good += nanosleep(&time, NULL) == 0;
    return good;
}

static const struct item items[] = {
    {.name = "syscall", .operations = SYSCALLS, .run = syscall_run},
    {.name = "fork-wait", .operations = FORKS, .run = fork_run},
    {.name = "fork-exec", .operations = FORKS, .run = exec_run},
    {.name = "pipe",
     .operations = PIPE_TURNS,
     .setup = pipe_setup,
     .run = pipe_run,
     .teardown = pipe_teardown},
    {.name = "signal", .operations = SIGNALS, .run = signal_run},
    {.name = "page-faults", .operations = TOUCH_PAGES * TOUCH_REPEATS, .run = touch_run},
    {.name = "open-close",
     .operations = FILE_REPEATS,
     .setup = file_setup,
     .run = open_run,
     .teardown = file_teardown},
    {.name = "stat",
     .operations = FILE_REPEATS * 4,
     .setup = file_setup,
     .run = stat_run,
     .teardown = file_teardown},
    {.name = "read-4K",
     .operations = FILE_REPEATS * 4,
     .setup = file_setup,
     .run = read_run,
     .teardown = file_teardown},
    {.name = "write-4K",
     .operations = FILE_REPEATS * 4,
     .setup = file_setup,
     .run = write_run,
     .teardown = file_teardown},
    {.name = "sleep-100us", .operations = SLEEPS, .run = sleep_run},
};

const struct group group_system = GROUP("system", items);
