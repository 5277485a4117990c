/* threads: yes */
/* needs: root */
/* rows: S60 */
/* The local socket: what it answers, whom it refuses, and that one client cannot hold up another. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/str.h"
#include "test.h"
#include "worker/local_api.h"

#define UUID  "0x0123456789abcdef0123456789abcdef"
#define OTHER "0xffffffffffffffffffffffffffffffff"

static char dir[] = "/tmp/local_api.XXXXXX";
static char killed[256];

static cJSON *fake_runs(void *arg, const char *uuid, bool stats)
{
    cJSON *list = cJSON_CreateArray();

    (void)arg;
    if (uuid && !str_eq(uuid, UUID))
        return list;
    cJSON *o = cJSON_CreateObject();
    json_add_str(o, "uuid", UUID);
    if (stats)
        json_add_int(o, "memory", 42);
    cJSON_AddItemToArray(list, o);
    return list;
}

static int fake_kill(void *arg, const char *uuid, const char *message, struct err *e)
{
    (void)arg;
    if (!str_eq(uuid, UUID))
        return err_set(e, ERR_ABSENT, "there is no run %s", uuid);
    snprintf(killed, sizeof(killed), "%s", message);
    return 0;
}

static cJSON *fake_worker(void *arg)
{
    cJSON *o = cJSON_CreateObject();

    (void)arg;
    json_add_str(o, "id", "w1");
    return o;
}

static const struct local_api_hooks hooks = {
    .runs = fake_runs, .kill = fake_kill, .worker = fake_worker};

static int raw_connect(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s/control.sock", dir);
    assert_return_code(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

/* Send a text, take all that comes until the end; "" when cut off. */
static char *ask_raw(const char *text, size_t n)
{
    AUTO_CLOSE int fd = raw_connect();
    AUTO(str) struct str got = STR_INIT(BOUND_MIB);
    char buf[4096];
    ssize_t k;

    (void)!send(fd, text, n, MSG_NOSIGNAL);
    while (fd_wait(fd, POLLIN, clock_in_ns(20 * NS_PER_S)) == 1 &&
           (k = recv(fd, buf, sizeof(buf), 0)) > 0)
        assert_int_equal(str_append(&got, buf, (size_t)k), 0);
    return str_take(&got);
}

/* The clients' side runs in a thread of its own while the main thread turns the loop, as in the worker. */
struct scene {
    struct loop *loop;
    void (*fn)(void);
};

static void stop(void *arg)
{
    loop_stop(arg);
}

static void *client_thread(void *arg)
{
    struct scene *s = arg;

    s->fn();
    loop_post(s->loop, stop, s->loop);
    return NULL;
}

static void play(void (*fn)(void))
{
    AUTO(loop) struct loop *loop = NULL;
    struct local_api *api = NULL;
    struct err e = ERR_INIT;
    pthread_t thread;

    assert_ok(loop_new(&loop, &e), &e);
    assert_ok(local_api_open(loop, dir, &hooks, &api, &e), &e);
    struct scene s = {loop, fn};
    assert_int_equal(pthread_create(&thread, NULL, client_thread, &s), 0);
    loop_run(loop);
    pthread_join(thread, NULL);
    local_api_close(api);
    assert_int_equal(access(dir, F_OK), 0);
}

static void ask_table(void)
{
    static const struct {
        const char *request, *expected;
    } rows[] = {
        {"{\"method\":\"runs\"}\n", "{\"result\":[{\"uuid\":\"" UUID "\"}]}\n"},
        {"{\"method\":\"runs\",\"uuid\":\"" UUID "\",\"stats\":true}\n",
         "{\"result\":[{\"uuid\":\"" UUID "\",\"memory\":42}]}\n"},
        {"{\"method\":\"runs\",\"uuid\":\"" OTHER "\"}\n", "{\"result\":[]}\n"},
        {"{\"method\":\"worker\"}\n", "{\"result\":{\"id\":\"w1\"}}\n"},
        {"{\"method\":\"kill\",\"uuid\":\"" UUID "\"}\n", "{\"result\":true}\n"},
        {"{\"method\":\"kill\",\"uuid\":\"" OTHER "\"}\n", "\"kind\":\"absent\""},
        {"{\"method\":\"kill\"}\n", "uuid"},
        {"{\"method\":\"kill\",\"uuid\":\"../../etc\"}\n", "\"kind\":\"user\""},
        {"{\"method\":\"dance\"}\n", "no such method"},
        {"{\"method\":7}\n", "method"},
        {"{\"method\":\"runs\",\"stats\":\"yes\"}\n", "stats"},
        {"[]\n", "object"},
        {"{\n", "JSON"},
        {"\n", "JSON"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO_FREE char *got = ask_raw(rows[i].request, strlen(rows[i].request));
        assert_has(got, rows[i].expected);
    }
}

static void test_answers(void **unused)
{
    (void)unused;
    play(ask_table);
    assert_string_equal(killed, "Kill requested");
}

static void ask_too_much(void)
{
    AUTO_FREE char *big = mem_alloc(2 * BOUND_LOCAL_REQUEST);

    memset(big, ' ', 2 * BOUND_LOCAL_REQUEST);
    AUTO_FREE char *got = ask_raw(big, BOUND_LOCAL_REQUEST + 1);
    assert_has(got, "too long");
    big[BOUND_LOCAL_REQUEST - 1] = '\n';
    AUTO_FREE char *fits = ask_raw(big, BOUND_LOCAL_REQUEST);
    assert_has(fits, "JSON");
}

static void test_requests_are_capped(void **unused)
{
    (void)unused;
    play(ask_too_much);
}

static void ask_beside_idlers(void)
{
    AUTO(cJSON) cJSON *request = cJSON_CreateObject();
    int idle[BOUND_LOCAL_CLIENTS + 4];
    struct err e = ERR_INIT;

    json_add_str(request, "method", "worker");
    /* Some say nothing, some half a request, one takes no answer: the next is answered all the same. */
    for (size_t i = 0; i < BOUND_LOCAL_CLIENTS - 1; i++) {
        idle[i] = raw_connect();
        if (i % 2)
            assert_int_equal(send(idle[i], "{\"met", 5, MSG_NOSIGNAL), 5);
    }
    cJSON *got = NULL;
    assert_ok(local_api_call(dir, request, 20 * NS_PER_S, &got, &e), &e);
    cJSON_Delete(got);
    /* One place is left; who comes when all are taken is turned away at once, without harm to those inside. */
    for (size_t i = BOUND_LOCAL_CLIENTS - 1; i < ARRAY_SIZE(idle); i++)
        idle[i] = raw_connect();
    assert_int_equal(local_api_call(dir, request, 20 * NS_PER_S, &got, &e), -1);
    assert_has(e.msg, "closed the connection");
    assert_int_equal(send(idle[1], "hod\":\"worker\"}\n", 15, MSG_NOSIGNAL), 15);
    char buf[64] = "";
    assert_true(recv(idle[1], buf, sizeof(buf) - 1, 0) > 0);
    assert_has(buf, "w1");
    for (size_t i = 0; i < ARRAY_SIZE(idle); i++)
        close(idle[i]);
}

static void test_a_client_cannot_stall_others(void **unused)
{
    (void)unused;
    play(ask_beside_idlers);
}

static void ask_as_nobody(void)
{
    AUTO(cJSON) cJSON *request = cJSON_CreateObject();
    AUTO_FREE char *path = mem_printf("%s/control.sock", dir);
    struct err e = ERR_INIT;
    struct stat st;
    cJSON *got = NULL;

    json_add_str(request, "method", "worker");
    assert_return_code(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    /* The raw call changes this thread only. */
    assert_return_code(syscall(SYS_setresuid, 65534, 65534, 65534), 0);
    assert_int_equal(local_api_call(dir, request, 20 * NS_PER_S, &got, &e), -1);
    assert_int_equal(e.sys, EACCES);
    assert_return_code(syscall(SYS_setresuid, -1, -1, -1), 0);
}

static void ask_as_nobody_with_lax_modes(void)
{
    AUTO(cJSON) cJSON *request = cJSON_CreateObject();
    AUTO_FREE char *path = mem_printf("%s/control.sock", dir);
    struct err e = ERR_INIT;
    cJSON *got = NULL;

    json_add_str(request, "method", "worker");
    assert_return_code(chmod(path, 0666), 0);
    assert_return_code(syscall(SYS_setresuid, 65534, 65534, 65534), 0);
    assert_int_equal(local_api_call(dir, request, 20 * NS_PER_S, &got, &e), -1);
    assert_has(e.msg, "closed the connection");
}

static void test_only_root_is_answered(void **unused)
{
    (void)unused;
    assert_return_code(chmod(dir, 0755), 0);
    play(ask_as_nobody);
    play(ask_as_nobody_with_lax_modes);
}

static void test_one_worker_a_directory(void **unused)
{
    AUTO(loop) struct loop *loop = NULL;
    AUTO_FREE char *path = mem_printf("%s/control.sock", dir);
    struct local_api *one = NULL, *two = NULL;
    struct err e = ERR_INIT;

    (void)unused;
    assert_ok(loop_new(&loop, &e), &e);
    /* What a dead worker left is replaced. */
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    int dead = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(bind(dead, (struct sockaddr *)&a, sizeof(a)), 0);
    close(dead);
    assert_ok(local_api_open(loop, dir, &hooks, &one, &e), &e);
    assert_int_equal(local_api_open(loop, dir, &hooks, &two, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
    assert_int_equal(access(path, F_OK), 0);
    local_api_close(one);
    assert_int_equal(access(path, F_OK), -1);
    local_api_close(NULL);
}

static void test_no_worker(void **unused)
{
    AUTO(cJSON) cJSON *request = cJSON_CreateObject();
    struct err e = ERR_INIT;
    cJSON *got = NULL;

    (void)unused;
    assert_int_equal(local_api_call(dir, request, NS_PER_S, &got, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
    assert_int_equal(local_api_call("/no/such", request, NS_PER_S, &got, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
}

int main(void)
{
    /* As the daemon: a client that hung up is an error of write, not a death. */
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_requests_are_capped),
        cmocka_unit_test(test_a_client_cannot_stall_others),
        cmocka_unit_test(test_only_root_is_answered),
        cmocka_unit_test(test_one_worker_a_directory),
        cmocka_unit_test(test_no_worker),
    };

    if (!mkdtemp(dir))
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return rc;
}
