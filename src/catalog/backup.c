/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Folders of backups: see backup.h. */
#include "catalog/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/identity.h"
#include "catalog/overlay.h"
#include "catalog/sha256.h"

#define MANIFEST     "backup.json"
#define VERSION      1
#define MANIFEST_MAX (64 * MIB)
#define TEXT_FLAGS   JSON_INDENT(2)

/* All that is ever in such a folder but the manifest. */
static const char *const patterns[] = {"*.part", "[0-9]*-disk*.qcow2", "kernel-*", "initrd-*", "seed-*"};

/* --- the form --- */

static bool is_file_name(const json_t *value)
{
    const char *name = json_string_value(value);
    /* Programs take what has a colon for more than a name. */
    return name && *name && *name != '.' && !strpbrk(name, "/:") && strlen(name) <= 255;
}

static bool is_disk_name(const json_t *value)
{
    return is_file_name(value) && fnmatch("[0-9]*-disk[0-9]*.qcow2", json_string_value(value), 0) == 0;
}

static bool is_sum(const json_t *value)
{
    const char *sum = json_string_value(value);
    return sum && strlen(sum) == SHA256_HEX_SIZE - 1 &&
           strspn(sum, "0123456789abcdef") == SHA256_HEX_SIZE - 1;
}

static bool has_texts(const json_t *o, const char *const keys[])
{
    for (; *keys; keys++)
        if (!json_is_string(json_object_get(o, *keys)))
            return false;
    return true;
}

static bool is_file(const json_t *file)
{
    static const char *const texts[] = {"name", "role", "sha256", NULL};
    const json_t *backing = json_object_get(file, "backing");
    return has_texts(file, texts) && is_file_name(json_object_get(file, "name")) &&
           (!backup_is_disk(file) || is_disk_name(json_object_get(file, "name"))) &&
           is_sum(json_object_get(file, "sha256")) && json_integer_value(json_object_get(file, "size")) > 0 &&
           (!backing || is_disk_name(backing));
}

static bool is_backup(const json_t *backup, json_int_t after)
{
    static const char *const texts[] = {"created", "kind", "why", "consistency", NULL};
    const json_t *files = json_object_get(backup, "files"), *file;
    size_t i;
    const json_t *bitmap = json_object_get(backup, "bitmap");
    if (!has_texts(backup, texts) || (bitmap && !json_is_string(bitmap)) ||
        json_integer_value(json_object_get(backup, "number")) <= after ||
        !json_is_object(json_object_get(backup, "config")) || !json_is_array(files))
        return false;
    json_array_foreach(files, i, file)
    {
        if (!is_file(file))
            return false;
    }
    return true;
}

static bool is_replacement(const json_t *r)
{
    return !r || (is_file_name(json_object_get(r, "name")) && is_file_name(json_object_get(r, "by")) &&
                  is_sum(json_object_get(r, "sha256")) && json_is_integer(json_object_get(r, "size")));
}

static bool has_form(const json_t *content)
{
    static const char *const texts[] = {"chain", "machine", "uuid", NULL};
    const json_t *list = json_object_get(content, "backups"), *backup;
    json_int_t number = 0;
    size_t i;
    if (!has_texts(content, texts) || !json_is_array(list) ||
        !json_is_integer(json_object_get(content, "next")) ||
        !is_replacement(json_object_get(content, "replacing")))
        return false;
    json_array_foreach(list, i, backup)
    {
        if (!is_backup(backup, number))
            return false;
        number = json_integer_value(json_object_get(backup, "number"));
    }
    return number < json_integer_value(json_object_get(content, "next"));
}

/* --- reading and writing --- */

/* The manifest with its checksum; owned by the caller. */
static char *text_of(json_t *content)
{
    struct sha256 s;
    char sum[SHA256_HEX_SIZE];
    cleanup(mem) char *inner = json_dumps(content, TEXT_FLAGS);
    if (!inner)
        return NULL;
    sha256_init(&s);
    sha256_update(&s, inner, strlen(inner));
    sha256_final(&s, sum);
    json_t *outer = json_pack("{s:O, s:s}", "content", content, "sha256", sum);
    char *text = json_dumps(outer, TEXT_FLAGS);
    json_decref(outer);
    return text;
}

/* From its text; NULL when not every byte of it is as it was written. */
static json_t *content_of(const char *text)
{
    json_t *outer = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    json_t *content = json_incref(json_object_get(outer, "content"));
    cleanup(mem) char *again = json_is_object(content) ? text_of(content) : NULL;
    json_decref(outer);
    if (again && strcmp(again, text) == 0)
        return content;
    json_decref(content);
    return NULL;
}

static bool damaged(const char *path, const char *how, struct error **err)
{
    return error_set(err, EBADMSG, "'%s' %s", path, how), false;
}

static bool load(struct backup_folder *f, struct error **err)
{
    cleanup(mem) char *path = backup_path(f, MANIFEST);
    if (access(path, F_OK) < 0 && errno == ENOENT)
        return error_set(err, ENOENT, "there are no backups in '%s'", f->dir), false;
    cleanup(mem) char *text = catalog_read_text(path, MANIFEST_MAX, err);
    if (!text)
        return false;
    f->content = content_of(text);
    if (!f->content)
        return damaged(path, "is damaged: its checksum is wrong", err);
    json_int_t version = json_integer_value(json_object_get(f->content, "version"));
    if (version > VERSION)
        return damaged(path, "was written by a newer Ruche", err);
    return (version == VERSION && has_form(f->content)) ||
           damaged(path, "does not have the form of one", err);
}

bool backup_reload(struct backup_folder *f, struct error **err)
{
    json_decref(f->content);
    f->content = NULL;
    return load(f, err);
}

static bool write_durably(const char *path, const char *text, struct error **err)
{
    cleanup(file) FILE *out = fopen(path, "we");
    if (out && fputs(text, out) >= 0 && fflush(out) == 0 && fsync(fileno(out)) == 0)
        return true;
    return error_set_errno(err, errno, "write '%s'", path), false;
}

bool backup_save(const struct backup_folder *f, struct error **err)
{
    cleanup(mem) char *path = backup_path(f, MANIFEST);
    cleanup(mem) char *draft = backup_path(f, MANIFEST ".part");
    cleanup(mem) char *text = text_of(f->content);
    if (!text)
        return error_set_errno(err, ENOMEM, "write '%s'", path), false;
    if (!write_durably(draft, text, err)) {
        unlink(draft);
        return false;
    }
    if (rename(draft, path) < 0)
        return error_set_errno(err, errno, "write '%s'", path), false;
    return catalog_sync(f->dir, err);
}

/* --- files --- */

char *backup_path(const struct backup_folder *f, const char *name)
{
    return catalog_format("%s/%s", f->dir, name);
}

json_t *backup_file_named(const struct backup_folder *f, const char *name)
{
    json_t *backup, *file;
    size_t i, k;
    json_array_foreach(backup_list(f), i, backup)
    {
        json_array_foreach(json_object_get(backup, "files"), k, file)
        {
            if (strcmp(backup_text(file, "name"), name) == 0)
                return file;
        }
    }
    return NULL;
}

static bool is_ours(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(patterns); i++)
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    return false;
}

bool backup_sweep(const struct backup_folder *f, struct error **err)
{
    DIR *d = opendir(f->dir);
    bool ok = d != NULL;
    const char *by =
        backup_text(json_object_get(f->content, "replacing"), "by"); /* as good as in its place */
    for (const struct dirent *e = d ? readdir(d) : NULL; ok && e; e = readdir(d)) {
        cleanup(mem) char *path = backup_path(f, e->d_name);
        if (is_ours(e->d_name) && !backup_file_named(f, e->d_name) && (!by || strcmp(by, e->d_name) != 0))
            ok = unlink(path) == 0;
    }
    if (!ok)
        error_set_errno(err, errno, "remove leftovers from '%s'", f->dir);
    if (d)
        closedir(d);
    return ok;
}

/* Whether the new file has the old one's name by now. */
static bool has_replaced(const struct backup_folder *f, const json_t *r)
{
    cleanup(mem) char *by = backup_path(f, backup_text(r, "by"));
    return access(by, F_OK) < 0;
}

/* What is true of the file by now: of one that was replaced, what the new one is, which stands on nothing. */
static const json_t *as_is(const struct backup_folder *f, const json_t *entry)
{
    const json_t *r = json_object_get(f->content, "replacing");
    bool replaced =
        r && strcmp(backup_text(r, "name"), backup_text(entry, "name")) == 0 && has_replaced(f, r);
    return replaced ? r : entry;
}

bool backup_check_file(const struct backup_folder *f, const json_t *entry, bool sums, struct error **err)
{
    struct stat st;
    char sum[SHA256_HEX_SIZE];
    cleanup(mem) char *path = backup_path(f, backup_text(entry, "name"));
    entry = as_is(f, entry);
    if (stat(path, &st) < 0)
        return error_set_errno(err, errno, "open '%s'", path), false;
    if (st.st_size != json_integer_value(json_object_get(entry, "size")))
        return damaged(path, "is damaged: it does not have the size that it had", err);
    if (sums && !sha256_file(path, sum, err))
        return false;
    return !sums || strcmp(sum, backup_text(entry, "sha256")) == 0 ||
           damaged(path, "is damaged: its checksum is wrong", err);
}

/* Whether a disk's file stands on `below` (NULL: on nothing), and takes nothing from elsewhere. */
static bool stands_on(const char *path, const char *below, struct error **err)
{
    struct error *why = NULL;
    cleanup(mem) char *base = overlay_base(path, &why);
    if (why)
        return error_prefix(err, why, "look at a disk"), false;
    if (!below == !base && (!below || strcmp(below, base) == 0) && overlay_is_plain(path))
        return true;
    return damaged(path, "does not stand on what the manifest says", err);
}

bool backup_check_chain(const struct backup_folder *f, const json_t *entry, struct error **err)
{
    for (const json_t *below; entry; entry = below) {
        const char *backing = backup_text(as_is(f, entry), "backing");
        cleanup(mem) char *path = backup_path(f, backup_text(entry, "name"));
        if (!backup_check_file(f, entry, true, err))
            return false;
        if (!backup_is_disk(entry))
            return true;
        if (!stands_on(path, backing, err))
            return false;
        below = backing ? backup_file_named(f, backing) : NULL;
        if (backing && (!below || below == entry || !backup_is_disk(below)))
            return damaged(path, "stands on a file that is not in the manifest", err);
    }
    return true;
}

/* --- replacing --- */

/* Once this is in the manifest it is done, by this command or by the next. */
static bool finish_replacing(struct backup_folder *f, struct error **err)
{
    json_t *r = json_object_get(f->content, "replacing");
    if (!r)
        return true;
    const char *name = backup_text(r, "name");
    cleanup(mem) char *path = backup_path(f, name);
    cleanup(mem) char *by = backup_path(f, backup_text(r, "by"));
    if (rename(by, path) < 0 && errno != ENOENT)
        return error_set_errno(err, errno, "put '%s' in the place of '%s'", by, path), false;
    json_t *backup;
    size_t i;
    json_array_foreach(backup_list(f), i, backup)
    {
        json_t *file;
        size_t k;
        json_array_foreach(json_object_get(backup, "files"), k, file)
        {
            if (strcmp(backup_text(file, "name"), name) != 0)
                continue;
            json_object_set(file, "sha256", json_object_get(r, "sha256"));
            json_object_set(file, "size", json_object_get(r, "size"));
            json_object_del(file, "backing");
        }
    }
    json_object_del(f->content, "replacing");
    return catalog_sync(f->dir, err) && backup_save(f, err);
}

bool backup_replace(struct backup_folder *f, json_t *entry, const char *by, struct error **err)
{
    struct stat st;
    char sum[SHA256_HEX_SIZE];
    cleanup(mem) char *path = backup_path(f, by);
    if (stat(path, &st) < 0)
        return error_set_errno(err, errno, "open '%s'", path), false;
    if (!sha256_file(path, sum, err) || !catalog_sync(path, err))
        return false;
    json_object_set_new(f->content, "replacing",
                        json_pack("{s:O, s:s, s:s, s:I}", "name", json_object_get(entry, "name"), "by", by,
                                  "sha256", sum, "size", (json_int_t)st.st_size));
    return backup_save(f, err) && finish_replacing(f, err);
}

/* --- opening --- */

/* A file system without locks lets everybody in. */
static bool take_lock(struct backup_folder *f, bool change, struct error **err)
{
    f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->fd < 0)
        return error_set_errno(err, errno, "open '%s'", f->dir), false;
    if (flock(f->fd, (change ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0)
        return true;
    if (errno == EWOULDBLOCK)
        return error_set(err, EBUSY, "another command is at the backups in '%s'", f->dir), false;
    log_line(LOG_WARN, "the file system of '%s' has no locks: nothing keeps other commands from it", f->dir);
    return true;
}

static bool begin(const char *dir, bool change, struct backup_folder *f, struct error **err)
{
    *f = (struct backup_folder){.fd = -1};
    f->dir = catalog_absolute(dir, err);
    return f->dir && take_lock(f, change, err);
}

bool backup_open(const char *dir, bool change, struct backup_folder *f, struct error **err)
{
    return begin(dir, change, f, err) && load(f, err) &&
           (!change || (finish_replacing(f, err) && backup_sweep(f, err)));
}

static bool is_empty(const struct backup_folder *f, struct error **err)
{
    DIR *d = opendir(f->dir);
    bool empty = d != NULL;
    if (!d)
        return error_set_errno(err, errno, "open '%s'", f->dir), false;
    for (const struct dirent *e = readdir(d); empty && e; e = readdir(d))
        empty = e->d_name[0] == '.' || strcmp(e->d_name, MANIFEST ".part") == 0 ||
                strcmp(e->d_name, "lost+found") == 0;
    closedir(d);
    if (!empty)
        error_set(err, ENOTEMPTY, "'%s' is not empty and has no backups in it", f->dir);
    return empty;
}

/* A folder is a machine's from its first manifest on, which has no backups yet. */
static bool found(struct backup_folder *f, const struct machine *m, struct error **err)
{
    char id[UUID_TEXT_SIZE];
    if (!is_empty(f, err) || !identity_uuid(id, err))
        return false;
    id[8] = 0; /* enough to tell a machine's folders apart */
    f->content = json_pack("{s:i, s:s, s:s, s:s, s:i, s:[]}", "version", VERSION, "chain", id, "machine",
                           m->name, "uuid", m->uuid, "next", 1, "backups");
    return backup_save(f, err);
}

bool backup_open_for(const char *dir, const struct machine *m, struct backup_folder *f, struct error **err)
{
    struct error *why = NULL;
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "make folder '%s'", dir), *f = (struct backup_folder){.fd = -1},
                                                                     false;
    if (!backup_open(dir, true, f, &why)) {
        if (why->code != ENOENT || f->fd < 0)
            return error_prefix(err, why, "open backups"), false;
        error_free(why);
        return found(f, m, err);
    }
    const char *uuid = backup_text(f->content, "uuid");
    if (strcmp(uuid, m->uuid) == 0)
        return true;
    return error_set(err, EEXIST, "'%s' has backups of another machine, '%s' with the UUID %s", f->dir,
                     backup_text(f->content, "machine"), uuid),
           false;
}

void backup_close(struct backup_folder *f)
{
    free(f->dir);
    json_decref(f->content);
    fd_cleanup(&f->fd);
    *f = (struct backup_folder){.fd = -1};
}

void backup_folder_cleanup(struct backup_folder *f)
{
    backup_close(f);
}

/* --- what is in it --- */

const char *backup_text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

bool backup_is_disk(const json_t *entry)
{
    return strncmp(backup_text(entry, "role"), "disk", 4) == 0;
}

json_t *backup_list(const struct backup_folder *f)
{
    return json_object_get(f->content, "backups");
}

json_t *backup_last(const struct backup_folder *f)
{
    size_t n = json_array_size(backup_list(f));
    return n ? json_array_get(backup_list(f), n - 1) : NULL;
}

const char *backup_chain(const struct backup_folder *f)
{
    return backup_text(f->content, "chain");
}

json_t *backup_file(const json_t *backup, const char *role)
{
    json_t *file;
    size_t i;
    json_array_foreach(json_object_get(backup, "files"), i, file)
    {
        if (strcmp(backup_text(file, "role"), role) == 0)
            return file;
    }
    return NULL;
}

json_t *backup_numbered(const struct backup_folder *f, const char *number, struct error **err)
{
    json_t *backup = backup_last(f);
    uint64_t wanted = 0;
    size_t i;
    if (!number && !backup)
        error_set(err, ENOENT, "there is no backup in '%s' yet", f->dir);
    if (!number)
        return backup;
    bool is_number = parse_uint(number, &wanted);
    json_array_foreach(backup_list(f), i, backup)
    {
        if (is_number && (uint64_t)json_integer_value(json_object_get(backup, "number")) == wanted)
            return backup;
    }
    error_set(err, ENOENT, "there is no backup '%s' (ruche backup ls %s lists those there are)", number,
              f->dir);
    return NULL;
}
