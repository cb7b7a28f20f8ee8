/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Seeds: see seed.h; cloud-init's documentation, "NoCloud" and "Module reference". */
#include "catalog/seed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/iso.h"

#define FILE_MOST (4 * MIB)
#define META_SIZE                                                                                            \
    512 /* of meta-data, which is filled up with spaces, so that a clone's has the same size                 \
         */

#define DIGITS  "0123456789"
#define SMALL   "abcdefghijklmnopqrstuvwxyz"
#define LETTERS SMALL "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

void seed_release(struct seed *s)
{
    free(s->hostname);
    free(s->user);
    free(s->password_hash);
    json_decref(s->keys);
    free(s->user_data);
    free(s->network_config);
    *s = (struct seed){0};
}

bool seed_is_empty(const struct seed *s)
{
    return !s->hostname && !s->user && !s->password_hash && !s->keys && !s->user_data && !s->network_config;
}

/* --- values from text --- */

static void keep(char **member, const char *value)
{
    free(*member);
    *member = catalog_format("%s", value);
}

bool seed_is_hostname(const char *name)
{
    size_t len = strlen(name);
    if (len > 64)
        return false;
    for (const char *label = name;; label++) {
        size_t n = strspn(label, LETTERS DIGITS "-");
        if (!n || n > 63 || label[0] == '-' || label[n - 1] == '-')
            return false;
        label += n;
        if (*label != '.')
            return !*label;
    }
}

static bool take_hostname(struct seed *s, const char *value, struct error **err)
{
    if (!seed_is_hostname(value))
        return error_set(err, EINVAL, "'%.80s' is no host name", value), false;
    keep(&s->hostname, value);
    return true;
}

static bool take_user(struct seed *s, const char *value, struct error **err)
{
    size_t len = strlen(value);
    if (!len || len > 32 || strspn(value, SMALL DIGITS "_-") != len || !strchr(SMALL "_", value[0]))
        return error_set(err, EINVAL,
                         "'%.80s' is no user's name: small letters, digits, '_' or '-', at most 32, a letter "
                         "in front",
                         value),
               false;
    keep(&s->user, value);
    return true;
}

/* $ID$SALT$HASH, perhaps with parameters; see crypt(5). */
static bool is_hash(const char *text)
{
    unsigned parts = 0;
    size_t len = strlen(text), last = 0;
    if (len > 384 || text[0] != '$' || strspn(text, LETTERS DIGITS "./$=,+-") != len)
        return false;
    for (const char *part = text; *part; part += last + 1) {
        last = strcspn(part + 1, "$");
        if (!last)
            return false;
        parts++;
    }
    return parts >= 3 && last >= 22;
}

/* It may be a password, so it is not shown. */
static bool take_hash(struct seed *s, const char *value, struct error **err)
{
    if (!is_hash(value))
        return error_set(err, EINVAL,
                         "that is no hash as crypt(5) has them, such as $6$SALT$HASH "
                         "(openssl passwd -6 prints one)"),
               false;
    keep(&s->password_hash, value);
    return true;
}

/* TYPE BASE64 [COMMENT]; the data begin with the length of the type's name, of which three bytes are 0. */
static bool is_key(const char *line)
{
    static const char *const types[] = {"ssh-ed25519",
                                        "ssh-rsa",
                                        "ecdsa-sha2-nistp256",
                                        "ecdsa-sha2-nistp384",
                                        "ecdsa-sha2-nistp521",
                                        "sk-ssh-ed25519@openssh.com",
                                        "sk-ecdsa-sha2-nistp256@openssh.com"};
    size_t len = strcspn(line, " "), i = 0;
    while (i < ARRAY_SIZE(types) && (strlen(types[i]) != len || strncmp(types[i], line, len) != 0))
        i++;
    if (i == ARRAY_SIZE(types) || strncmp(line + len, " AAAA", 5) != 0)
        return false;
    const char *data = line + len + 1;
    size_t n = strspn(data, LETTERS DIGITS "+/");
    size_t padding = strspn(data + n, "=");
    for (const char *p = data; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return false;
    return n >= 64 && padding <= 2 && (n + padding) % 4 == 0 &&
           (data[n + padding] == ' ' || !data[n + padding]);
}

static bool add_key(struct seed *s, const char *line, struct error **err)
{
    if (!s->keys)
        s->keys = json_array();
    if (is_key(line) && json_array_append_new(s->keys, json_string(line)) == 0)
        return true;
    error_set(err, EINVAL, "'%.40s' is no public key of ssh", line);
    return false;
}

/* The key itself, or a file with keys, as ssh-keygen and authorized_keys have them. */
static bool take_key(struct seed *s, const char *value, struct error **err)
{
    if (is_key(value))
        return add_key(s, value, err);
    if (strchr(value, ' '))
        return error_set(err, EINVAL, "'%.40s' is no public key of ssh", value), false;
    cleanup(mem) char *text = catalog_read_text(value, FILE_MOST, err);
    if (!text)
        return false;
    if (strstr(text, "PRIVATE KEY"))
        return error_set(err, EINVAL, "'%s' is a private key; the public one is wanted", value), false;
    size_t before = json_array_size(s->keys);
    for (char *line, *rest = text; (line = strsep(&rest, "\n"));) {
        line[strcspn(line, "\r")] = 0;
        if (*line && *line != '#' && !add_key(s, line, err))
            return false;
    }
    if (json_array_size(s->keys) > before)
        return true;
    return error_set(err, EINVAL, "'%s' has no key in it", value), false;
}

/* What a guest does not know as one of its forms it would pass over in silence. */
static bool take_user_data(struct seed *s, const char *value, struct error **err)
{
    cleanup(mem) char *text = catalog_read_text(value, FILE_MOST, err);
    if (!text)
        return false;
    if (text[0] != '#' && strncmp(text, "Content-Type:", 13) != 0 && strncmp(text, "MIME-Version:", 13) != 0)
        return error_set(err, EINVAL,
                         "'%s' begins with none of #cloud-config, #! and other forms of user-data", value),
               false;
    keep(&s->user_data, text);
    return true;
}

static bool take_network(struct seed *s, const char *value, struct error **err)
{
    cleanup(mem) char *text = catalog_read_text(value, FILE_MOST, err);
    if (!text)
        return false;
    if (!text[strspn(text, " \t\r\n")])
        return error_set(err, EINVAL, "'%s' is empty", value), false;
    keep(&s->network_config, text);
    return true;
}

static const struct {
    const char *name;
    bool (*take)(struct seed *s, const char *value, struct error **err);
} options[] = {
    {"hostname", take_hostname}, {"user", take_user},           {"password-hash", take_hash},
    {"ssh-key", take_key},       {"user-data", take_user_data}, {"network-config", take_network},
};

const char *seed_option(unsigned index)
{
    return index < ARRAY_SIZE(options) ? options[index].name : NULL;
}

bool seed_set(struct seed *s, const char *option, const char *value, struct error **err)
{
    struct error *why = NULL;
    size_t i = 0;
    while (i < ARRAY_SIZE(options) && strcmp(options[i].name, option) != 0)
        i++;
    if (i == ARRAY_SIZE(options))
        error_set(&why, EINVAL, "there is no such option");
    else if (options[i].take(s, value, &why))
        return true;
    error_prefix(err, why, "--%s", option);
    return false;
}

/* --- the files --- */

/* JSON is YAML as well, with quotes that nothing escapes from. */
static char *yaml_text(const char *first_line, json_t *value)
{
    cleanup(mem) char *text = json_dumps(value, JSON_INDENT(2));
    json_decref(value);
    return text ? catalog_format("%s%s\n", first_line, text) : NULL;
}

static char *meta_data(const struct seed *s, const char *name, const char *uuid)
{
    json_t *o = json_pack("{s:s}", "instance-id", uuid);
    if (s->hostname || seed_is_hostname(name))
        json_object_set_new(o, "local-hostname", json_string(s->hostname ? s->hostname : name));
    cleanup(mem) char *text = yaml_text("", o);
    return text ? catalog_format("%-*s\n", META_SIZE - 1, text) : NULL;
}

/* The user, or else root, with what proves who he is. Nobody has a password that was not given. */
static char *cloud_config(const struct seed *s)
{
    json_t *o = json_object();
    const char *name = s->user ? s->user : "root";
    bool root = strcmp(name, "root") == 0;
    if (s->user || s->password_hash || s->keys) {
        json_t *user = json_pack("{s:s, s:s, s:b}", "name", name, "shell", "/bin/bash", "lock_passwd",
                                 !s->password_hash);
        if (s->password_hash)
            json_object_set_new(user, "hashed_passwd", json_string(s->password_hash));
        if (s->keys)
            json_object_set(user, "ssh_authorized_keys", s->keys);
        if (root)
            json_object_set_new(o, "disable_root", json_false());
        else
            json_object_set_new(user, "sudo", json_string("ALL=(ALL) NOPASSWD:ALL"));
        json_object_set_new(o, "users", json_pack("[o]", user));
    }
    return yaml_text("#cloud-config\n", o);
}

/* The user's own file is user-data as it is; then what the other options say goes below it. */
bool seed_write(const struct seed *s, const char *name, const char *uuid, const char *path,
                struct error **err)
{
    cleanup(mem) char *meta = meta_data(s, name, uuid);
    cleanup(mem) char *config = cloud_config(s);
    const struct iso_file files[] = {{"meta-data", meta},
                                     {"user-data", s->user_data ? s->user_data : config},
                                     {"vendor-data", s->user_data ? config : NULL},
                                     {"network-config", s->network_config}};
    if (!meta || !config)
        return error_set_errno(err, ENOMEM, "make '%s'", path), false;
    return iso_write(path, "cidata", files, ARRAY_SIZE(files), err);
}

/* The text of meta-data in a volume: it begins a sector, and names the machine, which nothing else does. */
static char *find_meta(char *volume, size_t size, const char *uuid)
{
    cleanup(mem) char *id = catalog_format("\"instance-id\": \"%s\"", uuid);
    const char *at = memmem(volume, size, id, strlen(id));
    char *text = at ? volume + round_down((uint64_t)(at - volume), ISO_SECTOR) : NULL;
    bool whole = text && size - (size_t)(text - volume) >= META_SIZE && text[0] == '{' &&
                 text[META_SIZE - 2] == ' ' && text[META_SIZE - 1] == '\n';
    return whole ? text : NULL;
}

static bool write_new(const char *path, const char *data, size_t size, struct error **err)
{
    cleanup(file) FILE *f = fopen(path, "wxe");
    if (f && fwrite(data, 1, size, f) == size && fflush(f) == 0 && fsync(fileno(f)) == 0)
        return true;
    return error_set_errno(err, errno, "write '%s'", path), false;
}

/* The volume's bytes, of which a change reaches only this process; to be unmapped. */
static char *map_volume(const char *path, size_t *size, struct error **err)
{
    cleanup(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *volume = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &st) == 0)
        volume = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (volume == MAP_FAILED)
        return error_set_errno(err, errno, "read '%s'", path), NULL;
    *size = (size_t)st.st_size;
    return volume;
}

bool seed_copy(const char *from, const char *old, const char *name, const char *uuid, const char *path,
               struct error **err)
{
    const struct seed nothing = {0};
    size_t size;
    char *volume = map_volume(from, &size, err);
    if (!volume)
        return false;
    cleanup(mem) char *meta = meta_data(&nothing, name, uuid);
    char *text = find_meta(volume, size, old);
    if (text && meta)
        memcpy(text, meta, META_SIZE);
    else
        error_set(err, EINVAL, "read '%s': it is not the volume that was made with the machine", from);
    bool ok = text && meta && write_new(path, volume, size, err);
    munmap(volume, size);
    return ok;
}
