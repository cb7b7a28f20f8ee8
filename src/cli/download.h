/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files from elsewhere, by the program curl. One thread. */
#ifndef CLI_DOWNLOAD_H
#define CLI_DOWNLOAD_H

#include <stdbool.h>

struct error;

struct download {
    char *path;  /* the whole file */
    char *about; /* a file with what the server said of it */
    int lock_fd; /* held while the download is ours */
};

/* Whether it is the address of a file rather than its path. */
bool download_is_url(const char *text);

/*
 * Fetches what is at the address, with progress on standard error. What an interrupted download of the same
 * address has left is gone on with if the server says that the file is still the same.
 * On failure there is nothing to remove.
 */
bool download(const char *url, struct download *d, struct error **err);
/* The file goes. Once for each download that went well. */
void download_remove(struct download *d);

#endif
