#include "runtime/cdi_edits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/path.h"
#include "runtime/elf.h"
#include "runtime/spec.h"

static bool is_mounted(const struct ctr_spec *s, const char *destination)
{
    for (size_t i = 0; i < s->n_mounts; i++)
        if (str_eq(s->mounts[i].destination, destination))
            return true;
    return false;
}

/* What the host's node is; its numbers must be those that the specification has, where it has any. */
static int look_at_node(const struct cdi_node *n, struct ctr_device *d, struct err *e)
{
    const char *host_path = n->host_path ? n->host_path : n->path;
    struct stat st;

    if (stat(host_path, &st) < 0) {
        err_sys(e, "device %s", host_path);
        e->kind = ERR_HOST;
        return -1;
    }
    if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode))
        return err_set(e, ERR_HOST, "%s is not a device", host_path);
    if ((n->major && n->major != major(st.st_rdev)) ||
        (n->major && n->minor != minor(st.st_rdev)) ||
        (n->type && *n->type && str_eq(n->type, "b") != S_ISBLK(st.st_mode)))
        return err_set(e, ERR_HOST, "%s is device %u:%u, not the %lld:%lld of the specification",
                       host_path, major(st.st_rdev), minor(st.st_rdev), (long long)n->major,
                       (long long)n->minor);
    *d = (struct ctr_device){.path = n->path,
                             .type = S_ISCHR(st.st_mode) ? 'c' : 'b',
                             .major = major(st.st_rdev),
                             .minor = minor(st.st_rdev),
                             .file_mode = n->file_mode ? n->file_mode & 0777 : 0666,
                             .uid = n->uid,
                             .gid = n->gid};
    return 0;
}

static int add_node(struct ctr_spec *s, const struct cdi_node *n, struct err *e)
{
    struct ctr_device d;

    if (look_at_node(n, &d, e) < 0)
        return -1;
    for (size_t i = 0; i < s->n_devices; i++)
        if (str_eq(s->devices[i].path, n->path))
            return 0;
    if (is_mounted(s, n->path))
        return 0;
    /* A device is looked for at its own path; one that lies elsewhere on the host is bound from there. */
    if (n->host_path && !str_eq(n->host_path, n->path))
        ctr_spec_add_mount(s, n->path, "bind", n->host_path, "bind,nosuid,noexec");
    else
        ctr_spec_add_device(s, &d);
    ctr_spec_add_rule(s, true, d.type, d.major, d.minor, n->permissions ? n->permissions : "rwm");
    return 0;
}

int cdi_edits_node(struct ctr_spec *s, const char *path, const char *host_path, const char *access,
                   struct err *e)
{
    const struct cdi_node n = {
        .path = (char *)path, .host_path = (char *)host_path, .permissions = (char *)access};

    return add_node(s, &n, e);
}

int cdi_edits_bind(struct ctr_spec *s, const char *host_path, const char *container_path,
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
    /* A service of the host behind it (persistence daemon, MPS) is not the run's to talk to (S52). */
    if (S_ISSOCK(st.st_mode) || is_mounted(s, container_path))
        return 0;
    ctr_spec_add_mount(s, container_path, "bind", host_path,
                       S_ISDIR(st.st_mode) ? "rbind,ro,nosuid,nodev" : "bind,ro,nosuid,nodev");
    return 0;
}

static int add_mount(struct ctr_spec *s, const struct cdi_mount *m, struct err *e)
{
    if (!m->type || !*m->type || str_eq(m->type, "bind") || str_eq(m->type, "none"))
        return cdi_edits_bind(s, m->host_path, m->container_path, e);
    if (!str_eq(m->type, "tmpfs") || m->container_path[0] != '/')
        return err_set(e, ERR_HOST, "mount %s: type \"%.32s\" is not taken", m->container_path,
                       m->type);
    if (!is_mounted(s, m->container_path))
        ctr_spec_add_mount(s, m->container_path, "tmpfs", "tmpfs",
                           "nosuid,nodev,noexec,size=64m,mode=755");
    return 0;
}

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash && slash != path ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup("/");
}

int cdi_edits_library(struct ctr_spec *s, const char *host_path, const char *container_path,
                      struct str_list *libs, struct err *e)
{
    AUTO_FREE char *directory = directory_of(container_path), *soname = NULL;

    if (cdi_edits_bind(s, host_path, container_path, e) < 0)
        return -1;
    if (elf_soname(host_path, &soname, e) < 0)
        return -1;
    if (!soname)
        return 0;
    AUTO_FREE char *name = mem_printf("%s/%s", directory, soname);
    AUTO_FREE char *entry = mem_printf("%s=%s", soname, name);

    if (!str_list_has(libs, entry))
        str_list_add(libs, entry);
    return cdi_edits_bind(s, host_path, name, e);
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
                cdi_edits_bind(s, d->mounts[m].host_path, pair.items[2], e) < 0)
                return -1;
    }
    return 0;
}

/* "--folder dir": the mounted libraries that lie there are to be found by name. */
static int update_cache(const struct cdi_edits *d, const struct str_list *args, struct ctr_spec *s,
                        struct str_list *libs, struct err *e)
{
    for (size_t i = 0; i + 1 < args->n; i++) {
        if (!str_eq(args->items[i], "--folder"))
            continue;
        const char *folder = args->items[++i];

        for (size_t m = 0; m < d->n_mounts; m++) {
            AUTO_FREE char *directory = directory_of(d->mounts[m].container_path);

            if (str_eq(directory, folder) && strstr(d->mounts[m].container_path, ".so") &&
                cdi_edits_library(s, d->mounts[m].host_path, d->mounts[m].container_path, libs, e) <
                    0)
                return -1;
        }
    }
    return 0;
}

static int apply_hook(const struct cdi_edits *d, const struct cdi_hook *h, struct ctr_spec *s,
                      struct str_list *libs, struct err *e)
{
    static const char *const not_needed[] = {"chmod", "disable-device-node-modification",
                                             "enable-cuda-compat"};

    /* args: program name, [command "hook"], verb, its arguments: the verb is the first word that we know */
    for (size_t i = 0; i < h->args.n; i++) {
        if (str_eq(h->args.items[i], "create-symlinks"))
            return make_links(d, &h->args, s, e);
        if (str_eq(h->args.items[i], "update-ldcache"))
            return update_cache(d, &h->args, s, libs, e);
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

static int set_environment(const struct cdi_edits *d, struct ctr_spec *s, struct err *e)
{
    for (size_t i = 0; i < d->env.n; i++) {
        AUTO_FREE char *name = mem_strdup(d->env.items[i]);
        char *equals = strchr(name, '=');

        if (!equals || equals == name)
            return err_set(e, ERR_HOST, "env \"%.60s\" is not NAME=VALUE", name);
        *equals = '\0';
        str_list_setenv(&s->process.env, name, equals + 1);
    }
    return 0;
}

int cdi_edits_apply(const struct cdi_edits *d, struct ctr_spec *s, struct str_list *libs,
                    struct err *e)
{
    if (d->intel_rdt || d->net_devices)
        return err_set(e, ERR_HOST, "%s is not an edit that bundles get",
                       d->intel_rdt ? "intelRdt" : "netDevices");
    if (set_environment(d, s, e) < 0)
        return -1;
    for (size_t i = 0; i < d->n_nodes; i++)
        if (add_node(s, &d->nodes[i], e) < 0)
            return -1;
    for (size_t i = 0; i < d->n_mounts; i++)
        if (add_mount(s, &d->mounts[i], e) < 0)
            return -1;
    for (size_t i = 0; i < d->n_hooks; i++)
        if (apply_hook(d, &d->hooks[i], s, libs, e) < 0)
            return -1;
    add_gids(d->gids, &s->process);
    return 0;
}

/* A library of the driver that carries another version in its name than the driver that runs. */
static bool is_other_version(const char *path, const char *version)
{
    const char *at = strstr(path, "/libcuda.so.");
    const char *digits = at ? at + strlen("/libcuda.so.") : "";

    return strchr(digits, '.') && !str_eq(digits, version);
}

int cdi_edits_check(const struct cdi_edits *d, const char *version, struct err *e)
{
    struct ctr_device ignored;

    for (size_t i = 0; i < d->n_nodes; i++)
        if (look_at_node(&d->nodes[i], &ignored, e) < 0)
            return -1;
    for (size_t i = 0; i < d->n_mounts; i++) {
        const struct cdi_mount *m = &d->mounts[i];

        if ((!m->type || !str_eq(m->type, "tmpfs")) && access(m->host_path, F_OK) < 0)
            return err_set(e, ERR_HOST, "%s is not on this host any more", m->host_path);
        if (version && is_other_version(m->host_path, version))
            return err_set(e, ERR_HOST, "it names %s, but driver %s is loaded", m->host_path,
                           version);
    }
    return 0;
}
