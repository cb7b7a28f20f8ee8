/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Folders of the catalogue: see file.h. */
#include "catalog/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

char *catalog_format(const char *fmt, ...)
{
    char *s;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0) {
        fprintf(stderr, "%s: out of memory\n", program_invocation_short_name);
        _exit(125);
    }
    return s;
}

void catalog_time(char text[CATALOG_TIME_SIZE])
{
    time_t now = time(NULL);
    struct tm utc;
    strftime(text, CATALOG_TIME_SIZE, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
}

bool catalog_sync(const char *path, struct error **err)
{
    cleanup(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fsync(fd) == 0)
        return true;
    return error_set_errno(err, errno, "write '%s' to disk", path), false;
}

int catalog_lock(const char *path, struct error **err)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    cleanup(fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(err, errno, "open '%s'", path), -1;
    if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
        return steal_fd(&fd);
    bool held = errno == EAGAIN || errno == EACCES;
    return error_set_errno(err, held ? EBUSY : errno, "lock '%s'", path), -1;
}

/* Makes every missing folder of an absolute path. */
static bool make_path(char *path, struct error **err)
{
    for (char *p = path + 1;; p++) {
        if (*p != '/' && *p != 0)
            continue;
        char saved = *p;
        *p = 0;
        int why = mkdir(path, 0700) == 0 ? 0 : errno;
        bool made = why == 0 || why == EEXIST || access(path, X_OK) == 0;
        if (!made)
            error_set_errno(err, why, "make folder '%s'", path);
        *p = saved;
        if (!made)
            return false;
        if (!saved)
            return true;
    }
}

char *catalog_data_dir(const char *sub, struct error **err)
{
    const char *data = getenv("XDG_DATA_HOME");
    const char *slash = sub ? "/" : "";
    sub = sub ? sub : "";
    cleanup(mem) char *path = NULL;
    if (data && data[0] == '/') {
        path = catalog_format("%s/ruche%s%s", data, slash, sub);
    } else {
        const char *home = getenv("HOME");
        if (!home || home[0] != '/') {
            const struct passwd *pw = getpwuid(getuid());
            home = pw ? pw->pw_dir : NULL;
        }
        if (!home)
            return error_set(err, 0, "find the data folder: neither XDG_DATA_HOME nor HOME is set"), NULL;
        path = catalog_format("%s/.local/share/ruche%s%s", home, slash, sub);
    }
    if (!make_path(path, err))
        return NULL;
    return steal_ptr(&path);
}

char *catalog_runtime_dir(struct error **err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    cleanup(mem) char *path = runtime && runtime[0] == '/' && access(runtime, W_OK) == 0
                                  ? catalog_format("%s/ruche", runtime)
                                  : catalog_format("/tmp/ruche-%u", (unsigned)getuid());
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "make folder '%s'", path), NULL;
    struct stat st;
    if (lstat(path, &st) < 0)
        return error_set_errno(err, errno, "look at folder '%s'", path), NULL;
    if (!S_ISDIR(st.st_mode) || st.st_uid != getuid() || (st.st_mode & 022))
        return error_set(err, EPERM, "use folder '%s' for sockets: it is not yours alone", path), NULL;
    return steal_ptr(&path);
}

bool catalog_name_check(const char *name, struct error **err)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t len = strlen(name);
    if (len >= 1 && len <= 63 && strspn(name, letters) == len && !strchr("._-", name[0]))
        return true;
    error_set(err, EINVAL, "'%s' is no name: 1 to 63 letters, digits, '.', '_' or '-', no sign in front",
              name);
    return false;
}

char *catalog_absolute(const char *path, struct error **err)
{
    if (*path == '/')
        return catalog_format("%s", path);
    cleanup(mem) char *folder = getcwd(NULL, 0);
    if (!folder)
        return error_set_errno(err, errno, "find the current folder"), NULL;
    return catalog_format("%s/%s", folder, path);
}

char *catalog_read_text(const char *path, size_t most, struct error **err)
{
    cleanup(file) FILE *f = fopen(path, "re");
    if (!f)
        return error_set_errno(err, errno, "open '%s'", path), NULL;
    cleanup(mem) char *text = malloc(most + 2);
    size_t n = text ? fread(text, 1, most + 1, f) : 0;
    if (!text || ferror(f))
        return error_set_errno(err, errno, "read '%s'", path), NULL;
    text[n] = 0;
    if (n > most)
        return error_set(err, EINVAL, "'%s' is larger than %zu bytes", path, most), NULL;
    if (strlen(text) != n)
        return error_set(err, EINVAL, "'%s' is no text", path), NULL;
    return steal_ptr(&text);
}

bool catalog_copy(const char *from, const char *to, struct error **err)
{
    char block[65536];
    ssize_t n = 0;
    cleanup(fd) int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return error_set_errno(err, errno, "open '%s'", from), false;
    cleanup(file) FILE *out = fopen(to, "we");
    while (out && (n = read(in, block, sizeof(block))) > 0 && fwrite(block, 1, (size_t)n, out) == (size_t)n)
        continue;
    if (n < 0)
        return error_set_errno(err, errno, "read '%s'", from), false;
    if (!out || n > 0 || fflush(out) != 0)
        return error_set_errno(err, errno, "write '%s'", to), false;
    return true;
}

bool catalog_write_json(const char *path, const json_t *value, struct error **err)
{
    cleanup(mem) char *draft = catalog_format("%s.new", path);
    if (json_dump_file(value, draft, JSON_INDENT(2)) == 0 && rename(draft, path) == 0)
        return true;
    error_set_errno(err, errno, "write '%s'", path);
    unlink(draft);
    return false;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

bool catalog_remove_tree(const char *path, struct error **err)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) < 0 && errno != ENOENT)
        return error_set_errno(err, errno, "remove '%s'", path), false;
    return true;
}
