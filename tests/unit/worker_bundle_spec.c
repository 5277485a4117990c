/*
 * The environment of a command, and where dependencies go.
 * rows: B064 B066 B067 B069 B074 B079 B083 B084 B085 B086 B088 B094 D48 D77 S57
 */
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/image.h"
#include "runtime/spec.h"
#include "test.h"
#include "worker/bundle_spec.h"
#include "worker/run.h"

#define UUID "0x0123456789abcdef0123456789abcdef"

static struct run *make_run(const char *command)
{
    struct bundle *b = mem_new(struct bundle);

    b->uuid = mem_strdup(UUID);
    b->command = mem_strdup(command);
    b->image = mem_strdup("a:b");
    b->store = mem_strdup("");
    b->memory = 100 << 20;
    struct run *r = run_new(b, "/w/runs/" UUID, 1);
    r->cpus = mem_strdup("0-1");
    r->mems = mem_strdup("0");
    r->userns_first_id = 0x70000000;
    return r;
}

static struct ctr_spec *build(struct run *r, struct dep_place *places, size_t n, bool shared_fs)
{
    static char *env[] = {(char *)"PATH=/opt/bin:/bin", (char *)"HOME=/root", (char *)"LANG=C",
                          NULL};
    static char *lower[] = {(char *)"/i/1", NULL};
    const struct image_config image = {.env = {env, 3}};
    const struct str_list lowerdirs = {lower, 1};
    struct ctr_spec *s = NULL;
    struct err e = ERR_INIT;
    const struct bundle_spec_in in = {
        .run = r,
        .image = &image,
        .lowerdirs = &lowerdirs,
        .places = places,
        .n_places = n,
        .scratch = "/s/x",
        .cgroup = "/cworker/runs/x",
        .owner = "me",
        .uid = 7,
        .gid = 8,
        .shm_bytes = 1 << 30,
        .shared_fs = shared_fs,
        .pids_limit = 100,
    };

    assert_ok(bundle_spec(&in, &s, &e), &e);
    return s;
}

static const struct ctr_mount *mount_at(const struct ctr_spec *s, const char *destination)
{
    for (size_t i = 0; i < s->n_mounts; i++)
        if (strcmp(s->mounts[i].destination, destination) == 0)
            return &s->mounts[i];
    fail_msg("nothing is mounted at %s", destination);
    return NULL;
}

static void the_command_runs_as_the_protocol_says(void **state)
{
    (void)state;
    AUTO(run) struct run *r = make_run("echo hi");
    AUTO(ctr_spec) struct ctr_spec *s = build(r, NULL, 0, false);
    const struct ctr_process *p = &s->process;

    assert_int_equal(p->args.n, 3);
    assert_string_equal(p->args.items[0], "/bin/bash");
    assert_string_equal(p->args.items[1], "-c");
    assert_string_equal(p->args.items[2], "( echo hi\n) >stdout 2>stderr");
    assert_string_equal(p->cwd, "/" UUID);
    assert_int_equal(p->uid, 7);
    assert_int_equal(p->gid, 8);
    assert_false(p->terminal);
    assert_string_equal(str_list_getenv(&p->env, "HOME"), "/" UUID);
    assert_string_equal(str_list_getenv(&p->env, "CODALAB"), "true");
    assert_string_equal(str_list_getenv(&p->env, "PATH"), "/opt/bin:/bin");
    assert_string_equal(str_list_getenv(&p->env, "LANG"), "C");
    assert_string_equal(str_list_getenv(&p->env, "HOSTNAME"), "0123456789ab");
    assert_null(str_list_getenv(&p->env, "NVIDIA_VISIBLE_DEVICES"));
    assert_int_equal(p->env.n, 5); /* nothing of ours leaks in (B070) */
    assert_string_equal(ctr_spec_annotation(s, BUNDLE_ANNOTATION_OWNER), "me");
    assert_string_equal(ctr_spec_annotation(s, "org.codalab.cworker.name"), "codalab_run_" UUID);
}

static void limits_are_those_of_the_run(void **state)
{
    (void)state;
    AUTO(run) struct run *r = make_run("x");
    AUTO(ctr_spec) struct ctr_spec *s = build(r, NULL, 0, false);

    assert_int_equal(s->resources.memory_limit, 100 << 20);
    assert_int_equal(s->resources.memory_swap_limit, 0);
    assert_string_equal(s->resources.cpuset_cpus, "0-1");
    assert_string_equal(s->resources.cpuset_mems, "0");
    assert_int_equal(s->resources.pids_limit, 100);
    const struct ctr_mount *shm = mount_at(s, "/dev/shm");
    assert_true(str_list_has(&shm->options, "size=1073741824"));
    assert_string_equal(s->overlay_dir, "/s/x/overlay");
    assert_string_equal(s->overlay_lower.items[0], "/i/1");
}

/* Run by a real bash, from a shell, in a scratch directory: status and stdout as the table says. */
static const struct {
    const char *command;
    int status;
    const char *out;
} commands[] = {
    {"echo hi", 0, "hi\n"},
    {"echo hi;", 0, "hi\n"},
    {"echo hi; ", 0, "hi\n"},
    {"echo hi\n", 0, "hi\n"},
    {"echo hi # comment", 0, "hi\n"},
    {"echo hi & wait; true &", 0, "hi\n"},
    {"exit 3", 3, ""},
    {"nosuchcmd", 127, ""},
    {"/etc", 126, ""},
    {"cat <<E\nx\nE", 0, "x\n"},
    {"kill -9 $BASHPID", 137, ""},
};

static void commands_may_end_in_anything(void **state)
{
    (void)state;
    char dir[] = "/tmp/bundle_spec.XXXXXX";
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        AUTO_FREE char *shell = bundle_spec_shell(commands[i].command);
        AUTO_FREE char *out = mem_printf("%s/stdout", dir);
        char *argv[] = {(char *)"/bin/bash", (char *)"-c", shell, NULL};
        char text[64] = "";
        int status = 0;
        pid_t pid;

        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addchdir_np(&actions, dir);
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
        assert_int_equal(posix_spawn(&pid, argv[0], &actions, NULL, argv, NULL), 0);
        posix_spawn_file_actions_destroy(&actions);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        FILE *f = fopen(out, "re");
        assert_non_null(f);
        text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
        fclose(f);
        if (code != commands[i].status || strcmp(text, commands[i].out) != 0)
            fail_msg("\"%s\": status %d, stdout \"%s\"", commands[i].command, code, text);
    }
    AUTO_FREE char *out = mem_printf("%s/stdout", dir);
    AUTO_FREE char *err = mem_printf("%s/stderr", dir);
    unlink(out);
    unlink(err);
    rmdir(dir);
}

static const struct {
    struct dep_place place;
    const char *target, *link, *shared_target;
} placed[] = {
    {{(char *)"a", (char *)"/d/a", NULL},
     "/" UUID "_dependencies/a",
     "/" UUID "_dependencies/a",
     "/" UUID "/a"},
    {{(char *)"a/b", (char *)"/d/a", NULL},
     "/" UUID "_dependencies/a/b",
     "/" UUID "_dependencies/a/b",
     "/" UUID "/a/b"},
    {{(char *)"/foo/bar", (char *)"/d/a", NULL}, "/foo/bar", NULL, "/foo/bar"},
    {{(char *)"l", NULL, (char *)"x/y"}, NULL, "x/y", NULL},
};

static void dependencies_have_their_places(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(placed); i++) {
        AUTO_FREE char *target = dep_place_target(&placed[i].place, UUID, false);
        AUTO_FREE char *link = dep_place_link(&placed[i].place, UUID, false);
        AUTO_FREE char *shared = dep_place_target(&placed[i].place, UUID, true);
        assert_true(str_eq(target, placed[i].target));
        assert_true(str_eq(link, placed[i].link));
        assert_true(str_eq(shared, placed[i].shared_target));
    }
}

static void mounts_are_read_only_but_the_bundle(void **state)
{
    (void)state;
    struct dep_place places[] = {
        {(char *)"one", (char *)"/d/p", NULL},
        {(char *)"two", (char *)"/d/p", NULL}, /* D48: the same parent twice */
        {(char *)"/abs", (char *)"/d/q", NULL},
        {(char *)"link", NULL, (char *)"one"},
    };
    AUTO(run) struct run *r = make_run("x");
    AUTO(ctr_spec) struct ctr_spec *s = build(r, places, 4, false);
    static const struct {
        const char *at, *source;
        bool ro;
    } mounts[] = {
        {"/" UUID, "/w/runs/" UUID, false},
        {"/" UUID "_dependencies/one", "/d/p", true},
        {"/" UUID "_dependencies/two", "/d/p", true},
        {"/abs", "/d/q", true},
        {"/etc/resolv.conf", "/s/x/resolv.conf", true},
        {"/etc/hosts", "/s/x/hosts", true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
        const struct ctr_mount *m = mount_at(s, mounts[i].at);
        assert_string_equal(m->source, mounts[i].source);
        assert_int_equal(str_list_has(&m->options, "ro"), mounts[i].ro);
        assert_true(str_list_has(&m->options, "idmap"));
    }
}

static const struct {
    const char *keys[4];
    bool ok;
} sets[] = {
    {{"a", "b"}, true},
    {{"a", "a"}, false},
    {{"foo/bar", "foo/bar2"}, true}, /* B084 */
    {{"foo", "foo/bar"}, false},
    {{"foo/bar", "foo"}, false},
    {{"foo", "foo-x", "foo/b"}, false},
    {{"foo", "foo.b", "foo2"}, true},
    {{"/a", "a"}, true},
    {{"/a", "/a/b"}, false},
    {{"foo", "foo+", "foo,x", "foo/y"}, false},
};

static void keys_do_not_shadow_each_other(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
        struct dep_place places[4] = {0};
        struct err e = ERR_INIT;
        size_t n = 0;

        for (; n < 4 && sets[i].keys[n]; n++)
            places[n] = (struct dep_place){(char *)sets[i].keys[n], (char *)"/d", NULL};
        if ((dep_places_check(places, n, UUID, &e) == 0) != sets[i].ok)
            fail_msg("set %zu (%s, %s)", i, sets[i].keys[0], sets[i].keys[1]);
        if (!sets[i].ok)
            assert_has(e.msg, "[Errno 17] File exists: ");
    }
}

static void too_long_a_command_is_the_bundles_fault(void **state)
{
    (void)state;
    AUTO_FREE char *command = mem_zalloc(200000);
    memset(command, 'x', 199999);
    AUTO(run) struct run *r = make_run(command);
    const struct image_config image = {0};
    const struct str_list lower = {0};
    const struct bundle_spec_in in = {.run = r,
                                      .image = &image,
                                      .lowerdirs = &lower,
                                      .scratch = "/s",
                                      .cgroup = "/c",
                                      .owner = "o"};
    struct ctr_spec *s = NULL;
    struct err e = ERR_INIT;

    assert_int_equal(bundle_spec(&in, &s, &e), -1);
    assert_int_equal(e.kind, ERR_USER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_command_runs_as_the_protocol_says),
        cmocka_unit_test(limits_are_those_of_the_run),
        cmocka_unit_test(commands_may_end_in_anything),
        cmocka_unit_test(dependencies_have_their_places),
        cmocka_unit_test(mounts_are_read_only_but_the_bundle),
        cmocka_unit_test(keys_do_not_shadow_each_other),
        cmocka_unit_test(too_long_a_command_is_the_bundles_fault),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
