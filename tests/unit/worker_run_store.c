/*
 * State files: kept in order, passed over when a later one is behind, noted before they are asked for, damaged ones set
 * aside; and the room kept for them.
 * rows: B140 B191 B192 D68 D69 D70
 */
/* threads: yes */
/* needs: root */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/tree.h"
#include "test.h"
#include "worker/run.h"
#include "worker/run_store.h"

#define UUID  "0x0123456789abcdef0123456789abcdef"
#define OTHER "0xffffffffffffffffffffffffffffffff"

static char *top;

static int set_up(void **state UNUSED)
{
    const char *tmp = getenv("TMPDIR");

    top = mem_printf("%s/store.XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(top) ? 0 : -1;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;
    int rc = tree_remove_at(AT_FDCWD, top, &e);

    free(top);
    return rc;
}

static struct bundle *make_bundle(const char *uuid)
{
    struct bundle *b = mem_new(struct bundle);

    b->uuid = mem_strdup(uuid);
    b->command = mem_strdup("true");
    b->image = mem_strdup("python:3");
    b->store = mem_strdup("");
    b->memory = 2LL << 30;
    return b;
}

static struct run *make_run(const char *uuid)
{
    return run_new(make_bundle(uuid), "/w/runs/x", 900.0);
}

static struct run_store *open_store(const char *id)
{
    struct run_store *s = NULL;
    struct err e = ERR_INIT;

    assert_ok(run_store_open(top, id, &s, &e), &e);
    return s;
}

static size_t load(struct run_store *s, struct run ***runs, size_t *damaged)
{
    AUTO(str_list) struct str_list notes = {0}, bad = {0};
    struct err e = ERR_INIT;
    size_t n = 0;

    assert_ok(run_store_load(s, runs, &n, &notes, &bad, &e), &e);
    *damaged = bad.n;
    return n;
}

/* ---- order ---- */

static unsigned told[200], n_told;

static void tell(void *arg, const struct err *error)
{
    assert_null(error);
    told[n_told++] = *(const unsigned *)arg;
}

/* A hundred changes of one run, and a few of another between: all are told, in their order, and the last is on disk. */
static void later_saves_speak_for_earlier(void **state UNUSED)
{
    AUTO(run_store) struct run_store *s = open_store("order");
    struct loop *loop = NULL;
    struct err e = ERR_INIT;
    unsigned numbers[100];
    size_t damaged;

    assert_ok(loop_new(&loop, &e), &e);
    struct lane *lane = lane_new(loop, "state", 1);
    run_store_use_lane(s, lane);
    AUTO(run) struct run *r = make_run(UUID);
    AUTO(run) struct run *other = make_run(OTHER);
    n_told = 0;
    for (unsigned i = 0; i < 100; i++) {
        AUTO_FREE char *status = mem_printf("change %u", i);
        numbers[i] = i;
        mem_replace(&r->status, status);
        run_store_save(s, r, tell, &numbers[i]);
        if (i % 10 == 0)
            run_store_save(s, other, NULL, NULL);
    }
    run_store_forget(s, OTHER);
    /* a job that is done may not have told yet */
    for (uint64_t deadline = clock_in_ns(30 * NS_PER_S);
         (lane_pending(lane) || n_told < 100) && !clock_passed(deadline);)
        loop_drain(loop);
    assert_int_equal(n_told, 100);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(told[i], i);
    AUTO_FREE struct run **runs = NULL;
    assert_int_equal(load(s, &runs, &damaged), 1);
    assert_int_equal(damaged, 0);
    assert_string_equal(runs[0]->status, "change 99");
    run_free(runs[0]);
    lane_stop(lane, 1000000000);
    loop_drain(loop);
    lane_free(lane);
    loop_free(loop);
}

/* ---- what a start finds ---- */

static void write_file(const char *name, const char *text)
{
    AUTO_FREE char *path = mem_printf("%s/state/found/%s", top, name);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
}

static bool exists(const char *name)
{
    AUTO_FREE char *path = mem_printf("%s/state/found/%s", top, name);

    return access(path, F_OK) == 0;
}

static void a_start_finds_what_was_left(void **state UNUSED)
{
    AUTO_FREE struct run **runs = NULL;
    AUTO_FREE struct bundle **notes = NULL;
    struct err e = ERR_INIT;
    size_t damaged, n = 0;
    {
        AUTO(run_store) struct run_store *s = open_store("found");
        AUTO(run) struct run *r = make_run(UUID);
        AUTO(bundle) struct bundle *b = make_bundle(OTHER);
        assert_ok(run_store_note(s, b, &e), &e);
        assert_ok(run_store_note(s, &r->bundle, &e), &e);
        assert_true(exists(UUID ".asked"));
        run_store_save(s, r, NULL, NULL);
        assert_false(exists(UUID ".asked")); /* its first save speaks for it */
    }
    write_file(".tmp-0011223344556677-" UUID ".json", "{}");
    write_file("0x11111111111111111111111111111111.json", "{\"bundle\":");
    write_file("0x22222222222222222222222222222222.json", "{}");
    write_file("0x33333333333333333333333333333333.asked", "{");
    AUTO(run_store) struct run_store *s = open_store("found");
    assert_int_equal(load(s, &runs, &damaged), 1);
    assert_int_equal(damaged, 2);
    assert_string_equal(runs[0]->bundle.uuid, UUID);
    run_free(runs[0]);
    assert_false(exists("0x11111111111111111111111111111111.json"));
    assert_false(exists(".tmp-0011223344556677-" UUID ".json"));
    assert_ok(run_store_load_notes(s, &notes, &n, &e), &e);
    assert_int_equal(n, 1);
    assert_string_equal(notes[0]->uuid, OTHER);
    assert_string_equal(notes[0]->image, "python:3");
    bundle_free(notes[0]);
    assert_false(exists("0x33333333333333333333333333333333.asked"));
    run_store_unnote(s, OTHER);
    assert_false(exists(OTHER ".asked"));
    /* Another on the same directory is not let in. */
    struct run_store *second = NULL;
    assert_int_equal(run_store_open(top, "found", &second, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
}

static void an_id_that_was_made_is_kept(void **state UNUSED)
{
    AUTO_FREE char *id = NULL;
    {
        AUTO(run_store) struct run_store *s = open_store(NULL);
        id = mem_strdup(run_store_id(s));
    }
    AUTO(run_store) struct run_store *s = open_store(NULL);
    assert_string_equal(run_store_id(s), id);
}

/* ---- a full disk ---- */

/* All of it, down to the last block that anybody gets. */
static void fill_disk(void)
{
    AUTO_FREE char *path = mem_printf("%s/filler", top);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char block[4096] = {0};

    while (write(fd, block, sizeof(block)) > 0)
        continue;
    assert_int_equal(errno, ENOSPC);
}

static void count_saved(void *arg, const struct err *error)
{
    if (!error)
        ++*(unsigned *)arg;
}

static unsigned save_all(struct run_store *s, unsigned n)
{
    unsigned saved = 0;

    for (unsigned i = 0; i < n; i++) {
        AUTO_FREE char *uuid = mem_printf("0x%032x", i);
        AUTO(run) struct run *r = make_run(uuid);

        run_store_save(s, r, count_saved, &saved);
    }
    return saved;
}

/* All 8 MiB of it. */
static bool has_reserve(void)
{
    uint64_t bytes = 0;

    for (int i = 0; i < 256; i++) {
        AUTO_FREE char *path = mem_printf("%s/state/full/reserve.%03d", top, i);
        struct stat st;

        bytes += stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    }
    return bytes >= 8 << 20;
}

/* Ends of runs, and what is being asked for, are still written down; when there is room again, some of it is kept again. */
static void a_full_disk_has_room_for_states(void **state UNUSED)
{
    AUTO_FREE struct run **runs = NULL;
    AUTO(bundle) struct bundle *b = make_bundle(OTHER);
    AUTO_FREE char *filler = mem_printf("%s/filler", top);
    struct err e = ERR_INIT;
    size_t damaged;

    assert_int_equal(mount("tmpfs", top, "tmpfs", 0, "size=96m"), 0);
    {
        AUTO(run_store) struct run_store *s = open_store("full");
        assert_true(has_reserve());
        fill_disk();
        assert_int_equal(run_store_note(s, b, &e), 0);
        assert_false(has_reserve());
        assert_int_equal(save_all(s, 200), 200);
    }
    AUTO(run_store) struct run_store *s = open_store("full");
    assert_int_equal(load(s, &runs, &damaged), 200);
    assert_int_equal(damaged, 0);
    for (unsigned i = 0; i < 200; i++)
        run_free(runs[i]);
    assert_int_equal(unlink(filler), 0);
    assert_int_equal(save_all(s, 1), 1);
    assert_true(has_reserve());
}

static atomic_bool stop_filling;

/* A run that takes every block as soon as it is free. */
static void *fill_for_ever(void *arg UNUSED)
{
    AUTO_FREE char *path = mem_printf("%s/filler", top);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char block[4096] = {0};

    while (!stop_filling)
        (void)!write(fd, block, sizeof(block));
    return NULL;
}

/* Nobody gets the room that is kept for states, however quick: also not behind a restart. */
static void a_greedy_run_cannot_take_the_reserve(void **state UNUSED)
{
    struct err e = ERR_INIT;
    pthread_t thread;

    assert_int_equal(mount("tmpfs", top, "tmpfs", 0, "size=96m"), 0);
    for (int life = 0; life < 2; life++) {
        AUTO(run_store) struct run_store *s = open_store("full");
        AUTO(bundle) struct bundle *b = make_bundle(OTHER);

        if (life == 0)
            fill_disk();
        stop_filling = false;
        assert_int_equal(pthread_create(&thread, NULL, fill_for_ever, NULL), 0);
        int noted = run_store_note(s, b, &e);
        unsigned saved = save_all(s, 100);
        stop_filling = true;
        pthread_join(thread, NULL);
        assert_ok(noted, &e);
        assert_int_equal(saved, 100);
    }
}

static int leave_tmpfs(void **state UNUSED)
{
    return umount2(top, MNT_DETACH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(later_saves_speak_for_earlier),
        cmocka_unit_test(a_start_finds_what_was_left),
        cmocka_unit_test(an_id_that_was_made_is_kept),
        cmocka_unit_test_teardown(a_full_disk_has_room_for_states, leave_tmpfs),
        cmocka_unit_test_teardown(a_greedy_run_cannot_take_the_reserve, leave_tmpfs),
    };

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return 1;
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
