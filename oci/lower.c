#include "oci/lower.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/openat2.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/path.h"
#include "oci/whiteout.h"

enum { MAX_LINKS = 40 }; /* as the kernel */

enum found { FOUND, ABSENT, ELSEWHERE /* this layer says nothing of it */, LINK };

struct search {
    const struct oci_lowers *l;
    struct str_list parts; /* of the path */
    size_t depth_of_dirs;  /* so many leading parts are directories in a layer above */
    int fd;
    struct stat st;
    char *target; /* of the link met, its own parts replaced; for LINK */
};

static int open_prefix(const struct search *s, size_t layer, size_t n)
{
    struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                           .resolve =
                               RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    struct str_list first = {.items = s->parts.items, .n = n};
    AUTO_FREE char *path = str_list_join(&first, "/");
    AUTO_FREE char *full = mem_printf("%s/%s", s->l->keys.items[layer], path);

    return (int)syscall(SYS_openat2, s->l->dir, full, &how, sizeof(how));
}

/* "a/link/c" with link -> "../x" gives "x/c"; climbing above the root stays in the root. */
static char *follow(const struct search *s, int link, size_t n)
{
    char text[PATH_MAX];
    ssize_t len = readlinkat(link, "", text, sizeof(text) - 1);
    AUTO(str_list) struct str_list parts = {0}, added = {0};

    if (len < 0)
        return NULL;
    text[len] = '\0';
    if (*text != '/')
        for (size_t i = 0; i + 1 < n; i++)
            str_list_add(&parts, s->parts.items[i]);
    str_list_split(&added, text, '/');
    for (size_t i = 0; i < added.n; i++) {
        if (path_is_component(added.items[i]))
            str_list_add(&parts, added.items[i]);
        else if (str_eq(added.items[i], "..") && parts.n)
            free(parts.items[--parts.n]), parts.items[parts.n] = NULL;
    }
    for (size_t i = n; i < s->parts.n; i++)
        str_list_add(&parts, s->parts.items[i]);
    return str_list_join(&parts, "/");
}

static enum found look(struct search *s, size_t layer)
{
    bool hides_below = false;

    for (size_t n = 1; n <= s->parts.n; n++) {
        AUTO_CLOSE int fd = open_prefix(s, layer, n);

        if (fd < 0 && errno == ENOENT)
            return hides_below ? ABSENT : ELSEWHERE;
        if (fd < 0 || fstat(fd, &s->st) < 0 || oci_whiteout_is(&s->st))
            return ABSENT;
        if (n == s->parts.n) {
            s->fd = take_fd(&fd);
            return FOUND;
        }
        if (S_ISDIR(s->st.st_mode)) {
            AUTO_CLOSE int dir = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

            hides_below = hides_below || (dir >= 0 && oci_whiteout_is_opaque(dir));
            if (n > s->depth_of_dirs)
                s->depth_of_dirs = n;
            continue;
        }
        /* A directory of a layer above hides whatever else stands here. */
        if (!S_ISLNK(s->st.st_mode) || n <= s->depth_of_dirs)
            return ABSENT;
        s->target = follow(s, fd, n);
        return s->target ? LINK : ABSENT;
    }
    return ABSENT;
}

static enum found look_through(struct search *s)
{
    enum found f = ELSEWHERE;

    s->depth_of_dirs = 0;
    for (size_t i = 0; i < s->l->keys.n && f == ELSEWHERE; i++)
        f = look(s, i);
    return f;
}

int oci_lower_find(const struct oci_lowers *l, const char *path, int *ret_fd, struct stat *ret_st,
                   struct err *e)
{
    struct search s = {.l = l, .fd = -1};
    enum found f = ABSENT;
    char shown[STR_SHOW_MAX];
    AUTO_FREE char *now = mem_strdup(path);

    for (int links = 0; *now; links++) {
        if (links > MAX_LINKS)
            return err_set(e, ERR_USER, "%s: too many links in the layers below",
                           str_show(shown, path));
        str_list_free(&s.parts);
        s.parts = (struct str_list){0};
        str_list_split(&s.parts, now, '/');
        f = look_through(&s);
        if (f != LINK)
            break;
        free(now);
        now = take_ptr(&s.target);
    }
    str_list_free(&s.parts);
    if (f != FOUND)
        return 0;
    *ret_fd = s.fd;
    *ret_st = s.st;
    return 1;
}
