/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche image import and export: disks that come from, or go to, other programs, by qemu-img. One thread. */
#ifndef CLI_IMAGE_CONVERT_H
#define CLI_IMAGE_CONVERT_H

/* argv[0] is the action. Give the exit status. */
int image_import(int argc, char **argv);
int image_export(int argc, char **argv);

#endif
