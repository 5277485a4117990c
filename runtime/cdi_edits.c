#include "runtime/cdi_edits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/path.h"
#include "runtime/elf.h"
#include "runtime/spec.h"

int cdi_edits_node(struct ctr_spec *s, const char *path, const char *host_path, const char *access,
                   struct err *e)
{
    struct ctr_device d = {.path = (char *)path, .file_mode = 0666};
    struct stat st;

    if (stat(host_path, &st) < 0) {
        err_sys(e, "device %s", host_path);
        e->kind = ERR_HOST;
        return -1;
    }
    if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode))
        return err_set(e, ERR_HOST, "%s is not a device", host_path);
    d.type = S_ISCHR(st.st_mode) ? 'c' : 'b';
    d.major = major(st.st_rdev);
    d.minor = minor(st.st_rdev);
    for (size_t i = 0; i < s->n_devices; i++)
        if (str_eq(s->devices[i].path, path))
            return 0;
    ctr_spec_add_device(s, &d);
    ctr_spec_add_rule(s, true, d.type, d.major, d.minor, access);
    return 0;
}

static bool is_mounted(const struct ctr_spec *s, const char *destination)
{
    for (size_t i = 0; i < s->n_mounts; i++)
        if (str_eq(s->mounts[i].destination, destination))
            return true;
    return false;
}

/* The host's file, read-only; the same place twice is once. */
static int bind_file(struct ctr_spec *s, const char *host_path, const char *container_path,
                     struct err *e)
{
    struct stat st;

    if (container_path[0] != '/' || host_path[0] != '/')
        return err_set(e, ERR_HOST, "mount %s: absolute paths are expected", container_path);
    if (stat(host_path, &st) < 0) {
        err_sys(e, "%s (is the specification older than the driver?)", host_path);
        e->kind = ERR_HOST;
        return -1;
    }
    if (!is_mounted(s, container_path))
        ctr_spec_add_mount(s, container_path, "bind", host_path,
                           S_ISDIR(st.st_mode) ? "rbind,ro,nosuid,nodev" : "bind,ro,nosuid,nodev");
    return 0;
}

static void add_library_path(struct ctr_spec *s, const char *directory)
{
    AUTO(str_list) struct str_list parts = {0};
    const char *old = str_list_getenv(&s->process.env, "LD_LIBRARY_PATH");

    if (old && *old)
        str_list_split(&parts, old, ':');
    if (str_list_has(&parts, directory))
        return;
    str_list_add(&parts, directory);
    AUTO_FREE char *joined = str_list_join(&parts, ":");

    str_list_setenv(&s->process.env, "LD_LIBRARY_PATH", joined);
}

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash && slash != path ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup("/");
}

int cdi_edits_library(struct ctr_spec *s, const char *host_path, const char *container_path,
                      struct err *e)
{
    AUTO_FREE char *directory = directory_of(container_path), *soname = NULL;

    if (bind_file(s, host_path, container_path, e) < 0)
        return -1;
    if (elf_soname(host_path, &soname, e) < 0)
        return -1;
    if (soname) {
        AUTO_FREE char *name = mem_printf("%s/%s", directory, soname);

        if (bind_file(s, host_path, name, e) < 0)
            return -1;
    }
    add_library_path(s, directory);
    return 0;
}

/* Where a link's text leads, seen from the link. */
static char *link_target(const char *text, const char *link)
{
    AUTO_FREE char *directory = directory_of(link);
    AUTO_FREE char *whole =
        text[0] == '/' ? mem_strdup(text) : mem_printf("%s/%s", directory, text);
    AUTO_FREE char *plain = path_normalize(whole);

    return plain ? mem_printf("/%s", plain) : NULL;
}

/* "--link target::path" pairs: the file that is mounted at the target is mounted at the link's place too. */
static int make_links(const struct cdi_edits *d, const struct str_list *args, struct ctr_spec *s,
                      struct err *e)
{
    for (size_t i = 0; i + 1 < args->n; i++) {
        if (!str_eq(args->items[i], "--link"))
            continue;
        AUTO(str_list) struct str_list pair = {0};

        str_list_split(&pair, args->items[++i], ':');
        if (pair.n != 3 || *pair.items[1])
            return err_set(e, ERR_HOST, "hook create-symlinks: \"%.100s\" is not target::link",
                           args->items[i]);
        AUTO_FREE char *target = link_target(pair.items[0], pair.items[2]);

        for (size_t m = 0; target && m < d->n_mounts; m++)
            if (str_eq(d->mounts[m].container_path, target) &&
                bind_file(s, d->mounts[m].host_path, pair.items[2], e) < 0)
                return -1;
    }
    return 0;
}

static int update_cache(const struct cdi_edits *d, const struct str_list *args, struct ctr_spec *s,
                        struct err *e)
{
    for (size_t i = 0; i + 1 < args->n; i++) {
        if (!str_eq(args->items[i], "--folder"))
            continue;
        const char *folder = args->items[++i];

        for (size_t m = 0; m < d->n_mounts; m++) {
            AUTO_FREE char *directory = directory_of(d->mounts[m].container_path);

            if (str_eq(directory, folder) && strstr(d->mounts[m].container_path, ".so") &&
                cdi_edits_library(s, d->mounts[m].host_path, d->mounts[m].container_path, e) < 0)
                return -1;
        }
    }
    return 0;
}

static int apply_hook(const struct cdi_edits *d, const struct cdi_hook *h, struct ctr_spec *s,
                      struct err *e)
{
    static const char *const not_needed[] = {"chmod", "disable-device-node-modification",
                                             "enable-cuda-compat"};

    /* args: program name, [command "hook"], verb, its arguments: the verb is the first word that we know */
    for (size_t i = 0; i < h->args.n; i++) {
        if (str_eq(h->args.items[i], "create-symlinks"))
            return make_links(d, &h->args, s, e);
        if (str_eq(h->args.items[i], "update-ldcache"))
            return update_cache(d, &h->args, s, e);
        for (size_t k = 0; k < ARRAY_SIZE(not_needed); k++)
            if (str_eq(h->args.items[i], not_needed[k]))
                return 0;
    }
    return err_set(
        e, ERR_HOST,
        "hook %s (%s) is not one whose effect is known; no hook is executed for a bundle", h->path,
        h->name);
}

static void add_gids(const cJSON *gids, struct ctr_process *p)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, gids) {
        if (!cJSON_IsNumber(item) || item->valuedouble <= 0 || item->valuedouble >= UINT32_MAX)
            continue;
        p->additional_gids =
            mem_realloc(p->additional_gids, p->n_additional_gids + 1, sizeof(uint32_t));
        p->additional_gids[p->n_additional_gids++] = (uint32_t)item->valuedouble;
    }
}

int cdi_edits_apply(const struct cdi_edits *d, struct ctr_spec *s, struct err *e)
{
    for (size_t i = 0; i < d->env.n; i++) {
        AUTO_FREE char *name = mem_strdup(d->env.items[i]);
        char *equals = strchr(name, '=');

        if (!equals)
            return err_set(e, ERR_HOST, "env \"%.60s\" is not NAME=VALUE", name);
        *equals = '\0';
        str_list_setenv(&s->process.env, name, equals + 1);
    }
    for (size_t i = 0; i < d->n_nodes; i++) {
        const struct cdi_node *n = &d->nodes[i];

        if (cdi_edits_node(s, n->path, n->host_path ? n->host_path : n->path,
                           n->permissions ? n->permissions : "rwm", e) < 0)
            return -1;
    }
    for (size_t i = 0; i < d->n_mounts; i++)
        if (bind_file(s, d->mounts[i].host_path, d->mounts[i].container_path, e) < 0)
            return -1;
    for (size_t i = 0; i < d->n_hooks; i++)
        if (apply_hook(d, &d->hooks[i], s, e) < 0)
            return -1;
    add_gids(d->gids, &s->process);
    return 0;
}
