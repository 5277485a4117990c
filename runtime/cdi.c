#include "runtime/cdi.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "runtime/cdi_edits.h"
#include "runtime/cdi_yaml.h"
#include "runtime/spec.h"

enum { FILES_MAX = 64, FILE_MAX_BYTES = 4 << 20, DEVICES_MAX = 4096 };

static const struct json_field node_fields[] = {
    JSON_FIELD(struct cdi_node, path, "path", JSON_STR, JSON_REQUIRED, BOUND_PATH),
    JSON_FIELD(struct cdi_node, host_path, "hostPath", JSON_STR, 0, BOUND_PATH),
    JSON_FIELD(struct cdi_node, permissions, "permissions", JSON_STR, 0, 3),
    JSON_FIELD(struct cdi_node, type, "type", JSON_STR, 0, 1),
    JSON_FIELD(struct cdi_node, major, "major", JSON_I64, 0, 0),
    JSON_FIELD(struct cdi_node, minor, "minor", JSON_I64, 0, 0),
    JSON_FIELD(struct cdi_node, file_mode, "fileMode", JSON_I64, 0, 0),
    JSON_FIELD(struct cdi_node, uid, "uid", JSON_U32, 0, 0),
    JSON_FIELD(struct cdi_node, gid, "gid", JSON_U32, 0, 0),
    {0},
};
static const struct json_field mount_fields[] = {
    JSON_FIELD(struct cdi_mount, host_path, "hostPath", JSON_STR, JSON_REQUIRED, BOUND_PATH),
    JSON_FIELD(struct cdi_mount, container_path, "containerPath", JSON_STR, JSON_REQUIRED,
               BOUND_PATH),
    JSON_FIELD(struct cdi_mount, type, "type", JSON_STR, 0, 32),
    JSON_FIELD(struct cdi_mount, options, "options", JSON_STR_LIST, 0, 32),
    {0},
};
static const struct json_field hook_fields[] = {
    JSON_FIELD(struct cdi_hook, name, "hookName", JSON_STR, JSON_REQUIRED, 64),
    JSON_FIELD(struct cdi_hook, path, "path", JSON_STR, JSON_REQUIRED, BOUND_PATH),
    JSON_FIELD(struct cdi_hook, args, "args", JSON_STR_LIST, 0, 4096),
    {0},
};
static const struct json_field edit_fields[] = {
    JSON_FIELD(struct cdi_edits, env, "env", JSON_STR_LIST, 0, 1024),
    JSON_LIST(struct cdi_edits, nodes, n_nodes, "deviceNodes", node_fields, struct cdi_node, 0,
              1024),
    JSON_LIST(struct cdi_edits, mounts, n_mounts, "mounts", mount_fields, struct cdi_mount, 0,
              4096),
    JSON_LIST(struct cdi_edits, hooks, n_hooks, "hooks", hook_fields, struct cdi_hook, 0, 64),
    JSON_FIELD(struct cdi_edits, gids, "additionalGids", JSON_RAW, 0, 0),
    JSON_FIELD(struct cdi_edits, intel_rdt, "intelRdt", JSON_RAW, 0, 0),
    JSON_FIELD(struct cdi_edits, net_devices, "netDevices", JSON_RAW, 0, 0),
    {0},
};

struct device {
    char *name;
    struct cdi_edits edits;
};
static const struct json_field device_fields[] = {
    JSON_FIELD(struct device, name, "name", JSON_STR, JSON_REQUIRED, 128),
    JSON_SUB(struct device, edits, "containerEdits", edit_fields, 0),
    {0},
};

struct ctr_cdi {
    char *file, *version, *kind;
    struct device *devices;
    size_t n_devices;
    struct cdi_edits edits;
};
static const struct json_field cdi_fields[] = {
    JSON_FIELD(struct ctr_cdi, version, "cdiVersion", JSON_STR, JSON_REQUIRED, 32),
    JSON_FIELD(struct ctr_cdi, kind, "kind", JSON_STR, JSON_REQUIRED, 256),
    JSON_LIST(struct ctr_cdi, devices, n_devices, "devices", device_fields, struct device,
              JSON_REQUIRED, DEVICES_MAX),
    JSON_SUB(struct ctr_cdi, edits, "containerEdits", edit_fields, 0),
    {0},
};

void ctr_cdi_free(struct ctr_cdi *c)
{
    if (!c)
        return;
    json_free_fields(cdi_fields, c);
    free(c->file);
    free(c);
}

/* Nobody but root may decide what enters a container. */
static int check_owner(int fd, const char *what, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_sys(e, "stat %s", what);
    if (st.st_uid != 0 || st.st_mode & (S_IWGRP | S_IWOTH))
        return err_set(e, ERR_HOST, "%s is not root's alone: chown root and chmod go-w it", what);
    return 0;
}

static int read_file(int dirfd, const char *dir, const char *name, struct ctr_cdi **ret,
                     struct err *e)
{
    AUTO(ctr_cdi) struct ctr_cdi *c = mem_new(struct ctr_cdi);
    AUTO(cJSON) cJSON *v = NULL;
    AUTO(str) struct str text = STR_INIT(FILE_MAX_BYTES);
    AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    c->file = mem_printf("%s/%s", dir, name);
    if (fd < 0)
        return err_sys(e, "open %s", c->file);
    if (check_owner(fd, c->file, e) < 0 || fd_read_all(fd, &text, e) < 0)
        return -1;
    int rc = str_ends(name, ".json") ? json_parse(str_text(&text), text.len, &v, e)
                                     : cdi_yaml_parse(str_text(&text), text.len, &v, e);

    if (rc < 0 || json_read_fields(v, cdi_fields, c, e) < 0)
        return err_wrap(e, "%s", c->file);
    if (!str_starts(c->version, "0.") && !str_starts(c->version, "1."))
        return err_set(e, ERR_HOST, "%s: cdiVersion %.30s is not known", c->file, c->version);
    *ret = take_ptr(&c);
    return 0;
}

static bool is_spec_name(const char *name)
{
    return name[0] != '.' &&
           (str_ends(name, ".json") || str_ends(name, ".yaml") || str_ends(name, ".yml"));
}

/* The first specification of the kind in one directory, by name, so that the choice does not depend on readdir. */
static int load_directory(const char *path, const char *kind, struct ctr_cdi **ret, struct err *e)
{
    struct dirent **names = NULL;
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int n, rc = 0;

    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, "open %s", path);
    if (check_owner(fd, path, e) < 0)
        return -1;
    n = scandir(path, &names, NULL, alphasort);
    if (n < 0)
        return err_sys(e, "read %s", path);
    for (int i = 0; i < n; i++) {
        AUTO(ctr_cdi) struct ctr_cdi *c = NULL;

        if (rc == 0 && !*ret && is_spec_name(names[i]->d_name))
            rc = read_file(fd, path, names[i]->d_name, &c, e);
        if (c && str_eq(c->kind, kind))
            *ret = take_ptr(&c);
        free(names[i]);
    }
    free(names);
    return rc;
}

int ctr_cdi_load(const char *const *dirs, size_t n_dirs, const char *kind, struct ctr_cdi **ret,
                 struct err *e)
{
    AUTO(ctr_cdi) struct ctr_cdi *found = NULL;

    for (size_t i = n_dirs; i-- > 0 && !found;)
        if (load_directory(dirs[i], kind, &found, e) < 0)
            return err_wrap(e, "CDI");
    *ret = take_ptr(&found);
    return 0;
}

static const struct device *find(const struct ctr_cdi *c, const char *name)
{
    for (size_t i = 0; i < c->n_devices; i++)
        if (str_eq(c->devices[i].name, name))
            return &c->devices[i];
    return NULL;
}

bool ctr_cdi_has(const struct ctr_cdi *c, const char *device)
{
    return find(c, device);
}

const char *ctr_cdi_file(const struct ctr_cdi *c)
{
    return c->file;
}

int ctr_cdi_check(const struct ctr_cdi *c, const char *const *devices, size_t n,
                  const char *version, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct device *d = find(c, devices[i]);

        if (!d)
            return err_set(e, ERR_ABSENT, "%s has no device %s", c->file, devices[i]);
        if (cdi_edits_check(&d->edits, version, e) < 0)
            return err_wrap(e, "%s: %s", c->file, d->name);
    }
    return cdi_edits_check(&c->edits, version, e) < 0 ? err_wrap(e, "%s", c->file) : 0;
}

int ctr_cdi_apply(const struct ctr_cdi *c, const char *const *devices, size_t n, struct ctr_spec *s,
                  struct str_list *libs, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct device *d = find(c, devices[i]);

        if (!d)
            return err_set(e, ERR_ABSENT, "CDI: %s has no device %s", c->file, devices[i]);
        if (cdi_edits_apply(&d->edits, s, libs, e) < 0)
            return err_wrap(e, "CDI: %s: %s", c->file, d->name);
    }
    if (cdi_edits_apply(&c->edits, s, libs, e) < 0)
        return err_wrap(e, "CDI: %s", c->file);
    return 0;
}
