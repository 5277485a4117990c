#include <string.h>
#include <sys/mount.h>
#include <linux/sched/types.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/units.h"
#include "runtime/names.h"
#include "runtime/plan.h"
#include "runtime/seccomp.h"
#include "runtime/spec.h"
#include "runtime/user.h"

static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/* What execvp(3) would try, with the container's PATH. */
static uint32_t add_candidates(struct launch_plan *p, const char *name)
{
    AUTO(str_list) struct str_list dirs = {0};
    const char *path = str_list_getenv(&p->env, "PATH");

    if (strchr(name, '/')) {
        uint32_t at = plan_add_data(p, name, strlen(name) + 1);

        plan_add_data(p, "", 1);
        return at;
    }
    uint32_t at = (uint32_t)p->n_data;

    str_list_split(&dirs, path && *path ? path : default_path, ':');
    for (size_t i = 0; i < dirs.n; i++) {
        AUTO_FREE char *full = mem_printf("%s/%s", *dirs.items[i] ? dirs.items[i] : ".", name);

        plan_add_data(p, full, strlen(full) + 1);
    }
    plan_add_data(p, "", 1);
    return at;
}

static void plan_limits(struct launch_plan *p, const struct ctr_process *pr, bool userns,
                        int proc_slot)
{
    uint64_t resource = 0;

    /* In a user namespace only the parent may lower it: launch.c. */
    if (pr->has_oom_score_adj && !userns) {
        AUTO_FREE char *text = mem_printf("%d", pr->oom_score_adj);

        plan_add_op(p, OP_OOM_SCORE, proc_slot, plan_add_text(p, text), 0);
    }
    for (size_t i = 0; i < pr->n_rlimits; i++) {
        struct plan_rlimit r = {pr->rlimits[i].soft, pr->rlimits[i].hard};

        if (name_lookup(ctr_names_rlimits, pr->rlimits[i].type, &resource) < 0)
            continue; /* validated */
        plan_add_op(p, OP_RLIMIT, -1, (uint32_t)resource, plan_add_data(p, &r, sizeof(r)));
    }
}

static int plan_scheduling(struct launch_plan *p, const struct ctr_process *pr, struct err *e)
{
    if (pr->has_scheduler) {
        const struct ctr_scheduler *sc = &pr->scheduler;
        struct sched_attr attr = {
            .size = sizeof(attr),
            .sched_policy = sc->policy,
            .sched_flags = sc->flags,
            .sched_nice = sc->nice,
            .sched_priority = sc->priority,
            .sched_runtime = sc->runtime,
            .sched_deadline = sc->deadline,
            .sched_period = sc->period,
        };

        plan_add_op(p, OP_SCHEDULER, -1, 0, plan_add_data(p, &attr, sizeof(attr)));
    }
    if (pr->io_priority)
        plan_add_op(p, OP_IO_PRIORITY, -1, 0, pr->io_priority);
    /* Of processes that join a container, not of its first one (runtime-spec config.md). */
    if (p->entered && pr->cpu_affinity_final) {
        struct cpu_set set;

        if (cpu_set_parse(pr->cpu_affinity_final, &set, e) < 0)
            return err_wrap(e, "process.execCPUAffinity.final");
        plan_add_op(p, OP_AFFINITY, -1, sizeof(set), plan_add_data(p, &set, sizeof(set)));
    }
    return 0;
}

static int plan_mem_policy(struct launch_plan *p, const struct ctr_mem_policy *m, struct err *e)
{
    struct cpu_set nodes = {0};

    if (!m->set)
        return 0;
    if (m->nodes && cpu_set_parse(m->nodes, &nodes, e) < 0)
        return err_wrap(e, "linux.memoryPolicy.nodes");
    plan_add_op(p, OP_MEM_POLICY, -1, m->mode, plan_add_data(p, &nodes, sizeof(nodes)));
    return 0;
}

static void plan_label(struct launch_plan *p, const struct ctr_process *pr, int proc_slot)
{
    if (pr->apparmor_profile && *pr->apparmor_profile) {
        AUTO_FREE char *text = mem_printf("exec %s", pr->apparmor_profile);

        plan_add_op(p, OP_EXEC_LABEL, proc_slot, plan_add_text(p, "apparmor/exec"),
                    plan_add_text(p, text));
    }
    if (pr->selinux_label && *pr->selinux_label)
        plan_add_op(p, OP_EXEC_LABEL, proc_slot, plan_add_text(p, "exec"),
                    plan_add_text(p, pr->selinux_label));
}

/* Where the user namespace that was asked for cannot be had, what would reach beyond the container goes (S38). */
static uint64_t grantable(const struct ctr_spec *s, bool userns)
{
    bool lost = !userns && ctr_spec_namespace(s, "user", NULL) == 0;

    return lost ? ~(ctr_spec_default_caps(true) & ~ctr_spec_default_caps(false)) : ~0ULL;
}

/*
 * From root with everything to the user with what is granted. The bounding set needs CAP_SETPCAP, groups and ids
 * CAP_SETGID and CAP_SETUID, so capabilities go last; keep-caps carries them over the change of ids. Without a
 * capabilities object none are granted, as runc and crun have it. Returns OP_CAPS's operand.
 */
static uint32_t plan_privileges(struct launch_plan *p, const struct ctr_process *pr,
                                const struct ctr_user *u, uint64_t mask)
{
    /* The kernel raises no ambient capability that is not permitted and inheritable too (capabilities(7)); tools write
     * such configurations all the same (`crun spec` does), and mean the part that can be had. */
    struct plan_caps caps = {pr->caps.bounding & mask, pr->caps.effective & mask,
                             pr->caps.permitted & mask, pr->caps.inheritable & mask,
                             pr->caps.ambient & pr->caps.inheritable & pr->caps.permitted & mask};
    uint32_t blob = plan_add_data(p, &caps, sizeof(caps));

    plan_add_op(p, OP_BOUNDING, -1, 0, blob);
    plan_add_op(p, OP_KEEP_CAPS, -1, 0, 0);
    plan_add_op(
        p, OP_GROUPS, -1, (uint32_t)u->n_groups,
        plan_add_data(p, u->groups ? (void *)u->groups : "", u->n_groups * sizeof(*u->groups)));
    plan_add_op(p, OP_GID, -1, 0, u->gid);
    plan_add_op(p, OP_UID, -1, 0, u->uid);
    return blob;
}

static void plan_environment(struct launch_plan *p, const struct ctr_spec *s,
                             const struct ctr_user *u)
{
    str_list_copy(&p->args, &s->process.args);
    str_list_copy(&p->env, &s->process.env);
    if (!s->sealed_env && !str_list_getenv(&p->env, "HOME"))
        str_list_setenv(&p->env, "HOME", u->home);
}

/* config.json may do without a process as long as nobody starts it: ctr_start refuses. */
static void plan_nothing_to_run(struct launch_plan *p, const struct plan_input *in)
{
    plan_add_op(p, OP_CLOSE, -1, 0, 3 + in->preserve_fds);
    plan_add_op(p, OP_SIGNALS, -1, 0, 0);
    plan_add_op(p, OP_READY, -1, 0, 0);
    plan_add_op(p, OP_WAIT_START, -1, 0, 0);
}

int plan_add_process(struct launch_plan *p, const struct ctr_spec *s, const struct plan_input *in,
                     int proc_slot, int devpts_slot, struct err *e)
{
    const struct ctr_process *pr = &s->process;
    bool has_filter = in->seccomp && in->seccomp->insns;

    if (!s->has_process) {
        plan_nothing_to_run(p, in);
        return 0;
    }
    plan_environment(p, s, in->user);
    plan_add_op(p, OP_KEYRING, -1, 0, 0);
    if (s->init) {
        plan_add_op(p, OP_FORK_INIT, -1, 0, 0);
        plan_add_op(p, OP_NEW_SESSION, -1, 0, 0);
    }
    if (pr->terminal && devpts_slot < 0)
        return err_set(e, ERR_USER, "process.terminal: needs a devpts mount");
    /* /dev/console is the first process's; the next one's terminal over it would be gone with that one. */
    if (pr->terminal)
        plan_add_op(p, OP_CONSOLE, devpts_slot, plan_add_text(p, p->entered ? "" : "/dev/console"),
                    (uint32_t)pr->console_rows << 16 | pr->console_columns);
    plan_add_op(p, OP_CHDIR, -1, plan_add_text(p, pr->cwd), 0);
    plan_limits(p, pr, in->user_namespace, proc_slot);
    if (plan_scheduling(p, pr, e) < 0 || plan_mem_policy(p, &s->mem_policy, e) < 0)
        return -1;
    if (s->has_personality)
        plan_add_op(p, OP_PERSONALITY, -1, 0, s->personality);
    plan_add_op(p, OP_UMASK, -1, 0, pr->has_umask ? pr->umask : 0022);
    plan_label(p, pr, proc_slot);
    uint32_t caps = plan_privileges(p, pr, in->user, grantable(s, in->user_namespace));
    /* Without no_new_privs loading a filter needs CAP_SYS_ADMIN: then capabilities go after it, and it has to allow
     * capset(2) and prctl(2), as every profile made for runc does. */
    bool late_caps = has_filter && !pr->no_new_privileges;

    if (!late_caps)
        plan_add_op(p, OP_CAPS, -1, 0, caps);
    if (pr->no_new_privileges)
        plan_add_op(p, OP_NO_NEW_PRIVS, -1, 0, 0);
    /* A change of ids resets it. */
    plan_add_op(p, OP_UNDUMPABLE, -1, 0, 0);
    plan_add_op(p, OP_FIND, -1, add_candidates(p, p->args.items[0]), 0);
    plan_add_op(p, OP_CLOSE, -1, 0, 3 + in->preserve_fds);
    plan_add_op(p, OP_SIGNALS, -1, 0, 0);
    plan_add_op(p, OP_READY, -1, 0, 0);
    plan_add_op(p, OP_WAIT_START, -1, 0, 0);
    /* Last: the filter need not allow anything that we do (S39). */
    if (has_filter)
        plan_add_op(p, OP_SECCOMP, -1, late_caps, 0);
    if (late_caps)
        plan_add_op(p, OP_CAPS, -1, 0, caps);
    plan_add_op(p, OP_EXEC, -1, 0, 0);
    return 0;
}
