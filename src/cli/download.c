/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Downloads: see download.h. A download is two files in the folder `downloads`, named after the address: what
 * has come, and the headers of the answer that it came with. From those is known whether the rest may be
 * asked for: only when the server named a version of the file, which is sent back to it (RFC 9110, If-Range).
 */
#include "cli/download.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/sha256.h"
#include "cli/program.h"
#include "cli/progress.h"

#define TRIES       5 /* in a row that bring nothing */
#define STALE_S     (7 * 24 * 3600)
#define FULL_BELOW  65536 /* bytes free */
#define HEADERS_MAX 65536
#define PAUSE_MS    200 /* doubled before each further try */

/* curl(1), EXIT CODES */
enum {
    CURL_RESOLVE = 6,
    CURL_CONNECT = 7,
    CURL_PARTIAL = 18,
    CURL_HTTP = 22,
    CURL_WRITE = 23,
    CURL_TIMEOUT = 28,
    CURL_NO_RANGE = 33,
    CURL_EMPTY = 52,
    CURL_RECEIVE = 56
};

bool download_is_url(const char *text)
{
    static const char *const schemes[] = {"http://", "https://", "file://"};
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
        if (strncasecmp(text, schemes[i], strlen(schemes[i])) == 0)
            return true;
    return false;
}

static uint64_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* --- what the server has said --- */

/* A header of the last answer in the file, as there is one for each redirection; NULL: it has none. */
static char *header(const char *path, const char *name)
{
    cleanup(mem) char *text = catalog_read_text(path, HEADERS_MAX, NULL);
    char *found = NULL;
    size_t len = strlen(name);
    for (char *line, *rest = text; rest && (line = strsep(&rest, "\n"));) {
        line[strcspn(line, "\r")] = 0;
        bool begins = strncmp(line, "HTTP/", 5) == 0;
        bool is_it = strncasecmp(line, name, len) == 0 && line[len] == ':';
        if (begins || is_it)
            free(steal_ptr(&found));
        if (is_it)
            found = catalog_format("%s", line + len + 1 + strspn(line + len + 1, " "));
    }
    return found;
}

/* The status of the last answer; 0: there was none, or not by HTTP. */
static unsigned answer(const char *path)
{
    cleanup(mem) char *text = catalog_read_text(path, HEADERS_MAX, NULL);
    unsigned status = 0;
    for (char *line, *rest = text; rest && (line = strsep(&rest, "\n"));)
        if (strncmp(line, "HTTP/", 5) == 0)
            status = (unsigned)strtoul(line + strcspn(line, " "), NULL, 10);
    return status;
}

/* What names this version of the file for good; a weak tag does not. */
static char *version(const char *about)
{
    cleanup(mem) char *tag = header(about, "ETag");
    if (tag && tag[0] == '"')
        return steal_ptr(&tag);
    return header(about, "Last-Modified");
}

/* Of the whole file; 0 when it is not known. */
static uint64_t whole_size(const char *about)
{
    bool partial = answer(about) != 200;
    cleanup(mem) char *value = header(about, partial ? "Content-Range" : "Content-Length");
    const char *text = value && partial ? strchr(value, '/') : value;
    uint64_t size = 0;
    if (text)
        parse_uint(text + (*text == '/'), &size);
    return size;
}

/* --- one try --- */

struct attempt {
    const struct download *d;
    const char *headers; /* of this try's answer */
    struct progress progress;
};

static void show(void *opaque)
{
    struct attempt *t = opaque;
    progress_bytes(&t->progress, size_of(t->d->path), whole_size(t->headers));
}

/* curl's exit status; -1 when it did not run. Goes on at the file's end if `from` says which version that is
 * the end of. */
static int fetch(const char *url, struct attempt *t, const char *from, struct error **err)
{
    cleanup(mem) char *condition = catalog_format("If-Range: %s", from ? from : "");
    const char *words[] = {"curl",
                           "--silent",
                           "--show-error",
                           "--fail",
                           "--location",
                           "--globoff",
                           "--proto",
                           "=http,https,file",
                           "--proto-redir",
                           "=http,https",
                           "--connect-timeout",
                           "30",
                           "--speed-time",
                           "60",
                           "--speed-limit",
                           "1",
                           "--dump-header",
                           t->headers,
                           "--output",
                           t->d->path,
                           "--continue-at",
                           from ? "-" : "0",
                           "--header",
                           condition,
                           "--",
                           url,
                           NULL};
    const struct program p = {.package = "curl", .tick = show, .opaque = t};
    struct error *why = NULL;
    int status = program_run(words, &p, &why);
    const char *text = error_text(why);
    if (why) /* "(6) Could not resolve host: ..." */
        error_set(err, 0, "%s", text[0] == '(' && strchr(text, ' ') ? strchr(text, ' ') + 1 : text);
    error_free(why);
    return status;
}

static bool is_full(const char *path)
{
    struct statvfs fs;
    return statvfs(path, &fs) == 0 && fs.f_bavail * fs.f_frsize < FULL_BELOW;
}

/* Whether another try may help: what broke on the way, and what was asked for as the rest of a file. */
static bool may_go_on(int status, bool has_some, bool was_rest)
{
    switch (status) {
    case CURL_PARTIAL:
    case CURL_TIMEOUT:
    case CURL_EMPTY:
    case CURL_RECEIVE:
        return true;
    case CURL_RESOLVE:
    case CURL_CONNECT:
        return has_some;
    default:
        return was_rest && (status == CURL_HTTP || status == CURL_NO_RANGE);
    }
}

/* Those of an answer with which the file began. A command that was killed comes to do so only in the next. */
static void keep_headers(const struct download *d, const char *headers)
{
    if (access(d->about, F_OK) < 0 && answer(headers) == 200)
        rename(headers, d->about);
}

/* One try. 1: the file is whole, 0: another one may help, -1: none will; *err unless 1. */
static int attempt(const char *url, struct attempt *t, struct error **err)
{
    const struct download *d = t->d;
    cleanup(mem) char *from = size_of(d->path) ? version(d->about) : NULL;
    unlink(t->headers);
    if (!from)
        unlink(d->about);
    if (!from && truncate(d->path, 0) < 0)
        return error_set_errno(err, errno, "empty '%s'", d->path), -1;
    int status = fetch(url, t, from, err);
    uint64_t size = size_of(d->path), whole = whole_size(t->headers);
    unsigned said = answer(t->headers);
    if (!from)
        keep_headers(d, t->headers);
    /* The rest was asked for, and what came is none: it is another file by now. */
    bool other = from && (status == CURL_HTTP || status == CURL_NO_RANGE || (said == 416 && size != whole));
    if (other)
        unlink(d->about);
    if (status == 0 && !other && (!whole || size == whole))
        return 1;
    if (status == 0)
        error_set(err, 0, "%llu bytes came, %llu were announced", (unsigned long long)size,
                  (unsigned long long)whole);
    return other || status == 0 || may_go_on(status, size > 0, from != NULL) ? 0 : -1;
}

/* As long as tries bring something, and some more with growing pauses between them. */
static bool fetch_all(const char *url, struct attempt *t, struct error **err)
{
    uint64_t most = size_of(t->d->path);
    unsigned vain = 0;
    for (;;) {
        struct error *why = NULL;
        int result = attempt(url, t, &why);
        if (result > 0)
            return true;
        uint64_t size = size_of(t->d->path);
        vain = size > most ? 0 : vain + 1;
        most = MAX(most, size);
        if (result < 0 || vain == TRIES) {
            *err = why;
            return false;
        }
        error_free(why);
        poll(NULL, 0, PAUSE_MS << vain);
    }
}

/* --- the folder --- */

/* What nobody has gone on with for a week. */
static void sweep(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        struct stat st;
        if (e->d_name[0] != '.' && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode) && time(NULL) - st.st_mtime > STALE_S)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

static bool take(const char *url, struct download *d, struct error **err)
{
    struct sha256 sum;
    char name[SHA256_HEX_SIZE];
    cleanup(mem) char *dir = catalog_data_dir("downloads", err);
    if (!dir)
        return false;
    sweep(dir);
    sha256_init(&sum);
    sha256_update(&sum, url, strlen(url));
    sha256_final(&sum, name);
    d->path = catalog_format("%s/%s", dir, name);
    d->about = catalog_format("%s/%s.headers", dir, name);
    d->lock_fd = open(d->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (d->lock_fd < 0)
        return error_set_errno(err, errno, "make '%s'", d->path), false;
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return error_set(err, EBUSY, "another command is downloading it"), false;
    return true;
}

static void close_lock(struct download *d)
{
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    free(d->path);
    free(d->about);
    *d = (struct download){.lock_fd = -1};
}

void download_remove(struct download *d)
{
    unlink(d->path);
    unlink(d->about);
    close_lock(d);
}

bool download(const char *url, struct download *d, struct error **err)
{
    struct error *why = NULL;
    *d = (struct download){.lock_fd = -1};
    if (!take(url, d, &why)) {
        error_prefix(err, why, "download '%s'", url);
        close_lock(d);
        return false;
    }
    cleanup(mem) char *headers = catalog_format("%s.new", d->about);
    struct attempt t = {.d = d, .headers = headers};
    keep_headers(d, headers);
    progress_start(&t.progress, "download");
    bool ok = fetch_all(url, &t, &why);
    if (ok)
        progress_bytes(&t.progress, size_of(d->path), size_of(d->path));
    progress_end(&t.progress, ok);
    unlink(headers);
    if (ok)
        return true;
    bool full = is_full(d->path);
    error_prefix(err, why, "download '%s'%s", url, full ? " to a full disk" : "");
    if (full || !size_of(d->path))
        download_remove(d);
    else
        close_lock(d);
    return false;
}
