#include "runtime/spec.h"

#include <cjson/cJSON.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/capability.h>

#include "base/err.h"
#include "base/mem.h"
#include "runtime/names.h"
#include "runtime/rdt.h"

/* --- memory ---------------------------------------------------------------------------------- */

struct ctr_spec *ctr_spec_new(void)
{
    struct ctr_spec *s = mem_new(struct ctr_spec);

    s->oci_version = mem_strdup("1.2.0");
    s->resources.memory_swap_limit = INT64_MIN;
    return s;
}

static void free_key_values(struct ctr_key_value *kv, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(kv[i].key);
        free(kv[i].value);
    }
    free(kv);
}

static void free_process(struct ctr_process *p)
{
    str_list_free(&p->args);
    str_list_free(&p->env);
    free(p->cwd);
    free(p->additional_gids);
    free(p->user_name);
    for (size_t i = 0; i < p->n_rlimits; i++)
        free(p->rlimits[i].type);
    free(p->rlimits);
    free(p->apparmor_profile);
    free(p->selinux_label);
    free(p->cpu_affinity_initial);
    free(p->cpu_affinity_final);
}

static void free_mounts(struct ctr_mount *m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(m[i].destination);
        free(m[i].type);
        free(m[i].source);
        str_list_free(&m[i].options);
        free(m[i].uid_maps.items);
        free(m[i].gid_maps.items);
    }
    free(m);
}

void ctr_spec_free(struct ctr_spec *s)
{
    if (!s)
        return;
    free_process(&s->process);
    free_mounts(s->mounts, s->n_mounts);
    str_list_free(&s->overlay_lower);
    str_list_free(&s->masked_paths);
    str_list_free(&s->readonly_paths);
    for (size_t i = 0; i < s->n_namespaces; i++) {
        free(s->namespaces[i].type);
        free(s->namespaces[i].path);
    }
    for (size_t i = 0; i < s->n_devices; i++)
        free(s->devices[i].path);
    for (size_t i = 0; i < s->n_net_devices; i++) {
        free(s->net_devices[i].host);
        free(s->net_devices[i].name);
    }
    free(s->net_devices);
    free_key_values(s->sysctl, s->n_sysctl);
    free_key_values(s->annotations, s->n_annotations);
    free_key_values(s->resources.unified, s->resources.n_unified);
    rdt_free(&s->rdt);
    cJSON_Delete(s->seccomp);
    cJSON_Delete(s->hooks);
    char *strings[] = {s->oci_version,
                       s->root_path,
                       s->overlay_dir,
                       s->hostname,
                       s->domainname,
                       s->mount_label,
                       s->cgroups_path,
                       s->rootfs_propagation,
                       s->resources.cpuset_cpus,
                       s->resources.cpuset_mems,
                       s->mem_policy.nodes};
    void *arrays[] = {s->namespaces,     s->devices,           s->uid_maps.items,
                      s->gid_maps.items, s->resources.devices, s};

    for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
        free(strings[i]);
    for (size_t i = 0; i < ARRAY_SIZE(arrays); i++)
        free(arrays[i]);
}

/* Room for one more; returns the zeroed new element. */
static void *grow(void *items_slot, size_t *n, size_t size)
{
    void **items = items_slot;

    *items = mem_realloc(*items, *n + 1, size);
    void *item = (char *)*items + (*n)++ * size;

    memset(item, 0, size);
    return item;
}

/* --- builders -------------------------------------------------------------------------------- */

struct ctr_mount *ctr_spec_add_mount(struct ctr_spec *s, const char *destination, const char *type,
                                     const char *source, const char *options_comma)
{
    struct ctr_mount *m = grow(&s->mounts, &s->n_mounts, sizeof(*m));

    m->destination = mem_strdup(destination);
    m->type = mem_strdup(type);
    m->source = mem_strdup(source);
    if (options_comma && *options_comma)
        str_list_split(&m->options, options_comma, ',');
    return m;
}

static void add_key_value(struct ctr_key_value **kv, size_t *n, const char *key, const char *value)
{
    struct ctr_key_value *item = grow(kv, n, sizeof(*item));

    item->key = mem_strdup(key);
    item->value = mem_strdup(value);
}

void ctr_spec_add_annotation(struct ctr_spec *s, const char *key, const char *value)
{
    for (size_t i = 0; i < s->n_annotations; i++) {
        if (strcmp(s->annotations[i].key, key) == 0) {
            mem_replace(&s->annotations[i].value, value);
            return;
        }
    }
    add_key_value(&s->annotations, &s->n_annotations, key, value);
}

const char *ctr_spec_annotation(const struct ctr_spec *s, const char *key)
{
    for (size_t i = 0; i < s->n_annotations; i++)
        if (strcmp(s->annotations[i].key, key) == 0)
            return s->annotations[i].value;
    return NULL;
}

int ctr_spec_namespace(const struct ctr_spec *s, const char *type, const char **ret_path)
{
    for (size_t i = 0; i < s->n_namespaces; i++) {
        if (strcmp(s->namespaces[i].type, type) != 0)
            continue;
        if (ret_path)
            *ret_path = s->namespaces[i].path;
        return s->namespaces[i].path ? 1 : 0;
    }
    return -1;
}

void ctr_spec_add_namespace(struct ctr_spec *s, const char *type, const char *path)
{
    struct ctr_namespace *ns = grow(&s->namespaces, &s->n_namespaces, sizeof(*ns));

    ns->type = mem_strdup(type);
    ns->path = mem_strdup(path);
}

void ctr_spec_remove_namespace(struct ctr_spec *s, const char *type)
{
    size_t kept = 0;

    for (size_t i = 0; i < s->n_namespaces; i++) {
        if (strcmp(s->namespaces[i].type, type) == 0) {
            free(s->namespaces[i].type);
            free(s->namespaces[i].path);
        } else {
            s->namespaces[kept++] = s->namespaces[i];
        }
    }
    s->n_namespaces = kept;
}

void ctr_spec_add_device(struct ctr_spec *s, const struct ctr_device *d)
{
    struct ctr_device *copy = grow(&s->devices, &s->n_devices, sizeof(*copy));

    *copy = *d;
    copy->path = mem_strdup(d->path);
}

void ctr_spec_add_rule(struct ctr_spec *s, bool allow, char type, int64_t major, int64_t minor,
                       const char *access)
{
    struct ctr_device_rule *r = grow(&s->resources.devices, &s->resources.n_devices, sizeof(*r));

    *r = (struct ctr_device_rule){.allow = allow, .type = type, .major = major, .minor = minor};
    snprintf(r->access, sizeof(r->access), "%s", access);
}

void ctr_spec_add_rlimit(struct ctr_spec *s, const char *type, uint64_t soft, uint64_t hard)
{
    struct ctr_rlimit *r = grow(&s->process.rlimits, &s->process.n_rlimits, sizeof(*r));

    *r = (struct ctr_rlimit){.type = mem_strdup(type), .soft = soft, .hard = hard};
}

void ctr_spec_add_idmap(struct ctr_idmaps *m, uint32_t container_id, uint32_t host_id,
                        uint32_t size)
{
    struct ctr_idmap *item = grow(&m->items, &m->n, sizeof(*item));

    *item = (struct ctr_idmap){container_id, host_id, size};
}

/* --- the defaults of a bundle ------------------------------------------------------------------ */

uint64_t ctr_spec_default_caps(bool user_namespace)
{
    static const uint8_t always[] = {
        CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,  CAP_FSETID,           CAP_KILL,
        CAP_SETGID, CAP_SETUID,       CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_SETFCAP,
    };
    /* Each reaches beyond the container where its root is the host's (S38). */
    static const uint8_t in_userns[] = {CAP_NET_RAW, CAP_MKNOD, CAP_AUDIT_WRITE, CAP_SYS_CHROOT};
    uint64_t mask = 0;

    for (size_t i = 0; i < ARRAY_SIZE(always); i++)
        mask |= 1ULL << always[i];
    for (size_t i = 0; user_namespace && i < ARRAY_SIZE(in_userns); i++)
        mask |= 1ULL << in_userns[i];
    return mask;
}

/* S36. */
static const char *const masked[] = {
    "/proc/acpi",
    "/proc/asound",
    "/proc/driver/nvidia", /* gpu.c takes this one back for a run that has some of its GPUs */
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/config.gz",
    "/proc/kallsyms",
    "/proc/kmsg",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/kpagecgroup",
    "/proc/vmallocinfo",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/sys/fs/bpf",
};
static const char *const read_only[] = {
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
};

static void standard_mounts(struct ctr_spec *s, uint64_t shm_bytes)
{
    char shm[64];

    snprintf(shm, sizeof(shm), "nosuid,nodev,noexec,mode=1777,size=%llu",
             (unsigned long long)shm_bytes);
    ctr_spec_add_mount(s, "/proc", "proc", "proc", "nosuid,nodev,noexec");
    ctr_spec_add_mount(s, "/dev", "tmpfs", "tmpfs",
                       "nosuid,noexec,strictatime,mode=755,size=65536k");
    ctr_spec_add_mount(s, "/dev/pts", "devpts", "devpts",
                       "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5");
    ctr_spec_add_mount(s, "/dev/shm", "tmpfs", "shm", shm);
    ctr_spec_add_mount(s, "/dev/mqueue", "mqueue", "mqueue", "nosuid,nodev,noexec");
    ctr_spec_add_mount(s, "/sys", "sysfs", "sysfs", "nosuid,nodev,noexec,ro");
    ctr_spec_add_mount(s, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,nodev,noexec,ro");
}

/* Raising a hard limit needs CAP_SYS_RESOURCE; where we lack it (a service inside a container) ours is the most. */
static void add_default_rlimit(struct ctr_spec *s, const char *type, uint64_t soft, uint64_t hard)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2] = {{0}};
    struct rlimit now;
    uint64_t resource = 0;

    if (name_lookup(ctr_names_rlimits, type, &resource) < 0 ||
        getrlimit((__rlimit_resource_t)resource, &now) < 0)
        return;
    bool may_raise =
        syscall(SYS_capget, &header, caps) == 0 && caps[0].effective >> CAP_SYS_RESOURCE & 1;

    if (!may_raise && hard > now.rlim_max)
        hard = now.rlim_max;
    ctr_spec_add_rlimit(s, type, soft < hard ? soft : hard, hard);
}

void ctr_spec_mask_thermal(struct ctr_spec *s, const char *sys)
{
    AUTO_FREE char *pattern = mem_printf("%s/devices/system/cpu/cpu[0-9]*/thermal_throttle", sys);
    glob_t found = {0};

    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++) {
            AUTO_FREE char *inside = mem_printf("/sys%s", found.gl_pathv[i] + strlen(sys));

            str_list_add(&s->masked_paths, inside);
        }
    globfree(&found);
}

void ctr_spec_isolate(struct ctr_spec *s, uint64_t shm_bytes, uint32_t userns_first_id)
{
    static const char *const namespaces[] = {"pid", "network", "ipc", "uts", "mount", "cgroup"};
    struct ctr_mount *extra = s->mounts;
    size_t n_extra = s->n_mounts;

    for (size_t i = 0; i < ARRAY_SIZE(namespaces); i++)
        if (ctr_spec_namespace(s, namespaces[i], NULL) < 0)
            ctr_spec_add_namespace(s, namespaces[i], NULL);
    if (userns_first_id) {
        ctr_spec_add_namespace(s, "user", NULL);
        ctr_spec_add_idmap(&s->uid_maps, 0, userns_first_id, 65536);
        ctr_spec_add_idmap(&s->gid_maps, 0, userns_first_id, 65536);
        s->userns_optional = true;
    }
    /* What the builder added already lies on top of the standard mounts. */
    s->mounts = NULL;
    s->n_mounts = 0;
    standard_mounts(s, shm_bytes);
    for (size_t i = 0; i < n_extra; i++)
        *(struct ctr_mount *)grow(&s->mounts, &s->n_mounts, sizeof(*extra)) = extra[i];
    free(extra);
    for (size_t i = 0; i < ARRAY_SIZE(masked); i++)
        str_list_add(&s->masked_paths, masked[i]);
    for (size_t i = 0; i < ARRAY_SIZE(read_only); i++)
        str_list_add(&s->readonly_paths, read_only[i]);

    uint64_t caps = ctr_spec_default_caps(userns_first_id != 0);

    s->process.caps = (struct ctr_caps){.bounding = caps, .effective = caps, .permitted = caps};
    s->process.has_caps = true;
    s->process.no_new_privileges = true;
    s->default_seccomp = true;
    add_default_rlimit(s, "RLIMIT_NOFILE", 1024, 1048576);
    add_default_rlimit(s, "RLIMIT_MEMLOCK", RLIM_INFINITY, RLIM_INFINITY);
    add_default_rlimit(s, "RLIMIT_CORE", 0, RLIM_INFINITY);
    s->has_process = true;
    if (!s->hostname)
        s->hostname = mem_strdup("cworker");
}

/* --- validation ------------------------------------------------------------------------------ */

/* Destinations below /proc that file systems such as lxcfs legitimately replace. */
static bool is_allowed_in_proc(const char *path)
{
    static const char *const allowed[] = {"/proc/cpuinfo",
                                          "/proc/diskstats",
                                          "/proc/meminfo",
                                          "/proc/stat",
                                          "/proc/swaps",
                                          "/proc/uptime",
                                          "/proc/loadavg",
                                          "/proc/slabinfo",
                                          "/proc/net/dev",
                                          "/proc/sys/kernel/ns_last_pid",
                                          "/proc/sys/fs/binfmt_misc"};

    for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
        if (strcmp(allowed[i], path) == 0)
            return true;
    return false;
}

static int validate_mount(const struct ctr_mount *m, size_t i, struct err *e)
{
    char shown[STR_SHOW_MAX];

    if (!m->destination || !*m->destination)
        return err_set(e, ERR_USER, "mounts[%zu].destination is missing", i);
    if (strlen(m->destination) >= 4096)
        return err_set(e, ERR_USER, "mounts[%zu].destination is longer than 4095 bytes", i);
    if (str_starts(m->destination, "/proc/") && !is_allowed_in_proc(m->destination))
        return err_set(e, ERR_USER,
                       "mounts[%zu].destination %s: nothing may be mounted below /proc", i,
                       str_show(shown, m->destination));
    bool is_bind = str_eq(m->type, "bind") || str_list_has(&m->options, "bind") ||
                   str_list_has(&m->options, "rbind");

    if (is_bind && !m->source)
        return err_set(e, ERR_USER, "mounts[%zu] (%s): a bind needs a source", i,
                       str_show(shown, m->destination));
    if (!is_bind && !m->type)
        return err_set(e, ERR_USER, "mounts[%zu] (%s): type is missing", i,
                       str_show(shown, m->destination));
    if (!m->uid_maps.n != !m->gid_maps.n)
        return err_set(e, ERR_USER, "mounts[%zu] (%s): uidMappings and gidMappings go together", i,
                       str_show(shown, m->destination));
    return 0;
}

static int validate_maps(const struct ctr_idmaps *m, const char *name, struct err *e)
{
    for (size_t i = 0; i < m->n; i++) {
        const struct ctr_idmap *a = &m->items[i];

        if (!a->size || (uint64_t)a->container_id + a->size > UINT32_MAX ||
            (uint64_t)a->host_id + a->size > UINT32_MAX)
            return err_set(e, ERR_USER, "linux.%s[%zu]: the range is empty or too large", name, i);
        for (size_t j = 0; j < i; j++) {
            const struct ctr_idmap *b = &m->items[j];

            if (a->container_id < b->container_id + b->size &&
                b->container_id < a->container_id + a->size)
                return err_set(e, ERR_USER, "linux.%s[%zu] overlaps with [%zu]", name, i, j);
        }
    }
    return m->n <= 340 ? 0 : err_set(e, ERR_USER, "linux.%s: more than 340 ranges", name);
}

static int validate_namespaces(const struct ctr_spec *s, struct err *e)
{
    char shown[STR_SHOW_MAX];
    uint64_t flag, seen = 0;

    for (size_t i = 0; i < s->n_namespaces; i++) {
        const struct ctr_namespace *ns = &s->namespaces[i];

        if (name_lookup(ctr_names_namespaces, ns->type, &flag) < 0)
            return err_set(e, ERR_USER, "linux.namespaces[%zu].type: unknown '%s'", i,
                           str_show(shown, ns->type));
        if (seen & flag)
            return err_set(e, ERR_USER, "linux.namespaces: '%s' twice", ns->type);
        if (ns->path && ns->path[0] != '/')
            return err_set(e, ERR_USER, "linux.namespaces[%zu].path is not absolute", i);
        seen |= flag;
    }
    if (ctr_spec_namespace(s, "mount", NULL) < 0 &&
        (s->overlay_lower.n || ctr_spec_namespace(s, "user", NULL) >= 0))
        return err_set(e, ERR_USER,
                       "linux.namespaces: layers or a user namespace need a mount namespace too");
    if (ctr_spec_namespace(s, "user", NULL) == 0 && (!s->uid_maps.n || !s->gid_maps.n))
        return err_set(e, ERR_USER,
                       "linux.uidMappings, gidMappings: a new user namespace needs both");
    if ((s->uid_maps.n || s->gid_maps.n) && ctr_spec_namespace(s, "user", NULL) < 0)
        return err_set(e, ERR_USER, "linux.uidMappings without a user namespace");
    if (s->n_net_devices && ctr_spec_namespace(s, "network", NULL) < 0)
        return err_set(e, ERR_USER, "linux.netDevices: needs a network namespace of its own");
    if (s->hostname && ctr_spec_namespace(s, "uts", NULL) < 0)
        return err_set(e, ERR_USER, "hostname: needs a uts namespace of its own");
    if (s->domainname && ctr_spec_namespace(s, "uts", NULL) < 0)
        return err_set(e, ERR_USER, "domainname: needs a uts namespace of its own");
    return validate_maps(&s->uid_maps, "uidMappings", e) < 0
               ? -1
               : validate_maps(&s->gid_maps, "gidMappings", e);
}

static int validate_process(const struct ctr_process *p, struct err *e)
{
    char shown[STR_SHOW_MAX];
    uint64_t ignored;

    if (!p->args.n || !*p->args.items[0])
        return err_set(e, ERR_USER, "process.args is empty");
    if (!p->cwd || p->cwd[0] != '/')
        return err_set(e, ERR_USER, "process.cwd must be an absolute path");
    for (size_t i = 0; i < p->env.n; i++)
        if (!strchr(p->env.items[i], '=') || p->env.items[i][0] == '=')
            return err_set(e, ERR_USER, "process.env[%zu]: '%s' is not NAME=value", i,
                           str_show(shown, p->env.items[i]));
    for (size_t i = 0; i < p->n_rlimits; i++) {
        const struct ctr_rlimit *r = &p->rlimits[i];

        if (!r->type || name_lookup(ctr_names_rlimits, r->type, &ignored) < 0)
            return err_set(e, ERR_USER, "process.rlimits[%zu].type: unknown '%s'", i,
                           str_show(shown, r->type ? r->type : ""));
        for (size_t j = 0; j < i; j++)
            if (strcmp(r->type, p->rlimits[j].type) == 0)
                return err_set(e, ERR_USER, "process.rlimits: %s twice", r->type);
        if (r->soft > r->hard)
            return err_set(e, ERR_USER, "process.rlimits: %s: soft is above hard", r->type);
    }
    return 0;
}

static int validate_sysctl(const struct ctr_spec *s, struct err *e)
{
    for (size_t i = 0; i < s->n_sysctl; i++) {
        const char *key = s->sysctl[i].key, *ns = NULL;
        char shown[STR_SHOW_MAX];

        if (str_starts(key, "net.") || str_starts(key, "net/"))
            ns = "network";
        else if (str_starts(key, "fs.mqueue.") || str_starts(key, "kernel.msg") ||
                 str_starts(key, "kernel.sem") || str_starts(key, "kernel.shm"))
            ns = "ipc";
        else if (str_eq(key, "kernel.hostname"))
            return err_set(e, ERR_USER, "linux.sysctl: kernel.hostname is the field hostname");
        else if (str_eq(key, "kernel.domainname"))
            ns = "uts";
        else if (str_starts(key, "user."))
            ns = "user";
        if (!ns || strstr(key, "..") || strlen(key) > 256)
            return err_set(e, ERR_USER,
                           "linux.sysctl: %s belongs to no namespace, it would change the host",
                           str_show(shown, key));
        if (ctr_spec_namespace(s, ns, NULL) < 0)
            return err_set(e, ERR_USER, "linux.sysctl: %s needs a %s namespace of its own",
                           str_show(shown, key), ns);
        if (str_eq(key, "kernel.domainname") && s->domainname &&
            !str_eq(s->sysctl[i].value, s->domainname))
            return err_set(e, ERR_USER,
                           "linux.sysctl: kernel.domainname contradicts the field domainname (%s)",
                           str_show(shown, s->domainname));
    }
    return 0;
}

static int validate_paths(const struct str_list *l, const char *name, struct err *e)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->items[i][0] != '/')
            return err_set(e, ERR_USER, "linux.%s[%zu] is not absolute", name, i);
    return 0;
}

int ctr_spec_validate(const struct ctr_spec *s, struct err *e)
{
    uint64_t ignored;

    if (!s->root_path && !s->overlay_lower.n)
        return err_set(e, ERR_USER, "root.path is missing");
    if (s->overlay_lower.n && !s->overlay_dir)
        return err_set(e, ERR_USER, "overlay layers without a directory for upper and work");
    for (size_t i = 0; i < s->n_mounts; i++)
        if (validate_mount(&s->mounts[i], i, e) < 0)
            return -1;
    for (size_t i = 0; i < s->n_devices; i++)
        if (!s->devices[i].path || s->devices[i].path[0] != '/' ||
            !strchr("cbup", s->devices[i].type))
            return err_set(e, ERR_USER,
                           "linux.devices[%zu]: path must be absolute, type one of c, b, u, p", i);
    if (s->rootfs_propagation &&
        name_lookup(ctr_names_propagation, s->rootfs_propagation, &ignored) < 0)
        return err_set(e, ERR_USER, "linux.rootfsPropagation: unknown value");
    if (validate_namespaces(s, e) < 0 || validate_sysctl(s, e) < 0 ||
        validate_paths(&s->masked_paths, "maskedPaths", e) < 0 ||
        validate_paths(&s->readonly_paths, "readonlyPaths", e) < 0)
        return -1;
    return s->has_process ? validate_process(&s->process, e) : 0;
}
