/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche image build|ls|rm|inspect */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/parse.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/image.h"
#include "cli/image_build.h"
#include "cli/image_convert.h"
#include "cli/print.h"
#include "cli/verb.h"

static const char *const default_size = "8G";

static json_t *image_json(const struct image *i)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "name", i->name,
                     "description", i->description, "created", i->created, "cmdline", i->cmdline, "disk",
                     i->disk, "kernel", i->kernel, "initrd", i->initrd, "disk_sha256", i->disk_sha256,
                     "kernel_sha256", i->kernel_sha256, "initrd_sha256", i->initrd_sha256, "recipe_sha256",
                     i->recipe_sha256, "disk_size", (json_int_t)i->disk_size, "host_size",
                     (json_int_t)i->host_size);
}

static int list(bool json)
{
    struct image *images;
    size_t count;
    struct error *err = NULL;
    if (!image_list(&images, &count, &err))
        return failure(err);
    json_t *array = json ? json_array() : NULL;
    char disk[32], host[32];
    if (!json && count)
        printf("%-16s %-21s %9s %9s  %s\n", "NAME", "CREATED", "DISK", "ON HOST", "DESCRIPTION");
    for (size_t i = 0; i < count; i++) {
        if (json)
            json_array_append_new(array, image_json(&images[i]));
        else
            printf("%-16s %-21s %9s %9s  %s\n", images[i].name, images[i].created,
                   size_text(images[i].disk_size, disk), size_text(images[i].host_size, host),
                   images[i].description);
    }
    image_list_free(images, count);
    return json ? print_json(array) : EXIT_OK;
}

/* True when the image was made by the recipe as it is now. */
static bool is_current(const struct image *image, struct error **err)
{
    cleanup(mem) char *sum = image_recipe_sha256(image->name, err);
    if (sum && strcmp(sum, image->recipe_sha256) == 0)
        return true;
    if (sum)
        error_set(err, 0, "image '%s' was made by an earlier recipe", image->name);
    return false;
}

static int inspect(const char *name, bool json, bool current)
{
    struct error *err = NULL;
    struct image i;
    if (!image_load(name, &i, &err))
        return failure(err);
    char disk[32], host[32];
    int status = EXIT_OK;
    if (current && !is_current(&i, &err)) {
        status = failure(err);
    } else if (json) {
        print_json(image_json(&i));
    } else {
        printf("name         %s\ndescription  %s\ncreated      %s\n", i.name, i.description, i.created);
        printf("disk         %s\n             %s, sha256 %s\n", i.disk, size_text(i.disk_size, disk),
               i.disk_sha256);
        printf("kernel       %s\n             sha256 %s\n", i.kernel, i.kernel_sha256);
        printf("initrd       %s\n             sha256 %s\n", i.initrd, i.initrd_sha256);
        printf("cmdline      %s\non host      %s\n", i.cmdline, size_text(i.host_size, host));
    }
    image_release(&i);
    return status;
}

static int build(const struct image_build *b, bool force)
{
    struct error *err = NULL;
    if (!force && !image_unused(b->name, "build", &err))
        return failure(err);
    return image_build(b);
}

static int remove_image(const char *name, bool force)
{
    struct error *err = NULL;
    return image_remove(name, force, &err) ? EXIT_OK : failure(err);
}

/* A number and perhaps one of the suffixes that file systems are measured in. */
static bool is_size(const char *text, uint64_t *size)
{
    size_t digits = strspn(text, "0123456789");
    return digits && text[0] != '0' &&
           (!text[digits] || (strchr("MGT", text[digits]) && !text[digits + 1])) && parse_size(text, size);
}

static int run(int argc, char **argv)
{
    struct image_build b = {.name = NULL, .mirror = "", .size = default_size};
    const char *action = argc > 1 ? argv[1] : NULL;
    bool json = false, current = false, force = false;
    if (!action)
        return usage_error("image", "image: say build, import, export, ls, rm or inspect");
    if (strcmp(action, "import") == 0)
        return image_import(argc - 1, argv + 1);
    if (strcmp(action, "export") == 0)
        return image_export(argc - 1, argv + 1);
    bool is_build = strcmp(action, "build") == 0, is_ls = strcmp(action, "ls") == 0;
    bool is_rm = strcmp(action, "rm") == 0, is_inspect = strcmp(action, "inspect") == 0;
    if (!is_build && !is_ls && !is_rm && !is_inspect)
        return usage_error("image", "image: unknown action '%s'", action);
    for (int i = 2; i < argc; i++) {
        const char *value;
        if (is_build && option_value(argc, argv, &i, "mirror", &value))
            b.mirror = value;
        else if (is_build && option_value(argc, argv, &i, "size", &value))
            b.size = value;
        else if ((is_ls || is_inspect) && strcmp(argv[i], "--json") == 0)
            json = true;
        else if (is_inspect && strcmp(argv[i], "--current") == 0)
            current = true;
        else if ((is_build || is_rm) && strcmp(argv[i], "--force") == 0)
            force = true;
        else if (argv[i][0] == '-' || is_ls || b.name)
            return usage_error("image", "image %s: unexpected argument '%s'", action, argv[i]);
        else
            b.name = argv[i];
        if (!b.mirror || !b.size)
            return usage_error("image", "image %s: %s wants a value", action, argv[i]);
    }
    if (!is_ls && !b.name)
        return usage_error("image", "image %s: which image?", action);
    struct error *err = NULL;
    if (b.name && !catalog_name_check(b.name, &err)) {
        failure(err);
        return EXIT_USAGE;
    }
    uint64_t size;
    if (!is_size(b.size, &size))
        return usage_error("image", "image build: '%s' is no size such as 8G", b.size);
    /* No system fits on less, nor does ext4 go further: to be said now, not when all has been downloaded. */
    if (size < GIB || size > 16 * 1024 * GIB)
        return usage_error("image", "image build: --size '%s': from 1G to 16T is possible", b.size);
    char mib[32]; /* a bare number means blocks to some programs */
    snprintf(mib, sizeof(mib), "%lluM", (unsigned long long)(size / MIB));
    b.size = mib;
    if (is_ls)
        return list(json);
    if (is_build)
        return build(&b, force);
    return is_rm ? remove_image(b.name, force) : inspect(b.name, json, current);
}

const struct verb verb_image = {
    .name = "image",
    .summary = "make, list and remove disk images",
    .help =
        "usage: ruche image build NAME [--mirror URI] [--size SIZE] [--force]\n"
        "       ruche image import NAME DISK|URL --kernel FILE --initrd FILE [--cmdline TEXT]\n"
        "                   [--format FORMAT] [--sha256 SUM] [--force]\n"
        "       ruche image export NAME FILE [--format FORMAT]\n"
        "       ruche image ls [--json]\n"
        "       ruche image inspect NAME [--json] [--current]\n"
        "       ruche image rm NAME [--force]\n"
        "\n"
        "An image is a root disk with its kernel and initial RAM disk, which `ruche run NAME` boots.\n"
        "There is a recipe for: debian (Debian 12).\n"
        "\n"
        "  --mirror URI  package mirror to build from (default: what the host's own apt uses)\n"
        "  --size SIZE   of the disk; only what is used takes room on the host (default 8G)\n"
        "  --force       also when the disk of a machine stands on the image\n"
        "  --format F    of the disk: raw, qcow2, vmdk, vdi, vpc (vhd) or vhdx; import finds it out, export\n"
        "                writes qcow2\n"
        "  --sha256 SUM  that the disk's file must have\n"
        "  --json        print JSON\n"
        "  --current     fail when the recipe has changed since the image was made\n"
        "\n"
        "Images are kept in $XDG_DATA_HOME/ruche/images (~/.local/share/ruche/images).\n",
    .run = run,
};
