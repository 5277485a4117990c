/*
 * cgroup_path.c - where groups are: the cgroup2 mount, our own group, the path config.json asks for.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "runtime/cgroup.h"

enum {
    MOUNTINFO_MAX = 4 << 20
}; /* thousands of mounts; /proc files are ours to trust, not to trust blindly */

#define FIRST_CGROUP_NS 0xEFFFFFFBU /* CGROUP_NS_INIT_INO of linux/nsfs.h, Linux 6.18 */
static const char usual_place[] = "/sys/fs/cgroup";

/* Undo mountinfo's octal escapes ("\040") in place. */
static void unescape(char *s)
{
    char *out = s;

    for (; *s; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
            *out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        } else {
            *out++ = *s;
        }
    }
    *out = '\0';
}

/* "ID PARENT MAJ:MIN ROOT MOUNT_POINT OPTIONS [FIELDS] - TYPE SOURCE SUPER" -> MOUNT_POINT when TYPE is cgroup2 and
 * the mount shows the hierarchy from its root. */
static char *cgroup2_mount_of_line(const char *line)
{
    AUTO(str_list) struct str_list fields = {0};
    const char *dash = strstr(line, " - ");

    if (!dash || !str_starts(dash + 3, "cgroup2 "))
        return NULL;
    str_list_split(&fields, line, ' ');
    if (fields.n < 6 || str_starts(fields.items[3], "/.."))
        return NULL;
    char *point = mem_strdup(fields.items[4]);

    unescape(point);
    return point;
}

/*
 * Where nearly every host has it, and so without reading the list of all mounts, which on a busy one is long. Seen from
 * another cgroup namespace than the first, a mount may show more than the namespace's root: then the list tells.
 */
static bool is_at_usual_place(void)
{
    struct statfs fs;
    struct stat ns;

    return stat("/proc/self/ns/cgroup", &ns) == 0 && ns.st_ino == FIRST_CGROUP_NS &&
           statfs(usual_place, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
}

int ctr_cgroup_mount_point(char **ret, struct err *e)
{
    if (is_at_usual_place()) {
        *ret = mem_strdup(usual_place);
        return 0;
    }
    AUTO(str) struct str text = STR_INIT(MOUNTINFO_MAX);
    AUTO(str_list) struct str_list lines = {0};

    if (fd_read_file_at(AT_FDCWD, "/proc/self/mountinfo", &text, e) < 0)
        return err_wrap(e, "find the cgroup2 mount");
    str_list_split(&lines, str_text(&text), '\n');
    for (size_t i = 0; i < lines.n; i++) {
        char *point = cgroup2_mount_of_line(lines.items[i]);

        if (point) {
            *ret = point;
            return 0;
        }
    }
    return err_set(e, ERR_HOST,
                   "no cgroup2 file system is mounted; mount one on /sys/fs/cgroup, or boot with "
                   "systemd.unified_cgroup_hierarchy=1");
}

int ctr_cgroup_own_path(char **ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(64 * BOUND_KIB);
    AUTO(str_list) struct str_list lines = {0};

    if (fd_read_file_at(AT_FDCWD, "/proc/self/cgroup", &text, e) < 0)
        return err_wrap(e, "find our own control group");
    str_list_split(&lines, str_text(&text), '\n');
    for (size_t i = 0; i < lines.n; i++) {
        if (str_starts(lines.items[i], "0::/")) {
            *ret = mem_strdup(lines.items[i] + 3);
            return 0;
        }
    }
    return err_set(e, ERR_HOST, "the kernel has no version 2 control groups (/proc/self/cgroup)");
}

char *ctr_cgroup_path_of_systemd(const char *text)
{
    AUTO(str_list) struct str_list parts = {0};
    AUTO(str) struct str path = STR_INIT(BOUND_PATH);

    str_list_split(&parts, text, ':');
    if (parts.n != 3 || strchr(text, '/') || !*parts.items[2])
        return NULL;
    const char *slice = *parts.items[0] ? parts.items[0] : "system.slice";

    if (!str_ends(slice, ".slice") || slice[0] == '-' || slice[0] == '.')
        return NULL;
    /* "a-b.slice" lies in "a.slice": each dash is a level (systemd.slice(5)). */
    for (const char *dash = strchr(slice, '-'); dash; dash = strchr(dash + 1, '-')) {
        if (dash[1] == '-' || dash[1] == '.')
            return NULL;
        if (str_appendf(&path, "/%.*s.slice", (int)(dash - slice), slice) < 0)
            return NULL;
    }
    const char *join = *parts.items[1] ? "-" : "";

    if (str_appendf(&path, "/%s/%s%s%s.scope", slice, parts.items[1], join, parts.items[2]) < 0)
        return NULL;
    return str_take(&path);
}

/* The directory part: "/a/b" -> "/a", "/a" -> "/". */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == path || !slash ? mem_strdup("/") : mem_strndup(path, (size_t)(slash - path));
}

static char *join_paths(const char *a, const char *b)
{
    return mem_printf("%s%s%s", str_eq(a, "/") ? "" : a, *b == '/' ? "" : "/", b);
}

static int default_path(const char *id, char **ret, struct err *e)
{
    static const char supervisor[] = "/cworker/supervisor";
    AUTO_FREE char *own = NULL;

    if (ctr_cgroup_own_path(&own, e) < 0)
        return -1;
    if (str_ends(own, supervisor)) {
        *ret = mem_printf("%.*s/cworker/runs/%s", (int)(strlen(own) - strlen(supervisor)), own, id);
        return 0;
    }
    AUTO_FREE char *parent = parent_of(own);
    AUTO_FREE char *tail = mem_printf("cwrt/%s", id);

    *ret = join_paths(parent, tail);
    return 0;
}

static int check_path(const char *path, struct err *e)
{
    AUTO(str_list) struct str_list parts = {0};

    if (strlen(path) >= BOUND_PATH)
        return err_set(e, ERR_USER, "cgroupsPath is longer than %d bytes", BOUND_PATH);
    str_list_split(&parts, path + 1, '/');
    for (size_t i = 0; i < parts.n; i++)
        if (!path_is_component(parts.items[i]) || strlen(parts.items[i]) > 255 ||
            strchr(parts.items[i], '\n'))
            return err_set(e, ERR_USER, "cgroupsPath \"%s\": component %zu is not a plain name",
                           path, i + 1);
    return 0;
}

int ctr_cgroup_resolve(const char *cgroups_path, const char *id, char **ret, struct err *e)
{
    AUTO_FREE char *path = NULL;

    if (!cgroups_path || !*cgroups_path) {
        if (default_path(id, &path, e) < 0)
            return -1;
    } else if (strchr(cgroups_path, ':') && !strchr(cgroups_path, '/')) {
        path = ctr_cgroup_path_of_systemd(cgroups_path);
        if (!path)
            return err_set(e, ERR_USER, "cgroupsPath \"%s\" is not slice:prefix:name",
                           cgroups_path);
    } else if (*cgroups_path == '/') {
        path = mem_strdup(cgroups_path);
    } else {
        AUTO_FREE char *own = NULL;

        if (ctr_cgroup_own_path(&own, e) < 0)
            return -1;
        AUTO_FREE char *parent = parent_of(own);

        path = join_paths(parent, cgroups_path);
    }
    /* "/a/b/" and "//a" are meant as "/a/b" and "/a". */
    AUTO_FREE char *plain = path_normalize(path);

    if (!plain || !*plain)
        return err_set(e, ERR_USER, "cgroupsPath \"%s\" names no group below the root", path);
    if (strstr(path, "/../") || str_ends(path, "/.."))
        return err_set(e, ERR_USER, "cgroupsPath \"%s\" contains \"..\"", path);
    free(path);
    path = mem_printf("/%s", plain);
    if (check_path(path, e) < 0)
        return -1;
    *ret = take_ptr(&path);
    return 0;
}
