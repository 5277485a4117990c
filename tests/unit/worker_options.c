/*
 * cl-worker's flags: names, defaults, refusals, the command lines of everybody who starts it, and whose word counts
 * for user and password.
 * rows: B027 B199 B200 B201 B202 B205 B206 B207 B208 D70 D82 D84
 */
#include <fcntl.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "test.h"
#include "worker/options.h"

/* Words at blanks; "''" is an empty word. */
static int read_line(const char *line, struct options *o, enum options_result *what, struct err *e)
{
    AUTO(str_list) struct str_list argv = {0};

    str_list_split(&argv, line, ' ');
    for (size_t i = 0; i < argv.n; i++)
        if (str_eq(argv.items[i], "''"))
            argv.items[i][0] = '\0';
    argv.items = mem_realloc(argv.items, argv.n + 1, sizeof(*argv.items));
    argv.items[argv.n] = NULL;
    memset(o, 0, sizeof(*o));
    return options_read((int)argv.n, argv.items, o, what, e);
}

static void take(const char *line, struct options *o)
{
    enum options_result what;
    struct err e = ERR_INIT;

    if (read_line(line, o, &what, &e) < 0)
        fail_msg("%s: %s", line, e.msg);
    assert_int_equal(what, OPTIONS_RUN);
}

/* Protocol 11.1, column by column. */
static void defaults(void **state UNUSED)
{
    AUTO(options) struct options o = {0};
    AUTO_FREE char *cwd = getcwd(NULL, 0);

    take("cl-worker", &o);
    assert_string_equal(o.server, "https://worksheets.codalab.org");
    assert_null(o.ws_server);
    assert_true(str_starts(o.work_dir, cwd) && str_ends(o.work_dir, "/codalab-worker-scratch"));
    assert_string_equal(o.network_prefix, "codalab_worker_network");
    assert_null(o.tag);
    assert_null(o.group);
    assert_null(o.id);
    assert_null(o.password_file);
    assert_string_equal(o.cpuset, "ALL");
    assert_string_equal(o.gpuset, "ALL");
    assert_true(o.max_work_dir_size == 10737418240LL);
    assert_true(o.max_image_cache_size == 0 && o.max_image_size == 0 && o.max_memory == 0);
    assert_int_equal(o.idle_seconds, 0);
    assert_int_equal(o.checkin_frequency_seconds, 5);
    assert_int_equal(o.exit_after_num_runs, 999999999);
    assert_int_equal(o.max_retries, 3);
    assert_int_equal(o.shm_gb, 1);
    assert_string_equal(o.bundle_runtime, "docker");
    assert_false(o.tag_exclusive || o.verbose || o.exit_when_idle || o.shared_file_system ||
                 o.pass_down_termination || o.delete_work_dir_on_exit || o.exit_on_exception ||
                 o.preemptible);
    assert_null(o.kubernetes_cluster_host);
}

/* Protocol 11.4: each as its manager writes it. */
static const char *const slurm =
    "cl-worker --server https://worksheets.codalab.org/ --verbose --exit-when-idle --idle-seconds 600 "
    "--work-dir nlp/u-codalab-SlurmBatchWorkerManager-scratch/workdir "
    "--id host-u-codalab-slurm-worker-0123456789abcdef0123456789abcdef "
    "--network-prefix cl_worker_u-codalab-slurm-worker-0123456789abcdef0123456789abcdef_network "
    "--tag jag --group g --exit-after-num-runs 3 --download-dependencies-max-retries 3 "
    "--max-work-dir-size 20g --delete-work-dir-on-exit --exit-on-exception --tag-exclusive "
    "--pass-down-termination --checkin-frequency-seconds 30 --shared-memory-size-gb 4 --preemptible "
    "--pass-down-termination --password-file /home/u/codalab.password --gpuset "
    "GPU-8b9d0000-1111-2222-3333-444444444444,GPU-8b9d0000-1111-2222-3333-555555555555";
static const char *const aws =
    "cl-worker --server http://rest --verbose --exit-when-idle --idle-seconds 600 "
    "--work-dir /tmp/cl_worker_0123456789abcdef0123456789abcdef_work_dir "
    "--id host-0123456789abcdef0123456789abcdef "
    "--network-prefix cl_worker_0123456789abcdef0123456789abcdef_network --tag gpu";
static const char *const azure =
    "cl-worker --server http://rest --verbose --exit-when-idle --idle-seconds 600 --work-dir /tmp/ "
    "--id host-0123456789abcdef0123456789abcdef "
    "--network-prefix cl_worker_0123456789abcdef0123456789abcdef_network --shared-file-system";
static const char *const kubernetes =
    "cl-worker --server http://rest --verbose --exit-when-idle --idle-seconds 600 "
    "--work-dir /tmp/codalab-worker-scratch --id host-0123456789abcdef0123456789abcdef "
    "--network-prefix cl_worker_0123456789abcdef0123456789abcdef_network --bundle-runtime docker "
    "--kubernetes-cluster-host https://k:6443 --kubernetes-auth-token secret "
    "--kubernetes-cert-path /c --kubernetes-cert ''";
static const char *const compose =
    "cl-worker --server http://rest-server:2900 --ws-server ws://ws-server:2901 --verbose "
    "--work-dir /home/u/.codalab/worker --id codalab-worker2 --preemptible --tag preemptible "
    "--shared-file-system";

static void managers(void **state UNUSED)
{
    {
        AUTO(options) struct options o = {0};
        take(slurm, &o);
        assert_int_equal(o.idle_seconds, 600);
        assert_int_equal(o.exit_after_num_runs, 3);
        assert_true(o.max_work_dir_size == 20LL << 30);
        assert_true(o.pass_down_termination && o.delete_work_dir_on_exit && o.exit_on_exception &&
                    o.tag_exclusive && o.preemptible && o.exit_when_idle);
        assert_string_equal(o.tag, "jag");
        assert_true(str_starts(o.gpuset, "GPU-8b9d") && str_ends(o.gpuset, "555555555555"));
        assert_int_equal(o.work_dir[0], '/');
    }
    {
        AUTO(options) struct options o = {0};
        take(aws, &o);
        assert_false(o.shared_file_system); /* D82: appended too late by the manager */
    }
    {
        AUTO(options) struct options o = {0};
        take(azure, &o);
        assert_true(o.shared_file_system);
        assert_string_equal(o.work_dir, "/tmp/");
    }
    {
        AUTO(options) struct options o = {0};
        take(kubernetes, &o);
        assert_string_equal(o.kubernetes_cert, "");
    }
    {
        AUTO(options) struct options o = {0};
        take(compose, &o);
        assert_string_equal(o.ws_server, "ws://ws-server:2901");
        assert_string_equal(o.id, "codalab-worker2");
    }
    {
        AUTO(options) struct options o = {0};
        take(
            "cl-worker --gpuset NONE --tag '' --idle-s 3 --exit-when --idle-seconds=7 --max-memory 1.5g",
            &o);
        assert_string_equal(o.gpuset, "NONE");
        assert_string_equal(o.tag, "");
        assert_int_equal(o.idle_seconds, 7);
        assert_true(o.exit_when_idle);
        assert_true(o.max_memory == 1610612736);
    }
}

static const struct {
    const char *line, *text;
    enum err_kind kind;
} refused[] = {
    {"p --nosuch", "unrecognized arguments: --nosuch", ERR_USER},
    {"p word", "unrecognized arguments: word", ERR_USER},
    {"p --exit", "ambiguous option: --exit", ERR_USER},
    {"p --server", "argument --server: expected one argument", ERR_USER},
    {"p --verbose=1", "ignored explicit argument '1'", ERR_USER},
    {"p --idle-seconds 1.5", "argument --idle-seconds: invalid int value: '1.5'", ERR_USER},
    {"p --max-work-dir-size 0.5", "argument --max-work-dir-size: invalid parse_size value: '0.5'",
     ERR_USER},
    {"p --max-work-dir-size 10gb", "invalid parse_size value: '10gb'", ERR_USER},
    {"p --bundle-runtime podman",
     "argument --bundle-runtime: invalid choice: 'podman' (choose from 'docker', 'kubernetes')",
     ERR_USER},
    {"p --bundle-runtime kubernetes", "argument --bundle-runtime: ", ERR_USER},
    {"p --shared-memory-size-gb -1", "argument --shared-memory-size-gb: -1 is not between",
     ERR_USER},
    {"p --shared-memory-size-gb 9999999999999", "is not between", ERR_USER},
    {"p --checkin-frequency-seconds -1", "is not between", ERR_USER},
    {"p --parallel-pulls 0", "is not between", ERR_USER},
    {"p --tag a_b", "Worker tag must only contain letters, numbers or hyphens.", ERR_LIMIT},
};

static void refusals(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        AUTO(options) struct options o = {0};
        enum options_result what;
        struct err e = ERR_INIT;

        if (read_line(refused[i].line, &o, &what, &e) == 0)
            fail_msg("%s is accepted", refused[i].line);
        assert_has(e.msg, refused[i].text);
        assert_int_equal(e.kind, refused[i].kind);
    }
}

/* The configuration file is read first, wherever --config stands; flags win. */
static void config_file(void **state UNUSED)
{
    char path[] = "/tmp/options.XXXXXX";
    AUTO_CLOSE int fd = mkstemp(path);
    AUTO(options) struct options o = {0};
    const char *text =
        "# a worker\nserver = http://a\nid = from-file\nverbose = true\ninsecure-registry = h:1\n";

    assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
    AUTO_FREE char *line = mem_printf("p --id mine --config %s --insecure-registry h:2", path);
    take(line, &o);
    unlink(path);
    assert_string_equal(o.server, "http://a");
    assert_string_equal(o.id, "mine");
    assert_true(o.verbose);
    assert_int_equal(o.insecure_registries.n, 2);
}

/* ---- credentials ---- */

static void expect(struct options *o, const char *user, const char *password)
{
    struct err e = ERR_INIT;

    assert_ok(options_credentials(o, &e), &e);
    assert_string_equal(o->username, user);
    assert_string_equal(o->password, password);
}

static void file_then_environment(void **state UNUSED)
{
    char path[] = "/tmp/password.XXXXXX";
    AUTO_CLOSE int fd = mkstemp(path);
    const char *text = "  file user \r\n\tpass word \nmore\n";
    struct err e = ERR_INIT;

    assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
    setenv("CODALAB_USERNAME", "eu", 1);
    setenv("CODALAB_PASSWORD", "ep", 1);
    {
        AUTO(options) struct options o = {.password_file = mem_strdup(path)};
        expect(&o, "file user", "pass word");
    }
    for (mode_t bit = 1; bit < 0100; bit <<= 1) {
        AUTO(options) struct options o = {.password_file = mem_strdup(path)};
        assert_int_equal(fchmod(fd, 0600 | bit), 0);
        assert_int_equal(options_credentials(&o, &e), -1);
        AUTO_FREE char *wanted = mem_printf("Permissions on password file are too lax.\n"
                                            "Only the user should be allowed to access the file.\n"
                                            "On Linux, run:\nchmod 600 %s",
                                            path);
        assert_string_equal(e.msg, wanted);
        assert_null(o.password);
    }
    unlink(path);
    {
        AUTO(options)
        struct options o = {.password_file = mem_strdup(path)}; /* gone: not replaced */
        assert_int_equal(options_credentials(&o, &e), -1);
    }
    AUTO(options) struct options o = {0};
    expect(&o, "eu", "ep");
}

/* The child has the terminal: its user name from the environment, its password typed. Echo must be off for that. */
static void terminal_is_asked_for_the_rest(void **state UNUSED)
{
    char seen[400] = "";
    size_t n = 0;
    int tty = -1, status = 0;

    setenv("CODALAB_USERNAME", "eu", 1);
    unsetenv("CODALAB_PASSWORD");
    pid_t pid = forkpty(&tty, NULL, NULL, NULL);
    assert_true(pid >= 0);
    if (pid == 0) {
        struct options o = {0};
        struct err e = ERR_INIT;
        _exit(options_credentials(&o, &e) == 0 && str_eq(o.username, "eu") &&
                      str_eq(o.password, "typed in")
                  ? 0
                  : 1);
    }
    for (;;) {
        ssize_t got = read(tty, seen + n, sizeof(seen) - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
        seen[n] = '\0';
        if (str_ends(seen, "Password: "))
            assert_int_equal(write(tty, "typed in\n", 9), 9);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_null(strstr(seen, "Username"));
    assert_null(strstr(seen, "typed in"));
    close(tty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(managers),
        cmocka_unit_test(refusals),
        cmocka_unit_test(config_file),
        cmocka_unit_test(file_then_environment),
        cmocka_unit_test(terminal_is_asked_for_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
