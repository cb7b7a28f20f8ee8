/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Listing backups. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "catalog/backup.h"
#include "cli/backups.h"
#include "cli/print.h"
#include "cli/verb.h"

/* Of the disks' files; the others are there once for all backups. */
static uint64_t bytes_of(const json_t *backup)
{
    json_t *file;
    uint64_t sum = 0;
    size_t i;
    json_array_foreach(json_object_get(backup, "files"), i, file)
    {
        if (backup_is_disk(file))
            sum += (uint64_t)json_integer_value(json_object_get(file, "size"));
    }
    return sum;
}

static void print_row(const json_t *backup)
{
    char size[32];
    printf("%6lld  %-21s %-12s %9s %-12s %s\n",
           (long long)json_integer_value(json_object_get(backup, "number")), backup_text(backup, "created"),
           backup_text(backup, "kind"), size_text(bytes_of(backup), size), backup_text(backup, "consistency"),
           backup_text(backup, "why"));
}

int backup_show(const char *dir, bool json, struct error **err)
{
    cleanup(backup_folder) struct backup_folder f;
    json_t *backup;
    size_t i;
    if (!backup_open(dir, false, &f, err))
        return EXIT_RUCHE;
    if (json)
        return print_json(json_incref(f.content));
    if (json_array_size(backup_list(&f)))
        printf("%6s  %-21s %-12s %9s %-12s %s\n", "NUMBER", "CREATED", "KIND", "SIZE", "CONSISTENCY",
               "WHY FULL");
    json_array_foreach(backup_list(&f), i, backup)
    {
        print_row(backup);
    }
    return EXIT_OK;
}
