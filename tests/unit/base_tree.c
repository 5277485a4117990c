/* threads: yes */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/jobs.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/tree.h"
#include "test.h"

static char dir_name[64];
static int top = -1;

static int set_up(void **state UNUSED)
{
    snprintf(dir_name, sizeof(dir_name), "/tmp/cw-tree-XXXXXX");
    if (!mkdtemp(dir_name))
        return -1;
    top = open(dir_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return top < 0 ? -1 : 0;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;

    close(top);
    return tree_remove_at(AT_FDCWD, dir_name, &e);
}

static void put(const char *name, size_t size)
{
    AUTO_CLOSE int fd = openat(top, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
}

static int note(void *arg, int parent, const char *name, const char *path,
                const struct stat *st UNUSED, struct err *e UNUSED)
{
    assert_int_equal(faccessat(parent, name, F_OK, AT_SYMLINK_NOFOLLOW), 0);
    str_list_add(arg, path);
    return str_eq(name, "skipped") ? 1 : 0;
}

static void walks_parents_first_and_no_links(void **state UNUSED) /* S54 */
{
    AUTO(str_list) struct str_list seen = {0};
    struct err e = ERR_INIT;

    assert_int_equal(mkdirat(top, "a", 0755), 0);
    assert_int_equal(mkdirat(top, "a/skipped", 0755), 0);
    put("a/skipped/x", 1);
    put("a/f", 1);
    assert_int_equal(symlinkat("/", top, "a/root"), 0);
    assert_int_equal(mkfifoat(top, "a/fifo", 0600), 0);
    assert_ok(tree_walk(top, note, &seen, NULL, &e), &e);
    assert_int_equal(seen.n, 5);
    assert_string_equal(seen.items[0], "a");
    assert_true(str_list_has(&seen, "a/root"));
    assert_false(str_list_has(&seen, "a/skipped/x"));
}

static void sizes_are_lstat_sizes(void **state UNUSED) /* B112 */
{
    uint64_t size = 0, usage = 0;
    struct err e = ERR_INIT;
    struct stat st;

    put("f", 1000);
    assert_int_equal(linkat(top, "f", top, "g", 0), 0);
    assert_int_equal(symlinkat("12345", top, "l"), 0);
    assert_int_equal(fstat(top, &st), 0);
    assert_ok(tree_size(top, NULL, &size, &e), &e);
    assert_int_equal(size, (uint64_t)st.st_size + 1000 + 1000 + 5);
    assert_ok(tree_disk_usage(top, NULL, &usage, &e), &e);
    assert_true(usage < size + 65536);
}

static void removes_what_is_hard_to_remove(void **state UNUSED) /* S29 */
{
    struct err e = ERR_INIT;
    int fd = dup(top);

    for (int i = 0; i < 5000; i++) {
        assert_int_equal(mkdirat(fd, "deep", i % 7 ? 0755 : 0), 0);
        int next = openat(fd, "deep", O_PATH | O_DIRECTORY | O_CLOEXEC);

        assert_true(next >= 0);
        close(fd);
        fd = next;
    }
    close(fd);
    put("\n\x1b[31m", 1);
    assert_int_equal(symlinkat("/etc", top, "link"), 0);
    assert_ok(tree_remove_at(top, "deep", &e), &e);
    assert_ok(tree_remove_at(top, "link", &e), &e);
    assert_ok(tree_remove_at(top, "missing", &e), &e);
    assert_ok(tree_empty(top, &e), &e);
    assert_int_equal(access("/etc/passwd", F_OK), 0);
    struct stat st;
    assert_int_equal(fstat(top, &st), 0);
    assert_int_equal(st.st_nlink, 2);
}

static atomic_bool stop;

/* S63: swaps a directory for a link to a place that must not change. */
static void *swap(void *arg)
{
    const char *canary = arg;

    while (!atomic_load(&stop)) {
        mkdirat(top, "w", 0755);
        mkdirat(top, "w/d", 0755);
        close(openat(top, "w/d/f", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
        renameat(top, "w/d", top, "w/e");
        int rc UNUSED = symlinkat(canary, top, "w/d");
    }
    return NULL;
}

static void removal_never_follows_a_swapped_link(void **state UNUSED)
{
    char canary[] = "/tmp/cw-canary-XXXXXX";
    struct err e = ERR_INIT;
    pthread_t thread;

    assert_non_null(mkdtemp(canary));
    AUTO_FREE char *file = mem_printf("%s/f", canary);
    close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, swap, canary), 0);
    for (int i = 0; i < 3000; i++) {
        int rc UNUSED =
            tree_remove_at(top, "w", &e); /* may lose the race; must not leave the tree */
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(access(file, F_OK), 0);
    assert_ok(tree_remove_at(AT_FDCWD, canary, &e), &e);
}

static void cancelling_stops_a_walk(void **state UNUSED)
{
    AUTO(cancel) struct cancel *c = cancel_new();
    AUTO(str_list) struct str_list seen = {0};
    struct err e = ERR_INIT;

    put("a", 1);
    put("b", 1);
    cancel_fire(c);
    assert_int_equal(tree_walk(top, note, &seen, c, &e), -1);
    assert_int_equal(e.kind, ERR_CANCELLED);
    assert_true(seen.n <= 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(walks_parents_first_and_no_links), T(sizes_are_lstat_sizes),
        T(removes_what_is_hard_to_remove),   T(removal_never_follows_a_swapped_link),
        T(cancelling_stops_a_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
