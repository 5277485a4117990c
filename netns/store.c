#include "netns/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/statefile.h"
#include "base/str.h"

#define SETTINGS   "network.json"
#define LEASE_END  ".lease"
#define ID_MAX     64
#define FILE_BYTES (256 * BOUND_KIB)

struct net_store {
    int dir, lock;
    char *path;
    uint64_t generation; /* as of our last unlock */
    bool seen;
};

static const struct json_field record_fields[] = {
    JSON_FIELD(struct net_record, run_id, "run_id", JSON_STR, JSON_REQUIRED, ID_MAX),
    JSON_FIELD(struct net_record, hostname, "hostname", JSON_STR, JSON_REQUIRED, 256),
    JSON_FIELD(struct net_record, slot, "slot", JSON_U32, JSON_REQUIRED, NET_SLOTS_MAX),
    JSON_FIELD(struct net_record, net_class, "class", JSON_U32, JSON_REQUIRED, NET_EXTERNAL),
    JSON_FIELD(struct net_record, resolv_conf, "resolv_conf", JSON_STR, JSON_REQUIRED,
               64 * BOUND_KIB),
    JSON_FIELD(struct net_record, hosts, "hosts", JSON_STR, JSON_REQUIRED, 64 * BOUND_KIB),
    {.name = NULL},
};

bool net_store_id_ok(const char *run_id)
{
    size_t n = strspn(run_id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");

    return n >= 1 && n <= ID_MAX && !run_id[n] && run_id[0] != '.';
}

int net_store_open(const char *dir, struct net_store **ret, struct err *e)
{
    AUTO(net_store) struct net_store *s = mem_new(struct net_store);

    s->dir = s->lock = -1;
    s->path = mem_strdup(dir);
    if (path_mkdirs(dir, 0700, e) < 0)
        return -1;
    s->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir < 0)
        return err_sys(e, "open %s", dir);
    s->lock = openat(s->dir, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (s->lock < 0)
        return err_sys(e, "open %s/lock", dir);
    *ret = take_ptr(&s);
    return 0;
}

void net_store_close(struct net_store *s)
{
    if (!s)
        return;
    close_fd(&s->dir);
    close_fd(&s->lock);
    free(s->path);
    free(s);
}

int net_store_lock(struct net_store *s, bool *ret_changed, struct err *e)
{
    uint64_t now = 0;

    while (flock(s->lock, LOCK_EX) < 0)
        if (errno != EINTR)
            return err_sys(e, "lock %s", s->path);
    if (pread(s->lock, &now, sizeof(now), 0) < 0)
        return err_sys(e, "read %s/lock", s->path);
    *ret_changed = !s->seen || now != s->generation;
    s->generation = now;
    s->seen = true;
    return 0;
}

void net_store_unlock(struct net_store *s, bool changed)
{
    uint64_t next = s->generation + 1;

    if (changed && pwrite(s->lock, &next, sizeof(next), 0) == (ssize_t)sizeof(next))
        s->generation = next;
    flock(s->lock, LOCK_UN);
}

static int read_json(struct net_store *s, const char *name, cJSON **ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(FILE_BYTES);

    if (statefile_read(s->dir, name, &text, e) < 0)
        return -1;
    return json_parse(str_text(&text), text.len, ret, e);
}

static void read_links(const cJSON *doc, const char *key, net_link_list ret)
{
    AUTO(str_list) struct str_list l = {0};
    struct err ignored = ERR_INIT;

    if (json_opt_str_list(doc, key, NET_WAYS_LINKS, NET_LINK_NAME - 1, &l, &ignored) < 0)
        return;
    for (size_t i = 0; i < l.n; i++)
        snprintf(ret[i], NET_LINK_NAME, "%s", l.items[i]);
}

static int read_settings(const cJSON *doc, struct net_settings *ret, struct err *e)
{
    const char *pool4, *pool6;

    if (json_get_str(doc, "pool4", NET_ADDR_TEXT - 1, &pool4, e) < 0 ||
        json_get_str(doc, "pool6", NET_ADDR_TEXT - 1, &pool6, e) < 0)
        return -1;
    snprintf(ret->pool4, sizeof(ret->pool4), "%s", pool4);
    snprintf(ret->pool6, sizeof(ret->pool6), "%s", pool6);
    read_links(doc, "opened4", ret->opened[0]);
    read_links(doc, "opened6", ret->opened[1]);
    return 0;
}

int net_store_settings(struct net_store *s, struct net_settings *ret, struct err *e)
{
    AUTO(cJSON) cJSON *doc = NULL;
    struct err mine = ERR_INIT;

    memset(ret, 0, sizeof(*ret));
    if (read_json(s, SETTINGS, &doc, &mine) == 0 && read_settings(doc, ret, &mine) == 0)
        return 0;
    memset(ret, 0, sizeof(*ret));
    return mine.kind == ERR_ABSENT ? 0 : statefile_set_aside(s->dir, SETTINGS, e);
}

static void add_links(cJSON *doc, const char *key, const net_link_list links)
{
    AUTO(str_list) struct str_list l = {0};

    for (size_t i = 0; i < NET_WAYS_LINKS && links[i][0]; i++)
        str_list_add(&l, links[i]);
    json_add_str_list(doc, key, &l);
}

int net_store_set(struct net_store *s, const struct net_settings *v, struct err *e)
{
    AUTO(cJSON) cJSON *doc = cJSON_CreateObject();

    json_add_str(doc, "pool4", v->pool4);
    json_add_str(doc, "pool6", v->pool6);
    add_links(doc, "opened4", v->opened[0]);
    add_links(doc, "opened6", v->opened[1]);
    AUTO_FREE char *text = json_text(doc);
    return statefile_replace(s->dir, SETTINGS, text, strlen(text), 0600, false, e);
}

void net_record_free(struct net_record *r)
{
    if (!r)
        return;
    json_free_fields(record_fields, r);
    free(r);
}

static void file_name(const char *run_id, char ret[ID_MAX + sizeof(LEASE_END)])
{
    BUG_ON(!net_store_id_ok(run_id));
    snprintf(ret, ID_MAX + sizeof(LEASE_END), "%.64s%s", run_id, LEASE_END);
}

int net_store_put(struct net_store *s, const struct net_record *r, struct err *e)
{
    AUTO(cJSON) cJSON *doc = json_write_fields(record_fields, r);
    AUTO_FREE char *text = json_text(doc);
    char name[ID_MAX + sizeof(LEASE_END)];

    file_name(r->run_id, name);
    /* not synced: links do not outlive the machine either */
    return statefile_replace(s->dir, name, text, strlen(text), 0600, false, e);
}

int net_store_drop(struct net_store *s, const char *run_id, struct err *e)
{
    char name[ID_MAX + sizeof(LEASE_END)];

    file_name(run_id, name);
    return statefile_remove(s->dir, name, false, e);
}

static int read_record(struct net_store *s, const char *name, struct net_record **ret,
                       struct err *e)
{
    AUTO(net_record) struct net_record *r = mem_new(struct net_record);
    AUTO(cJSON) cJSON *doc = NULL;

    if (read_json(s, name, &doc, e) < 0 || json_read_fields(doc, record_fields, r, e) < 0)
        return -1;
    *ret = take_ptr(&r);
    return 0;
}

int net_store_get(struct net_store *s, const char *run_id, struct net_record **ret, struct err *e)
{
    char name[ID_MAX + sizeof(LEASE_END)];

    file_name(run_id, name);
    if (read_record(s, name, ret, e) < 0)
        return err_wrap(e, "network lease of %s", run_id);
    return 0;
}

static int visit_file(struct net_store *s, const char *name, net_store_visit *fn, void *arg,
                      struct err *e)
{
    AUTO(net_record) struct net_record *r = NULL;
    char expected[ID_MAX + sizeof(LEASE_END)];
    struct err bad = ERR_INIT;

    if (read_record(s, name, &r, &bad) < 0 || !net_store_id_ok(r->run_id))
        return bad.kind == ERR_ABSENT ? 0 : statefile_set_aside(s->dir, name, e);
    file_name(r->run_id, expected);
    if (!str_eq(name, expected))
        return statefile_set_aside(s->dir, name, e);
    return fn(arg, r, e);
}

static void list_leases(struct net_store *s, struct str_list *ret)
{
    int fd = openat(s->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);

    if (!d && fd >= 0)
        close(fd);
    if (!d)
        return;
    for (struct dirent *ent = readdir(d); ent; ent = readdir(d))
        if (ent->d_name[0] != '.' && str_ends(ent->d_name, LEASE_END))
            str_list_add(ret, ent->d_name);
    closedir(d);
}

int net_store_each(struct net_store *s, net_store_visit *fn, void *arg, struct err *e)
{
    AUTO(str_list) struct str_list names = {0};

    statefile_sweep(s->dir);
    list_leases(s, &names);
    for (size_t i = 0; i < names.n; i++)
        if (visit_file(s, names.items[i], fn, arg, e) < 0)
            return -1;
    return 0;
}

void net_store_wipe(struct net_store *s)
{
    /* the lock stays: another process may be waiting for it */
    unlinkat(s->dir, SETTINGS, 0);
}
