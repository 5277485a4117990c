#include "runtime/plan.h"

#include <sched.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "runtime/devices.h"
#include "runtime/mounts.h"
#include "runtime/names.h"
#include "runtime/spec.h"
#include "runtime/user.h"

uint32_t plan_add_data(struct launch_plan *p, const void *data, size_t n)
{
    uint32_t at = (uint32_t)p->n_data;

    BUG_ON(p->n_data + n > UINT32_MAX);
    p->data = mem_realloc(p->data, p->n_data + n, 1);
    memcpy(p->data + p->n_data, data, n);
    p->n_data += n;
    return at;
}

uint32_t plan_add_text(struct launch_plan *p, const char *text)
{
    return *text ? plan_add_data(p, text, strlen(text) + 1) : 0;
}

struct launch_op *plan_add_op(struct launch_plan *p, enum launch_op_kind kind, int fd, uint32_t a,
                              uint32_t b)
{
    p->ops = mem_realloc(p->ops, p->n_ops + 1, sizeof(*p->ops));
    p->ops[p->n_ops] = (struct launch_op){.kind = (uint16_t)kind, .fd = fd, .a = a, .b = b};
    return &p->ops[p->n_ops++];
}

int plan_add_slot(struct launch_plan *p, const struct launch_slot *slot)
{
    p->slots = mem_realloc(p->slots, p->n_slots + 1, sizeof(*p->slots));
    p->fds = mem_realloc(p->fds, p->n_slots + 1, sizeof(*p->fds));
    p->slots[p->n_slots] = *slot;
    p->fds[p->n_slots] = -1;
    return (int)p->n_slots++;
}

void launch_plan_free(struct launch_plan *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n_slots; i++)
        close_fd(&p->fds[i]);
    str_list_free(&p->args);
    str_list_free(&p->env);
    free(p->ops);
    free(p->data);
    free(p->slots);
    free(p->fds);
    free(p);
}

static uint64_t new_namespaces(const struct ctr_spec *s, bool userns)
{
    uint64_t flags = 0, flag;

    for (size_t i = 0; i < s->n_namespaces; i++)
        if (!s->namespaces[i].path &&
            name_lookup(ctr_names_namespaces, s->namespaces[i].type, &flag) == 0)
            flags |= flag;
    return userns ? flags : flags & ~(uint64_t)CLONE_NEWUSER;
}

static void plan_namespaces(struct launch_plan *p, bool userns)
{
    if (userns)
        plan_add_op(p, OP_WAIT_MAPS, -1, 0, 0);
    plan_add_op(p, OP_UNDUMPABLE, -1, 0, 0);
    plan_add_op(p, OP_NEW_SESSION, -1, 0, 0);
    if (p->new_namespaces & CLONE_NEWCGROUP)
        plan_add_op(p, OP_NEW_CGROUP_NS, -1, 0, 0);
    /* In a mount namespace that we joined, what others see there is not ours to change. */
    if (p->new_namespaces & CLONE_NEWNS)
        plan_add_op(p, OP_PRIVATE_MOUNTS, -1, 0, 0);
}

static void plan_names(struct launch_plan *p, const struct ctr_spec *s)
{
    if (p->new_namespaces & CLONE_NEWNET)
        plan_add_op(p, OP_LO_UP, -1, 0, 0);
    if (s->hostname)
        plan_add_op(p, OP_HOSTNAME, -1, plan_add_text(p, s->hostname),
                    (uint32_t)strlen(s->hostname));
    if (s->domainname)
        plan_add_op(p, OP_DOMAINNAME, -1, plan_add_text(p, s->domainname),
                    (uint32_t)strlen(s->domainname));
}

/* "net.ipv4.conf.eth0/1.forwarding": dots become slashes and slashes dots, as sysctl(8) does; a name that
 * begins with a slash-separated part ("net/ipv4/…") is taken as it is. */
static uint32_t add_sysctl_path(struct launch_plan *p, const char *key)
{
    AUTO_FREE char *path = mem_strdup(key);

    if (path[strcspn(path, "./")] != '/')
        for (char *c = path; *c; c++)
            *c = *c == '.' ? '/' : *c == '/' ? '.' : *c;
    return plan_add_text(p, path);
}

static void plan_sysctl(struct launch_plan *p, const struct ctr_spec *s, int proc_slot)
{
    for (size_t i = 0; i < s->n_sysctl; i++)
        plan_add_op(p, OP_SYSCTL, proc_slot, add_sysctl_path(p, s->sysctl[i].key),
                    plan_add_text(p, s->sysctl[i].value));
}

/*
 * The order, and why:
 *   namespaces   ids first: everything after is done as the container's root, nobody may look at us meanwhile
 *   sources      proc and sysfs can be mounted in a user namespace only while a whole one is still visible
 *   names        need no file
 *   hooks        runtime-spec: after the namespaces exist, before pivot_root
 *   root         from here on no host path can be reached, whatever a mount target resolves to (S34)
 *   attach       in the order of config.json; then /dev, into what was mounted there
 *   sysctl       before /proc/sys becomes read-only
 *   seal         after everything was written
 *   process      see plan_process.c
 */
int plan_build(const struct ctr_spec *s, const struct plan_input *in, struct launch_plan **ret,
               struct err *e)
{
    AUTO(launch_plan) struct launch_plan *p = mem_new(struct launch_plan);
    bool userns = in->user_namespace;
    struct plan_mounts m;
    int first_device;

    p->report_fd = p->parent_fd = p->start_fd = p->console_fd = -1;
    p->seccomp = in->seccomp;
    plan_add_data(p, "", 1); /* offset 0 is the empty text */
    p->new_namespaces = new_namespaces(s, userns);
    plan_namespaces(p, userns);
    if (mounts_plan_sources(p, s, in, &m, e) < 0)
        return -1;
    devices_plan_sources(p, s, userns, &m, &first_device);
    plan_names(p, s);
    if (in->hooks)
        plan_add_op(p, OP_HOOKS, -1, 0, 0);
    if (ctr_spec_namespace(s, "mount", NULL) >= 0)
        plan_add_op(p, OP_ENTER_ROOT, m.root, 0, 0);
    else
        plan_add_op(p, OP_CHROOT, m.root, plan_add_text(p, in->root_path), 0);
    mounts_plan_attach(p, s, &m);
    devices_plan_attach(p, s, userns, &m, first_device);
    plan_sysctl(p, s, m.proc);
    if (s->root_readonly && s->has_process && !str_eq(s->process.cwd, "/"))
        plan_add_op(p, OP_MAKE_DIR, -1, plan_add_text(p, s->process.cwd), 0);
    mounts_plan_seal(p, s, &m);
    if (plan_add_process(p, s, in, m.proc, m.devpts, e) < 0)
        return -1;
    *ret = take_ptr(&p);
    return 0;
}
