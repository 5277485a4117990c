#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <linux/sched/types.h>

#include "base/err.h"
#include "runtime/plan.h"
#include "runtime/seccomp.h"

/* How an operand is shown. */
enum operand {
    NOTHING,
    TEXT,
    NUMBER,
    HEX,
    OCTAL,
    NODE,
    RLIMIT,
    SCHEDULER,
    CAPS,
    BLOB,
    CANDIDATES,
    GIDS
};

/* clang-format off */
static const struct {
    const char *name;
    enum operand a, b;
} shown[OP_N] = {
    [OP_WAIT_MAPS] = {"wait-maps", 0, 0}, [OP_UNDUMPABLE] = {"undumpable", 0, 0},
    [OP_NEW_SESSION] = {"new-session", 0, 0}, [OP_NEW_CGROUP_NS] = {"new-cgroup-ns", 0, 0},
    [OP_PRIVATE_MOUNTS] = {"private-mounts", 0, 0}, [OP_NEW_FS] = {"new-fs", BLOB, HEX},
    [OP_LO_UP] = {"lo-up", 0, 0}, [OP_HOSTNAME] = {"hostname", TEXT, 0}, [OP_DOMAINNAME] = {"domainname", TEXT, 0},
    [OP_HOOKS] = {"hooks", 0, 0}, [OP_ENTER_ROOT] = {"enter-root", 0, 0}, [OP_CHROOT] = {"chroot", TEXT, 0}, [OP_MAKE_DIR] = {"make-dir", TEXT, 0}, [OP_ATTACH] = {"attach", TEXT, HEX},
    [OP_COPY_UP] = {"copy-up", TEXT, 0}, [OP_MKNOD] = {"mknod", TEXT, NODE}, [OP_SYMLINK] = {"symlink", TEXT, TEXT},
    [OP_SYSCTL] = {"sysctl", TEXT, TEXT}, [OP_MASK] = {"mask", TEXT, 0}, [OP_READONLY] = {"readonly", TEXT, 0},
    [OP_SETATTR] = {"setattr", TEXT, HEX}, [OP_REMOUNT] = {"remount", TEXT, 0}, [OP_PROPAGATION] = {"propagation", 0, HEX}, [OP_KEYRING] = {"keyring", 0, 0},
    [OP_CHDIR] = {"chdir", TEXT, 0}, [OP_FORK_INIT] = {"fork-init", 0, 0}, [OP_OPEN_DEVPTS] = {"open-devpts", 0, 0}, [OP_CONSOLE] = {"console", TEXT, HEX},
    [OP_OOM_SCORE] = {"oom-score", TEXT, 0}, [OP_PERSONALITY] = {"personality", 0, HEX},
    [OP_RLIMIT] = {"rlimit", NUMBER, RLIMIT}, [OP_SCHEDULER] = {"scheduler", 0, SCHEDULER}, [OP_IO_PRIORITY] = {"io-priority", 0, HEX},
    [OP_AFFINITY] = {"affinity", 0, 0}, [OP_MEM_POLICY] = {"mem-policy", HEX, 0}, [OP_UMASK] = {"umask", 0, OCTAL}, [OP_EXEC_LABEL] = {"exec-label", TEXT, TEXT},
    [OP_BOUNDING] = {"bounding", 0, CAPS}, [OP_KEEP_CAPS] = {"keep-caps", 0, 0}, [OP_GROUPS] = {"groups", NUMBER, GIDS},
    [OP_GID] = {"gid", 0, NUMBER}, [OP_UID] = {"uid", 0, NUMBER}, [OP_CAPS] = {"caps", 0, CAPS},
    [OP_NO_NEW_PRIVS] = {"no-new-privs", 0, 0}, [OP_SECCOMP] = {"seccomp", HEX, 0}, [OP_FIND] = {"find", CANDIDATES, 0},
    [OP_CLOSE] = {"close", 0, NUMBER}, [OP_SIGNALS] = {"signals", 0, 0}, [OP_READY] = {"ready", 0, 0},
    [OP_WAIT_START] = {"wait-start", 0, 0}, [OP_EXEC] = {"exec", 0, 0},
};
static const char *const slot_names[] = {
    [SLOT_ROOT] = "root", [SLOT_BIND] = "bind", [SLOT_NODE] = "node", [SLOT_CGROUP] = "cgroup", [SLOT_FS] = "fs",
};
static const char *const idmap_names[] = {
    [SLOT_MAP_NONE] = "", [SLOT_MAP_CONTAINER] = " idmap=container", [SLOT_MAP_OWNER] = " idmap=owner",
    [SLOT_MAP_MOUNT] = " idmap=mount",
};
/* clang-format on */

const char *plan_op_name(unsigned kind)
{
    return kind < OP_N && shown[kind].name ? shown[kind].name : "?";
}

/* Texts one behind the other until an empty one. `pairs`: "type key=value …", where a value may be empty. */
static void print_texts(FILE *f, const char *s, bool pairs)
{
    if (pairs) {
        fprintf(f, " %s", s);
        s += strlen(s) + 1;
    }
    while (*s) {
        fprintf(f, " %s", s);
        s += strlen(s) + 1;
        if (pairs) {
            fprintf(f, *s ? "=%s" : "%s", s);
            s += strlen(s) + 1;
        }
    }
}

static void print_operand(FILE *f, const struct launch_plan *p, const struct launch_op *op,
                          enum operand how, uint32_t v)
{
    const char *data = p->data + v;

    switch (how) {
    case NOTHING: break;
    case TEXT: fprintf(f, " %s", *data ? data : "\"\""); break;
    case NUMBER: fprintf(f, " %u", v); break;
    case HEX:
        if (v)
            fprintf(f, " 0x%x", v);
        break;
    case OCTAL: fprintf(f, " %04o", v); break;
    case BLOB: print_texts(f, data, true); break;
    case CANDIDATES: print_texts(f, data, false); break;
    case GIDS:
        for (uint32_t i = 0, gid; i < op->a; i++) {
            memcpy(&gid, data + i * sizeof(gid), sizeof(gid));
            fprintf(f, " %u", gid);
        }
        break;
    case NODE: {
        struct plan_node n;

        memcpy(&n, data, sizeof(n));
        fprintf(f, " %06o %u:%u owner %u:%u", n.mode, n.major, n.minor, n.uid, n.gid);
        break;
    }
    case RLIMIT: {
        struct plan_rlimit r;

        memcpy(&r, data, sizeof(r));
        fprintf(f, " %" PRIu64 " %" PRIu64, r.soft, r.hard);
        break;
    }
    case SCHEDULER: {
        struct sched_attr a;

        memcpy(&a, data, sizeof(a));
        fprintf(f, " %u %" PRIu64 " %" PRIu64 " %" PRIu64, a.sched_policy,
                (uint64_t)a.sched_runtime, (uint64_t)a.sched_deadline, (uint64_t)a.sched_period);
        break;
    }
    case CAPS: {
        struct plan_caps c;

        memcpy(&c, data, sizeof(c));
        if (op->kind == OP_BOUNDING)
            fprintf(f, " %#" PRIx64, c.bounding);
        else
            fprintf(f,
                    " effective %#" PRIx64 " permitted %#" PRIx64 " inheritable %#" PRIx64
                    " ambient %#" PRIx64,
                    c.effective, c.permitted, c.inheritable, c.ambient);
    }
    }
}

static void print_slot(FILE *f, const struct launch_plan *p, size_t i)
{
    const struct launch_slot *s = &p->slots[i];

    fprintf(f, "slot %zu: %s", i, slot_names[s->kind]);
    if (s->source)
        fprintf(f, " %s", p->data + s->source);
    if (s->kind == SLOT_NODE)
        fprintf(f, " %c %u:%u", s->dev_type, s->major, s->minor);
    fputs(s->recursive ? " recursive" : "", f);
    fputs(idmap_names[s->idmap], f);
    if (s->set || s->clear)
        fprintf(f, " set %#" PRIx64 " clear %#" PRIx64, s->set, s->clear);
    if (s->rec_set || s->rec_clear)
        fprintf(f, " tree set %#" PRIx64 " clear %#" PRIx64, s->rec_set, s->rec_clear);
    if (s->propagation)
        fprintf(f, " propagation %#" PRIx64, s->propagation);
    fputc('\n', f);
}

static void print_op(FILE *f, const struct launch_plan *p, const struct launch_op *op)
{
    fputs(plan_op_name(op->kind), f);
    if (op->fd >= 0)
        fprintf(f, " slot %d", op->fd);
    print_operand(f, p, op, shown[op->kind].a, op->a);
    print_operand(f, p, op, shown[op->kind].b, op->b);
    fputs(op->flags & OPF_NO_LINKS ? " no-links" : "", f);
    fputs(op->flags & OPF_OPTIONAL ? " optional" : "", f);
    fputc('\n', f);
}

char *plan_text(const struct launch_plan *p)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    BUG_ON(!f);
    fprintf(f, "namespaces %#" PRIx64 "\n", p->new_namespaces);
    for (size_t i = 0; i < p->n_slots; i++)
        print_slot(f, p, i);
    for (size_t i = 0; i < p->n_ops; i++)
        print_op(f, p, &p->ops[i]);
    for (size_t i = 0; i < p->args.n; i++)
        fprintf(f, "arg %s\n", p->args.items[i]);
    for (size_t i = 0; i < p->env.n; i++)
        fprintf(f, "env %s\n", p->env.items[i]);
    BUG_ON(fclose(f) != 0);
    return text;
}
