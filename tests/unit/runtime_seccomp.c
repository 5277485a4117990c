/*
 * Filters, run by a small interpreter, and loaded into the kernel once. rows: S39
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "runtime/seccomp.h"
#include "runtime/spec.h"
#include "tests/unit/test.h"

#define DOCKER_CAPS 0xa80425fbULL
#define ALLOW       SECCOMP_RET_ALLOW
#define ERR(n)      (SECCOMP_RET_ERRNO | (n))

static uint32_t interpret(const struct ctr_seccomp *f, const struct seccomp_data *d)
{
    uint32_t a = 0;

    for (size_t pc = 0; pc < f->n; pc++) {
        const struct sock_filter *i = &f->insns[pc];
        bool hit = false;

        switch (i->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            assert_true(i->k + 4 <= sizeof(*d) && i->k % 4 == 0);
            a = ((const uint32_t *)d)[i->k / 4];
            continue;
        case BPF_ALU | BPF_AND | BPF_K: a &= i->k; continue;
        case BPF_JMP | BPF_JA: pc += i->k; continue;
        case BPF_RET | BPF_K: return i->k;
        case BPF_JMP | BPF_JEQ | BPF_K: hit = a == i->k; break;
        case BPF_JMP | BPF_JGE | BPF_K: hit = a >= i->k; break;
        case BPF_JMP | BPF_JGT | BPF_K: hit = a > i->k; break;
        case BPF_JMP | BPF_JSET | BPF_K: hit = a & i->k; break;
        default: fail_msg("instruction %zu: code 0x%x", pc, i->code);
        }
        pc += hit ? i->jt : i->jf;
    }
    fail_msg("ran past the end");
    return 0;
}

struct question {
    uint32_t arch;
    const char *name; /* or NULL: nr */
    int nr;
    uint64_t args[3];
    uint32_t answer;
};

static void ask(const struct ctr_seccomp *f, const struct question *q, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct seccomp_data d = {
            .arch = q[i].arch,
            .nr = q[i].name ? seccomp_syscall_resolve_name_arch(q[i].arch, q[i].name) : q[i].nr,
            .args = {q[i].args[0], q[i].args[1], q[i].args[2]}};

        if (q[i].name)
            assert_true(d.nr >= 0);
        uint32_t got = interpret(f, &d);

        if (got != q[i].answer)
            fail_msg("row %zu: %s %d: 0x%x instead of 0x%x", i, q[i].name ? q[i].name : "", q[i].nr,
                     got, q[i].answer);
    }
}

static struct ctr_seccomp compile_default(uint64_t caps)
{
    struct ctr_seccomp f = {0};
    struct err e = ERR_INIT;

    assert_ok(ctr_seccomp_compile_default(caps, &f, &e), &e);
    return f;
}

#define X64 SCMP_ARCH_X86_64
#define X86 SCMP_ARCH_X86

static void default_list(void **state UNUSED)
{
    AUTO(ctr_seccomp) struct ctr_seccomp f = compile_default(DOCKER_CAPS);
    static const struct question q[] = {
        {X64, "read", 0, {0}, ALLOW},
        {X64, "execve", 0, {0}, ALLOW},
        {X64, "openat2", 0, {0}, ALLOW},
        {X64, "futex_waitv", 0, {0}, ALLOW},
        {X64, "rseq", 0, {0}, ALLOW},
        {X64, "chroot", 0, {0}, ALLOW}, /* CAP_SYS_CHROOT is among Docker's */
        {X64, "mount", 0, {0}, ERR(EPERM)},
        {X64, "umount2", 0, {0}, ERR(EPERM)},
        {X64, "fsopen", 0, {0}, ERR(EPERM)},
        {X64, "move_mount", 0, {0}, ERR(EPERM)},
        {X64, "mount_setattr", 0, {0}, ERR(EPERM)},
        {X64, "pivot_root", 0, {0}, ERR(EPERM)},
        {X64, "open_by_handle_at", 0, {0}, ERR(EPERM)},
        {X64, "bpf", 0, {0}, ERR(EPERM)},
        {X64, "kexec_load", 0, {0}, ERR(EPERM)},
        {X64, "kexec_file_load", 0, {0}, ERR(EPERM)},
        {X64, "init_module", 0, {0}, ERR(EPERM)},
        {X64, "finit_module", 0, {0}, ERR(EPERM)},
        {X64, "delete_module", 0, {0}, ERR(EPERM)},
        {X64, "keyctl", 0, {0}, ERR(EPERM)},
        {X64, "add_key", 0, {0}, ERR(EPERM)},
        {X64, "request_key", 0, {0}, ERR(EPERM)},
        {X64, "perf_event_open", 0, {0}, ERR(EPERM)},
        {X64, "userfaultfd", 0, {0}, ERR(EPERM)},
        {X64, "io_uring_setup", 0, {0}, ERR(EPERM)},
        {X64, "io_uring_enter", 0, {0}, ERR(EPERM)},
        {X64, "unshare", 0, {0}, ERR(EPERM)},
        {X64, "setns", 0, {0}, ERR(EPERM)},
        {X64, "clone", 0, {0x1200011}, ALLOW}, /* fork */
        {X64, "clone", 0, {0x3d0f00}, ALLOW},  /* a thread */
        {X64, "clone", 0, {CLONE_NEWUSER | 17}, ERR(EPERM)},
        {X64, "clone", 0, {CLONE_NEWNS | 17}, ERR(EPERM)},
        {X64, "clone", 0, {CLONE_NEWNET | 17}, ERR(EPERM)},
        {X64, "clone3", 0, {0}, ERR(ENOSYS)},
        {X64, NULL, 999, {0}, ERR(ENOSYS)},
        {X64, NULL, 0x40000000, {0}, ERR(ENOSYS)}, /* x32 read */
        {X64, NULL, 0x40000000 + 165, {0}, ERR(ENOSYS)},
        {X64, "ioctl", 0, {0, 0x5401}, ALLOW},
        {X64, "ioctl", 0, {0, 0x5412}, ERR(EPERM)}, /* TIOCSTI */
        {X64, "ioctl", 0, {0, 0x541c}, ERR(EPERM)}, /* TIOCLINUX */
        {X64,
         "ioctl",
         0,
         {0, 0x100005412},
         ERR(EPERM)}, /* the kernel drops the upper half, so do we */
        {X64, "socket", 0, {AF_INET}, ALLOW},
        {X64, "socket", 0, {AF_ALG}, ERR(EPERM)},
        {X64, "socket", 0, {AF_VSOCK}, ERR(EPERM)},
        {X64, "socket", 0, {0x700000000 | AF_VSOCK}, ERR(EPERM)},
        {X64, "personality", 0, {0}, ALLOW},
        {X64, "personality", 0, {0xffffffff}, ALLOW},
        {X64, "personality", 0, {0x0040000}, ERR(EPERM)},
        {X86, "read", 0, {0}, ALLOW},
        {X86, "mount", 0, {0}, ERR(EPERM)},
        {X86, "umount", 0, {0}, ERR(EPERM)},
        {X86, "socketcall", 0, {1}, ERR(ENOSYS)},
        {X86, NULL, 359, {AF_ALG}, ERR(EPERM)},
        {X86, NULL, 359, {AF_INET}, ALLOW},
        {X86, "ioctl", 0, {0, 0x5412}, ERR(EPERM)},
        {X86, "clone", 0, {CLONE_NEWUSER}, ERR(EPERM)},
        {X86, "keyctl", 0, {0}, ERR(EPERM)},
        {0x1234, NULL, 0, {0}, ERR(ENOSYS)},
    };

    assert_int_equal(seccomp_arch_native(), X64); /* the table is written for it */
    assert_true(f.n < BPF_MAXINSNS);
    ask(&f, q, ARRAY_SIZE(q));
}

static void capabilities_open(void **state UNUSED)
{
    static const struct {
        uint64_t caps;
        struct question q;
    } rows[] = {
        {1ULL << CAP_SYS_ADMIN, {X64, "mount", 0, {0}, ALLOW}},
        {1ULL << CAP_SYS_ADMIN, {X64, "clone", 0, {CLONE_NEWUSER}, ALLOW}},
        {1ULL << CAP_SYS_ADMIN, {X64, "bpf", 0, {0}, ALLOW}},
        {1ULL << CAP_SYS_ADMIN, {X64, "io_uring_setup", 0, {0}, ERR(EPERM)}},
        {1ULL << CAP_BPF, {X64, "bpf", 0, {0}, ALLOW}},
        {1ULL << CAP_SYS_NICE, {X64, "mbind", 0, {0}, ALLOW}},
        {0, {X64, "mbind", 0, {0}, ERR(EPERM)}},
        {0, {X64, "chroot", 0, {0}, ERR(EPERM)}},
        {1ULL << CAP_DAC_READ_SEARCH, {X64, "open_by_handle_at", 0, {0}, ALLOW}},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(ctr_seccomp) struct ctr_seccomp f = compile_default(rows[i].caps);

        ask(&f, &rows[i].q, 1);
    }
}

static cJSON *parse(const char *text)
{
    struct err e = ERR_INIT;
    cJSON *v = NULL;

    assert_ok(json_parse(text, strlen(text), &v, &e), &e);
    return v;
}

static void given_list(void **state UNUSED)
{
    AUTO(cJSON)
    cJSON *v = parse(
        "{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"architectures\":[\"SCMP_ARCH_X86_64\",\"SCMP_ARCH_X86\"],"
        "\"flags\":[\"SECCOMP_FILTER_FLAG_LOG\"],\"syscalls\":["
        "{\"names\":[\"read\",\"write\",\"no_such_call\",\"openat2\"],\"action\":\"SCMP_ACT_ALLOW\"},"
        "{\"names\":[\"getcwd\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":2},"
        "{\"names\":[\"chmod\"],\"action\":\"SCMP_ACT_KILL_PROCESS\"},"
        "{\"names\":[\"chown\"],\"action\":\"SCMP_ACT_LOG\"},"
        "{\"names\":[\"lchown\"],\"action\":\"SCMP_ACT_TRACE\",\"errnoRet\":7},"
        "{\"names\":[\"mkdir\"],\"action\":\"SCMP_ACT_TRAP\"},"
        "{\"names\":[\"dup\"],\"action\":\"SCMP_ACT_ALLOW\",\"args\":[{\"index\":0,\"value\":5,\"op\":\"SCMP_CMP_GT\"}]},"
        "{\"names\":[\"kill\"],\"action\":\"SCMP_ACT_ALLOW\",\"args\":["
        "{\"index\":1,\"value\":9,\"op\":\"SCMP_CMP_EQ\"},{\"index\":1,\"value\":15,\"op\":\"SCMP_CMP_EQ\"}]},"
        "{\"names\":[\"clone\"],\"action\":\"SCMP_ACT_ALLOW\",\"args\":["
        "{\"index\":0,\"value\":2114060288,\"valueTwo\":0,\"op\":\"SCMP_CMP_MASKED_EQ\"}]}]}");
    AUTO(ctr_seccomp) struct ctr_seccomp f = {0};
    struct err e = ERR_INIT;
    static const struct question q[] = {
        {X64, "read", 0, {0}, ALLOW},
        {X86, "read", 0, {0}, ALLOW},
        {X64, "getcwd", 0, {0}, ERR(ENOENT)},
        {X64, "chmod", 0, {0}, SECCOMP_RET_KILL_PROCESS},
        {X64, "chown", 0, {0}, SECCOMP_RET_LOG},
        {X64, "lchown", 0, {0}, SECCOMP_RET_TRACE | 7},
        {X64, "mkdir", 0, {0}, SECCOMP_RET_TRAP},
        {X64, "dup", 0, {6}, ALLOW},
        {X64, "dup", 0, {5}, ERR(EPERM)},
        {X64, "kill", 0, {1, 9}, ALLOW},
        {X64, "kill", 0, {1, 15}, ALLOW},
        {X64, "kill", 0, {1, 1}, ERR(EPERM)},
        {X64, "clone", 0, {0x11}, ALLOW},
        {X64, "clone", 0, {CLONE_NEWUSER}, ERR(EPERM)},
        {X64, "mount", 0, {0}, ERR(EPERM)},
        {X64, NULL, 437, {0}, ALLOW},                          /* openat2, the highest named */
        {X64, NULL, 439, {0}, ERR(ENOSYS)},                    /* newer than the profile */
        {X64, NULL, 0x40000001, {0}, SECCOMP_RET_KILL_THREAD}, /* x32 was not named */
    };

    assert_ok(ctr_seccomp_compile(v, &f, &e), &e);
    assert_int_equal(f.flags, SECCOMP_FILTER_FLAG_LOG);
    assert_false(f.listener);
    ask(&f, q, ARRAY_SIZE(q));
}

static void notify(void **state UNUSED)
{
    AUTO(cJSON)
    cJSON *v = parse("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"listenerPath\":\"/run/x\","
                     "\"flags\":[\"SECCOMP_FILTER_FLAG_TSYNC\"],"
                     "\"syscalls\":[{\"names\":[\"mkdir\"],\"action\":\"SCMP_ACT_NOTIFY\"}]}");
    AUTO(ctr_seccomp) struct ctr_seccomp f = {0};
    struct err e = ERR_INIT;

    assert_ok(ctr_seccomp_compile(v, &f, &e), &e);
    assert_true(f.listener);
    assert_int_equal(f.flags, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    assert_string_equal(f.listener_path, "/run/x");
}

static void refusals(void **state UNUSED)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"{}", "defaultAction"},
        {"{\"defaultAction\":\"SCMP_ACT_MAYBE\"}", "SCMP_ACT_MAYBE"},
        {"{\"defaultAction\":\"SCMP_ACT_NOTIFY\"}", "default action"},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"defaultErrnoRet\":3}", "defaultErrnoRet"},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[\"SCMP_ARCH_VAX\"]}",
         "SCMP_ARCH_VAX"},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"flags\":[\"FAST\"]}", "FAST"},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[],\"action\":\"SCMP_ACT_LOG\"}]}",
         "no call"},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mkdir\"],\"action\":\"SCMP_ACT_NOTIFY\"}]}",
         "listenerPath"},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"dup\"],\"action\":\"SCMP_ACT_LOG\","
         "\"args\":[{\"index\":6,\"value\":1,\"op\":\"SCMP_CMP_EQ\"}]}]}",
         "index"},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"dup\"],\"action\":\"SCMP_ACT_LOG\","
         "\"args\":[{\"index\":0,\"value\":1,\"op\":\"SCMP_CMP_ALMOST\"}]}]}",
         "SCMP_CMP_ALMOST"},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"listenerMetadata\":\"x\"}", "listenerPath"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(cJSON) cJSON *v = parse(rows[i].text);
        AUTO(ctr_seccomp) struct ctr_seccomp f = {0};
        struct err e = ERR_INIT;

        assert_int_equal(ctr_seccomp_compile(v, &f, &e), -1);
        assert_int_equal(e.kind, ERR_USER);
        assert_has(e.msg, rows[i].says);
    }
}

/* What the kernel makes of it. Exit status of the child: number of the step that went wrong. */
static int under_filter(const struct ctr_seccomp *f)
{
    struct sock_fprog prog = {.len = (unsigned short)f->n, .filter = f->insns};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return 1;
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, f->flags, &prog) != 0)
        return 2;
    if (unshare(CLONE_NEWUTS) == 0 || errno != EPERM)
        return 3;
    if (syscall(435, NULL, 0) != -1 || errno != ENOSYS) /* clone3 */
        return 4;
    if (ioctl(0, 0x5412, "x") == 0 || errno != EPERM)
        return 5;
    if (socket(AF_ALG, SOCK_SEQPACKET, 0) >= 0 || errno != EPERM)
        return 6;
    if (close(socket(AF_INET, SOCK_STREAM, 0)) < 0)
        return 7;
    if (syscall(SYS_getpid) <= 0)
        return 8;
    return 0;
}

static void kernel_takes_it(void **state UNUSED)
{
    AUTO(ctr_seccomp) struct ctr_seccomp f = compile_default(DOCKER_CAPS);
    int status = -1;
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

    if (pid == 0)
        _exit(under_filter(&f));
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void cached(void **state UNUSED)
{
    AUTO_FREE char *dir =
        mem_printf("%s/seccomp-cache", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    struct ctr_spec s = {.default_seccomp = true};
    struct err e = ERR_INIT;
    uint64_t took[3];

    s.process.has_caps = true;
    s.process.caps.bounding =
        DOCKER_CAPS + ((uint64_t)getpid() << 48); /* a key of this run's own */
    AUTO(ctr_seccomp) struct ctr_seccomp first = {0};
    AUTO(ctr_seccomp) struct ctr_seccomp second = {0};
    uint64_t t = clock_now_ns();

    assert_ok(ctr_seccomp_for_spec(&s, dir, &first, &e), &e);
    took[0] = clock_now_ns() - t;
    t = clock_now_ns();
    assert_ok(ctr_seccomp_for_spec(&s, dir, &second, &e), &e);
    took[1] = clock_now_ns() - t;
    printf("compiled in %.3f ms, from the cache in %.3f ms, %zu instructions\n",
           (double)took[0] / 1e6, (double)took[1] / 1e6, first.n);
    assert_int_equal(first.n, second.n);
    assert_int_equal(first.flags, second.flags);
    assert_memory_equal(first.insns, second.insns, first.n * sizeof(*first.insns));

    /* A cache others can write to is not believed: what is planted there has no effect. */
    AUTO(ctr_seccomp) struct ctr_seccomp third = {0};
    AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0777), 0);
    assert_ok(ctr_seccomp_for_spec(&s, dir, &third, &e), &e);
    assert_int_equal(third.n, first.n);
    assert_int_equal(fchmod(fd, 0700), 0);

    /* none wanted */
    AUTO(ctr_seccomp) struct ctr_seccomp none = {0};

    s.default_seccomp = false;
    assert_ok(ctr_seccomp_for_spec(&s, dir, &none, &e), &e);
    assert_null(none.insns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(default_list), cmocka_unit_test(capabilities_open),
        cmocka_unit_test(given_list),   cmocka_unit_test(notify),
        cmocka_unit_test(refusals),     cmocka_unit_test(kernel_takes_it),
        cmocka_unit_test(cached),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
