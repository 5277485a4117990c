/* threads: yes */
/*
 * Results to the service: an outage of an hour, refusals, an early answer, the end of the worker, and a directory that somebody
 * keeps changing. Time is compressed a thousand times by the first pause.
 * Rows: B114 B117 B118 B119 B120 B122 B123 D07 D09 D10 S54 S59 S63.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/archive.h"
#include "base/clock.h"
#include "base/codec.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/tree.h"
#include "test.h"
#include "tests/unit/http_server.h"
#include "worker/service.h"
#include "worker/upload.h"

#define TOKEN "{\"access_token\": \"t\", \"token_type\": \"Bearer\", \"expires_in\": 3600}"

/* HOUR: attempts in it, as pauses grow to between 15 and 30 s. */
enum { FACTOR = 1000, HOUR = 3600 / 20, RACES = 12, PAIRS = 24 };

static struct server server;
static struct service *service;
static struct loop *loop;
static struct lane *lane;
static char top[] = "/tmp/worker_upload.XXXXXX";
static int top_fd;

/* How the service answers an upload. */
struct plan;
typedef bool answer(struct exchange *x, const struct plan *plan, int attempt);
struct plan {
    answer *answer;
    char uuid
        [40]; /* each upload's own: one that was cancelled may be served late, and is not counted */
    int back_at;         /* is_away: until then */
    const char *refusal; /* refuses */
};
static pthread_mutex_t plan_lock = PTHREAD_MUTEX_INITIALIZER;
/* Under it: what the threads of the service go by, and leave. */
static struct plan plan;
static int attempts;
static struct str stored; /* the last body */

/* The plan as of now, if it is for this path. Returns the attempt, or 0. */
static int take_plan(const char *path, struct plan *ret)
{
    pthread_mutex_lock(&plan_lock);
    *ret = plan;
    int attempt = strstr(path, plan.uuid) ? ++attempts : 0;
    pthread_mutex_unlock(&plan_lock);
    return attempt;
}

static int count_attempts(void)
{
    pthread_mutex_lock(&plan_lock);
    int n = attempts;
    pthread_mutex_unlock(&plan_lock);
    return n;
}

static bool serve(struct exchange *x, void *arg UNUSED)
{
    if (strcmp(x->method, "PUT") == 0) {
        struct plan p;
        int attempt = take_plan(x->path, &p);

        return attempt && p.answer(x, &p, attempt);
    }
    if (!server_read_body(x))
        return false;
    server_answer(x, "200 OK", "", TOKEN, strlen(TOKEN));
    return true;
}

static bool stores(struct exchange *x, const struct plan *p UNUSED, int attempt UNUSED)
{
    if (!server_read_body(x))
        return false;
    pthread_mutex_lock(&plan_lock);
    str_clear(&stored);
    int rc = str_append(&stored, x->body, x->body_n);
    pthread_mutex_unlock(&plan_lock);
    if (rc < 0)
        return false;
    server_answer(x, "200 OK", "", "", 0);
    return true;
}

/* Trouble of every kind for an hour. */
static bool is_away(struct exchange *x, const struct plan *p, int attempt)
{
    static const char *const texts[] = {"500 Internal Server Error", "503 Service Unavailable",
                                        "520 Unknown", "401 Unauthorized"};

    if (attempt > p->back_at)
        return stores(x, p, attempt);
    if (attempt % 5 == 4 || !server_read_body(x))
        return false; /* cut off */
    server_answer(x, texts[attempt % 5], "", "trouble", 7);
    return true;
}

static bool refuses(struct exchange *x, const struct plan *p, int attempt UNUSED)
{
    if (!server_read_body(x))
        return false;
    server_answer(x, p->refusal, "", "Upload failed: quota", 20);
    return true;
}

static bool refuses_early(struct exchange *x, const struct plan *p UNUSED, int attempt UNUSED)
{
    char some[65536];

    if (!server_exact(x, some, sizeof(some)))
        return false;
    server_answer(x, "400 Bad Request", "Connection: close\r\n", "Upload failed: quota", 20);
    return false; /* with most of the body unread: a reset follows */
}

static bool is_silent(struct exchange *x, const struct plan *p UNUSED, int attempt UNUSED)
{
    char c;

    while (recv(x->fd, &c, 1, 0) > 0)
        ;
    return false;
}

/* ---- one upload ---- */

struct result {
    bool over, had_server_error;
    struct err error;
    int told;
    struct upload *upload;
};

static void done(void *arg, const struct err *error, bool had_server_error)
{
    struct result *r = arg;

    r->over = true;
    r->had_server_error = had_server_error;
    if (error)
        r->error = *error;
    loop_stop(loop);
}

static void progress(void *arg, const char *status)
{
    struct result *r = arg;

    r->told++;
    assert_true(str_starts(status, "Uploading results: ") &&
                str_ends(status, " uploaded (archived size)."));
}

static void cancel(void *arg)
{
    struct result *r = arg;

    upload_cancel(r->upload);
}

/* Only the main thread makes plans, so it may read its own without the lock. */
static void make_plan(struct plan p)
{
    static unsigned uploads;

    snprintf(p.uuid, sizeof(p.uuid), "0x%032x", ++uploads);
    pthread_mutex_lock(&plan_lock);
    plan = p;
    attempts = 0;
    pthread_mutex_unlock(&plan_lock);
}

static struct result upload(const char *directory, struct plan how, uint64_t cancel_after_ns)
{
    AUTO_CLOSE int dir = openat(top_fd, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct result r = {.error = ERR_INIT};

    make_plan(how);
    const struct upload_opts o = {.loop = loop,
                                  .lane = lane,
                                  .service = service,
                                  .uuid = plan.uuid,
                                  .dirfd = dir,
                                  .backoff_ns = NS_PER_S / FACTOR,
                                  .progress = progress,
                                  .done = done,
                                  .arg = &r};

    assert_true(dir >= 0);
    r.upload = upload_start(&o);
    struct loop_watch *timer = loop_add_timer(loop, cancel, &r);

    if (cancel_after_ns)
        loop_arm(timer, cancel_after_ns);
    loop_run(loop);
    loop_watch_free(timer);
    assert_true(r.over);
    return r;
}

/* ---- directories ---- */

static void write_at(const char *path, const void *data, size_t n)
{
    AUTO_CLOSE int fd = openat(
        top_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);

    if (fd >= 0)
        (void)!write(fd, data, n);
}

static void noise_at(const char *path, size_t n)
{
    AUTO_FREE char *buf = mem_alloc(n);

    for (size_t at = 0; at < n;) {
        ssize_t got = getrandom(buf + at, n - at, 0);

        assert_true(got > 0);
        at += (size_t)got;
    }
    write_at(path, buf, n);
}

static int collect(void *arg, const void *data, size_t n, struct err *e)
{
    return str_append(arg, data, n) < 0 ? err_set(e, ERR_LIMIT, "too much") : 0;
}

struct memory {
    const char *p;
    size_t left;
};

static long from_memory(void *arg, void *buf, size_t n, struct err *e UNUSED)
{
    struct memory *m = arg;

    n = n < m->left ? n : m->left;
    memcpy(buf, m->p, n);
    m->p += n;
    m->left -= n;
    return (long)n;
}

/* What the service has got, as text; it is a whole gzip of a whole tar, or the test fails. */
static void unpack_stored(struct str *tar)
{
    AUTO(codec) struct codec *gunzip = codec_decoder(CODEC_GZIP, 64 << 20, collect, tar);
    const struct archive_limits lim = {.max_bytes = 64 << 20};
    struct err e = ERR_INIT;

    str_clear(tar);
    pthread_mutex_lock(&plan_lock);
    int rc = codec_feed(gunzip, stored.buf, stored.len, &e);
    pthread_mutex_unlock(&plan_lock);
    assert_ok(rc, &e);
    assert_ok(codec_finish(gunzip, &e), &e);
    assert_ok(tree_remove_at(top_fd, "unpacked", &e), &e);
    assert_int_equal(mkdirat(top_fd, "unpacked", 0755), 0);
    AUTO_CLOSE int dir = openat(top_fd, "unpacked", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct memory m = {tar->buf, tar->len};

    assert_ok(archive_unpack_tar(dir, from_memory, &m, &lim, NULL, &e), &e);
}

/* ---- tests ---- */

static void an_hour_away_loses_nothing(void **state UNUSED)
{
    AUTO(str) struct str tar = STR_INIT(64 << 20);

    struct result r = upload("plain", (struct plan){.answer = is_away, .back_at = HOUR}, 0);

    assert_int_equal(r.error.kind, ERR_NONE);
    assert_true(r.had_server_error);
    assert_int_equal(count_attempts(), HOUR + 1);
    unpack_stored(&tar);
    assert_int_equal(faccessat(top_fd, "unpacked/sub/file", F_OK, 0), 0);
    /* Without trouble there is none to be told (D09). */
    r = upload("plain", (struct plan){.answer = stores}, 0);
    assert_int_equal(r.error.kind, ERR_NONE);
    assert_false(r.had_server_error);
    assert_int_equal(count_attempts(), 1);
}

static void refusals_are_final(void **state UNUSED)
{
    static const char *const cases[] = {"400 Bad Request", "403 Forbidden", "404 Not Found",
                                        "413 Request Entity Too Large"};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct result r = upload("plain", (struct plan){.answer = refuses, .refusal = cases[i]}, 0);
        AUTO_FREE char *wanted = mem_printf(
            "Unable to update bundle contents in bundle service: %s - Upload failed: quota",
            cases[i] + 4);

        assert_string_equal(r.error.msg, wanted);
        assert_int_equal(count_attempts(), 1);
    }
}

static void early_refusal_is_heard(void **state UNUSED)
{
    struct result r = upload("big", (struct plan){.answer = refuses_early}, 0);

    assert_string_equal(r.error.msg, "Unable to update bundle contents in bundle service: "
                                     "Bad Request - Upload failed: quota");
    assert_int_equal(count_attempts(), 1);
}

/* Silent while we send, and while we wait for its answer. */
static void a_cancel_ends_it(void **state UNUSED)
{
    struct result r = upload("big", (struct plan){.answer = is_silent}, 200 * NS_PER_MS);

    assert_int_equal(r.error.kind, ERR_CANCELLED);
    /* in a pause */
    r = upload("plain", (struct plan){.answer = is_away, .back_at = INT32_MAX}, 200 * NS_PER_MS);
    assert_int_equal(r.error.kind, ERR_CANCELLED);
}

static atomic_bool stop_changing;

static void exchange(const char *a, const char *b)
{
    (void)!syscall(SYS_renameat2, top_fd, a, top_fd, b, 2 /* RENAME_EXCHANGE */);
}

/* The run's files while they are packed: growing, shrinking, vanishing, becoming something else. */
static void *change(void *arg UNUSED)
{
    static const char text[100000];

    for (unsigned i = 0; !stop_changing; i++) {
        write_at("racing/grows", text, i % 100000);
        AUTO_CLOSE int fd = openat(top_fd, "racing/shrinks", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

        (void)!ftruncate(fd, i % 2 ? 300000 : 7);
        write_at("racing/comes", "x", 1);
        unlinkat(top_fd, "racing/comes", 0);
        exchange("racing/file", "racing/fifo");
        exchange("racing/dir", "racing/link"); /* the link leads outside */
        mkdirat(top_fd, "racing/new", 0755);
        write_at("racing/new/f", "y", 1);
        unlinkat(top_fd, "racing/new/f", 0);
        unlinkat(top_fd, "racing/new", AT_REMOVEDIR);
    }
    return NULL;
}

/* Names that are now a file, now a link out of the directory, as fast as can be. */
static void *swap_pairs(void *arg UNUSED)
{
    char file[64], link[64];

    for (unsigned i = 0; !stop_changing; i++) {
        snprintf(file, sizeof(file), "racing/file%u", i % PAIRS);
        snprintf(link, sizeof(link), "racing/link%u", i % PAIRS);
        exchange(file, link);
    }
    return NULL;
}

static void make_pairs(void)
{
    char name[64];

    for (unsigned i = 0; i < PAIRS; i++) {
        snprintf(name, sizeof(name), "racing/file%u", i);
        write_at(name, "inside", 6);
        snprintf(name, sizeof(name), "racing/link%u", i);
        assert_int_equal(symlinkat("../outside/secret", top_fd, name), 0);
    }
}

/*
 * And with certainty what that race only meets now and then: between the look at a name and its opening a file or directory
 * becomes a link that leads out. The program's own opens come by here, as its symbols go before the C library's.
 */
static atomic_bool turning;
static atomic_int turned;

int turning_openat(int dir, const char *name, int flags, ...) __asm__("openat");
/* Offsets have 64 bits here: it is the same under another name. (No alias attribute: the header's own inline openat is in its way.) */
__asm__(".globl openat64\n.set openat64, openat");

int turning_openat(int dir, const char *name, int flags, ...)
{
    unsigned mode = 0;

    if (flags & O_CREAT) {
        va_list ap;

        va_start(ap, flags);
        mode = va_arg(ap, unsigned);
        va_end(ap);
    }
    if (turning && (strcmp(name, "turns-file") == 0 || strcmp(name, "turns-dir") == 0)) {
        AUTO_FREE char *from = mem_printf("turning/%s", name);
        AUTO_FREE char *to = mem_printf("links/%s", name);

        exchange(from, to);
        turned++;
    }
    return (int)syscall(SYS_openat, dir, name, flags, mode);
}

static void what_turns_into_a_link_is_left_out(void **state UNUSED)
{
    AUTO(str) struct str tar = STR_INIT(64 << 20);
    const char *dirs[] = {"links", "turning", "turning/turns-dir"};

    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
        assert_int_equal(mkdirat(top_fd, dirs[i], 0755), 0);
    write_at("turning/always", "always", 6);
    write_at("turning/turns-file", "inside", 6);
    write_at("turning/turns-dir/secret", "inside", 6);
    assert_int_equal(symlinkat("../outside/secret", top_fd, "links/turns-file"), 0);
    assert_int_equal(symlinkat("../outside", top_fd, "links/turns-dir"), 0);
    turning = true;
    struct result r = upload("turning", (struct plan){.answer = stores}, 0);
    turning = false;
    assert_int_equal(r.error.kind, ERR_NONE);
    assert_int_equal(turned, 2);
    unpack_stored(&tar);
    assert_null(memmem(tar.buf, tar.len, "canary", 6));
    assert_int_equal(faccessat(top_fd, "unpacked/always", F_OK, 0), 0);
}

static void a_changing_directory_is_packed(void **state UNUSED)
{
    AUTO(str) struct str tar = STR_INIT(64 << 20);
    pthread_t thread, swapper;

    make_pairs();
    assert_int_equal(pthread_create(&thread, NULL, change, NULL), 0);
    assert_int_equal(pthread_create(&swapper, NULL, swap_pairs, NULL), 0);
    for (int i = 0; i < RACES; i++) {
        struct result r = upload("racing", (struct plan){.answer = stores}, 0);

        assert_int_equal(r.error.kind, ERR_NONE);
        assert_int_equal(count_attempts(), 1);
        unpack_stored(&tar);
        assert_null(memmem(tar.buf, tar.len, "canary", 6)); /* nothing of outside */
        assert_int_equal(faccessat(top_fd, "unpacked/always", F_OK, 0), 0);
    }
    stop_changing = true;
    pthread_join(thread, NULL);
    pthread_join(swapper, NULL);
}

static void status_texts(void **state UNUSED)
{
    static const struct {
        uint64_t bytes;
        const char *wanted;
    } cases[] = {
        {0, "0 bytes"}, {1023, "1023 bytes"}, {1024, "1k"}, {1536, "1.5k"}, {10485760, "10m"}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO_FREE char *text = upload_status_text(cases[i].bytes);
        AUTO_FREE char *wanted =
            mem_printf("Uploading results: %s uploaded (archived size).", cases[i].wanted);

        assert_string_equal(text, wanted);
    }
}

static int start(void **state UNUSED)
{
    struct err e = ERR_INIT;

    if (!mkdtemp(top) || (top_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return -1;
    stored = STR_INIT(64 << 20);
    server_start(&server, serve, NULL);
    const struct service_opts o = {
        .server = server.url, .username = "u", .password = "p", .worker_id = "w"};

    if (service_new(&o, &service, &e) < 0 || loop_new(&loop, &e) < 0)
        return -1;
    lane = lane_new(loop, "upload", 1);
    const char *dirs[] = {"plain", "plain/sub", "big", "racing", "racing/dir", "outside"};
    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
        mkdirat(top_fd, dirs[i], 0755);
    write_at("plain/sub/file", "contents", 8);
    noise_at("big/noise", 8 << 20);
    noise_at("racing/always", 300000);
    write_at("racing/file", "f", 1);
    write_at("racing/dir/secret", "inside", 6);
    write_at("outside/secret", "canary", 6);
    mknodat(top_fd, "racing/fifo", S_IFIFO | 0644, 0);
    assert_int_equal(symlinkat("../outside", top_fd, "racing/link"), 0);
    return 0;
}

static int stop(void **state UNUSED)
{
    struct err e = ERR_INIT;

    lane_stop(lane, 60 * NS_PER_S);
    lane_free(lane);
    loop_free(loop);
    service_free(service);
    server_stop(&server);
    str_free(&stored);
    close(top_fd);
    return tree_remove_at(AT_FDCWD, top, &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_texts),
        cmocka_unit_test(an_hour_away_loses_nothing),
        cmocka_unit_test(refusals_are_final),
        cmocka_unit_test(early_refusal_is_heard),
        cmocka_unit_test(a_cancel_ends_it),
        cmocka_unit_test(what_turns_into_a_link_is_left_out),
        cmocka_unit_test(a_changing_directory_is_packed),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
