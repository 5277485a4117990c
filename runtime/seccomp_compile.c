/*
 * seccomp_compile.c - linux.seccomp of config.json to a program.
 *
 * Where the default action is a plain ERRNO, calls with a number above all that the profile names are answered ENOSYS:
 * they are newer than the profile, and programs fall back to older calls on ENOSYS but give up on EPERM.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <string.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/seccomp.h"
#include "runtime/seccomp_own.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

enum { NAMES_MAX = 4096, RULES_MAX = 4096, ARGS_MAX = 6, ARCHS_MAX = 32 };

const char *const ctr_seccomp_actions[] = {"SCMP_ACT_ALLOW",       "SCMP_ACT_ERRNO",
                                           "SCMP_ACT_KILL",        "SCMP_ACT_KILL_PROCESS",
                                           "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
                                           "SCMP_ACT_NOTIFY",      "SCMP_ACT_TRACE",
                                           "SCMP_ACT_TRAP",        NULL};
const char *const ctr_seccomp_operators[] = {"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
                                             "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                                             "SCMP_CMP_NE", NULL};
const char *const ctr_seccomp_archs[] = {
    "SCMP_ARCH_AARCH64",  "SCMP_ARCH_ARM",         "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",     "SCMP_ARCH_MIPS64",      "SCMP_ARCH_MIPS64N32",   "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PARISC",      "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",      "SCMP_ARCH_PPC64",       "SCMP_ARCH_PPC64LE",     "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",     "SCMP_ARCH_S390X",       "SCMP_ARCH_SH",          "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",      "SCMP_ARCH_X86",         "SCMP_ARCH_X86_64",      NULL};
const char *const ctr_seccomp_flags[] = {
    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", NULL};

/* In the order of the lists above. */
static const uint32_t action_values[] = {
    SCMP_ACT_ALLOW,        SCMP_ACT_ERRNO(0),    SCMP_ACT_KILL,
    SCMP_ACT_KILL_PROCESS, SCMP_ACT_KILL_THREAD, SCMP_ACT_LOG,
    SCMP_ACT_NOTIFY,       SCMP_ACT_TRACE(0),    SCMP_ACT_TRAP};
static const enum scmp_compare operator_values[] = {SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT,
                                                    SCMP_CMP_LE, SCMP_CMP_LT, SCMP_CMP_MASKED_EQ,
                                                    SCMP_CMP_NE};
static const unsigned flag_values[] = {SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                                       SECCOMP_FILTER_FLAG_TSYNC,
                                       SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV};

struct compile {
    scmp_filter_ctx ctx;
    uint32_t default_action;
    bool newer_is_enosys;
    bool notifies;
    uint32_t archs[ARCHS_MAX];
    int highest[ARCHS_MAX]; /* call number the profile names */
    size_t n_archs;
};

static int index_of(const char *const *list, const char *text)
{
    for (int i = 0; list[i]; i++)
        if (str_eq(list[i], text))
            return i;
    return -1;
}

static int unknown(struct err *e, const char *what, const char *text)
{
    char b[STR_SHOW_MAX];

    return err_set(e, ERR_USER, "linux.seccomp: unknown %s \"%s\"", what, str_show(b, text));
}

/* The action with its errno; `errno_key` may be missing (EPERM then). */
static int read_action(const cJSON *obj, const char *action_key, const char *errno_key,
                       uint32_t *ret, bool *ret_explicit, struct err *e)
{
    const char *name = NULL;
    int64_t value = -1;

    if (json_get_str(obj, action_key, 64, &name, e) < 0 ||
        json_opt_i64(obj, errno_key, 0, 4095, &value, e) < 0)
        return err_wrap(e, "linux.seccomp");
    int i = index_of(ctr_seccomp_actions, name);

    if (i < 0)
        return unknown(e, "action", name);
    *ret = action_values[i];
    *ret_explicit = value >= 0;
    if (*ret == SCMP_ACT_ERRNO(0))
        *ret = SCMP_ACT_ERRNO((uint32_t)(value < 0 ? EPERM : value));
    else if (*ret == SCMP_ACT_TRACE(0))
        *ret = SCMP_ACT_TRACE((uint32_t)(value < 0 ? EPERM : value));
    else if (value >= 0)
        return err_set(e, ERR_USER, "linux.seccomp: %s takes no %s", name, errno_key);
    return 0;
}

/* --- rules -------------------------------------------------------------------------------------------------------- */

static int read_arg(const cJSON *item, struct scmp_arg_cmp *ret, struct err *e)
{
    const char *op = NULL;
    uint64_t index = 0;
    const cJSON *a = cJSON_GetObjectItemCaseSensitive(item, "value");
    const cJSON *b = cJSON_GetObjectItemCaseSensitive(item, "valueTwo");
    uint64_t value = 0, value_two = 0;

    if (json_get_u64(item, "index", ARGS_MAX - 1, &index, e) < 0 ||
        json_get_u64(item, "value", UINT64_MAX, &value, e) < 0 ||
        (b && !cJSON_IsNull(b) && json_get_u64(item, "valueTwo", UINT64_MAX, &value_two, e) < 0) ||
        json_get_str(item, "op", 64, &op, e) < 0)
        return err_wrap(e, "linux.seccomp: args");
    BUG_ON(!a);
    int i = index_of(ctr_seccomp_operators, op);

    if (i < 0)
        return unknown(e, "operator", op);
    *ret = (struct scmp_arg_cmp){
        .arg = (unsigned)index, .op = operator_values[i], .datum_a = value, .datum_b = value_two};
    return 0;
}

static int add_one(struct compile *c, uint32_t action, const char *name,
                   const struct scmp_arg_cmp *args, unsigned n, struct err *e)
{
    int nr = seccomp_syscall_resolve_name(name);

    if (nr == __NR_SCMP_ERROR)
        return 0;
    int rc = seccomp_rule_add_array(c->ctx, action, nr, n, args);

    /* EEXIST: said twice; EDOM: not for one of the architectures */
    if (rc < 0 && rc != -EEXIST && rc != -EDOM)
        return err_sysno(e, -rc, "linux.seccomp: rule for %s", name);
    return 0;
}

static void note_highest(struct compile *c, const char *name)
{
    for (size_t i = 0; i < c->n_archs; i++) {
        int nr = seccomp_syscall_resolve_name_arch(c->archs[i], name);

        if (nr >= 0 && nr > c->highest[i])
            c->highest[i] = nr;
    }
}

/* libseccomp takes one condition an argument. Several on the same one are meant as alternatives (runc, crun). */
static int add_rule(struct compile *c, uint32_t action, const char *name,
                    const struct scmp_arg_cmp *args, unsigned n, struct err *e)
{
    bool twice = false;
    unsigned seen = 0;

    for (unsigned i = 0; i < n; i++) {
        twice |= seen >> args[i].arg & 1;
        seen |= 1U << args[i].arg;
    }
    note_highest(c, name);
    if (!twice)
        return add_one(c, action, name, args, n, e);
    for (unsigned i = 0; i < n; i++)
        if (add_one(c, action, name, &args[i], 1, e) < 0)
            return -1;
    return 0;
}

static int add_entry(struct compile *c, const cJSON *entry, struct err *e)
{
    AUTO(str_list) struct str_list names = {0};
    const cJSON *args = NULL, *item;
    struct scmp_arg_cmp cmp[ARGS_MAX * 8];
    unsigned n = 0;
    uint32_t action = 0;
    bool explicit_errno;

    if (json_opt_str_list(entry, "names", NAMES_MAX, 128, &names, e) < 0 ||
        json_opt_array(entry, "args", ARRAY_SIZE(cmp), &args, e) < 0)
        return err_wrap(e, "linux.seccomp.syscalls");
    if (read_action(entry, "action", "errnoRet", &action, &explicit_errno, e) < 0)
        return -1;
    if (!names.n)
        return err_set(e, ERR_USER, "linux.seccomp.syscalls: an entry names no call");
    cJSON_ArrayForEach(item, args) {
        if (read_arg(item, &cmp[n++], e) < 0)
            return -1;
    }
    if (action == SCMP_ACT_NOTIFY) {
        c->notifies = true;
    }
    for (size_t i = 0; i < names.n; i++) {
        if (action == c->default_action)
            note_highest(
                c, names.items[i]); /* libseccomp refuses rules that say what the default says */
        else if (add_rule(c, action, names.items[i], cmp, n, e) < 0)
            return -1;
    }
    return 0;
}

/* --- frame ---------------------------------------------------------------------------------------------------------- */

static int add_archs(struct compile *c, const cJSON *seccomp, struct err *e)
{
    AUTO(str_list) struct str_list names = {0};

    c->archs[c->n_archs++] = seccomp_arch_native();
    if (json_opt_str_list(seccomp, "architectures", ARCHS_MAX - 1, 64, &names, e) < 0)
        return err_wrap(e, "linux.seccomp");
    for (size_t i = 0; i < names.n; i++) {
        char lower[64] = "";
        const char *name = names.items[i];

        if (index_of(ctr_seccomp_archs, name) < 0)
            return unknown(e, "architecture", name);
        for (size_t k = 0; name[strlen("SCMP_ARCH_") + k] && k < sizeof(lower) - 1; k++)
            lower[k] = (char)(name[strlen("SCMP_ARCH_") + k] |
                              0x20 * (name[strlen("SCMP_ARCH_") + k] >= 'A' &&
                                      name[strlen("SCMP_ARCH_") + k] <= 'Z'));
        uint32_t arch = seccomp_arch_resolve_name(lower);
        int rc = arch ? seccomp_arch_add(c->ctx, arch) : -EINVAL;

        if (rc == -EEXIST)
            continue; /* the native one is there already */
        if (rc < 0)
            return err_set(e, ERR_USER, "linux.seccomp: %s cannot be filtered on this machine",
                           name);
        c->archs[c->n_archs++] = arch;
    }
    return 0;
}

static int read_flags(const cJSON *seccomp, unsigned *ret, struct err *e)
{
    AUTO(str_list) struct str_list names = {0};

    *ret = 0;
    /* Not said: as runc, no speculation mitigation, which is slow and was the kernel's default before 5.16 only. */
    if (!cJSON_GetObjectItemCaseSensitive(seccomp, "flags"))
        *ret = SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    if (json_opt_str_list(seccomp, "flags", 16, 64, &names, e) < 0)
        return err_wrap(e, "linux.seccomp");
    for (size_t i = 0; i < names.n; i++) {
        int k = index_of(ctr_seccomp_flags, names.items[i]);

        if (k < 0)
            return unknown(e, "flag", names.items[i]);
        *ret |= flag_values[k];
    }
    return 0;
}

static void add_newer(const struct compile *c, struct seccomp_prologue *p)
{
    for (size_t i = 0; i < c->n_archs; i++) {
        if (c->highest[i] <= 0 || c->archs[i] == SCMP_ARCH_X32)
            continue;
        size_t begin = ctr_seccomp_prologue_begin(p, c->archs[i]);

        ctr_seccomp_prologue_add(p, BPF_LD | BPF_W | BPF_ABS, 0, 0,
                                 offsetof(struct seccomp_data, nr));
        if (c->archs[i] == SCMP_ARCH_X86_64) /* x32 numbers have their own rules further down */
            ctr_seccomp_prologue_add(p, BPF_JMP | BPF_JGE | BPF_K, 2, 0, 0x40000000);
        ctr_seccomp_prologue_add(p, BPF_JMP | BPF_JGT | BPF_K, 0, 1, (uint32_t)c->highest[i]);
        ctr_seccomp_prologue_add(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOSYS);
        ctr_seccomp_prologue_end(p, begin);
    }
}

static int read_listener(const struct compile *c, const cJSON *seccomp, struct ctr_seccomp *ret,
                         struct err *e)
{
    const char *path = NULL, *metadata = NULL;

    if (json_opt_str(seccomp, "listenerPath", BOUND_PATH, &path, e) < 0 ||
        json_opt_str(seccomp, "listenerMetadata", 64 * BOUND_KIB, &metadata, e) < 0)
        return err_wrap(e, "linux.seccomp");
    if (c->notifies && !path)
        return err_set(e, ERR_USER, "linux.seccomp: SCMP_ACT_NOTIFY needs listenerPath");
    if (metadata && !path)
        return err_set(e, ERR_USER, "linux.seccomp: listenerMetadata needs listenerPath");
    if (!c->notifies)
        return 0;
    ret->listener = true;
    ret->flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
    /* the two return values exclude each other, and the child has one thread */
    ret->flags &= ~(unsigned)SECCOMP_FILTER_FLAG_TSYNC;
    ret->listener_path = mem_strdup(path);
    ret->listener_metadata = mem_strdup(metadata);
    return 0;
}

static int add_entries(struct compile *c, const cJSON *seccomp, struct err *e)
{
    const cJSON *entries = NULL, *entry;

    if (json_opt_array(seccomp, "syscalls", RULES_MAX, &entries, e) < 0)
        return err_wrap(e, "linux.seccomp");
    cJSON_ArrayForEach(entry, entries) {
        if (add_entry(c, entry, e) < 0)
            return -1;
    }
    return 0;
}

static int compile_into(struct compile *c, const cJSON *seccomp, struct ctr_seccomp *ret,
                        struct err *e)
{
    struct sock_filter room[SECCOMP_PROLOGUE_MAX];
    struct seccomp_prologue p = {.insns = room};

    if (seccomp_attr_set(c->ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2) < 0)
        return err_set(e, ERR_HOST, "seccomp: libseccomp 2.5 or newer is needed");
    if (add_archs(c, seccomp, e) < 0 || add_entries(c, seccomp, e) < 0 ||
        read_flags(seccomp, &ret->flags, e) < 0 || read_listener(c, seccomp, ret, e) < 0)
        return -1;
    if (c->newer_is_enosys)
        add_newer(c, &p);
    return ctr_seccomp_export(c->ctx, &p, ret, e);
}

int ctr_seccomp_compile(const cJSON *seccomp, struct ctr_seccomp *ret, struct err *e)
{
    AUTO(ctr_seccomp) struct ctr_seccomp f = {0};
    struct compile c = {0};
    bool explicit_errno = false;

    if (!cJSON_IsObject(seccomp))
        return err_set(e, ERR_USER, "linux.seccomp is not an object");
    if (read_action(seccomp, "defaultAction", "defaultErrnoRet", &c.default_action, &explicit_errno,
                    e) < 0)
        return -1;
    if (c.default_action == SCMP_ACT_NOTIFY)
        return err_set(e, ERR_USER, "linux.seccomp: SCMP_ACT_NOTIFY cannot be the default action");
    c.newer_is_enosys = c.default_action == SCMP_ACT_ERRNO(EPERM) && !explicit_errno;
    AUTO(scmp) scmp_filter_ctx ctx = seccomp_init(c.default_action);

    if (!ctx)
        return err_set(e, ERR_HOST,
                       "seccomp: libseccomp cannot make a filter with this default action");
    c.ctx = ctx;
    if (compile_into(&c, seccomp, &f, e) < 0)
        return -1;
    *ret = f;
    f = (struct ctr_seccomp){0};
    return 0;
}
