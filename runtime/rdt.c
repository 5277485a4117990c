#include "runtime/rdt.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "runtime/spec.h"
#include "runtime/spec_json_own.h"

/* --- config.json ------------------------------------------------------------------------------------------------- */

/* A group is a plain name beside the file system's own directories. */
static int check_group(const char *name, struct err *e)
{
    static const char *const own[] = {"info", "mon_groups", "mon_data"};
    char shown[STR_SHOW_MAX];
    bool bad = !path_is_component(name);

    for (size_t i = 0; i < ARRAY_SIZE(own); i++)
        bad = bad || str_eq(name, own[i]);
    return bad ? err_set(e, ERR_USER, "closID \"%s\" is no name for a group", str_show(shown, name))
               : 0;
}

int rdt_read(const cJSON *o, struct ctr_rdt *ret, struct err *e)
{
    bool cache = false, bandwidth = false;

    ret->set = true;
    if (spec_copy_str(o, "closID", &ret->clos_id, e) < 0 ||
        spec_copy_str(o, "l3CacheSchema", &ret->l3, e) < 0 ||
        spec_copy_str(o, "memBwSchema", &ret->bandwidth, e) < 0 ||
        json_opt_str_list(o, "schemata", 64, 4095, &ret->schemata, e) < 0 ||
        json_opt_bool(o, "enableMonitoring", &ret->monitoring, e) < 0 ||
        json_opt_bool(o, "enableCMT", &cache, e) < 0 ||
        json_opt_bool(o, "enableMBM", &bandwidth, e) < 0)
        return err_wrap(e, "intelRdt");
    ret->monitoring = ret->monitoring || cache || bandwidth;
    if (ret->clos_id && !*ret->clos_id)
        mem_replace(&ret->clos_id, NULL);
    if (ret->clos_id && check_group(ret->clos_id, e) < 0)
        return err_wrap(e, "intelRdt");
    if (ret->bandwidth && (!str_starts(ret->bandwidth, "MB:") || strchr(ret->bandwidth, '\n')))
        return err_set(e, ERR_USER, "intelRdt.memBwSchema: one line that begins with MB:");
    return 0;
}

cJSON *rdt_write(const struct ctr_rdt *r)
{
    cJSON *o = cJSON_CreateObject();

    if (r->clos_id)
        json_add_str(o, "closID", r->clos_id);
    if (r->l3)
        json_add_str(o, "l3CacheSchema", r->l3);
    if (r->bandwidth)
        json_add_str(o, "memBwSchema", r->bandwidth);
    if (r->schemata.n)
        json_add_str_list(o, "schemata", &r->schemata);
    if (r->monitoring)
        json_add_bool(o, "enableMonitoring", true);
    return o;
}

void rdt_free(struct ctr_rdt *r)
{
    free(r->clos_id);
    free(r->l3);
    free(r->bandwidth);
    str_list_free(&r->schemata);
}

/* --- the file system ----------------------------------------------------------------------------------------------- */

static int open_root(const char *root, struct err *e)
{
    AUTO_FREE char *found = mem_strdup(root);
    FILE *mounts = root ? NULL : setmntent("/proc/self/mounts", "re");

    for (struct mntent *m; mounts && !found && (m = getmntent(mounts));)
        if (str_eq(m->mnt_type, "resctrl"))
            found = mem_strdup(m->mnt_dir);
    if (mounts)
        endmntent(mounts);
    if (!found)
        return err_set(e, ERR_HOST,
                       "linux.intelRdt: this host has no resctrl file system mounted (or its "
                       "processors no such control)");
    int fd = open(found, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? err_sys(e, "linux.intelRdt: %s", found) : fd;
}

static const char *group_of(const struct ctr_rdt *r, const char *id)
{
    return r->clos_id ? r->clos_id : id;
}

static bool has_schemata(const struct ctr_rdt *r)
{
    return r->l3 || r->bandwidth || r->schemata.n;
}

static int write_pid(int group, const char *file, pid_t pid, struct err *e)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", pid);
    return fd_write_file_at(group, file, text, e) < 0 ? err_wrap(e, "linux.intelRdt") : 0;
}

/* Lines of the two older fields, of which l3CacheSchema's may be more than one; MB lines of it give way. */
static void add_older(const struct ctr_rdt *r, struct str_list *lines)
{
    AUTO(str_list) struct str_list parts = {0};

    if (r->l3)
        str_list_split(&parts, r->l3, '\n');
    for (size_t i = 0; i < parts.n; i++)
        if (*parts.items[i] && !(r->bandwidth && str_starts(parts.items[i], "MB:")))
            str_list_add(lines, parts.items[i]);
    if (r->bandwidth)
        str_list_add(lines, r->bandwidth);
}

/* "0=7f0" and "0=07F0" are the same. */
static bool same_value(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");

    if (a[n] != '=' || strncmp(a, b, n + 1) != 0)
        return false;
    return strtoull(a + n + 1, NULL, 16) == strtoull(b + n + 1, NULL, 16);
}

/* Is every "id=value" of our line in the line that the file has of that resource? */
static bool is_in_force(const char *line, const struct str_list *file)
{
    size_t name = strcspn(line, ":") + 1;
    AUTO(str_list) struct str_list wanted = {0};

    str_list_split(&wanted, line + name, ';');
    for (size_t i = 0; i < file->n; i++) {
        const char *there = file->items[i] + strspn(file->items[i], " ");
        AUTO(str_list) struct str_list values = {0};
        size_t met = 0;

        if (strncmp(there, line, name) != 0)
            continue;
        str_list_split(&values, there + name, ';');
        for (size_t w = 0; w < wanted.n; w++)
            for (size_t v = 0; v < values.n; v++)
                met += same_value(wanted.items[w], values.items[v]);
        return met == wanted.n;
    }
    return false;
}

static int compare(int group, const struct str_list *lines, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(64 * BOUND_KIB);
    AUTO(str_list) struct str_list file = {0};
    char shown[STR_SHOW_MAX];

    if (fd_read_file_at(group, "schemata", &text, e) < 0)
        return err_wrap(e, "linux.intelRdt");
    str_list_split(&file, str_text(&text), '\n');
    for (size_t i = 0; i < lines->n; i++)
        if (!is_in_force(lines->items[i], &file))
            return err_set(e, ERR_USER,
                           "linux.intelRdt: the group is there, and its schemata are not \"%s\"",
                           str_show(shown, lines->items[i]));
    return 0;
}

static int write_lines(int group, const struct str_list *lines, struct err *e)
{
    for (size_t i = 0; i < lines->n; i++) {
        AUTO_FREE char *line = mem_printf("%s\n", lines->items[i]);
        char shown[STR_SHOW_MAX];

        if (fd_write_file_at(group, "schemata", line, e) < 0)
            return err_wrap(e, "linux.intelRdt: schemata \"%s\"", str_show(shown, lines->items[i]));
    }
    return 0;
}

/* The group's directory; *ret_made: it was not there. */
static int open_group(int root, const struct ctr_rdt *r, const char *id, bool *ret_made,
                      struct err *e)
{
    const char *name = group_of(r, id);

    *ret_made = false;
    if ((!r->clos_id || has_schemata(r)) && mkdirat(root, name, 0755) == 0)
        *ret_made = true;
    else if ((!r->clos_id || has_schemata(r)) && errno != EEXIST)
        return err_sys(e, "linux.intelRdt: make group %s%s", name,
                       errno == ENOSPC ? " (the processor has no more of them)" : "");
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? err_sys(e, "linux.intelRdt: group %s", name) : fd;
}

static int fill(int group, const struct ctr_rdt *r, const char *id, bool made, pid_t pid,
                struct err *e)
{
    AUTO(str_list) struct str_list older = {0};

    add_older(r, &older);
    if (!made && r->clos_id && compare(group, &older, e) < 0)
        return -1;
    if (write_lines(group, &older, e) < 0 || write_lines(group, &r->schemata, e) < 0 ||
        write_pid(group, "tasks", pid, e) < 0)
        return -1;
    if (!r->monitoring)
        return 0;
    AUTO_FREE char *dir = mem_printf("mon_groups/%s", id), *tasks = mem_printf("%s/tasks", dir);

    if (mkdirat(group, dir, 0755) < 0 && errno != EEXIST)
        return err_sys(e, "linux.intelRdt: make %s", dir);
    return write_pid(group, tasks, pid, e);
}

int rdt_place(const char *root, const struct ctr_rdt *r, const char *id, pid_t pid, struct err *e)
{
    bool made = false;

    if (!r->set)
        return 0;
    AUTO_CLOSE int top = open_root(root, e);
    AUTO_CLOSE int group = top < 0 ? -1 : open_group(top, r, id, &made, e);

    if (group < 0)
        return -1;
    if (fill(group, r, id, made, pid, e) == 0)
        return 0;
    rdt_remove(root, r, id);
    if (made)
        unlinkat(top, group_of(r, id), AT_REMOVEDIR);
    return -1;
}

int rdt_join(const char *root, const struct ctr_rdt *r, const char *id, pid_t pid, struct err *e)
{
    if (!r->set)
        return 0;
    AUTO_FREE char *mon = mem_printf("%s/mon_groups/%s/tasks", group_of(r, id), id),
                   *tasks = mem_printf("%s/tasks", group_of(r, id));
    AUTO_CLOSE int top = open_root(root, e);

    if (top < 0 || write_pid(top, tasks, pid, e) < 0)
        return -1;
    return r->monitoring ? write_pid(top, mon, pid, e) : 0;
}

void rdt_remove(const char *root, const struct ctr_rdt *r, const char *id)
{
    struct err ignored = ERR_INIT;
    AUTO_CLOSE int top = r->set ? open_root(root, &ignored) : -1;
    AUTO_FREE char *mon = mem_printf("%s/mon_groups/%s", group_of(r, id), id);

    if (top < 0)
        return;
    if (r->monitoring)
        unlinkat(top, mon, AT_REMOVEDIR);
    if (!r->clos_id)
        unlinkat(top, id, AT_REMOVEDIR);
}
