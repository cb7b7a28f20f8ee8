/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Use of the host: see usage.h; proc(5). */
#include "cli/usage.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/file.h"

/* The first bytes of a file; empty when it cannot be read. */
static void read_text(const char *path, char *text, size_t size)
{
    cleanup(file) FILE *f = fopen(path, "re");
    text[f ? fread(text, 1, size - 1, f) : 0] = 0;
}

/* Number `index` of the words in a text, as a number; 0 when there is none. */
static unsigned long word_number(const char *text, unsigned index)
{
    for (; index && *text; index--) {
        text += strcspn(text, " ");
        text += strspn(text, " ");
    }
    return strtoul(text, NULL, 10);
}

static double cpu_seconds(const char *path)
{
    char text[1024];
    read_text(path, text, sizeof(text));
    /* The program's name, in brackets, may hold anything; after it utime is the 12th word, stime the 13th. */
    const char *rest = strrchr(text, ')');
    return rest ? (double)(word_number(rest, 12) + word_number(rest, 13)) / (double)sysconf(_SC_CLK_TCK) : 0;
}

/* Of the processes that one thread has started. */
static double children_seconds(const char *path)
{
    char text[4096];
    double sum = 0;
    read_text(path, text, sizeof(text));
    for (char *word, *rest = text; (word = strsep(&rest, " \n"));) {
        cleanup(mem) char *stat_path = catalog_format("/proc/%s/stat", word);
        if (*word)
            sum += cpu_seconds(stat_path);
    }
    return sum;
}

static double all_children_seconds(pid_t pid)
{
    double sum = 0;
    cleanup(mem) char *tasks = catalog_format("/proc/%d/task", (int)pid);
    DIR *d = opendir(tasks);
    if (!d)
        return 0;
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        cleanup(mem) char *path = catalog_format("%s/%s/children", tasks, e->d_name);
        if (e->d_name[0] != '.')
            sum += children_seconds(path);
    }
    closedir(d);
    return sum;
}

void usage_read(pid_t pid, struct usage *usage)
{
    char text[256];
    cleanup(mem) char *stat_path = catalog_format("/proc/%d/stat", (int)pid);
    cleanup(mem) char *memory_path = catalog_format("/proc/%d/statm", (int)pid);
    read_text(memory_path, text, sizeof(text));
    usage->memory = word_number(text, 1) * (uint64_t)sysconf(_SC_PAGESIZE);
    usage->cpu_s = cpu_seconds(stat_path) + all_children_seconds(pid);
}
