/*
 * The device filter's program, run by a small interpreter, and shown to the kernel. needs: root cgroup2
 * rows: S40
 */
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/bpf.h>

#include "base/err.h"
#include "base/mem.h"
#include "runtime/devfilter.h"
#include "runtime/spec.h"
#include "tests/unit/test.h"

/* Carries out the instructions the compiler uses; anything else is a failure, and so is a jump or load out of
 * bounds, or running past the end. */
static int interpret(const struct bpf_insn *insns, size_t n, const struct bpf_cgroup_dev_ctx *ctx)
{
    uint64_t r[11] = {0};
    size_t steps = 0;

    for (size_t pc = 0; pc < n && steps < 100000; pc++, steps++) {
        const struct bpf_insn *i = &insns[pc];
        bool take = false;

        switch (i->code) {
        case BPF_LDX | BPF_MEM | BPF_W:
            assert_int_equal(i->src_reg, 1);
            assert_true(i->off >= 0 && (size_t)i->off + 4 <= sizeof(*ctx) && i->off % 4 == 0);
            r[i->dst_reg] = ((const uint32_t *)ctx)[i->off / 4];
            break;
        case BPF_ALU64 | BPF_MOV | BPF_X: r[i->dst_reg] = r[i->src_reg]; break;
        case BPF_ALU64 | BPF_MOV | BPF_K: r[i->dst_reg] = (uint64_t)(int64_t)i->imm; break;
        case BPF_ALU64 | BPF_AND | BPF_K: r[i->dst_reg] &= (uint64_t)(int64_t)i->imm; break;
        case BPF_ALU64 | BPF_RSH | BPF_K: r[i->dst_reg] >>= i->imm; break;
        case BPF_JMP32 | BPF_JNE | BPF_K: take = (uint32_t)r[i->dst_reg] != (uint32_t)i->imm; break;
        case BPF_JMP32 | BPF_JEQ | BPF_K: take = (uint32_t)r[i->dst_reg] == (uint32_t)i->imm; break;
        case BPF_JMP | BPF_JA: take = true; break;
        case BPF_JMP | BPF_JNE | BPF_K: take = r[i->dst_reg] != (uint64_t)(int64_t)i->imm; break;
        case BPF_JMP | BPF_JEQ | BPF_K: take = r[i->dst_reg] == (uint64_t)(int64_t)i->imm; break;
        case BPF_JMP | BPF_EXIT: return (int)r[0];
        default: fail_msg("instruction %zu: code 0x%x", pc, i->code);
        }
        if (take) {
            assert_true(i->off >= 0);
            pc += (size_t)i->off;
        }
    }
    fail_msg("ran past the end");
    return -1;
}

static int ask(const struct ctr_device_rule *rules, size_t n, bool bare, char type, uint32_t major,
               uint32_t minor, const char *access)
{
    AUTO_FREE struct bpf_insn *insns = NULL;
    struct err e = ERR_INIT;
    size_t n_insns = 0;
    uint32_t bits = 0;

    for (; *access; access++)
        bits |= *access == 'r'   ? BPF_DEVCG_ACC_READ
                : *access == 'w' ? BPF_DEVCG_ACC_WRITE
                                 : BPF_DEVCG_ACC_MKNOD;
    if (ctr_devfilter_compile(rules, n, bare, &insns, &n_insns, &e) < 0)
        fail_msg("%s", e.msg);
    struct bpf_cgroup_dev_ctx ctx = {
        .access_type = bits << 16 | (type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR),
        .major = major,
        .minor = minor,
    };

    return interpret(insns, n_insns, &ctx);
}

#define DENY_ALL                  \
    {                             \
        false, 'a', -1, -1, "rwm" \
    }
#define NVIDIA0                 \
    {                           \
        true, 'c', 195, 0, "rw" \
    }

static const struct ctr_device_rule none[] = {DENY_ALL};
static const struct ctr_device_rule gpu[] = {DENY_ALL, NVIDIA0, {true, 'c', 195, 255, "rw"}};
static const struct ctr_device_rule two_halves[] = {{true, 'c', 9, 9, "r"}, {true, 'c', 9, 9, "w"}};
static const struct ctr_device_rule taken_back[] = {NVIDIA0, {false, 'c', 195, -1, "w"}};
static const struct ctr_device_rule all[] = {{true, 'a', -1, -1, "rwm"}};
static const struct ctr_device_rule all_but_disks[] = {{true, 'a', -1, -1, "rwm"},
                                                       {false, 'b', -1, -1, "rwm"}};
static const struct ctr_device_rule reset_last[] = {NVIDIA0, DENY_ALL};
static const struct ctr_device_rule no_null[] = {DENY_ALL, {false, 'c', 1, 3, "w"}};
static const struct ctr_device_rule no_access[] = {DENY_ALL, {true, 'c', 7, 7, ""}};

static void decisions(void **state UNUSED)
{
    static const struct {
        const struct ctr_device_rule *rules;
        size_t n;
        bool bare;
        char type;
        uint32_t major, minor;
        const char *access;
        int answer;
    } rows[] = {
        {none, 0, false, 'c', 1, 3, "rw", 1}, /* null */
        {none, 1, false, 'c', 1, 3, "rw", 1},
        {none, 1, true, 'c', 1, 3, "rw", 0},
        {none, 1, false, 'c', 5, 0, "r", 1},
        {none, 1, false, 'c', 5, 1, "rw", 0}, /* the host's console */
        {none, 1, false, 'c', 136, 17, "rw", 1},
        {none, 1, false, 'b', 136, 17, "r", 0},
        {none, 1, false, 'b', 8, 0, "m", 1},
        {none, 1, false, 'b', 8, 0, "r", 0},
        {none, 1, false, 'b', 8, 0, "rm", 0},
        {none, 1, false, 'c', 1, 1, "r", 0}, /* mem */
        {none, 1, false, 'c', 195, 0, "rw", 0},
        {gpu, 3, false, 'c', 195, 0, "rw", 1},
        {gpu, 3, false, 'c', 195, 0, "rwm", 1}, /* m from the defaults */
        {gpu, 3, true, 'c', 195, 0, "rwm", 0},
        {gpu, 3, false, 'c', 195, 1, "rw", 0},
        {gpu, 3, false, 'c', 195, 1, "r", 0},
        {gpu, 3, false, 'b', 195, 0, "rw", 0},
        {two_halves, 2, true, 'c', 9, 9, "rw", 1},
        {two_halves, 2, true, 'c', 9, 9, "rwm", 0},
        {taken_back, 2, true, 'c', 195, 0, "rw", 0},
        {taken_back, 2, true, 'c', 195, 0, "r", 1},
        {all, 1, true, 'b', 259, 3, "rwm", 1},
        {all_but_disks, 2, true, 'b', 259, 3, "r", 0},
        {all_but_disks, 2, true, 'c', 259, 3, "rwm", 1},
        {reset_last, 2, false, 'c', 195, 0, "r", 0},
        {reset_last, 2, false, 'c', 1, 5, "rw", 1},
        {no_null, 2, false, 'c', 1, 3, "w", 0},
        {no_null, 2, false, 'c', 1, 3, "r", 1},
        {no_access, 2, true, 'c', 7, 7, "rwm", 1},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int got = ask(rows[i].rules, rows[i].n, rows[i].bare, rows[i].type, rows[i].major,
                      rows[i].minor, rows[i].access);

        if (got != rows[i].answer)
            fail_msg("row %zu: %c %u:%u %s: got %d", i, rows[i].type, rows[i].major, rows[i].minor,
                     rows[i].access, got);
    }
}

static void refusals(void **state UNUSED)
{
    static const struct ctr_device_rule bad[] = {{true, 'p', 1, 1, "r"},
                                                 {true, 'c', 1, 1, "x"},
                                                 {true, 'c', -2, 1, "r"},
                                                 {true, 'c', 1, 1LL << 33, "r"}};
    struct err e = ERR_INIT;
    struct bpf_insn *insns = NULL;
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(ctr_devfilter_compile(&bad[i], 1, false, &insns, &n, &e), -1);
        assert_int_equal(e.kind, ERR_USER);
    }
    AUTO_FREE struct ctr_device_rule *many = mem_array(1000, sizeof(*many));

    for (size_t i = 0; i < 1000; i++)
        many[i] = (struct ctr_device_rule){true, 'c', (int64_t)i, 1, "rw"};
    assert_int_equal(ctr_devfilter_compile(many, 1000, false, &insns, &n, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
    assert_int_equal(ctr_devfilter_compile(many, 400, false, &insns, &n, &e), 0);
    free(insns);
}

/* --- any list of rules --------------------------------------------------------------------------------- */

enum { LISTS = 400, LONGEST = 7 };

static uint32_t next_number(uint32_t *state, uint32_t below)
{
    *state = *state * 1664525 + 1013904223;
    return (*state >> 8) % below;
}

/* Few numbers, so that rules meet each other and what is asked for. */
static size_t make_rules(struct ctr_device_rule rules[LONGEST], uint32_t *state)
{
    static const char *const accesses[] = {"r", "w", "m", "rw", "rwm", ""};
    size_t n = next_number(state, LONGEST + 1);

    for (size_t i = 0; i < n; i++) {
        rules[i] = (struct ctr_device_rule){.allow = next_number(state, 3) > 0,
                                            .type = "acb"[next_number(state, 3)],
                                            .major = (int64_t)next_number(state, 4) - 1,
                                            .minor = (int64_t)next_number(state, 4) - 1};
        snprintf(rules[i].access, sizeof(rules[i].access), "%s",
                 accesses[next_number(state, ARRAY_SIZE(accesses))]);
    }
    return n;
}

/* The specification's words: each kind of access is decided by the last rule that names it. */
static int by_the_book(const struct ctr_device_rule *rules, size_t n, char type, uint32_t major,
                       uint32_t minor, const char *access)
{
    for (; *access; access++) {
        bool allowed = false;

        for (size_t i = 0; i < n; i++) {
            const struct ctr_device_rule *r = &rules[i];

            if ((r->type == 'a' || r->type == type) && (r->major < 0 || r->major == major) &&
                (r->minor < 0 || r->minor == minor) &&
                (!r->access[0] || strchr(r->access, *access)))
                allowed = r->allow;
        }
        if (!allowed)
            return 0;
    }
    return 1;
}

static void ask_all(const struct ctr_device_rule *rules, size_t n, size_t list)
{
    static const char *const accesses[] = {"r", "w", "m", "rw", "rm", "wm", "rwm"};

    for (unsigned q = 0; q < 2 * 4 * 4 * ARRAY_SIZE(accesses); q++) {
        char type = "cb"[q % 2];
        uint32_t major = q / 2 % 4, minor = q / 8 % 4;
        const char *access = accesses[q / 32];
        int want = by_the_book(rules, n, type, major, minor, access);

        if (ask(rules, n, true, type, major, minor, access) != want)
            fail_msg("list %zu: %c %u:%u %s is not %d", list, type, major, minor, access, want);
    }
}

static void any_list_means_what_its_rules_say(void **state UNUSED)
{
    uint32_t seed = 1;

    for (size_t list = 0; list < LISTS; list++) {
        struct ctr_device_rule rules[LONGEST];
        size_t n = make_rules(rules, &seed);

        ask_all(rules, n, list);
    }
}

/* Code that cannot be reached, a jump that leads nowhere, a loop: the verifier takes none of it. */
static void the_kernel_takes_any_list(void **state UNUSED)
{
    static char log[65536];
    uint32_t seed = 1;

    for (size_t list = 0; list < LISTS; list++) {
        struct ctr_device_rule rules[LONGEST];
        AUTO_FREE struct bpf_insn *insns = NULL;
        struct err e = ERR_INIT;
        union bpf_attr attr;
        size_t n_insns = 0, n = make_rules(rules, &seed);

        assert_int_equal(ctr_devfilter_compile(rules, n, list % 2, &insns, &n_insns, &e), 0);
        memset(&attr, 0, sizeof(attr));
        attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
        attr.insns = (uint64_t)(uintptr_t)insns;
        attr.insn_cnt = (uint32_t)n_insns;
        attr.license = (uint64_t)(uintptr_t) "MIT";
        attr.log_buf = (uint64_t)(uintptr_t)log;
        attr.log_size = sizeof(log);
        attr.log_level = 1;
        int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));

        if (fd < 0)
            fail_msg("list %zu of %zu rules: %s", list, n, log);
        close(fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decisions), cmocka_unit_test(refusals),
                                       cmocka_unit_test(any_list_means_what_its_rules_say),
                                       cmocka_unit_test(the_kernel_takes_any_list)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
