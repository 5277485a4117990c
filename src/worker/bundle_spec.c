#include "worker/bundle_spec.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "oci/image.h"
#include "runtime/spec.h"
#include "worker/run.h"

/* MAX_ARG_STRLEN of the kernel (32 pages): one argument with its NUL. */
#define ARGUMENT_MAX (128 * 1024)

void dep_places_free(struct dep_place *places, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(places[i].key);
        free(places[i].source);
        free(places[i].link);
    }
    free(places);
}

char *dep_place_target(const struct dep_place *p, const char *uuid, bool shared_fs)
{
    if (!p->source)
        return NULL;
    if (p->key[0] == '/')
        return mem_strdup(p->key);
    return mem_printf(shared_fs ? "/%s/%s" : "/%s_dependencies/%s", uuid, p->key);
}

char *dep_place_link(const struct dep_place *p, const char *uuid, bool shared_fs)
{
    if (p->key[0] == '/' || (shared_fs && p->source))
        return NULL;
    return p->source ? mem_printf("/%s_dependencies/%s", uuid, p->key) : mem_strdup(p->link);
}

static int compare_keys(const void *a, const void *b)
{
    const struct dep_place *const *x = a, *const *y = b;
    const char *s = (*x)->key, *t = (*y)->key;

    /* '/' sorts before everything, so that what lies below a key follows it at once. */
    while (*s && *s == *t)
        s++, t++;
    return (*s == '/' ? 1 : (unsigned char)*s + (*s != 0)) -
           (*t == '/' ? 1 : (unsigned char)*t + (*t != 0));
}

int dep_places_check(const struct dep_place *places, size_t n, const char *uuid, struct err *e)
{
    AUTO_FREE const struct dep_place **sorted = mem_array(n + 1, sizeof(*sorted));

    for (size_t i = 0; i < n; i++)
        sorted[i] = &places[i];
    qsort(sorted, n, sizeof(*sorted), compare_keys);
    for (size_t i = 1; i < n; i++) {
        const char *a = sorted[i - 1]->key, *b = sorted[i]->key;
        char s1[STR_SHOW_MAX], s2[STR_SHOW_MAX];
        size_t len = strlen(a);

        if (strncmp(a, b, len) != 0)
            continue;
        if (b[len] == '\0')
            return err_set(e, ERR_USER, "[Errno 17] File exists: '/%s_dependencies/%s' -> '%s'",
                           uuid, str_show(s1, a), str_show(s2, b));
        if (b[len] == '/')
            return err_set(e, ERR_USER,
                           "[Errno 17] File exists: dependency key %s lies inside dependency %s",
                           str_show(s2, b), str_show(s1, a));
    }
    return 0;
}

char *bundle_spec_shell(const char *command)
{
    return mem_printf("( %s\n) >stdout 2>stderr", command);
}

void bundle_spec_hostname(const char *uuid, char ret[16])
{
    snprintf(ret, 16, "%.12s", uuid + 2);
}

static int set_process(struct ctr_process *p, const struct bundle_spec_in *in, struct err *e)
{
    const struct bundle *b = &in->run->bundle;
    AUTO_FREE char *home = mem_printf("/%s", b->uuid);
    AUTO_FREE char *shell = bundle_spec_shell(b->command);
    char hostname[16];

    if (strlen(shell) >= ARGUMENT_MAX)
        return err_set(e, ERR_USER, "the command is longer than the %d KiB the kernel takes",
                       ARGUMENT_MAX / 1024);
    str_list_add(&p->args, "/bin/bash");
    str_list_add(&p->args, "-c");
    str_list_add(&p->args, shell);
    bundle_spec_hostname(b->uuid, hostname);
    str_list_setenv(&p->env, "PATH",
                    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    str_list_setenv(&p->env, "HOSTNAME", hostname);
    for (size_t i = 0; i < in->image->env.n; i++) {
        AUTO_FREE char *name = mem_strdup(in->image->env.items[i]);
        char *equals = strchr(name, '=');

        if (!equals || equals == name)
            continue;
        *equals = '\0';
        str_list_setenv(&p->env, name, equals + 1);
    }
    str_list_setenv(&p->env, "HOME", home);
    str_list_setenv(&p->env, "CODALAB", "true");
    if (in->has_gpus) {
        AUTO_FREE char *gpus = str_list_join(&in->run->gpus, ",");
        str_list_setenv(&p->env, "NVIDIA_VISIBLE_DEVICES", gpus ? gpus : "");
    }
    mem_replace(&p->cwd, home);
    p->uid = in->uid;
    p->gid = in->gid;
    return 0;
}

static void add_bind(struct ctr_spec *s, const struct bundle_spec_in *in, const char *target,
                     const char *source, bool ro)
{
    struct ctr_mount *m = ctr_spec_add_mount(s, target, "bind", source,
                                             ro ? "bind,ro,nosuid,nodev" : "bind,rw,nosuid,nodev");

    /* Ids inside the run's range are the host's own on disk: nothing is chowned, results keep their owner (D81). */
    if (in->run->userns_first_id)
        str_list_add(&m->options, "idmap");
}

static void add_mounts(struct ctr_spec *s, const struct bundle_spec_in *in)
{
    const char *uuid = in->run->bundle.uuid;
    AUTO_FREE char *home = mem_printf("/%s", uuid);
    AUTO_FREE char *resolv = mem_printf("%s/resolv.conf", in->scratch);
    AUTO_FREE char *hosts = mem_printf("%s/hosts", in->scratch);

    add_bind(s, in, home, in->run->dir, false);
    for (size_t i = 0; i < in->n_places; i++) {
        AUTO_FREE char *target = dep_place_target(&in->places[i], uuid, in->shared_fs);
        if (target)
            add_bind(s, in, target, in->places[i].source, true);
    }
    /* Written when the addresses are known, after creation and before the start: same file, so it is seen. */
    add_bind(s, in, "/etc/resolv.conf", resolv, true);
    add_bind(s, in, "/etc/hosts", hosts, true);
}

static void set_resources(struct ctr_spec *s, const struct bundle_spec_in *in)
{
    struct ctr_resources *r = &s->resources;

    r->memory_limit = in->run->bundle.memory;
    r->memory_swap_limit = 0;
    r->pids_limit = in->pids_limit;
    mem_replace(&r->cpuset_cpus, in->run->cpus);
    mem_replace(&r->cpuset_mems, in->run->mems);
    mem_replace(&s->cgroups_path, in->cgroup);
}

int bundle_spec(const struct bundle_spec_in *in, struct ctr_spec **ret, struct err *e)
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    AUTO_FREE char *overlay = mem_printf("%s/overlay", in->scratch);
    AUTO_FREE char *name = mem_printf("codalab_run_%s", in->run->bundle.uuid);
    char hostname[16];

    if (dep_places_check(in->places, in->n_places, in->run->bundle.uuid, e) < 0)
        return -1;
    bundle_spec_hostname(in->run->bundle.uuid, hostname);
    mem_replace(&s->hostname, hostname);
    ctr_spec_isolate(s, in->shm_bytes, in->run->userns_first_id);
    if (set_process(&s->process, in, e) < 0)
        return -1;
    str_list_copy(&s->overlay_lower, in->lowerdirs);
    mem_replace(&s->overlay_dir, overlay);
    add_mounts(s, in);
    set_resources(s, in);
    s->init = true; /* reaps, and lets bash keep its default signals (D79) */
    ctr_spec_add_annotation(s, BUNDLE_ANNOTATION_OWNER, in->owner);
    ctr_spec_add_annotation(s, CTR_ANNOTATION "name", name);
    if (in->partial_cgroup)
        ctr_spec_add_annotation(s, CTR_ANNOTATION "cgroup.partial", "true");
    if (ctr_spec_validate(s, e) < 0)
        return -1;
    *ret = take_ptr(&s);
    return 0;
}
