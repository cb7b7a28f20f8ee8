/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files that a machine boots from. They stay open for the life of the machine, so that a reset loads them
 * again; they are read, never mapped, so that a file that shrinks gives an error and not a signal. Any
 * thread.
 */
#ifndef VMM_BOOT_FILE_H
#define VMM_BOOT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct boot_file {
    char *name; /* as the user gave it; owned; NULL: no file */
    int fd;     /* owned */
    uint64_t size;
};

/* Opens a regular, non-empty file. On failure *f is left empty. */
bool boot_file_open(struct boot_file *f, const char *path, struct error **err);

/* Takes over an open descriptor under a name of its own (tests). */
bool boot_file_adopt(struct boot_file *f, const char *name, int fd, struct error **err);
void boot_file_close(struct boot_file *f);

/* Reads exactly `len` bytes at `offset`; a shorter file is an error naming it. */
bool boot_file_read(const struct boot_file *f, uint64_t offset, void *buf, size_t len, struct error **err);

#endif
