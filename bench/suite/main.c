/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ruche-bench: measures the items of the suite and prints a line for each:
 *
 *     NAME MEDIAN CHECKSUM BEST
 *
 * where MEDIAN and BEST are nanoseconds for one operation, over the calls that fit in the time for an item;
 * the first call is not counted. With --threads N an item runs in N threads at once, and the figures are the
 * time in which the threads together do one operation. As the first process of a machine the program turns
 * the machine off at the end.
 */
#include "suite.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const struct group *const groups[] = {
    &group_integer, &group_data, &group_memory, &group_float, &group_vector, &group_system, &group_threads,
};

#define GROUPS      (sizeof(groups) / sizeof(groups[0]))
#define MIN_CALLS   3
#define MAX_CALLS   10000
#define MAX_THREADS 64
#define ALIGNMENT   64 /* of what an item may have in it */
#define HUGE_PAGE   (2u << 20)

static bool is_init;

/* What the command line asks for. */
struct request {
    double milliseconds; /* for an item, the first call not counted */
    unsigned threads;
    bool list;
    const char *names; /* of items and groups, with commas between; NULL: all */
};

struct result {
    double median, best; /* nanoseconds for an operation */
    uint64_t checksum;
};

_Noreturn void die(const char *what)
{
    fprintf(stderr, "ruche-bench: %s: %s\n", what, strerror(errno));
    if (is_init)
        init_power_off();
    exit(1);
}

void *allocate(size_t size)
{
    void *memory = NULL;
    if (size < HUGE_PAGE) {
        if (posix_memalign(&memory, ALIGNMENT, size) != 0)
            memory = NULL;
    } else if (posix_memalign(&memory, HUGE_PAGE, size) == 0) {
        /* Whether a host gives huge pages unasked shall not decide. */
        madvise(memory, size, MADV_HUGEPAGE);
    }
    if (!memory)
        die("out of memory");
    memset(memory, 0, size);
    return memory;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One thread's work on an item. */
struct worker {
    const struct item *item;
    double milliseconds;
    pthread_barrier_t *start; /* NULL: no other threads */
    struct result result;
    double mean; /* nanoseconds for an operation */
    bool right;  /* every call gave the same checksum */
    pthread_t thread;
};

static void work(struct worker *worker)
{
    const struct item *item = worker->item;
    void *context = item->setup ? item->setup() : NULL;
    double *times = allocate(MAX_CALLS * sizeof(double));
    size_t calls = 0;

    worker->result.checksum = item->run(context);
    worker->right = true;
    if (worker->start)
        pthread_barrier_wait(worker->start);
    double begin = now(), before = begin, end = begin + worker->milliseconds * 1e6;
    while (calls < MAX_CALLS && (calls < MIN_CALLS || before < end)) {
        worker->right &= item->run(context) == worker->result.checksum;
        double after = now();
        times[calls++] = (after - before) / item->operations;
        before = after;
    }
    worker->mean = (before - begin) / ((double)calls * item->operations);
    /* Others are still at it: their last calls shall not run alone. */
    if (worker->start)
        for (unsigned i = 0; i < MIN_CALLS; i++)
            item->run(context);

    qsort(times, calls, sizeof(double), compare_doubles);
    worker->result.median = times[calls / 2];
    worker->result.best = times[0];
    free(times);
    if (item->teardown)
        item->teardown(context);
    else
        free(context);
}

static void *work_thread(void *argument)
{
    work(argument);
    return NULL;
}

/*
 * Threads at the same time; their rates add up. A median says nothing here: where threads share a processor
 * most calls are not interrupted, and a few take all the time.
 */
static bool measure_threads(const struct item *item, const struct request *request, struct result *result)
{
    struct worker workers[MAX_THREADS];
    pthread_barrier_t start;
    bool right = true;
    double rate = 0;

    pthread_barrier_init(&start, NULL, request->threads);
    for (unsigned i = 0; i < request->threads; i++) {
        workers[i] = (struct worker){.item = item, .milliseconds = request->milliseconds, .start = &start};
        if (pthread_create(&workers[i].thread, NULL, work_thread, &workers[i]))
            die("pthread_create");
    }
    for (unsigned i = 0; i < request->threads; i++) {
        pthread_join(workers[i].thread, NULL);
        right &= workers[i].right && workers[i].result.checksum == workers[0].result.checksum;
        rate += 1 / workers[i].mean;
    }
    pthread_barrier_destroy(&start);
    *result = (struct result){1 / rate, 1 / rate, workers[0].result.checksum};
    return right;
}

static bool measure(const struct item *item, const struct request *request, struct result *result)
{
    if (request->threads)
        return measure_threads(item, request, result);
    struct worker worker = {.item = item, .milliseconds = request->milliseconds};
    work(&worker);
    *result = worker.result;
    return worker.right;
}

static bool is_in_list(const char *name, const char *list)
{
    size_t length = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (!strncmp(at, name, length) && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

static bool is_wanted(const struct item *item, const struct group *group, const struct request *request)
{
    if (request->names)
        return is_in_list(item->name, request->names) || is_in_list(group->name, request->names);
    return (long)item->cpus <= sysconf(_SC_NPROCESSORS_ONLN);
}

/* Prints one line for an item; gives false if its results were not always the same. */
static bool report(const struct item *item, const struct group *group, const struct request *request)
{
    struct result result;
    bool right = true;
    if (request->list) {
        printf("%s %s %u\n", item->name, group->name, item->cpus ? item->cpus : 1);
    } else if (item->supported && !item->supported()) {
        printf("%s unsupported\n", item->name);
    } else {
        right = measure(item, request, &result);
        if (right)
            printf("%s %.3f %016llx %.3f\n", item->name, result.median, (unsigned long long)result.checksum,
                   result.best);
        else
            printf("%s wrong\n", item->name);
    }
    /* The line is out of the machine before the next item starts. */
    fflush(stdout);
    tcdrain(1);
    return right;
}

static bool parse(int argc, char **argv, struct request *request)
{
    int at = 1;
    *request = (struct request){.milliseconds = 150};
    for (; at < argc && argv[at][0] == '-'; at++) {
        const char *value = at + 1 < argc ? argv[at + 1] : NULL;
        if (!strcmp(argv[at], "--list")) {
            request->list = true;
        } else if (!strcmp(argv[at], "--ms") && value) {
            request->milliseconds = strtod(value, NULL);
            at++;
        } else if (!strcmp(argv[at], "--threads") && value) {
            request->threads = (unsigned)strtoul(value, NULL, 10);
            at++;
        } else {
            return false;
        }
    }
    request->names = at < argc ? argv[at++] : NULL;
    return at == argc && request->threads <= MAX_THREADS;
}

int main(int argc, char **argv)
{
    struct request request;
    bool right = true;
    if (argc == 2 && !strcmp(argv[1], ARGUMENT_NOTHING))
        return 0;
    is_init = getpid() == 1;
    if (is_init)
        init_prepare();
    if (!parse(argc, argv, &request)) {
        fprintf(stderr, "usage: ruche-bench [--list] [--ms N] [--threads N] [ITEM or GROUP,...]\n");
        if (is_init)
            init_power_off();
        return 2;
    }
    if (!request.list)
        printf("begin %.0f\n", now());
    fflush(stdout);
    for (size_t i = 0; i < GROUPS; i++)
        for (size_t j = 0; j < groups[i]->count; j++)
            if (is_wanted(&groups[i]->items[j], groups[i], &request))
                right &= report(&groups[i]->items[j], groups[i], &request);
    if (!request.list)
        printf("end %.0f\n", now());
    fflush(stdout);
    if (is_init)
        init_power_off();
    return right ? 0 : 1;
}
