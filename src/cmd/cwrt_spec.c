/* spec, features: what a config.json may say. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/opt.h"
#include "cwrt.h"
#include "runtime/caps.h"
#include "runtime/names.h"
#include "runtime/seccomp.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"

struct spec_options {
    char *bundle;
    bool rootless;
};

/* What `runc spec` writes, with our masks. */
static struct ctr_spec *example(void)
{
    struct ctr_spec *s = ctr_spec_new();
    uint64_t caps =
        1ULL << 29 | 1ULL << 5 | 1ULL << 10; /* AUDIT_WRITE, KILL, NET_BIND_SERVICE, as runc's */

    s->hostname = mem_strdup("cwrt");
    s->root_path = mem_strdup("rootfs");
    s->root_readonly = true;
    ctr_spec_isolate(s, 64ULL << 20, 0);
    s->default_seccomp = false;
    s->process.caps = (struct ctr_caps){.bounding = caps, .effective = caps, .permitted = caps};
    s->process.terminal = true;
    s->process.cwd = mem_strdup("/");
    str_list_add(&s->process.args, "sh");
    str_list_add(&s->process.env,
                 "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    str_list_add(&s->process.env, "TERM=xterm");
    ctr_spec_add_rule(s, false, 'a', -1, -1, "rwm");
    return s;
}

/* What a user without rights can have: no network of its own, /sys as it is. */
static void make_rootless(struct ctr_spec *s)
{
    ctr_spec_remove_namespace(s, "network");
    ctr_spec_add_namespace(s, "user", NULL);
    ctr_spec_add_idmap(&s->uid_maps, 0, geteuid(), 1);
    ctr_spec_add_idmap(&s->gid_maps, 0, getegid(), 1);
    for (size_t i = 0; i < s->n_mounts; i++) {
        struct ctr_mount *m = &s->mounts[i];

        for (size_t k = m->options.n; str_eq(m->type, "devpts") && k-- > 0;)
            if (str_starts(m->options.items[k], "gid="))
                mem_replace(&m->options.items[k], "defaults");
        if (!str_eq(m->type, "sysfs"))
            continue;
        mem_replace(&m->type, "bind");
        mem_replace(&m->source, "/sys");
        str_list_add(&m->options, "rbind");
    }
}

static int write_spec(const char *bundle, bool rootless, struct err *e)
{
    AUTO(ctr_spec) struct ctr_spec *s = example();

    if (rootless)
        make_rootless(s);
    AUTO_FREE char *compact = ctr_spec_to_json(s);
    AUTO(cJSON) cJSON *doc = cJSON_Parse(compact);
    AUTO_CLOSE int dir = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int fd =
        dir < 0 ? -1 : openat(dir, "config.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

    if (fd < 0)
        return errno == EEXIST ? err_set(e, ERR_USER, "file config.json exists. Remove it first")
                               : err_sys(e, "config.json in %s", bundle);
    char *text = cJSON_Print(doc);
    int r = fd_write_all(fd, text, strlen(text)) < 0 ? err_sys(e, "write config.json") : 0;

    cJSON_free(text);
    return r;
}

int cwrt_spec(int argc, char **argv, struct err *e)
{
    static const struct opt table[] = {OPT_ROW(struct spec_options, bundle, "bundle", 'b', OPT_STR,
                                               "DIR", ".", "where to write config.json"),
                                       OPT_ROW(struct spec_options, rootless, "rootless", 0,
                                               OPT_FLAG, NULL, NULL,
                                               "with a user namespace that has our own ids only"),
                                       {0}};
    struct spec_options o = {0};
    AUTO(str_list) struct str_list words = {0};
    int r = cwrt_flags(table, argc, argv, &o, &words, 0, 0, "cwrt spec [flags]", e);

    if (r == 0)
        r = write_spec(o.bundle, o.rootless, e);
    opt_free(table, &o);
    return r < 0 ? -1 : 0;
}

static void add_names(cJSON *o, const char *key, const struct name_value *table)
{
    AUTO(str_list) struct str_list names = {0};

    for (; table->name; table++)
        str_list_add(&names, table->name);
    json_add_str_list(o, key, &names);
}

static void add_texts(cJSON *o, const char *key, const char *const *texts)
{
    AUTO(str_list) struct str_list names = {0};

    for (; *texts; texts++)
        str_list_add(&names, *texts);
    json_add_str_list(o, key, &names);
}

static void add_enabled(cJSON *o, const char *key, bool enabled)
{
    json_add_bool(json_add_object(o, key), "enabled", enabled);
}

static void add_linux(cJSON *top)
{
    cJSON *o = json_add_object(top, "linux"), *cgroup, *seccomp, *ext, *memory;

    add_names(o, "namespaces", ctr_names_namespaces);
    add_names(o, "capabilities", ctr_names_capabilities);
    cgroup = json_add_object(o, "cgroup");
    json_add_bool(cgroup, "v1", false);
    json_add_bool(cgroup, "v2", true);
    json_add_bool(cgroup, "systemd", false);
    json_add_bool(cgroup, "systemdUser", false);
    json_add_bool(cgroup, "rdma", true);
    seccomp = json_add_object(o, "seccomp");
    json_add_bool(seccomp, "enabled", true);
    add_texts(seccomp, "actions", ctr_seccomp_actions);
    add_texts(seccomp, "operators", ctr_seccomp_operators);
    add_texts(seccomp, "archs", ctr_seccomp_archs);
    add_texts(seccomp, "knownFlags", ctr_seccomp_flags);
    add_texts(seccomp, "supportedFlags", ctr_seccomp_flags);
    add_enabled(o, "apparmor", true);
    add_enabled(o, "selinux", true);
    add_enabled(o, "intelRdt", true);
    add_enabled(o, "netDevices", true);
    memory = json_add_object(o, "memoryPolicy");
    add_names(memory, "modes", ctr_names_mem_policies);
    add_names(memory, "flags", ctr_names_mem_policy_flags);
    ext = json_add_object(o, "mountExtensions");
    add_enabled(ext, "idmap", true);
}

int cwrt_features(int argc, char **argv, struct err *e)
{
    static const struct opt none[] = {{0}};
    AUTO(str_list) struct str_list words = {0}, options = {0}, unsafe = {0};
    int r = cwrt_flags(none, argc, argv, NULL, &words, 0, 0, "cwrt features", e);

    if (r != 0)
        return r < 0 ? -1 : 0;
    AUTO(cJSON) cJSON *top = cJSON_CreateObject();

    json_add_str(top, "ociVersionMin", "1.0.0");
    json_add_str(top, "ociVersionMax", "1.3.0");
    add_texts(top, "hooks", ctr_names_hooks);
    for (const struct mount_option *o = ctr_names_mount_options; o->name; o++)
        str_list_add(&options, o->name);
    json_add_str_list(top, "mountOptions", &options);
    add_linux(top);
    str_list_add(&unsafe, CTR_ANNOTATION);
    json_add_str_list(top, "potentiallyUnsafeConfigAnnotations", &unsafe);
    json_add_str(json_add_object(top, "annotations"), CTR_ANNOTATION "version", CW_VERSION);
    char *text = cJSON_Print(top);

    printf("%s\n", text);
    cJSON_free(text);
    return 0;
}
