#include "runtime/mounts.h"

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <linux/mount.h>

#include "base/err.h"
#include "base/mem.h"
#include "runtime/names.h"
#include "runtime/spec.h"

/* A mount's options, sorted by what they act on. */
struct options {
    bool bind, recursive, idmap, idmap_recursive, owner;
    uint64_t set, clear, rec_set, rec_clear, propagation;
    struct str data; /* "key\0value\0…" */
};

static void free_options(struct options *o)
{
    str_free(&o->data);
}
DEFINE_AUTO_VALUE(options, free_options)

enum { MOUNT_DATA_MAX = 65536 };

static void apply_attr(uint64_t *set, uint64_t *clear, const struct mount_option *o)
{
    *set = (*set & ~o->clear) | o->set;
    *clear = (*clear & ~o->set) | o->clear;
    /* The access-time field is cleared as a whole whenever one of its values is set. */
    if (o->set & MOUNT_ATTR__ATIME)
        *clear |= MOUNT_ATTR__ATIME;
}

static int add_data(struct options *o, const char *text, struct err *e)
{
    const char *equal = strchr(text, '=');
    size_t n = equal ? (size_t)(equal - text) : strlen(text);

    if (str_append(&o->data, text, n) < 0 || str_append(&o->data, "", 1) < 0 ||
        str_append_text(&o->data, equal ? equal + 1 : "") < 0 || str_append(&o->data, "", 1) < 0)
        return err_set(e, ERR_USER, "options are longer than %d bytes", MOUNT_DATA_MAX);
    return 0;
}

static int sort_option(struct options *ret, const char *text, struct err *e)
{
    const struct mount_option *o = ctr_names_mount_option(text);

    if (!o)
        return *text ? add_data(ret, text, e) : 0;
    switch (o->kind) {
    case MOUNT_OPT_ATTR: apply_attr(&ret->set, &ret->clear, o); break;
    case MOUNT_OPT_ATTR_REC: apply_attr(&ret->rec_set, &ret->rec_clear, o); break;
    case MOUNT_OPT_PROPAGATION: ret->propagation = o->set; break;
    case MOUNT_OPT_BIND: ret->bind = true, ret->recursive = o->set != 0; break;
    case MOUNT_OPT_SUPER: return add_data(ret, text, e);
    case MOUNT_OPT_IDMAP: ret->idmap = true, ret->idmap_recursive = o->set != 0; break;
    case MOUNT_OPT_OWNER: ret->idmap = ret->owner = true; break;
    /* copy-up and remount are operations of their own */
    case MOUNT_OPT_COPY_UP:
    case MOUNT_OPT_REMOUNT:
    case MOUNT_OPT_NONE: break;
    }
    return 0;
}

static int sort_options(const struct ctr_mount *m, struct options *ret, struct err *e)
{
    *ret = (struct options){.bind = str_eq(m->type, "bind"), .data = STR_INIT(MOUNT_DATA_MAX)};
    for (size_t i = 0; i < m->options.n; i++)
        if (sort_option(ret, m->options.items[i], e) < 0)
            return -1;
    bool remount = str_list_has(&m->options, "remount");

    if (str_list_has(&m->options, "tmpcopyup") && (ret->bind || !str_eq(m->type, "tmpfs")))
        return err_set(e, ERR_USER, "option tmpcopyup is for a tmpfs");
    if (m->uid_maps.n)
        ret->idmap = true;
    if (ret->idmap && (!ret->bind || remount))
        return err_set(e, ERR_USER, "ids can be mapped on a bind, not on a new file system");
    return 0;
}

const char *mounts_option_of_no_effect(const struct ctr_mount *m)
{
    AUTO(options) struct options o = {0};
    struct err judged = ERR_INIT;

    if (sort_options(m, &o, &judged) < 0 || !o.bind || str_list_has(&m->options, "remount"))
        return NULL;
    for (size_t i = 0; i < m->options.n; i++) {
        const struct mount_option *known = ctr_names_mount_option(m->options.items[i]);

        if (*m->options.items[i] && (!known || known->kind == MOUNT_OPT_SUPER))
            return m->options.items[i];
    }
    return NULL;
}

static int plan_bind(struct launch_plan *p, const struct ctr_mount *m, size_t i,
                     const struct options *o, bool userns)
{
    struct launch_slot slot = {
        .kind = SLOT_BIND,
        .source = plan_add_text(p, m->source),
        .recursive = o->recursive,
        .set = o->set,
        .clear = o->clear,
        .rec_set = o->rec_set,
        .rec_clear = o->rec_clear,
        .propagation = o->propagation ? o->propagation : MS_PRIVATE | MS_REC,
        .mount = i,
        .idmap_recursive = o->idmap_recursive,
    };

    if (o->idmap && m->uid_maps.n)
        slot.idmap = SLOT_MAP_MOUNT;
    else if (o->idmap && userns)
        slot.idmap = o->owner ? SLOT_MAP_OWNER : SLOT_MAP_CONTAINER;
    return plan_add_slot(p, &slot);
}

/* The kernel's name of a file system, and the strings for fsconfig(2). */
static int plan_new_fs(struct launch_plan *p, const struct ctr_mount *m, size_t i,
                       const struct options *o)
{
    struct launch_slot slot = {.kind = SLOT_FS, .mount = i, .propagation = o->propagation};
    const char *type = str_eq(m->type, "cgroup") ? "cgroup2" : m->type;
    uint64_t attrs = o->set | o->rec_set;
    uint32_t blob;
    int number = plan_add_slot(p, &slot);

    /* What is mounted beneath it, and device nodes, are made first: OP_SETATTR comes at the end. */
    if (str_eq(type, "tmpfs"))
        attrs &= ~(uint64_t)MOUNT_ATTR_RDONLY;
    blob = plan_add_text(p, type);
    if (m->source && *m->source && !str_eq(type, "cgroup2")) {
        plan_add_data(p, "source", sizeof("source"));
        plan_add_data(p, m->source, strlen(m->source) + 1);
    }
    if (o->data.len && !str_eq(type, "cgroup2"))
        plan_add_data(p, o->data.buf, o->data.len);
    plan_add_data(p, "", 1);
    plan_add_op(p, OP_NEW_FS, number, blob, (uint32_t)attrs);
    return number;
}

static int plan_host_clone(struct launch_plan *p, const char *path, size_t i,
                           const struct options *o, bool recursive)
{
    struct launch_slot slot = {
        .kind = path ? SLOT_BIND : SLOT_CGROUP,
        .source = path ? plan_add_text(p, path) : 0,
        .recursive = recursive,
        .rec_set = o->set | o->rec_set,
        .propagation = o->propagation ? o->propagation : MS_PRIVATE | MS_REC,
        .mount = i,
    };

    return plan_add_slot(p, &slot);
}

/* What cannot be labelled from outside. */
static bool takes_label(const char *type)
{
    static const char *const not_these[] = {"proc", "sysfs", "cgroup", "cgroup2", "mqueue"};

    for (size_t i = 0; i < ARRAY_SIZE(not_these); i++)
        if (str_eq(type, not_these[i]))
            return false;
    return true;
}

/* No source: a place in the numbers for mounts_plan_attach. */
static int plan_remount(struct launch_plan *p, size_t i)
{
    struct launch_slot slot = {.kind = SLOT_FS, .mount = i};

    return plan_add_slot(p, &slot);
}

static int plan_source(struct launch_plan *p, const struct ctr_spec *s, size_t i,
                       const struct plan_input *in, struct plan_mounts *ret, struct err *e)
{
    const struct ctr_mount *m = &s->mounts[i];
    AUTO(options) struct options o = {0};
    bool userns = in->user_namespace;

    if (sort_options(m, &o, e) < 0)
        return -1;
    if (o.idmap && !m->uid_maps.n && ctr_spec_namespace(s, "user", NULL) < 0)
        return err_set(e, ERR_USER,
                       "option idmap needs uidMappings and gidMappings, or a user namespace");
    if (str_list_has(&m->options, "remount"))
        return plan_remount(p, i);
    if (o.bind) {
        if (str_eq(m->destination, "/dev"))
            ret->own_dev = false;
        return plan_bind(p, m, i, &o, userns);
    }
    if (str_eq(m->type, "cgroup") || str_eq(m->type, "cgroup2"))
        if (ctr_spec_namespace(s, "cgroup", NULL) != 0)
            return plan_host_clone(p, NULL, i, &o, false);
    /* A sysfs shows the network namespace it was mounted in; only that namespace's owner may mount it. */
    if (userns && str_eq(m->type, "sysfs") && ctr_spec_namespace(s, "network", NULL) != 0)
        return plan_host_clone(p, "/sys", i, &o, true);
    if (in->selinux && s->mount_label && takes_label(m->type)) {
        AUTO_FREE char *context = mem_printf("context=%s", s->mount_label);

        if (add_data(&o, context, e) < 0)
            return -1;
    }
    int slot = plan_new_fs(p, m, i, &o);

    if (str_eq(m->type, "proc"))
        ret->proc = slot;
    if (str_eq(m->type, "devpts"))
        ret->devpts = slot;
    return slot;
}

static bool needs_proc(const struct ctr_spec *s)
{
    return s->n_sysctl || s->process.has_oom_score_adj || s->process.apparmor_profile ||
           s->process.selinux_label;
}

int mounts_plan_sources(struct launch_plan *p, const struct ctr_spec *s,
                        const struct plan_input *in, struct plan_mounts *ret, struct err *e)
{
    struct launch_slot root = {.kind = SLOT_ROOT};
    char shown[STR_SHOW_MAX];

    *ret = (struct plan_mounts){.proc = -1, .devpts = -1, .null_node = -1, .own_dev = true};
    ret->root = plan_add_slot(p, &root);
    /* The slots of the mounts follow the root's, in the order of the spec: mounts_plan_attach counts on it. */
    for (size_t i = 0; i < s->n_mounts; i++)
        if (plan_source(p, s, i, in, ret, e) < 0)
            return err_wrap(e, "mounts[%zu] (%s)", i, str_show(shown, s->mounts[i].destination));
    if (ret->proc < 0 && needs_proc(s)) {
        static const char blob[] = "proc\0";
        struct launch_slot slot = {.kind = SLOT_FS};

        ret->proc = plan_add_slot(p, &slot);
        plan_add_op(p, OP_NEW_FS, ret->proc, plan_add_data(p, blob, sizeof(blob)),
                    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    }
    if (s->masked_paths.n) {
        struct launch_slot null_slot = {.kind = SLOT_NODE,
                                        .source = plan_add_text(p, "/dev/null"),
                                        .dev_type = 'c',
                                        .major = 1,
                                        .minor = 3,
                                        .mode = 0666,
                                        .set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                               MOUNT_ATTR_NOEXEC};

        ret->null_node = plan_add_slot(p, &null_slot);
    }
    return 0;
}

/* Where a link in the image would take a mount that others rely on to a place it chose (CVE-2019-16884). */
static bool is_ours_alone(const char *path)
{
    return str_eq(path, "/proc") || str_eq(path, "/sys") || str_eq(path, "/dev") ||
           str_starts(path, "/proc/") || str_starts(path, "/sys/") || str_starts(path, "/dev/");
}

static void plan_change(struct launch_plan *p, const struct ctr_mount *m, uint32_t path)
{
    AUTO(options) struct options o = {0};
    struct err judged = ERR_INIT; /* in plan_source */

    if (sort_options(m, &o, &judged) < 0)
        return;
    struct plan_remount r = {.set = o.set,
                             .clear = o.clear,
                             .rec_set = o.rec_set,
                             .rec_clear = o.rec_clear,
                             .propagation = o.propagation};

    if (o.data.len) {
        r.data = plan_add_data(p, o.data.buf, o.data.len);
        plan_add_data(p, "", 1);
    }
    plan_add_op(p, OP_REMOUNT, -1, path, plan_add_data(p, &r, sizeof(r)));
}

void mounts_plan_attach(struct launch_plan *p, const struct ctr_spec *s,
                        const struct plan_mounts *m)
{
    for (size_t i = 0; i < s->n_mounts; i++) {
        int slot = m->root + 1 + (int)i;
        uint32_t path = plan_add_text(p, s->mounts[i].destination);

        if (str_list_has(&s->mounts[i].options, "remount")) {
            plan_change(p, &s->mounts[i], path);
            continue;
        }

        if (str_list_has(&s->mounts[i].options, "tmpcopyup"))
            plan_add_op(p, OP_COPY_UP, slot, path, 0);
        struct launch_op *op =
            plan_add_op(p, OP_ATTACH, slot, path, (uint32_t)p->slots[slot].propagation);

        if (p->slots[slot].kind != SLOT_FS)
            op->b = 0; /* the parent has set it */
        if (is_ours_alone(s->mounts[i].destination))
            op->flags |= OPF_NO_LINKS;
    }
}

static bool is_read_only(const struct ctr_mount *m)
{
    bool ro = false;

    for (size_t i = 0; i < m->options.n; i++) {
        const char *o = m->options.items[i];

        if (str_eq(o, "ro") || str_eq(o, "rro"))
            ro = true;
        if (str_eq(o, "rw") || str_eq(o, "rrw"))
            ro = false;
    }
    return ro;
}

void mounts_plan_seal(struct launch_plan *p, const struct ctr_spec *s, const struct plan_mounts *m)
{
    uint64_t propagation = 0;

    for (size_t i = 0; i < s->readonly_paths.n; i++)
        plan_add_op(p, OP_READONLY, -1, plan_add_text(p, s->readonly_paths.items[i]), 0)->flags |=
            OPF_OPTIONAL;
    for (size_t i = 0; i < s->masked_paths.n; i++)
        plan_add_op(p, OP_MASK, m->null_node, plan_add_text(p, s->masked_paths.items[i]), 0)
            ->flags |= OPF_OPTIONAL;
    for (size_t i = 0; i < s->n_mounts; i++)
        if (str_eq(s->mounts[i].type, "tmpfs") && !str_list_has(&s->mounts[i].options, "remount") &&
            p->slots[m->root + 1 + (int)i].kind == SLOT_FS && is_read_only(&s->mounts[i]))
            plan_add_op(p, OP_SETATTR, -1, plan_add_text(p, s->mounts[i].destination),
                        MOUNT_ATTR_RDONLY);
    if (s->root_readonly)
        plan_add_op(p, OP_SETATTR, -1, plan_add_text(p, "/"), MOUNT_ATTR_RDONLY);
    if (s->rootfs_propagation &&
        name_lookup(ctr_names_propagation, s->rootfs_propagation, &propagation) == 0)
        plan_add_op(p, OP_PROPAGATION, -1, 0, (uint32_t)propagation);
}
