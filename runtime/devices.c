#include "runtime/devices.h"

#include <sys/stat.h>

#include "runtime/spec.h"

/* runtime-spec "Default Devices"; /dev/console is OP_CONSOLE's, /dev/ptmx a link to the container's own devpts. */
static const struct ctr_device defaults[] = {
    {.path = (char *)"/dev/null", .type = 'c', .major = 1, .minor = 3, .file_mode = -1},
    {.path = (char *)"/dev/zero", .type = 'c', .major = 1, .minor = 5, .file_mode = -1},
    {.path = (char *)"/dev/full", .type = 'c', .major = 1, .minor = 7, .file_mode = -1},
    {.path = (char *)"/dev/random", .type = 'c', .major = 1, .minor = 8, .file_mode = -1},
    {.path = (char *)"/dev/urandom", .type = 'c', .major = 1, .minor = 9, .file_mode = -1},
    {.path = (char *)"/dev/tty", .type = 'c', .major = 5, .minor = 0, .file_mode = -1},
};

static const char *const links[][2] = {
    {"/dev/fd", "/proc/self/fd"},       {"/dev/stdin", "/proc/self/fd/0"},
    {"/dev/stdout", "/proc/self/fd/1"}, {"/dev/stderr", "/proc/self/fd/2"},
    {"/dev/ptmx", "pts/ptmx"},
};

static bool has_device(const struct ctr_spec *s, const char *path)
{
    for (size_t i = 0; i < s->n_devices; i++)
        if (str_eq(s->devices[i].path, path))
            return true;
    return false;
}

typedef void each_device(struct launch_plan *p, const struct ctr_device *d, bool userns, int *slot);

static void for_each(struct launch_plan *p, const struct ctr_spec *s, bool userns,
                     const struct plan_mounts *m, int *slot, each_device *fn)
{
    for (size_t i = 0; m->own_dev && i < ARRAY_SIZE(defaults); i++)
        if (!has_device(s, defaults[i].path))
            fn(p, &defaults[i], userns, slot);
    for (size_t i = 0; i < s->n_devices; i++)
        fn(p, &s->devices[i], userns, slot);
}

static void add_source(struct launch_plan *p, const struct ctr_device *d, bool userns, int *slot)
{
    if (!userns || d->type == 'p')
        return;
    struct launch_slot node = {.kind = SLOT_NODE,
                               .source = plan_add_text(p, d->path),
                               .dev_type = d->type == 'b' ? 'b' : 'c',
                               .major = (uint32_t)d->major,
                               .minor = (uint32_t)d->minor,
                               .mode = d->file_mode < 0 ? 0666 : (uint32_t)d->file_mode & 07777,
                               .uid = d->uid,
                               .gid = d->gid};
    int number = plan_add_slot(p, &node);

    if (*slot < 0)
        *slot = number;
}

static void add_node(struct launch_plan *p, const struct ctr_device *d, bool userns, int *slot)
{
    if (userns && d->type != 'p') {
        plan_add_op(p, OP_ATTACH, (*slot)++, plan_add_text(p, d->path), 0);
        return;
    }
    struct plan_node node = {
        .mode = (d->type == 'p'   ? S_IFIFO
                 : d->type == 'b' ? S_IFBLK
                                  : S_IFCHR) |
                (d->file_mode < 0 ? 0666 : (uint32_t)d->file_mode & 07777),
        .major = (uint32_t)d->major,
        .minor = (uint32_t)d->minor,
        .uid = d->uid,
        .gid = d->gid,
    };

    plan_add_op(p, OP_MKNOD, -1, plan_add_text(p, d->path), plan_add_data(p, &node, sizeof(node)));
}

void devices_plan_sources(struct launch_plan *p, const struct ctr_spec *s, bool userns,
                          const struct plan_mounts *m, int *ret_first)
{
    *ret_first = -1;
    for_each(p, s, userns, m, ret_first, add_source);
}

void devices_plan_attach(struct launch_plan *p, const struct ctr_spec *s, bool userns,
                         const struct plan_mounts *m, int first)
{
    for_each(p, s, userns, m, &first, add_node);
    for (size_t i = 0; m->own_dev && i < ARRAY_SIZE(links); i++)
        plan_add_op(p, OP_SYMLINK, -1, plan_add_text(p, links[i][0]),
                    plan_add_text(p, links[i][1]));
}
