/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs one test guest in the bare test machine and passes on its results.
 *
 *     guest-run [--engine NAME] [--cpu MODEL] [--cpus N] [--seconds N] [--crowded] IMAGE
 *
 * --crowded: all of it on one of the host's processors, which a thread that is always busy has its share of.
 * The exit status is 0 when the guest ended by itself, had results and none of them was bad.
 */
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "harness.h"

#define HEADER_MAGIC 0x1badb002u
#define HEADER_REACH 8192u
#define IMAGE_MAX    (4 * MIB)

static uint8_t *read_image(const char *path, size_t *size)
{
    cleanup(file) FILE *f = fopen(path, "rb");
    uint8_t *image = malloc(IMAGE_MAX);
    if (!f || !image) {
        perror(path);
        free(image);
        return NULL;
    }
    *size = fread(image, 1, IMAGE_MAX, f);
    return image;
}

/* Puts the image where its Multiboot header says and points the state at its entry. */
static bool load(struct harness *h, const uint8_t *image, size_t size, struct x86_state *s)
{
    for (size_t at = 0; at + 32 <= size && at < HEADER_REACH; at += 4) {
        const uint8_t *m = image + at;
        if (load_le32(m) != HEADER_MAGIC || load_le32(m) + load_le32(m + 4) + load_le32(m + 8) != 0)
            continue;
        uint32_t header = load_le32(m + 12), start = load_le32(m + 16), end = load_le32(m + 20);
        size_t offset = at - (header - start);
        if (header < start || end < start || offset > size || end - start > size - offset)
            break;
        harness_write(h, start, image + offset, end - start);
        s->rip = load_le32(m + 28);
        return true;
    }
    fprintf(stderr, "guest-run: the image has no usable Multiboot header\n");
    return false;
}

/* Result lines that begin so. */
static unsigned count_lines(const char *text, const char *start)
{
    unsigned n = 0;
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        n += !strncmp(line, start, strlen(start));
    return n;
}

static int run(struct harness *h, const char *path, unsigned seconds)
{
    size_t size = 0;
    cleanup(mem) uint8_t *image = read_image(path, &size);
    struct x86_state state;
    harness_state_protected(h, &state, true);
    if (!image || !load(h, image, size, &state))
        return 1;
    state.gpr[R_RAX] = 0x2badb002;
    state.cr0 = CR0_PE | CR0_ET;
    state.cr4 = 0;
    state.xcr0 = 1;
    harness_set(h, 0, &state);
    h->echo = true;
    enum harness_result result = harness_run(h, seconds * 1000);
    fflush(stdout);
    unsigned good = count_lines(h->text, "ok "), bad = count_lines(h->text, "not ok ");
    if (result != HARNESS_EXITED)
        printf("# %s: %s\n", harness_result_name(result), h->why);
    printf("# %u passed, %u failed\n", good, bad);
    return result == HARNESS_EXITED && !h->exit_value && good && !bad ? 0 : 1;
}

static void *be_busy(void *opaque)
{
    for (volatile unsigned n = 0;; n++)
        ;
    return NULL;
}

static bool crowd(void)
{
    cpu_set_t set;
    pthread_t thread;
    int cpu = sched_getcpu();
    if (cpu < 0)
        return false;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0 && pthread_create(&thread, NULL, be_busy, NULL) == 0;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"engine", 1, 0, 'e'},  {"cpu", 1, 0, 'm'},     {"cpus", 1, 0, 'n'},
                                          {"seconds", 1, 0, 's'}, {"crowded", 0, 0, 'c'}, {0}};
    struct harness_options options = {.cpu_count = 1};
    unsigned seconds = 60;
    bool crowded = false;
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (c == 'e')
            options.engine = optarg;
        else if (c == 'm')
            options.cpu = optarg;
        else if (c == 'n')
            options.cpu_count = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 's')
            seconds = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'c')
            crowded = true;
        else
            return 2;
    }
    if (optind + 1 != argc) {
        fprintf(stderr, "usage: guest-run [--engine NAME] [--cpu MODEL] [--cpus N] [--seconds N] [--crowded] "
                        "IMAGE\n");
        return 2;
    }
    if (crowded && !crowd()) {
        perror("guest-run: --crowded");
        return 1;
    }
    struct harness *h = harness_open(&options);
    if (!h)
        return 1;
    int result = run(h, argv[optind], seconds);
    harness_close(h);
    return result;
}
