/*
 * devfilter.c - device rules to an eBPF program, loaded and attached with bpf(2).
 *
 * The program keeps the bits of the access that are not decided yet (read, write, mknod) in a register and walks the
 * rules from the last to the first: a deny that matches the device and one of those bits ends with 0, an allow clears
 * its bits, and when none is left the answer is 1. So "r" and "w" allowed by two rules add up to "rw", which is
 * what the last-rule-wins semantics of version 1 meant.
 */
#include "runtime/devfilter.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/bpf.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "runtime/spec.h"

#define ANY (-1)
enum { ALL_ACCESS = BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE | BPF_DEVCG_ACC_MKNOD };

/* Nodes every program expects (runtime-spec "Default Devices"). /dev/console is a pty of ours (136:*), so the real
 * console (5:1) is not among them. mknod is allowed: a node that cannot be opened is harmless. */
static const struct ctr_device_rule default_rules[] = {
    {true, 'c', ANY, ANY, "m"},   {true, 'b', ANY, ANY, "m"}, /* nodes may be made, not opened */
    {true, 'c', 1, 3, "rwm"},                                 /* null */
    {true, 'c', 1, 5, "rwm"},                                 /* zero */
    {true, 'c', 1, 7, "rwm"},                                 /* full */
    {true, 'c', 1, 8, "rwm"},                                 /* random */
    {true, 'c', 1, 9, "rwm"},                                 /* urandom */
    {true, 'c', 5, 0, "rwm"},                                 /* tty */
    {true, 'c', 5, 2, "rwm"},                                 /* ptmx */
    {true, 'c', 136, ANY, "rwm"},                             /* pts nodes */
};

const struct ctr_device_rule *ctr_devfilter_defaults(size_t *ret_n)
{
    *ret_n = ARRAY_SIZE(default_rules);
    return default_rules;
}

static bool is_any_type(const struct ctr_device_rule *r)
{
    return r->type == 'a' || !r->type;
}

/* --- instructions -------------------------------------------------------------------------------- */

enum { R_ANSWER = 0, R_CONTEXT = 1, R_TYPE = 2, R_LEFT = 3, R_MAJOR = 4, R_MINOR = 5, R_HIT = 6 };

struct program {
    struct bpf_insn *insns;
    size_t n;
};

static void emit(struct program *p, uint8_t code, unsigned dst, unsigned src, int off, int imm)
{
    BUG_ON(p->n >= BPF_MAXINSNS);
    p->insns[p->n++] = (struct bpf_insn){
        .code = code, .dst_reg = dst & 0xf, .src_reg = src & 0xf, .off = (int16_t)off, .imm = imm};
}

static void emit_load(struct program *p, unsigned dst, size_t offset)
{
    emit(p, BPF_LDX | BPF_MEM | BPF_W, dst, R_CONTEXT, (int)offset, 0);
}

static void emit_answer(struct program *p, int answer)
{
    emit(p, BPF_ALU64 | BPF_MOV | BPF_K, R_ANSWER, 0, 0, answer);
    emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static void emit_prologue(struct program *p)
{
    /* access_type is (access << 16) | type (bpf_cgroup_dev_ctx in linux/bpf.h) */
    emit_load(p, R_TYPE, offsetof(struct bpf_cgroup_dev_ctx, access_type));
    emit(p, BPF_ALU64 | BPF_MOV | BPF_X, R_LEFT, R_TYPE, 0, 0);
    emit(p, BPF_ALU64 | BPF_AND | BPF_K, R_TYPE, 0, 0, 0xffff);
    emit(p, BPF_ALU64 | BPF_RSH | BPF_K, R_LEFT, 0, 0, 16);
    emit_load(p, R_MAJOR, offsetof(struct bpf_cgroup_dev_ctx, major));
    emit_load(p, R_MINOR, offsetof(struct bpf_cgroup_dev_ctx, minor));
}

/* Most instructions a rule becomes: four to find out whether it matches, and four for a deny or an allow. */
enum { RULE_INSNS = 8, FRAME_INSNS = 8 };

/* Offsets of jumps out of a group's tests, until it is known where they lead. */
enum { TO_HIT = INT16_MAX, TO_MISS = INT16_MIN };

static void emit_if(struct program *p, unsigned op, unsigned reg, int64_t value, int to)
{
    emit(p, (uint8_t)(BPF_JMP32 | op | BPF_K), reg, 0, to, (int)(uint32_t)value);
}

static bool has(const struct ctr_device_rule *rules, size_t n, int64_t major, bool any_minor)
{
    for (size_t i = 0; i < n; i++)
        if (rules[i].major == major && (!any_minor || rules[i].minor < 0))
            return true;
    return false;
}

static void emit_minors(struct program *p, const struct ctr_device_rule *rules, size_t n,
                        int64_t major)
{
    for (size_t i = 0; i < n; i++)
        if (rules[i].major == major)
            emit_if(p, BPF_JEQ, R_MINOR, rules[i].minor, TO_HIT);
}

/* Jumps to the hit, one way or the other. A major number is looked at once, however many rules name it. */
static void emit_numbers(struct program *p, const struct ctr_device_rule *rules, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int64_t major = rules[i].major;
        size_t skip = p->n;

        if (has(rules, i, major, false))
            continue;
        if (has(rules, n, major, true)) {
            emit_if(p, BPF_JEQ, R_MAJOR, major, TO_HIT);
            continue;
        }
        if (major >= 0)
            emit_if(p, BPF_JNE, R_MAJOR, major, 0);
        emit_minors(p, rules, n, major);
        if (major >= 0)
            p->insns[skip].off = (int16_t)(p->n - skip - 1);
    }
    emit(p, BPF_JMP | BPF_JA, 0, 0, TO_MISS, 0);
}

static void emit_verdict(struct program *p, bool allow, int access, bool is_certain)
{
    /* All that can be asked for is allowed. (Of what always happens, the kernel refuses the code behind it.) */
    if (allow && access == ALL_ACCESS && !is_certain) {
        emit_answer(p, 1);
        return;
    }
    if (allow) {
        emit(p, BPF_ALU64 | BPF_AND | BPF_K, R_LEFT, 0, 0, ~access & ALL_ACCESS);
        emit(p, BPF_JMP | BPF_JNE | BPF_K, R_LEFT, 0, 2, 0);
        emit_answer(p, 1);
    } else {
        emit(p, BPF_ALU64 | BPF_MOV | BPF_X, R_HIT, R_LEFT, 0, 0);
        emit(p, BPF_ALU64 | BPF_AND | BPF_K, R_HIT, 0, 0, access);
        emit(p, BPF_JMP | BPF_JEQ | BPF_K, R_HIT, 0, 2, 0);
        emit_answer(p, 0);
    }
}

/* Rules that differ in the numbers only: one verdict behind all their tests. The kernel's verifier walks every way through a
 * program, and with a verdict a rule that took it longer than all the mounts of a start. */
static void emit_group(struct program *p, const struct ctr_device_rule *rules, size_t n, int access)
{
    bool any_type = is_any_type(rules), any_number = has(rules, n, ANY, true);
    size_t begin = p->n;

    if (!any_type)
        emit_if(p, BPF_JNE, R_TYPE, rules->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR,
                TO_MISS);
    if (!any_number)
        emit_numbers(p, rules, n);
    size_t hit = p->n;

    emit_verdict(p, rules->allow, access, any_type && any_number);
    for (size_t i = begin; i < hit; i++) {
        int16_t *off = &p->insns[i].off;

        if (*off == TO_HIT || *off == TO_MISS)
            *off = (int16_t)((*off == TO_HIT ? hit : p->n) - i - 1);
    }
}

/* --- rules ----------------------------------------------------------------------------------------- */

static int access_bits(const struct ctr_device_rule *r, int *ret, struct err *e)
{
    int bits = 0;

    for (size_t i = 0; i < sizeof(r->access) && r->access[i]; i++) {
        switch (r->access[i]) {
        case 'r': bits |= BPF_DEVCG_ACC_READ; break;
        case 'w': bits |= BPF_DEVCG_ACC_WRITE; break;
        case 'm': bits |= BPF_DEVCG_ACC_MKNOD; break;
        default:
            return err_set(e, ERR_USER, "device rule: access '%c' is none of r, w, m",
                           r->access[i]);
        }
    }
    /* the runtime-spec lets access be left out; it then means all */
    *ret = bits ? bits : ALL_ACCESS;
    return 0;
}

static int check_rule(const struct ctr_device_rule *r, struct err *e)
{
    if (r->type && !strchr("acb", r->type))
        return err_set(e, ERR_USER, "device rule: type '%c' is none of a, c, b", r->type);
    if (r->major < -1 || r->major > UINT32_MAX || r->minor < -1 || r->minor > UINT32_MAX)
        return err_set(e, ERR_USER, "device rule: %lld:%lld is no device number",
                       (long long)r->major, (long long)r->minor);
    return 0;
}

/* "Deny everything", with which lists of rules begin; what stood before it has no say. */
static bool is_reset(const struct ctr_device_rule *r)
{
    struct err ignored = ERR_INIT;
    int bits = 0;

    return !r->allow && is_any_type(r) && r->major < 0 && r->minor < 0 &&
           access_bits(r, &bits, &ignored) == 0 && bits == ALL_ACCESS;
}

/* May they be in one group? Among rules of one verdict for one kind of access, the order means nothing. */
static bool is_alike(const struct ctr_device_rule *a, const struct ctr_device_rule *b, int bits)
{
    struct err ignored = ERR_INIT;
    int other = 0;

    return a->allow == b->allow && is_any_type(a) == is_any_type(b) &&
           (is_any_type(a) || a->type == b->type) && access_bits(b, &other, &ignored) == 0 &&
           other == bits;
}

static int emit_rules(struct program *p, const struct ctr_device_rule *rules, size_t n,
                      struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (check_rule(&rules[i], e) < 0)
            return -1;
    while (n > 0) {
        size_t first = n - 1;
        int bits = 0;

        if (access_bits(&rules[first], &bits, e) < 0)
            return -1;
        while (first > 0 && is_alike(&rules[first], &rules[first - 1], bits))
            first--;
        emit_group(p, rules + first, n - first, bits);
        n = first;
    }
    return 0;
}

int ctr_devfilter_compile(const struct ctr_device_rule *rules, size_t n, bool bare,
                          struct bpf_insn **ret, size_t *ret_n, struct err *e)
{
    AUTO_FREE struct bpf_insn *insns = NULL;
    size_t n_defaults = bare ? 0 : ARRAY_SIZE(default_rules);
    size_t first = 0;

    /* Rules in front of the last reset are without effect, and the default nodes belong right behind it: a list
     * that begins with "deny all" (they all do) means "and the default nodes", one that denies a default node
     * by name means that too. */
    for (size_t i = 0; i < n; i++)
        if (is_reset(&rules[i]))
            first = i + 1;
    if ((n - first + n_defaults) * RULE_INSNS + FRAME_INSNS > BPF_MAXINSNS)
        return err_set(e, ERR_LIMIT, "%zu device rules are too many for one filter", n - first);
    struct program p = {.insns = mem_array(BPF_MAXINSNS, sizeof(*insns))};

    insns = p.insns;
    emit_prologue(&p);
    if (emit_rules(&p, rules + first, n - first, e) < 0 ||
        emit_rules(&p, default_rules, n_defaults, e) < 0)
        return -1;
    emit_answer(&p, 0);
    *ret = take_ptr(&insns);
    *ret_n = p.n;
    return 0;
}

/* --- the kernel ------------------------------------------------------------------------------------- */

static int bpf(int cmd, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static int explain_bpf(struct err *e, const char *what)
{
    if (errno == EPERM)
        return err_set(e, ERR_HOST,
                       "%s: not permitted; CAP_SYS_ADMIN (or CAP_BPF and CAP_NET_ADMIN) in the "
                       "first user namespace is needed",
                       what);
    if (errno == ENOSYS)
        return err_set(e, ERR_HOST, "%s: this kernel has no bpf(2)", what);
    if (errno == EINVAL)
        return err_set(e, ERR_HOST, "%s: this kernel cannot (CONFIG_CGROUP_BPF)", what);
    return err_sys(e, "%s", what);
}

static int load(const struct bpf_insn *insns, size_t n, struct err *e)
{
    union bpf_attr attr;

    memset(&attr, 0, sizeof(attr));
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insns = (uint64_t)(uintptr_t)insns;
    attr.insn_cnt = (uint32_t)n;
    attr.license = (uint64_t)(uintptr_t) "MIT"; /* no GPL-only helper is called */
    memcpy(attr.prog_name, "cw_devices", sizeof("cw_devices"));
    int fd = bpf(BPF_PROG_LOAD, &attr); /* close-on-exec by nature */

    return fd < 0 ? explain_bpf(e, "load the device filter") : fd;
}

enum { ATTACHED_MAX = 64 }; /* BPF_CGROUP_MAX_PROGS */

static int query(int cgroup_fd, uint32_t ids[ATTACHED_MAX], size_t *ret_n, struct err *e)
{
    union bpf_attr attr;

    memset(&attr, 0, sizeof(attr));
    attr.query.target_fd = (uint32_t)cgroup_fd;
    attr.query.attach_type = BPF_CGROUP_DEVICE;
    attr.query.prog_ids = (uint64_t)(uintptr_t)ids;
    attr.query.prog_cnt = ATTACHED_MAX;
    if (bpf(BPF_PROG_QUERY, &attr) < 0)
        return explain_bpf(e, "ask for the device filters of a cgroup");
    *ret_n = attr.query.prog_cnt;
    return 0;
}

static int attach(int cgroup_fd, int prog, struct err *e)
{
    union bpf_attr attr;

    memset(&attr, 0, sizeof(attr));
    attr.target_fd = (uint32_t)cgroup_fd;
    attr.attach_bpf_fd = (uint32_t)prog;
    attr.attach_type = BPF_CGROUP_DEVICE;
    attr.attach_flags = BPF_F_ALLOW_MULTI;
    if (bpf(BPF_PROG_ATTACH, &attr) < 0)
        return explain_bpf(e, "attach the device filter");
    return 0;
}

static int detach(int cgroup_fd, uint32_t id, struct err *e)
{
    union bpf_attr attr;

    memset(&attr, 0, sizeof(attr));
    attr.prog_id = id;
    AUTO_CLOSE int old = bpf(BPF_PROG_GET_FD_BY_ID, &attr);

    if (old < 0 && errno == ENOENT)
        return 0;
    if (old < 0)
        return explain_bpf(e, "open the old device filter");
    memset(&attr, 0, sizeof(attr));
    attr.target_fd = (uint32_t)cgroup_fd;
    attr.attach_bpf_fd = (uint32_t)old;
    attr.attach_type = BPF_CGROUP_DEVICE;
    if (bpf(BPF_PROG_DETACH, &attr) < 0 && errno != ENOENT)
        return explain_bpf(e, "detach the old device filter");
    return 0;
}

int ctr_devfilter_attach(int cgroup_fd, const struct ctr_device_rule *rules, size_t n, bool bare,
                         struct err *e)
{
    AUTO_FREE struct bpf_insn *insns = NULL;
    uint32_t old[ATTACHED_MAX];
    size_t n_insns = 0, n_old = 0;

    if (ctr_devfilter_compile(rules, n, bare, &insns, &n_insns, e) < 0)
        return -1;
    AUTO_CLOSE int prog = load(insns, n_insns, e);

    /* The new one first: all attached programs must allow, so there is no moment without a filter. */
    if (prog < 0 || query(cgroup_fd, old, &n_old, e) < 0 || attach(cgroup_fd, prog, e) < 0)
        return -1;
    for (size_t i = 0; i < n_old; i++)
        if (detach(cgroup_fd, old[i], e) < 0)
            return -1;
    return 0;
}

int ctr_devfilter_count(int cgroup_fd, struct err *e)
{
    uint32_t ids[ATTACHED_MAX];
    size_t n = 0;

    return query(cgroup_fd, ids, &n, e) < 0 ? -1 : (int)n;
}
