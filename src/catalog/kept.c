/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kept disks: see kept.h. */
#include "catalog/kept.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "catalog/file.h"
#include "catalog/overlay.h"

static const char *member(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool check(const char *json_path, const char *machine, const struct image *image, struct error **err)
{
    json_error_t why;
    json_t *o = json_load_file(json_path, 0, &why);
    if (!o)
        return error_set(err, 0, "read '%s': %s", json_path, why.text), false;
    bool same_image = strcmp(member(o, "image"), image->name) == 0;
    bool same_build = strcmp(member(o, "disk_sha256"), image->disk_sha256) == 0;
    if (!same_image)
        error_set(err, 0, "run machine '%s' from image '%s': its kept disk stands on image '%s'", machine,
                  image->name, member(o, "image"));
    else if (!same_build)
        error_set(err, 0, "run machine '%s': its kept disk stands on an earlier build of image '%s'", machine,
                  image->name);
    json_decref(o);
    return same_image && same_build;
}

char *kept_disk(const char *machine, const struct image *image, bool *made, struct error **err)
{
    *made = false;
    if (!catalog_name_check(machine, err))
        return NULL;
    cleanup(mem) char *dir = catalog_data_dir("machines", err);
    if (!dir)
        return NULL;
    cleanup(mem) char *disk = catalog_format("%s/%s.qcow2", dir, machine);
    cleanup(mem) char *json_path = catalog_format("%s/%s.json", dir, machine);
    if (access(disk, F_OK) == 0)
        return check(json_path, machine, image, err) ? steal_ptr(&disk) : NULL;

    /* The description first: a disk without one could stand on anything. */
    json_t *o = json_pack("{s:s, s:s}", "image", image->name, "disk_sha256", image->disk_sha256);
    bool ok = o && json_dump_file(o, json_path, JSON_INDENT(2)) == 0;
    json_decref(o);
    if (!ok) {
        error_set_errno(err, errno, "write '%s'", json_path);
        unlink(json_path);
        return NULL;
    }
    if (!overlay_create(disk, image->disk, err)) {
        unlink(json_path);
        return NULL;
    }
    *made = true;
    return steal_ptr(&disk);
}

/* Does a machine have it open? It holds locks then. */
static bool in_use(const char *disk)
{
    cleanup(fd) int fd = open(disk, O_RDWR | O_CLOEXEC);
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fd >= 0 && fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

void kept_discard(const char *disk)
{
    if (in_use(disk))
        return; /* another machine of the same name came in between */
    cleanup(mem) char *json_path = catalog_format("%.*s.json", (int)(strlen(disk) - strlen(".qcow2")), disk);
    unlink(disk);
    unlink(json_path);
}

char *kept_user_of(const char *image_name)
{
    cleanup(mem) char *dir = catalog_data_dir("machines", NULL);
    DIR *d = dir ? opendir(dir) : NULL;
    char *found = NULL;
    if (!d)
        return NULL;
    for (const struct dirent *e = readdir(d); e && !found; e = readdir(d)) {
        size_t len = strlen(e->d_name);
        if (len < 6 || strcmp(e->d_name + len - 5, ".json") != 0)
            continue;
        cleanup(mem) char *path = catalog_format("%s/%s", dir, e->d_name);
        json_t *o = json_load_file(path, 0, NULL);
        if (o && strcmp(member(o, "image"), image_name) == 0)
            found = catalog_format("%.*s", (int)len - 5, e->d_name);
        json_decref(o);
    }
    closedir(d);
    return found;
}
