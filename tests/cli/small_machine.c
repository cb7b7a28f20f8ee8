/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See small_machine.h. */
#include "small_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "catalog/file.h"

char small_folder[] = "/tmp/ruche-snapshots-XXXXXX";

/* A machine on an image that is an overlay's header without a base. */
void small_make(struct database *db, struct machine *m)
{
    struct error *err = NULL;
    uint8_t header[104] = {'Q', 'F', 'I', 0xfb};
    char disk[128], name[] = "small";
    char sum[] = "0123456789012345678901234567890123456789012345678901234567890123";
    store_be64(header + 24, MIB);
    snprintf(disk, sizeof(disk), "%s/image.qcow2", small_folder);
    FILE *f = fopen(disk, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(header, 1, sizeof(header), f), sizeof(header));
    fclose(f);
    const struct image image = {.name = name, .disk = disk, .disk_sha256 = sum};
    json_t *config = json_pack("{s:i, s:i, s:[], s:[], s:{s:s, s:s}}", "cpus", 1, "memory", 1 << 20, "nets",
                               "disks", "image", "name", name, "disk_sha256", sum);
    if (!machine_create(db, "web", config, &image, NULL, m, &err))
        fail_msg("%s", error_text(err));
    json_decref(config);
}

void small_remove(struct database *db, struct machine *m)
{
    assert_true(machine_remove(db, m, NULL));
    machine_release(m);
}

void small_again(struct database *db, struct machine *m)
{
    struct machine now = {0};
    assert_true(machine_find(db, m->uuid, &now, NULL));
    machine_release(m);
    *m = now;
}

/* The last of a table of guest data: something was written to the layer. */
void small_touch(const struct machine *m)
{
    cleanup(mem) char *path = machine_disk(m);
    cleanup(fd) int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 3 * 65536 + 7), 1);
}

void small_load(struct database *db, const struct machine *m, struct layers *l)
{
    struct error *err = NULL;
    if (!layers_load(db, m, l, &err))
        fail_msg("%s", error_text(err));
}

bool small_has(const struct machine *m, const char *name)
{
    cleanup(mem) char *path = layer_path(m, name);
    return access(path, F_OK) == 0;
}

int small_folder_make(void **state)
{
    return mkdtemp(small_folder) && setenv("XDG_DATA_HOME", small_folder, 1) == 0 ? 0 : -1;
}

int small_folder_remove(void **state)
{
    return catalog_remove_tree(small_folder, NULL) ? 0 : -1;
}
