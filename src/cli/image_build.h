/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making an image by its recipe: a program that works in the image's draft folder (see recipes/). One thread.
 */
#ifndef CLI_IMAGE_BUILD_H
#define CLI_IMAGE_BUILD_H

#include <stdbool.h>

#include "base/error.h"

struct image_build {
    const char *name;
    const char *mirror; /* URI of a package mirror; "" for what the host uses */
    const char *size;   /* of the disk, as the recipe takes it */
};

/* Checksum of the recipe that is there now, for comparison with image.recipe_sha256; NULL when there is no
 * recipe. */
char *image_recipe_sha256(const char *name, struct error **err);

/* Makes the image, showing progress. Returns the exit status; when not EXIT_OK it has said why and left
 * nothing behind. */
int image_build(const struct image_build *build);

#endif
