/* needs: root */
/* rows: S31 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <linux/bpf.h>
#include <linux/landlock.h>

#include "base/confine.h"
#include "base/str.h"
#include "base/tree.h"
#include "test.h"

static char scratch[64];
static int top = -1, dir = -1;
/* No asserts of cmocka's on another thread: what failed is noted here. */
static struct str failed;

static int set_up(void **state UNUSED)
{
    snprintf(scratch, sizeof(scratch), "/tmp/cw-confine-XXXXXX");
    if (!mkdtemp(scratch))
        return -1;
    top = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (mkdirat(top, "in", 0755) < 0 || mkdirat(top, "out", 0755) < 0)
        return -1;
    dir = openat(top, "in", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int canary = openat(top, "out/canary", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    return canary < 0 ? -1 : 0;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;

    str_free(&failed);
    failed = (struct str){0};
    close(dir);
    close(top);
    return tree_remove_at(AT_FDCWD, scratch, &e);
}

static void *confined(void *arg)
{
    void (*fn)(void) = *(void (**)(void))arg;
    unsigned walls = confine_thread(dir, -1);

    if ((walls & CONFINE_USUAL) == CONFINE_USUAL)
        fn();
    return (void *)(uintptr_t)walls;
}

static unsigned run_confined(void (*fn)(void))
{
    pthread_t t;
    void *walls;

    assert_int_equal(pthread_create(&t, NULL, confined, &fn), 0);
    assert_int_equal(pthread_join(t, &walls), 0);
    assert_int_equal((uintptr_t)walls & CONFINE_USUAL, CONFINE_USUAL);
    return (unsigned)(uintptr_t)walls;
}

#define HOLDS(cond)                                              \
    do {                                                         \
        if (!(cond) && str_append_text(&failed, #cond "\n") < 0) \
            abort();                                             \
    } while (0)
#define REFUSED(call) HOLDS((call) < 0 && errno == EPERM)

static void try_everything(void)
{
    char *argv[] = {(char *)"true", NULL};
    union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY};

    REFUSED(socket(AF_INET, SOCK_STREAM, 0));
    REFUSED(socket(AF_UNIX, SOCK_STREAM, 0));
    REFUSED(execve("/bin/true", argv, NULL));
    REFUSED(syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, NULL, 0));
    REFUSED(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0));
    REFUSED(syscall(SYS_clone3, NULL, 0));
    REFUSED(unshare(CLONE_NEWNS));
    REFUSED(setns(0, 0));
    REFUSED(mount("none", "/", "tmpfs", 0, NULL));
    REFUSED(umount2("/", MNT_DETACH));
    REFUSED(chroot("/"));
    REFUSED(ptrace(PTRACE_SEIZE, 1, 0, 0));
    REFUSED(syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0));
    REFUSED(syscall(SYS_pidfd_open, 1, 0));
    REFUSED(syscall(SYS_open_by_handle_at, 0, NULL, 0));
    REFUSED(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)));
    REFUSED(syscall(SYS_io_uring_setup, 1, NULL));
    REFUSED(kill(1, 0));
    REFUSED(setxattr("/", "user.x", "x", 1, 0));
    REFUSED(syscall(SYS_capset, NULL, NULL));
    REFUSED(prctl(PR_SET_NAME, "x"));
    void *exec = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    HOLDS(exec == MAP_FAILED && errno == EPERM);
    void *plain = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    HOLDS(plain != MAP_FAILED);
    REFUSED(mprotect(plain, 4096, PROT_READ | PROT_EXEC));
    HOLDS(mprotect(plain, 4096, PROT_READ) == 0);
}

static void calls_are_refused(void **state UNUSED)
{
    failed = STR_INIT(4096);
    run_confined(try_everything);
    assert_string_equal(str_text(&failed), "");
    /* This thread is as it was. */
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
}

static void look_around(void)
{
    struct stat st;

    HOLDS(openat(AT_FDCWD, scratch, O_RDONLY | O_CLOEXEC) < 0 && errno != EPERM);
    HOLDS(openat(AT_FDCWD, "/etc/passwd", O_RDONLY | O_CLOEXEC) < 0);
    HOLDS(openat(AT_FDCWD, "/proc/self/root", O_RDONLY | O_CLOEXEC) < 0);
    HOLDS(openat(dir, "../out/canary", O_RDONLY | O_CLOEXEC) < 0);
    HOLDS(openat(dir, "../../../../../../etc/passwd", O_RDONLY | O_CLOEXEC) < 0);
    HOLDS(unlinkat(dir, "../out/canary", 0) < 0);
    HOLDS(openat(top, "out/canary", O_RDONLY | O_CLOEXEC) < 0 && errno == EBADF);
    /* What it is for works: any owner, devices, capabilities, overlay's mark. */
    int fd = openat(AT_FDCWD, "/made", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    HOLDS(fd >= 0 && write(fd, "x", 1) == 1 && fchown(fd, 12345, 54321) == 0);
    HOLDS(fchmod(fd, 06755) == 0 && fstat(fd, &st) == 0 && (st.st_mode & 07777) == 06755);
    HOLDS(mknodat(dir, "null", S_IFCHR | 0600, (1 << 8) | 3) == 0);
    HOLDS(mkdirat(dir, "d", 0755) == 0 && linkat(dir, "made", dir, "d/link", 0) == 0);
    int d = openat(dir, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    HOLDS(fsetxattr(d, "trusted.overlay.opaque", "y", 1, 0) == 0);
    HOLDS(fchownat(dir, "d", 7, 7, 0) == 0 && fchmodat(dir, "d", 0, 0) == 0);
    HOLDS(openat(dir, "d/more", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0);
}

static void only_its_directory_is_there(void **state UNUSED)
{
    struct stat st;
    int next = dup(0);

    close(next);
    failed = STR_INIT(4096);
    run_confined(look_around);
    assert_string_equal(str_text(&failed), "");
    assert_int_equal(fstatat(top, "out/canary", &st, 0), 0);
    assert_int_equal(fstatat(top, "in/made", &st, 0), 0);
    assert_int_equal(st.st_uid, 12345);
    /* What it opened was in a table of its own, and our root is ours. */
    int now = dup(0);

    assert_int_equal(now, next);
    close(now);
    assert_int_equal(stat("/proc/self/status", &st), 0);
}

static void nothing(void)
{
}

static void landlock_where_the_kernel_has_it(void **state UNUSED)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

    assert_int_equal((run_confined(nothing) & CONFINE_LANDLOCK) != 0, abi >= 2);
    assert_int_equal((confine_try(dir) & CONFINE_LANDLOCK) != 0, abi >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(calls_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_its_directory_is_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(landlock_where_the_kernel_has_it, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
