/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Verifying backups: every byte of every file has its part in a checksum. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "catalog/backup.h"
#include "catalog/overlay.h"
#include "cli/backups.h"
#include "cli/progress.h"

static uint64_t size_of(const json_t *file)
{
    return (uint64_t)json_integer_value(json_object_get(file, "size"));
}

/* Whether a file of an earlier place in the manifest was the same. */
static bool seen(const struct backup_folder *f, const json_t *file)
{
    return backup_file_named(f, json_string_value(json_object_get(file, "name"))) != file;
}

static uint64_t total_bytes(const struct backup_folder *f)
{
    json_t *backup, *file;
    uint64_t sum = 0;
    size_t i, k;
    json_array_foreach(backup_list(f), i, backup)
    {
        json_array_foreach(json_object_get(backup, "files"), k, file)
        {
            sum += seen(f, file) ? 0 : size_of(file);
        }
    }
    return sum;
}

bool backup_verify(const char *dir, struct error **err)
{
    cleanup(backup_folder) struct backup_folder f;
    struct progress progress;
    json_t *backup, *file;
    uint64_t done = 0;
    unsigned bad = 0;
    size_t i, k;
    if (!backup_open(dir, false, &f, err))
        return false;
    uint64_t total = total_bytes(&f);
    progress_start(&progress, "verify");
    json_array_foreach(backup_list(&f), i, backup)
    {
        json_array_foreach(json_object_get(backup, "files"), k, file)
        {
            struct error *why = NULL;
            if (seen(&f, file))
                continue;
            if (!backup_check_file(&f, file, true, &why)) {
                fprintf(stderr, "ruche: %s\n", error_text(why));
                bad++;
            }
            error_free(why);
            done += size_of(file);
            progress_bytes(&progress, done, total);
        }
    }
    progress_end(&progress, !bad);
    if (bad)
        error_set(err, EBADMSG, "%u file%s not as when the backup was made", bad, bad == 1 ? " is" : "s are");
    return !bad;
}
