#pragma once
/*
 * shim_lab.h - shims with real containers, for tests/unit/runtime_shim*.c. What a test does not use of it is no mistake.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/tree.h"
#include "runtime/cgroup.h"
#include "runtime/exit.h"
#include "runtime/shim.h"
#include "runtime/shim_log.h"
#include "runtime/shim_proto.h"
#include "runtime/spec.h"
#include "tests/unit/test.h"

static char *top, *root, *runtime_dir, *shim_path;
static bool
    partial; /* development on a hybrid host: CW_PARTIAL=1 leaves out what needs controllers */

/* A root with busybox in it. */
static UNUSED void make_root(void)
{
    struct err e = ERR_INIT;
    AUTO_FREE char *bin = mem_printf("%s/bin", root);
    AUTO_FREE char *script =
        mem_printf("cp \"$(command -v busybox)\" %s/busybox && chmod 755 %s/busybox && "
                   "for a in sh sleep cat echo head dd true kill mkdir; do ln -s busybox %s/$a; "
                   "done && mkdir %s/proc %s/dev %s/sys %s/tmp",
                   bin, bin, bin, root, root, root, root);
    char *argv[] = {(char *)"/bin/sh", (char *)"-c", script, NULL};
    struct proc_result r;

    assert_ok(path_mkdirs(bin, 0755, &e), &e);
    assert_ok(proc_run(argv, NULL, NULL, 0, NULL, NULL, 30 * NS_PER_S, &r, &e), &e);
    assert_int_equal(r.status, 0);
}

static UNUSED int setup(void **state UNUSED)
{
    const char *build = getenv("CW_BUILD"), *tmp = getenv("TMPDIR");

    partial = getenv("CW_PARTIAL");
    top = mem_printf("%s/shim-test-%d", tmp ? tmp : "/tmp", getpid());
    root = mem_printf("%s/root", top);
    runtime_dir = mem_printf("%s/run", top);
    shim_path = mem_printf("%s/bin/cwshim", build ? build : "build");
    make_root();
    return 0;
}

static UNUSED int teardown(void **state UNUSED)
{
    struct err e = ERR_INIT;

    if (tree_remove_at(AT_FDCWD, top, &e) < 0)
        fail_msg("%s", e.msg);
    free(top);
    free(root);
    free(runtime_dir);
    free(shim_path);
    return 0;
}

static UNUSED struct ctr_spec *make_spec(const char *id, const char *script)
{
    struct ctr_spec *s = ctr_spec_new();

    ctr_spec_isolate(s, 1 << 20, 0);
    s->has_process = true;
    s->root_path = mem_strdup(root);
    s->cgroups_path = mem_printf("/cw-shim-test" TEST_VARIANT "/%s", id);
    str_list_add(&s->process.args, "/bin/sh");
    str_list_add(&s->process.args, "-c");
    str_list_add(&s->process.args, script);
    str_list_setenv(&s->process.env, "PATH", "/bin");
    mem_replace(&s->process.cwd, "/");
    if (partial)
        ctr_spec_add_annotation(s, CTR_ANNOTATION "cgroup.partial", "true");
    return s;
}

static UNUSED struct ctr_shim *spawn(const char *id, struct ctr_spec *spec, struct err *e)
{
    struct ctr_shim_opts o = {.shim_path = shim_path, .runtime_dir = runtime_dir, .id = id};
    struct ctr_shim *shim = NULL;
    AUTO(ctr_spec) struct ctr_spec *s = spec;

    return ctr_shim_spawn(&o, s, &shim, e) < 0 ? NULL : shim;
}

static UNUSED struct ctr_shim *spawn_script(const char *id, const char *script)
{
    struct err e = ERR_INIT;
    struct ctr_shim *s = spawn(id, make_spec(id, script), &e);

    if (!s)
        fail_msg("%s", e.msg);
    return s;
}

static UNUSED struct ctr_shim *start_script(const char *id, const char *script)
{
    struct err e = ERR_INIT;
    struct ctr_shim *s = spawn_script(id, script);

    assert_false(ctr_shim_is_started(s));
    assert_ok(ctr_shim_start(s, &e), &e);
    assert_true(ctr_shim_is_started(s));
    return s;
}

static UNUSED void wait_end(struct ctr_shim *s)
{
    assert_int_equal(fd_wait(ctr_shim_fd(s), POLLIN, clock_in_ns(60 * NS_PER_S)), 1);
}

static UNUSED int open_run(const char *id)
{
    AUTO_FREE char *path = mem_printf("%s/%s", runtime_dir, id);

    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static UNUSED bool has_record(const char *id, struct exit_record *r, struct err *e)
{
    AUTO_CLOSE int dir = open_run(id);

    return dir >= 0 && ctr_exit_read(dir, r, e) == 0;
}

static UNUSED bool group_exists(const char *id)
{
    AUTO_FREE char *path = mem_printf("/cw-shim-test" TEST_VARIANT "/%s", id);
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;
    struct err e = ERR_INIT;

    return ctr_cgroup_open(path, &cg, &e) == 0;
}

/* The record of a run that ended by itself; everything of it is removed. */
static UNUSED struct exit_record finish(const char *id, struct ctr_shim *s)
{
    struct exit_record r = {0};
    struct err e = ERR_INIT;

    wait_end(s);
    ctr_shim_free(s);
    if (!has_record(id, &r, &e))
        fail_msg("%s: %s", id, e.msg);
    assert_false(group_exists(id));
    return r;
}

static UNUSED void clean(const char *id)
{
    struct err e = ERR_INIT;

    assert_ok(ctr_shim_cleanup(runtime_dir, id, &e), &e);
    assert_int_equal(open_run(id), -1);
    assert_ok(ctr_shim_cleanup(runtime_dir, id, &e), &e); /* twice is fine */
}

static UNUSED struct exit_record run_script(const char *id, const char *script)
{
    struct exit_record r = finish(id, start_script(id, script));

    return r;
}

/* Until it has said that. */
static UNUSED void wait_word(const char *id, const char *word)
{
    AUTO_FREE char *text = ctr_shim_log(runtime_dir, id);

    for (int i = 0; i < 1200 && !str_eq(text, word); i++) {
        poll(NULL, 0, 50);
        free(text);
        text = ctr_shim_log(runtime_dir, id);
    }
    assert_string_equal(text, word);
}
