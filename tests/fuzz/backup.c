/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzing of manifests of backups: the input is what is in one, and gets the checksum that it needs to be
 * believed. Whatever it says, no file outside the folder is ever looked at, and what has the form can be
 * used.
 */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "catalog/backup.h"
#include "catalog/sha256.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/fuzz-backup-XXXXXX";

static void leave(void)
{
    unlink("backup.json");
    rmdir(folder);
}

static void prepare(void)
{
    if (!mkdtemp(folder) || chdir(folder) < 0)
        abort();
    atexit(leave);
    log_to(open("/dev/null", O_WRONLY));
}

static void write_manifest(json_t *content)
{
    char sum[SHA256_HEX_SIZE];
    struct sha256 s;
    cleanup(mem) char *text = json_dumps(content, JSON_INDENT(2));
    cleanup(file) FILE *f = fopen("backup.json", "w");
    if (!text || !f)
        return;
    sha256_init(&s);
    sha256_update(&s, text, strlen(text));
    sha256_final(&s, sum);
    json_t *all = json_pack("{s:O, s:s}", "content", content, "sha256", sum);
    cleanup(mem) char *manifest = json_dumps(all, JSON_INDENT(2));
    json_decref(all);
    if (manifest)
        fputs(manifest, f);
}

/* Whatever an action does with it. */
static void use(const struct backup_folder *f)
{
    json_t *backup, *file;
    size_t i, k;
    json_array_foreach(backup_list(f), i, backup)
    {
        json_array_foreach(json_object_get(backup, "files"), k, file)
        {
            const char *name = json_string_value(json_object_get(file, "name"));
            if (strchr(name, '/') || !backup_file_named(f, name) ||
                !backup_file(backup, json_string_value(json_object_get(file, "role"))))
                abort();
            backup_check_file(f, file, true, NULL);
        }
    }
    backup_numbered(f, "3", NULL);
    if (!backup_chain(f))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error *err = NULL;
    struct backup_folder f;
    if (folder[strlen(folder) - 1] == 'X')
        prepare();
    json_t *content = json_loadb((const char *)data, size, 0, NULL);
    if (!content)
        return 0;
    write_manifest(content);
    json_decref(content);
    bool ok = backup_open(folder, true, &f, &err);
    if (ok == (err != NULL))
        abort();
    if (ok)
        use(&f);
    error_free(err);
    backup_close(&f);
    return 0;
}
