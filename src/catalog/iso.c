/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Volumes of ISO 9660: see iso.h. */
#include "catalog/iso.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* The form of a source of sectors is libburn's; this has libisofs give it itself. */
#define LIBISOFS_WITHOUT_LIBBURN
#include <libisofs/libisofs.h>

#include "base/cleanup.h"
#include "base/error.h"

/* Everything of libisofs gives 1, or what iso_error_to_msg knows. */
static bool done(int result, const char *path, struct error **err)
{
    if (result >= 0)
        return true;
    error_set(err, 0, "write '%s': %s", path, iso_error_to_msg(result));
    return false;
}

static int add_file(IsoImage *image, const struct iso_file *f)
{
    IsoStream *stream = NULL;
    size_t size = strlen(f->text);
    /* The stream owns its copy; an empty one would be no memory at all. */
    unsigned char *copy = malloc(size + 1);
    if (!copy)
        return ISO_OUT_OF_MEM;
    memcpy(copy, f->text, size + 1);
    int result = iso_memory_stream_new(copy, size, &stream);
    if (result < 0) {
        free(copy);
        return result;
    }
    result = iso_image_add_new_file(image, iso_image_get_root(image), f->name, stream, NULL);
    if (result < 0)
        iso_stream_unref(stream);
    return result;
}

/* Lower case in a label is against the standard, and what everybody does. */
static int make_source(IsoImage *image, struct burn_source **source)
{
    IsoWriteOpts *opts = NULL;
    int result = iso_write_opts_new(&opts, 1);
    if (result < 0)
        return result;
    iso_write_opts_set_rockridge(opts, 1);
    iso_write_opts_set_joliet(opts, 1);
    iso_write_opts_set_relaxed_vol_atts(opts, 1);
    iso_write_opts_set_no_force_dots(opts, 3);
    result = iso_image_create_burn_source(image, opts, source);
    iso_write_opts_free(opts);
    return result;
}

/* To the end, also after a failure, as a thread of libisofs waits for a reader. */
static bool copy_sectors(struct burn_source *source, int fd, const char *path, struct error **err)
{
    uint8_t sector[ISO_SECTOR];
    int why = 0, n;
    while ((n = source->read_xt(source, sector, ISO_SECTOR)) > 0) {
        ssize_t written = why ? 0 : write(fd, sector, (size_t)n);
        if (!why && written != n)
            why = written < 0 ? errno : ENOSPC;
    }
    if (!why && n < 0)
        why = EIO;
    if (!why && fsync(fd) < 0)
        why = errno;
    if (why)
        error_set_errno(err, why, "write '%s'", path);
    return !why;
}

static bool write_image(IsoImage *image, int fd, const char *path, struct error **err)
{
    struct burn_source *source = NULL;
    if (!done(make_source(image, &source), path, err))
        return false;
    bool ok = copy_sectors(source, fd, path, err);
    source->free_data(source);
    free(source);
    return ok;
}

static bool make_image(const char *path, int fd, const char *label, const struct iso_file *files,
                       size_t count, struct error **err)
{
    IsoImage *image = NULL;
    if (!done(iso_init(), path, err))
        return false;
    char never[] = "NEVER", nothing[] = "";
    iso_set_msgs_severities(never, never, nothing);
    int result = iso_image_new(label, &image);
    for (size_t i = 0; result >= 0 && i < count; i++)
        if (files[i].text)
            result = add_file(image, &files[i]);
    bool ok = done(result, path, err) && write_image(image, fd, path, err);
    if (image)
        iso_image_unref(image);
    iso_finish();
    return ok;
}

bool iso_write(const char *path, const char *label, const struct iso_file *files, size_t count,
               struct error **err)
{
    cleanup(fd) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(err, errno, "make '%s'", path), false;
    if (make_image(path, fd, label, files, count, err))
        return true;
    unlink(path);
    return false;
}
