#include "runtime/user.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "base/units.h"
#include "runtime/spec.h"

enum { GROUPS_MAX = 65536, FIELDS_MAX = 7, ID_TEXT_MAX = 10 };

void ctr_user_free(struct ctr_user *u)
{
    free(u->groups);
    free(u->home);
    u->groups = NULL;
    u->home = NULL;
}

/* One line of passwd(5) or group(5), split at the colons. */
struct line {
    const char *field[FIELDS_MAX];
    size_t len[FIELDS_MAX];
    size_t n;
};

/* The next line that is not over-long; false at the end. */
static bool next_line(const char **text, struct line *ret)
{
    while (**text) {
        const char *start = *text, *end = strchrnul(start, '\n');

        *text = *end ? end + 1 : end;
        if ((size_t)(end - start) > BOUND_PASSWD_LINE)
            continue;
        ret->n = 0;
        for (const char *p = start; p <= end && ret->n < FIELDS_MAX; p++) {
            const char *stop = memchr(p, ':', (size_t)(end - p));

            if (!stop)
                stop = end;
            ret->field[ret->n] = p;
            ret->len[ret->n++] = (size_t)(stop - p);
            p = stop;
        }
        return true;
    }
    return false;
}

static bool field_is(const struct line *l, size_t i, const char *text, size_t n)
{
    return i < l->n && l->len[i] == n && memcmp(l->field[i], text, n) == 0;
}

/* Digits only and in range: "4294967296" and "-1" are names nobody has, not numbers that wrap (S06). */
static bool parse_id(const char *text, size_t n, uint32_t *ret)
{
    char copy[ID_TEXT_MAX + 1];
    struct err ignored = ERR_INIT;
    uint64_t value;

    if (!n || n > ID_TEXT_MAX)
        return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    if (units_u64(copy, UINT32_MAX - 1, &value, &ignored) < 0)
        return false;
    *ret = (uint32_t)value;
    return true;
}

static bool line_id(const struct line *l, size_t i, uint32_t *ret)
{
    return i < l->n && parse_id(l->field[i], l->len[i], ret);
}

/* passwd: name:x:uid:gid:gecos:home:shell. By name, or by number when `name` is NULL. */
static bool find_user(const char *passwd, const char *name, size_t n, uint32_t uid,
                      struct line *ret)
{
    uint32_t found;

    while (next_line(&passwd, ret))
        if (name ? field_is(ret, 0, name, n) : line_id(ret, 2, &found) && found == uid)
            return true;
    return false;
}

static bool is_member(const struct line *l, const char *name, size_t n)
{
    if (l->n < 4)
        return false;
    const char *p = l->field[3], *end = p + l->len[3];

    while (p < end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        size_t len = comma ? (size_t)(comma - p) : (size_t)(end - p);

        if (len == n && memcmp(p, name, n) == 0)
            return true;
        p += len + 1;
    }
    return false;
}

static int add_groups(const char *group, const char *name, size_t n, struct ctr_user *ret,
                      struct err *e)
{
    struct line l;
    uint32_t gid;

    while (next_line(&group, &l)) {
        if (!is_member(&l, name, n) || !line_id(&l, 2, &gid))
            continue;
        if (ret->n_groups == GROUPS_MAX)
            return err_set(e, ERR_LIMIT, "the user is in more than %d groups", GROUPS_MAX);
        ret->groups = mem_realloc(ret->groups, ret->n_groups + 1, sizeof(*ret->groups));
        ret->groups[ret->n_groups++] = gid;
    }
    return 0;
}

static int find_group(const char *group, const char *name, uint32_t *ret, struct err *e)
{
    char shown[STR_SHOW_MAX];
    struct line l;

    while (next_line(&group, &l))
        if (field_is(&l, 0, name, strlen(name)) && line_id(&l, 2, ret))
            return 0;
    if (parse_id(name, strlen(name), ret))
        return 0;
    return err_set(e, ERR_USER, "group '%s' is not in the image's /etc/group",
                   str_show(shown, name));
}

int ctr_user_parse(const char *text, const char *passwd, const char *group, struct ctr_user *ret,
                   struct err *e)
{
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : strlen(text);
    char shown[STR_SHOW_MAX];
    struct line l;
    bool found = n && find_user(passwd, text, n, 0, &l);

    if (!found && n && parse_id(text, n, &ret->uid))
        found = find_user(passwd, NULL, 0, ret->uid, &l);
    else if (!found && n)
        return err_set(e, ERR_USER, "user '%s' is not in the image's /etc/passwd",
                       str_escape(shown, sizeof(shown), text, n));
    if (!n)
        found = find_user(passwd, NULL, 0, 0, &l);
    if (found) {
        if (!line_id(&l, 2, &ret->uid) || !line_id(&l, 3, &ret->gid))
            return err_set(e, ERR_USER, "the image's /etc/passwd has no valid ids for '%s'",
                           str_show(shown, text));
        if (l.n > 5 && l.len[5] && l.field[5][0] == '/')
            ret->home = mem_strndup(l.field[5], l.len[5]);
        if (!colon && add_groups(group, l.field[0], l.len[0], ret, e) < 0)
            return -1;
    }
    if (colon && colon[1] && find_group(group, colon + 1, &ret->gid, e) < 0)
        return -1;
    if (!ret->home)
        ret->home = mem_strdup("/");
    return 0;
}

/* A missing file is an empty one. */
static int read_inside(int rootfd, const char *path, struct str *s, struct err *e)
{
    struct err why = ERR_INIT;
    struct stat st;
    AUTO_CLOSE int fd = path_open_in_root(rootfd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, &why);

    if (fd < 0) {
        if (why.sys == ENOENT || why.sys == ENOTDIR)
            return 0;
        *e = why;
        return -1;
    }
    if (fstat(fd, &st) < 0)
        return err_sys(e, "stat %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_USER, "the image's %s is not a regular file", path);
    if (fd_read_all(fd, s, e) < 0)
        return err_wrap(e, "the image's %s", path);
    return 0;
}

int ctr_user_resolve(int rootfd, const struct ctr_process *p, struct ctr_user *ret, struct err *e)
{
    AUTO(str) struct str passwd = STR_INIT(BOUND_PASSWD_FILE), group = STR_INIT(BOUND_PASSWD_FILE);
    bool want_home = !str_list_getenv(&p->env, "HOME");

    *ret = (struct ctr_user){.uid = p->uid, .gid = p->gid};
    if ((p->user_name || want_home) && read_inside(rootfd, "etc/passwd", &passwd, e) < 0)
        return -1;
    if (p->user_name) {
        if (read_inside(rootfd, "etc/group", &group, e) < 0 ||
            ctr_user_parse(p->user_name, str_text(&passwd), str_text(&group), ret, e) < 0)
            return -1;
    } else if (want_home) {
        struct line l;

        if (find_user(str_text(&passwd), NULL, 0, p->uid, &l) && l.n > 5 && l.len[5] &&
            l.field[5][0] == '/')
            ret->home = mem_strndup(l.field[5], l.len[5]);
    }
    if (p->n_additional_gids) {
        ret->groups =
            mem_realloc(ret->groups, ret->n_groups + p->n_additional_gids, sizeof(*ret->groups));
        memcpy(ret->groups + ret->n_groups, p->additional_gids,
               p->n_additional_gids * sizeof(*ret->groups));
        ret->n_groups += p->n_additional_gids;
    }
    if (!ret->home)
        ret->home = mem_strdup("/");
    return 0;
}
