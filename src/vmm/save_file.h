/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file that holds a saved machine, without knowledge of what is in it: a header page with a table of
 * sections, each somewhere behind it. docs/saved-machine.md describes every byte. Nothing here needs the
 * machine lock.
 */
#ifndef VMM_SAVE_FILE_H
#define VMM_SAVE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define SAVE_FILE_VERSION 1u
#define SAVE_PAGE         4096u
#define SAVE_MEMORY_ALIGN (2u << 20)

enum save_section {
    SAVE_DESCRIPTION = 1, /* JSON */
    SAVE_STATE,           /* records of objects' states */
    SAVE_PAGES,           /* a checksum for each page of memory */
    SAVE_MEMORY,          /* the pages; its checksum is unused */
    SAVE_SECTION_COUNT
};

struct save_span {
    uint64_t offset, length; /* bytes in the file; length 0: there is none */
    uint32_t crc;            /* CRC-32C */
};

/* A file open for reading. */
struct save_file {
    int fd;
    char *path; /* for messages; owned */
    struct save_span section[SAVE_SECTION_COUNT];
};

/*
 * Opens and checks the header: kind of file, version, checksum, and that every section lies within the file.
 * False and *err, with nothing to close, when it is not a whole saved machine that this version reads.
 */
bool save_file_open(struct save_file *f, const char *path, struct error **err);
/* The same of an open descriptor, which is taken over in any case. */
bool save_file_adopt(struct save_file *f, int fd, const char *path, struct error **err);
void save_file_close(struct save_file *f);

/* A section as a whole, followed by a NUL, with its checksum checked. NULL and *err; the caller frees it. */
uint8_t *save_file_read(const struct save_file *f, enum save_section section, struct error **err);
/* Reads exactly `len` bytes. */
bool save_file_read_at(const struct save_file *f, uint64_t offset, void *buf, size_t len, struct error **err);

/* A file being written, under the name PATH.part, which only one process at a time has. */
struct save_writer {
    int fd;
    char *path, *part; /* owned */
    struct save_span section[SAVE_SECTION_COUNT];
    uint64_t end; /* where the next section goes */
};

/* Leaves what PATH is untouched. False and *err, with nothing to release. */
bool save_writer_open(struct save_writer *w, const char *path, struct error **err);
/* Writes all of it. */
bool save_writer_write(struct save_writer *w, uint64_t offset, const void *data, size_t len,
                       struct error **err);
/* Keeps room for the section of memory; to be called first. Where it begins. */
uint64_t save_writer_reserve_memory(struct save_writer *w, uint64_t length);
/* Appends a section. */
bool save_writer_append(struct save_writer *w, enum save_section section, const void *data, size_t len,
                        struct error **err);
/* Makes everything durable and puts it in the place of PATH. On failure PATH is what it was. */
bool save_writer_commit(struct save_writer *w, struct error **err);
/* Releases everything; removes the file unless it was committed. */
void save_writer_close(struct save_writer *w);

#endif
