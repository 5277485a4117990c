/*
 * Paths of requests (protocol 9.1) and get_target_info (9.2).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "worker/reply_read.h"

enum { DEPTH_MAX = 64, ENTRY_BYTES = 80 /* JSON around a name */ };

int reply_refuse(struct err *e, int status, const char *fmt, ...)
{
    char text[sizeof(e->msg)];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    err_set(e, ERR_USER, "%s", text);
    e->sys = -status;
    return -1;
}

bool reply_is_missing(const struct err *e)
{
    return e->kind == ERR_ABSENT && e->sys == -404;
}

/* Is `path` a dependency's key or below one? The server then reads it from the parent bundle (B160). */
static bool is_dependency(const struct str_list *dependencies, const char *path)
{
    for (size_t i = 0; i < dependencies->n; i++) {
        AUTO_FREE char *key = path_normalize(dependencies->items[i]);
        size_t n = key ? strlen(key) : 0;

        if (n && strncmp(path, key, n) == 0 && (path[n] == '\0' || path[n] == '/'))
            return true;
    }
    return false;
}

static int open_failed(const struct reply_request *q, struct err *e)
{
    int sys = e->sys;
    char shown[STR_SHOW_MAX];

    str_show(shown, q->path);
    if (sys == EXDEV || sys == ELOOP)
        return reply_refuse(e, 404, "%s/%s is not inside the bundle.", q->uuid, shown);
    if (sys != ENOENT && sys != ENOTDIR && sys != ENAMETOOLONG)
        return -1;
    reply_refuse(e, 404, "Path '%s' in bundle %s not found", shown, q->uuid);
    e->kind = ERR_ABSENT;
    return -1;
}

int reply_resolve(const struct reply_request *q, struct stat *ret_st, char **ret_name,
                  struct err *e)
{
    AUTO_FREE char *path = path_normalize(q->path);
    char shown[STR_SHOW_MAX];

    str_show(shown, q->path);
    if (!path)
        return reply_refuse(e, 404, "%s/%s is not inside the bundle.", q->uuid, shown);
    if (is_dependency(&q->dependencies, path))
        return reply_refuse(e, 404, "%s not found in bundle %s", shown, q->uuid);
    char *slash = strrchr(path, '/');
    AUTO_FREE char *above = slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup(".");
    AUTO_FREE char *name = mem_strdup(slash ? slash + 1 : path);
    AUTO_CLOSE int parent = path_open_beneath_links(q->dirfd, above, O_PATH | O_DIRECTORY, 0, e);

    if (parent < 0)
        return open_failed(q, e);
    int fd = openat(parent, *name ? name : ".", O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0) {
        err_sys(e, "open");
        return open_failed(q, e);
    }
    if (fstat(fd, ret_st) < 0) {
        close(fd);
        return err_sys(e, "stat");
    }
    *ret_name = take_ptr(&name);
    return fd;
}

/* A name as JSON: bytes that are not UTF-8 become lone surrogates, as Python writes them. */
static cJSON *name_json(const char *name)
{
    size_t n = strlen(name);
    struct str s = STR_INIT(6 * n + 3); /* "\\u00e4" for every byte, and the quotes */
    int rc = str_append_text(&s, "\"");

    for (size_t i = 0; i < n && rc == 0;) {
        unsigned char c = (unsigned char)name[i];
        size_t len = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

        if (c >= 0x80 && (i + len > n || !str_is_utf8(name + i, len))) {
            rc = str_appendf(&s, "\\udc%02x", c);
            i++;
        } else if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f) {
            rc = str_appendf(&s, "\\u%04x", c);
            i++;
        } else {
            rc = str_append(&s, name + i, len);
            i += len;
        }
    }
    if (rc < 0 || str_append_text(&s, "\"") < 0) {
        str_free(&s);
        return cJSON_CreateString("?");
    }
    cJSON *v = cJSON_CreateRaw(str_text(&s));

    str_free(&s);
    return v;
}

static const char *type_name(mode_t mode)
{
    return S_ISREG(mode) ? "file" : S_ISDIR(mode) ? "directory" : S_ISLNK(mode) ? "link" : "";
}

struct listing {
    const struct reply_request *q;
    size_t bytes;
};

static int add_contents(struct listing *l, int fd, unsigned depth, bool top, cJSON *into,
                        struct err *e);

/* parent/name is described by st. */
static cJSON *describe(struct listing *l, int parent, const char *open_name, const char *shown_name,
                       const struct stat *st, unsigned depth, bool top, struct err *e)
{
    AUTO(cJSON) cJSON *v = cJSON_CreateObject();
    char target[BOUND_LINK + 1];

    l->bytes += strlen(shown_name) * 6 + ENTRY_BYTES;
    if (l->bytes > BOUND_SERVICE_JSON - 65536) {
        err_set(e, ERR_LIMIT, "the directory has too many entries to be listed at once");
        return NULL;
    }
    json_add_item(v, "name", name_json(shown_name));
    json_add_str(v, "type", type_name(st->st_mode));
    json_add_int(v, "size", (int64_t)st->st_size);
    json_add_int(v, "perm", st->st_mode & 0777);
    if (S_ISLNK(st->st_mode)) {
        ssize_t n = readlinkat(parent, open_name, target, sizeof(target) - 1);

        target[n < 0 ? 0 : n] = '\0';
        l->bytes += strlen(target) * 6;
        json_add_item(v, "link", name_json(target));
    }
    if (S_ISDIR(st->st_mode) && depth > 0) {
        AUTO_CLOSE int fd = openat(parent, *open_name ? open_name : ".",
                                   O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        cJSON *contents = json_add_array(v, "contents"); /* empty when it has gone since */

        if (fd >= 0 && add_contents(l, fd, depth, top, contents, e) < 0)
            return NULL;
    }
    return take_ptr(&v);
}

static int add_contents(struct listing *l, int fd, unsigned depth, bool top, cJSON *into,
                        struct err *e)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    int rc = 0;

    if (!dir) {
        close_fd(&copy);
        return err_sys(e, "read the directory");
    }
    while (rc == 0 && (entry = readdir(dir))) {
        struct stat st;

        if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, "..") ||
            (top && is_dependency(&l->q->dependencies, entry->d_name)) || /* B159 */
            fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        cJSON *child = describe(l, fd, entry->d_name, entry->d_name, &st, depth - 1, false, e);

        if (child)
            json_add_item(into, NULL, child);
        else
            rc = -1;
    }
    closedir(dir);
    return rc;
}

char *reply_target_info(const struct reply_request *q, struct err *e)
{
    AUTO_FREE char *name = NULL;
    struct listing l = {q, 0};
    struct stat st;
    int64_t depth = 0;

    if (json_get_i64(q->args, "depth", 0, INT32_MAX, &depth, e) < 0)
        return reply_refuse(e, 400, "get_target_info: depth is not a whole number"), NULL;
    AUTO_CLOSE int fd = reply_resolve(q, &st, &name, e);

    if (fd < 0)
        return NULL;
    BUG_ON(!name);
    unsigned levels = depth > DEPTH_MAX ? DEPTH_MAX : (unsigned)depth;
    /* readlinkat(fd, "") and openat(fd, ".") work on the O_PATH descriptor itself. */
    cJSON *info = describe(&l, fd, "", *name ? name : q->uuid, &st, levels, !*name, e);

    if (!info)
        return NULL;
    cJSON *resolved = json_add_object(info, "resolved_target");

    json_add_str(resolved, "bundle_uuid", q->uuid);
    json_add_item(resolved, "subpath", name_json(q->path));
    AUTO(cJSON) cJSON *reply = cJSON_CreateObject();

    json_add_item(reply, "target_info", info);
    return json_text(reply);
}
