/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Images on disk: see image.h. */
#include "catalog/image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/kept.h"
#include "catalog/machine.h"
#include "catalog/overlay.h"
#include "catalog/sha256.h"

#define DRAFT_PREFIX ".draft-"
/* A draft is locked within moments of its making; without a lock it is stale only after that. */
#define UNLOCKED_GRACE_S 60

/* The text members of image.json and where they go. */
static const struct {
    const char *key;
    size_t offset;
    bool is_file; /* named relative to the image's folder */
} members[] = {
    {"description", offsetof(struct image, description), false},
    {"created", offsetof(struct image, created), false},
    {"disk", offsetof(struct image, disk), true},
    {"kernel", offsetof(struct image, kernel), true},
    {"initrd", offsetof(struct image, initrd), true},
    {"cmdline", offsetof(struct image, cmdline), false},
    {"disk_sha256", offsetof(struct image, disk_sha256), false},
    {"kernel_sha256", offsetof(struct image, kernel_sha256), false},
    {"initrd_sha256", offsetof(struct image, initrd_sha256), false},
    {"recipe_sha256", offsetof(struct image, recipe_sha256), false},
};

static char **text_member(struct image *image, size_t i)
{
    return (char **)(void *)((char *)image + members[i].offset);
}

void image_release(struct image *image)
{
    for (size_t i = 0; i < ARRAY_SIZE(members); i++)
        free(*text_member(image, i));
    free(image->name);
    free(image->dir);
    memset(image, 0, sizeof(*image));
}

static uint64_t bytes_on_host(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static bool fill(struct image *image, const json_t *o, const char *json_path, struct error **err)
{
    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        const char *text = json_string_value(json_object_get(o, members[i].key));
        if (!text || (members[i].is_file && (strchr(text, '/') || text[0] == '.' || !text[0])))
            return error_set(err, 0, "read '%s': '%s' is missing or not what it should be", json_path,
                             members[i].key),
                   false;
        *text_member(image, i) =
            members[i].is_file ? catalog_format("%s/%s", image->dir, text) : catalog_format("%s", text);
    }
    image->disk_size = (uint64_t)json_integer_value(json_object_get(o, "disk_size"));
    image->host_size =
        bytes_on_host(image->disk) + bytes_on_host(image->kernel) + bytes_on_host(image->initrd);
    return true;
}

bool image_load(const char *name, struct image *image, struct error **err)
{
    if (!catalog_name_check(name, err))
        return false;
    cleanup(mem) char *images = catalog_data_dir("images", err);
    if (!images)
        return false;
    cleanup(mem) char *json_path = catalog_format("%s/%s/image.json", images, name);
    if (access(json_path, F_OK) < 0 && errno == ENOENT)
        return error_set(err, ENOENT, "there is no image '%s' (ruche image ls lists those there are)", name),
               false;
    json_error_t why;
    json_t *o = json_load_file(json_path, 0, &why);
    if (!o)
        return error_set(err, 0, "read '%s': %s", json_path, why.text), false;
    struct image new = {.name = catalog_format("%s", name), .dir = catalog_format("%s/%s", images, name)};
    bool ok = fill(&new, o, json_path, err);
    json_decref(o);
    if (ok)
        *image = new;
    else
        image_release(&new);
    return ok;
}

static int not_hidden(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

bool image_list(struct image **images, size_t *count, struct error **err)
{
    cleanup(mem) char *dir = catalog_data_dir("images", err);
    if (!dir)
        return false;
    struct dirent **entries;
    int n = scandir(dir, &entries, not_hidden, alphasort);
    if (n < 0)
        return error_set_errno(err, errno, "read folder '%s'", dir), false;
    *images = calloc((size_t)n + 1, sizeof(**images));
    *count = 0;
    for (int i = 0; i < n; i++) {
        struct error *why = NULL;
        if (*images && image_load(entries[i]->d_name, &(*images)[*count], &why))
            ++*count;
        else
            log_line(LOG_WARN, "image '%s' is left out: %s", entries[i]->d_name, error_text(why));
        error_free(why);
        free(entries[i]);
    }
    free(entries);
    return true;
}

void image_list_free(struct image *images, size_t count)
{
    for (size_t i = 0; i < count; i++)
        image_release(&images[i]);
    free(images);
}

/* `db` may be NULL: there are no machines in the catalogue. */
static bool unused(struct database *db, const char *name, const char *what, struct error **err)
{
    struct error *why = NULL;
    cleanup(mem) char *kept = kept_user_of(name);
    cleanup(mem) char *user = db ? machine_on_image(db, name, &why) : NULL;
    if (why)
        return error_prefix(err, why, "%s image '%s' (--force does not ask)", what, name), false;
    if (!kept && !user)
        return true;
    error_set(err, EBUSY, "%s image '%s': the %sdisk of machine '%s' stands on it (--force does it anyway)",
              what, name, user ? "" : "kept ", user ? user : kept);
    return false;
}

bool image_unused(const char *name, const char *what, struct error **err)
{
    cleanup(database) struct database *db = NULL;
    if (database_exists() && !(db = database_open(err)))
        return false;
    return unused(db, name, what, err);
}

bool image_remove(const char *name, bool force, struct error **err)
{
    if (!catalog_name_check(name, err))
        return false;
    cleanup(mem) char *images = catalog_data_dir("images", err);
    if (!images)
        return false;
    cleanup(mem) char *dir = catalog_format("%s/%s", images, name);
    if (access(dir, F_OK) < 0)
        return error_set(err, ENOENT, "there is no image '%s'", name), false;
    /* While the catalogue is held no machine comes to stand on it. */
    cleanup(database) struct database *db = NULL;
    if (!force && database_exists() && (!(db = database_open(err)) || !database_begin(db, err)))
        return false;
    if (!force && !unused(db, name, "remove", err))
        return false;
    /* Under a draft's name a half-removed image is swept later, whatever happens. */
    cleanup(mem) char *gone = catalog_format("%s/" DRAFT_PREFIX "%s-gone%ld", images, name, (long)getpid());
    if (rename(dir, gone) < 0)
        return error_set_errno(err, errno, "remove image '%s'", name), false;
    return catalog_remove_tree(gone, err);
}

/* True when no process holds the draft, by the lock file in it. */
static bool draft_is_stale(const char *dir)
{
    cleanup(mem) char *lock = catalog_format("%s/lock", dir);
    cleanup(fd) int fd = open(lock, O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        return flock(fd, LOCK_EX | LOCK_NB) == 0;
    struct stat st;
    return stat(dir, &st) == 0 && time(NULL) - st.st_mtime > UNLOCKED_GRACE_S;
}

static void sweep_drafts(const char *images)
{
    DIR *d = opendir(images);
    if (!d)
        return;
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        if (strncmp(e->d_name, DRAFT_PREFIX, strlen(DRAFT_PREFIX)) != 0)
            continue;
        cleanup(mem) char *dir = catalog_format("%s/%s", images, e->d_name);
        struct error *why = NULL;
        if (draft_is_stale(dir) && !catalog_remove_tree(dir, &why)) {
            log_line(LOG_WARN, "%s", error_text(why));
            error_free(why);
        }
    }
    closedir(d);
}

bool image_draft_begin(const char *name, struct image_draft *draft, struct error **err)
{
    if (!catalog_name_check(name, err))
        return false;
    cleanup(mem) char *images = catalog_data_dir("images", err);
    if (!images)
        return false;
    sweep_drafts(images);
    cleanup(mem) char *dir = catalog_format("%s/" DRAFT_PREFIX "%s-XXXXXX", images, name);
    if (!mkdtemp(dir))
        return error_set_errno(err, errno, "make a folder in '%s'", images), false;
    cleanup(mem) char *lock = catalog_format("%s/lock", dir);
    cleanup(fd) int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) {
        error_set_errno(err, errno, "lock '%s'", lock);
        catalog_remove_tree(dir, NULL);
        return false;
    }
    *draft = (struct image_draft){catalog_format("%s", name), steal_ptr(&dir), steal_fd(&fd)};
    return true;
}

/* The first line of a file in the draft; NULL and *err when there is none. */
static char *first_line(const struct image_draft *draft, const char *file, struct error **err)
{
    cleanup(mem) char *path = catalog_format("%s/%s", draft->dir, file);
    cleanup(file) FILE *f = fopen(path, "re");
    cleanup(mem) char *line = NULL;
    size_t size = 0;
    ssize_t n = f ? getline(&line, &size, f) : -1;
    if (n < 0)
        return error_set(err, 0, "make image '%s': its recipe left no %s", draft->name, file), NULL;
    line[strcspn(line, "\n")] = 0;
    unlink(path);
    return steal_ptr(&line);
}

static bool describe(const struct image_draft *draft, const char *recipe_sha256, struct error **err)
{
    static const char *const files[] = {"disk.qcow2", "vmlinuz", "initrd"};
    char sums[ARRAY_SIZE(files)][SHA256_HEX_SIZE];
    uint64_t disk_size;
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        cleanup(mem) char *path = catalog_format("%s/%s", draft->dir, files[i]);
        if (!sha256_file(path, sums[i], err) || (i == 0 && !qcow2_virtual_size(path, &disk_size, err)))
            return false;
    }
    cleanup(mem) char *cmdline = first_line(draft, "cmdline", err);
    cleanup(mem) char *description = cmdline ? first_line(draft, "description", err) : NULL;
    if (!description)
        return false;
    char created[CATALOG_TIME_SIZE];
    catalog_time(created);
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "name", draft->name,
                          "description", description, "created", created, "disk", files[0], "kernel",
                          files[1], "initrd", files[2], "cmdline", cmdline, "disk_sha256", sums[0],
                          "kernel_sha256", sums[1], "initrd_sha256", sums[2], "recipe_sha256", recipe_sha256,
                          "disk_size", (json_int_t)disk_size);
    cleanup(mem) char *path = catalog_format("%s/image.json", draft->dir);
    bool ok = o && json_dump_file(o, path, JSON_INDENT(2)) == 0;
    json_decref(o);
    if (!ok)
        error_set_errno(err, errno, "write '%s'", path);
    return ok;
}

/* Everything on stable storage before the rename that makes it visible. */
static bool sync_draft(const struct image_draft *draft, struct error **err)
{
    cleanup(fd) int fd = open(draft->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syncfs(fd) < 0)
        return error_set_errno(err, errno, "write '%s' to disk", draft->dir), false;
    return true;
}

bool image_draft_commit(struct image_draft *draft, const char *recipe_sha256, struct error **err)
{
    cleanup(mem) char *images = catalog_data_dir("images", err);
    if (!images || !describe(draft, recipe_sha256, err) || !sync_draft(draft, err))
        return false;
    cleanup(mem) char *final = catalog_format("%s/%s", images, draft->name);
    cleanup(mem) char *lock = catalog_format("%s/lock", draft->dir);
    unlink(lock);
    if (renameat2(AT_FDCWD, draft->dir, AT_FDCWD, final, RENAME_NOREPLACE) == 0)
        return true;
    /* An earlier image changes places with the draft and goes when the draft is discarded. */
    if (errno == EEXIST && renameat2(AT_FDCWD, draft->dir, AT_FDCWD, final, RENAME_EXCHANGE) == 0)
        return true;
    return error_set_errno(err, errno, "put image '%s' in place", draft->name), false;
}

void image_draft_discard(struct image_draft *draft)
{
    catalog_remove_tree(draft->dir, NULL);
    close(draft->lock_fd);
    free(draft->name);
    free(draft->dir);
}
