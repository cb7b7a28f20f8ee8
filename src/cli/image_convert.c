/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Images from and for other programs: see image_convert.h. */
#include "cli/image_convert.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/image.h"
#include "catalog/sha256.h"
#include "cli/args.h"
#include "cli/download.h"
#include "cli/qemu_img.h"
#include "cli/verb.h"

/* What a disk may be, in qemu-img's words; vpc is what others call vhd. */
static const char *const formats[] = {"raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx"};

static bool known_format(const char *format)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (strcmp(formats[i], format) == 0)
            return true;
    return false;
}

/*
 * Finds out the format where none is said. A disk that stands on another file would carry over whatever is in
 * that one, such as the host's own; *format is the caller's.
 */
static bool look_at_disk(const char *file, const char *said, char **format, struct error **err)
{
    char text[16384];
    const char *const words[] = {"qemu-img", "info", "--output=json", file, said ? "-f" : NULL, said, NULL};
    if (!qemu_img(words, text, sizeof(text), err))
        return false;
    json_t *info = json_loads(text, 0, NULL);
    const char *base = json_string_value(json_object_get(info, "backing-filename"));
    const char *found = json_string_value(json_object_get(info, "format"));
    bool ok = found && !base && known_format(found);
    if (base)
        error_set(err, EINVAL, "it stands on another file, '%s'", base);
    else if (!ok)
        error_set(err, EINVAL, "its format '%s' is not one that can be imported", found ? found : "?");
    else
        *format = catalog_format("%s", found);
    json_decref(info);
    return ok;
}

static bool copy_file(const char *from, const struct image_draft *draft, const char *name, struct error **err)
{
    cleanup(mem) char *to = catalog_format("%s/%s", draft->dir, name);
    return catalog_copy(from, to, err);
}

static bool write_line(const struct image_draft *draft, const char *name, const char *text,
                       struct error **err)
{
    cleanup(mem) char *path = catalog_format("%s/%s", draft->dir, name);
    cleanup(file) FILE *f = fopen(path, "we");
    if (f && fprintf(f, "%s\n", text) > 0 && fflush(f) == 0)
        return true;
    return error_set_errno(err, errno, "write '%s'", path), false;
}

/* What is imported, and the image that it becomes. */
struct import {
    const char *name, *source; /* path or address of the disk */
    const char *disk;          /* the file that it is by now */
    const char *format, *sha256, *kernel, *initrd, *cmdline;
};

static bool fill_draft(const struct image_draft *draft, const struct import *i, const char *format,
                       struct error **err)
{
    cleanup(mem) char *disk = catalog_format("%s/disk.qcow2", draft->dir);
    cleanup(mem) char *description = catalog_format("imported from %s", i->source);
    const char *const words[] = {"qemu-img", "convert", "-f", format, "-O", "qcow2", i->disk, disk, NULL};
    return qemu_img(words, NULL, 0, err) && copy_file(i->kernel, draft, "vmlinuz", err) &&
           copy_file(i->initrd, draft, "initrd", err) && write_line(draft, "cmdline", i->cmdline, err) &&
           write_line(draft, "description", description, err);
}

static bool import_image(const struct import *i, struct error **err)
{
    cleanup(mem) char *format = NULL;
    struct image_draft draft;
    if (!look_at_disk(i->disk, i->format, &format, err) || !image_draft_begin(i->name, &draft, err))
        return false;
    bool ok = fill_draft(&draft, i, format, err) && image_draft_commit(&draft, "", err);
    image_draft_discard(&draft);
    return ok;
}

static bool is_sum(const char *text)
{
    return strlen(text) == SHA256_HEX_SIZE - 1 &&
           strspn(text, "0123456789abcdefABCDEF") == SHA256_HEX_SIZE - 1;
}

static bool check_sum(const struct import *i, struct error **err)
{
    char sum[SHA256_HEX_SIZE];
    if (!i->sha256)
        return true;
    if (!sha256_file(i->disk, sum, err))
        return false;
    if (strcasecmp(sum, i->sha256) == 0)
        return true;
    return error_set(err, EBADMSG, "its SHA-256 is %s, not the one that was said", sum), false;
}

/* The small files first: what is wrong with them is to be said before a long download. */
static bool may_read(const char *path, struct error **err)
{
    return access(path, R_OK) == 0 || (error_set_errno(err, errno, "open '%s'", path), false);
}

static bool import_from(struct import *i, struct error **err)
{
    struct download d;
    if (!may_read(i->kernel, err) || !may_read(i->initrd, err))
        return false;
    if (!download_is_url(i->source)) {
        /* As a whole path it is a file, whatever words of qemu-img's own it might begin with. */
        cleanup(mem) char *path = catalog_absolute(i->source, err);
        i->source = i->disk = path;
        return path && check_sum(i, err) && import_image(i, err);
    }
    if (!download(i->source, &d, err))
        return false;
    i->disk = d.path;
    bool ok = check_sum(i, err) && import_image(i, err);
    download_remove(&d);
    return ok;
}

static int finish(const char *what, const char *name, bool ok, struct error *why)
{
    struct error *err = NULL;
    if (ok)
        return EXIT_OK;
    error_prefix(&err, why, "%s image '%s'", what, name);
    return failure(err);
}

int image_import(int argc, char **argv)
{
    struct import i = {.cmdline = "root=/dev/vda rw console=ttyS0"};
    struct error *err = NULL;
    bool force = false;
    const struct arg args[] = {{"format", 0, NULL, &i.format},   {"sha256", 0, NULL, &i.sha256},
                               {"kernel", 0, NULL, &i.kernel},   {"initrd", 0, NULL, &i.initrd},
                               {"cmdline", 0, NULL, &i.cmdline}, {"force", 0, &force, NULL}};
    int count = args_take(argc, argv, args, ARRAY_SIZE(args));
    if (count < 0)
        return EXIT_USAGE;
    if (count != 2 || !i.kernel || !i.initrd)
        return usage_error("image",
                           "image import: NAME, FILE or URL, --kernel FILE and --initrd FILE are wanted");
    if (i.format && !known_format(i.format))
        return usage_error("image", "image import: '%s' is no format of a disk", i.format);
    if (i.sha256 && !is_sum(i.sha256))
        return usage_error("image",
                           "image import: --sha256: '%.80s' is no SHA-256, which has 64 hexadecimal digits",
                           i.sha256);
    if (!catalog_name_check(argv[0], &err)) {
        failure(err);
        return EXIT_USAGE;
    }
    i.name = argv[0];
    i.source = argv[1];
    bool ok = (force || image_unused(i.name, "replace", &err)) && import_from(&i, &err);
    return finish("import", i.name, ok, err);
}

static bool export_disk(const char *name, const char *file, const char *format, struct error **err)
{
    struct image image;
    if (!image_load(name, &image, err))
        return false;
    cleanup(mem) char *draft = catalog_format("%s.part", file);
    const char *const words[] = {"qemu-img", "convert", "-f", "qcow2", "-O", format, image.disk, draft, NULL};
    bool ok = qemu_img(words, NULL, 0, err);
    if (ok && rename(draft, file) < 0) {
        error_set_errno(err, errno, "write '%s'", file);
        ok = false;
    }
    if (!ok)
        unlink(draft);
    image_release(&image);
    return ok;
}

int image_export(int argc, char **argv)
{
    const char *format = "qcow2";
    struct error *err = NULL;
    const struct arg args[] = {{"format", 0, NULL, &format}};
    int count = args_take(argc, argv, args, ARRAY_SIZE(args));
    if (count < 0)
        return EXIT_USAGE;
    if (count != 2)
        return usage_error("image", "image export: an image and a file are wanted");
    if (!known_format(format))
        return usage_error("image", "image export: '%s' is no format of a disk", format);
    if (!catalog_name_check(argv[0], &err)) {
        failure(err);
        return EXIT_USAGE;
    }
    cleanup(mem) char *file = catalog_absolute(argv[1], &err);
    return finish("export", argv[0], file && export_disk(argv[0], file, format, &err), err);
}
