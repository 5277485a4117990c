/* threads: yes */
/* needs: root */
/* rows: B146 B147 B148 B149 B150 B151 B152 B153 B154 B155 B156 D30 D31 D32 D33 D34 D35 D36 D37 D38 */
/* The image manager with a real store, real transfers, and a registry in threads of this program. */
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mount.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/http.h"
#include "base/jobs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/tree.h"
#include "http_server.h"
#include "oci/image.h"
#include "oci/platform.h"
#include "oci/pull.h"
#include "oci/ref.h"
#include "oci/store.h"
#include "oci/trust.h"
#include "tar_maker.h"
#include "test.h"
#include "worker/images.h"
#include "worker/images_room.h"
#include "worker/images_text.h"

enum { VERSIONS = 2, LAYER_BYTES = 64 * 1024, LANE_THREADS = 4 };

/* ---- the registry: x:latest is made[version], and so are y:latest and every tag that begins with "t" ---- */

struct made {
    struct str layer, config, manifest;
    char layer_digest[DIGEST_TEXT_MAX], config_digest[DIGEST_TEXT_MAX], digest[DIGEST_TEXT_MAX];
};
static struct made made[VERSIONS];
static struct server registry;
static atomic_int version, asked_for_tag, asked_for_layers, denied, held; /* held: layers wait */
static atomic_int held_tags, tags_at_once; /* manifests wait; and how many do */

static void make_image(struct made *m, int number)
{
    struct oci_platform host;
    AUTO_FREE char *data = mem_zalloc(LAYER_BYTES + 1);

    memset(data, 'a' + number, LAYER_BYTES);
    m->layer = STR_INIT(1 << 20);
    m->config = m->manifest = STR_INIT(4096);
    tar_put(&m->layer,
            &(struct tar_member){.path = "file", .type = '0', .mode = 0644, .data = data});
    tar_bytes(&m->layer, (char[1024]){0}, 1024);
    digest_of(m->layer.buf, m->layer.len, m->layer_digest);
    oci_platform_host(&host);
    assert_int_equal(str_appendf(&m->config,
                                 "{\"architecture\":\"%s\",\"os\":\"linux\",\"config\":{},"
                                 "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"%s\"]}}",
                                 host.arch, m->layer_digest),
                     0);
    digest_of(m->config.buf, m->config.len, m->config_digest);
    assert_int_equal(
        str_appendf(
            &m->manifest,
            "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
            "\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"%s\","
            "\"size\":%zu},\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\","
            "\"digest\":\"%s\",\"size\":%zu}]}",
            m->config_digest, m->config.len, m->layer_digest, m->layer.len),
        0);
    digest_of(m->manifest.buf, m->manifest.len, m->digest);
}

static bool give(struct exchange *x, const char *type, const char *digest, const struct str *what)
{
    AUTO_FREE char *headers =
        mem_printf("Content-Type: %s\r\nDocker-Content-Digest: %s\r\n", type, digest);

    server_answer(x, "200 OK", headers, what->buf, str_eq(x->method, "HEAD") ? 0 : what->len);
    return true;
}

static bool serve_manifest(struct exchange *x, const char *reference)
{
    const char *type = "application/vnd.oci.image.manifest.v1+json";

    if (str_eq(reference, "latest") || reference[0] == 't') {
        asked_for_tag++;
        tags_at_once++;
        while (held_tags)
            usleep(2000);
        tags_at_once--;
        return give(x, type, made[version].digest, &made[version].manifest);
    }
    for (int i = 0; i < VERSIONS; i++)
        if (str_eq(reference, made[i].digest))
            return give(x, type, made[i].digest, &made[i].manifest);
    server_answer(x, "404 Not Found", "", "", 0);
    return true;
}

static bool serve_blob(struct exchange *x, const char *digest)
{
    for (int i = 0; i < VERSIONS; i++) {
        if (str_eq(digest, made[i].config_digest))
            return give(x, "application/octet-stream", digest, &made[i].config);
        if (!str_eq(digest, made[i].layer_digest))
            continue;
        asked_for_layers++;
        while (held)
            usleep(2000);
        return give(x, "application/octet-stream", digest, &made[i].layer);
    }
    server_answer(x, "404 Not Found", "", "", 0);
    return true;
}

static const char refusal[] =
    "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"100% '%s' %n no\"}]}";

/* HEAD is refused, so that only GET is counted. */
static bool serve(struct exchange *x, void *arg UNUSED)
{
    if (str_eq(x->method, "HEAD"))
        return server_printf(x, "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"),
               true;
    if (denied)
        return server_answer(x, "403 Forbidden", "Content-Type: application/json\r\n", refusal,
                             strlen(refusal)),
               true;
    if (str_eq(x->path, "/v2/"))
        return server_answer(x, "200 OK", "", "{}", 2), true;
    if (str_starts(x->path, "/v2/x/manifests/") || str_starts(x->path, "/v2/y/manifests/"))
        return serve_manifest(x, x->path + strlen("/v2/x/manifests/"));
    if (str_starts(x->path, "/v2/x/blobs/") || str_starts(x->path, "/v2/y/blobs/"))
        return serve_blob(x, x->path + strlen("/v2/x/blobs/"));
    server_answer(x, "404 Not Found", "", "", 0);
    return true;
}

/* ---- the manager under test ---- */

static struct loop *loop;
static struct lane *lane, *disk;
static struct oci_store *store;
static struct oci_registries registries;
static struct http_client *http;
static struct images *images;
static char dir[64], name[64];
static int changes;
static const char *asks_when_told; /* a run, NULL: none does */

static void changed(void *arg UNUSED, const char *image)
{
    struct images_status s;

    changes++;
    if (asks_when_told)
        images_get(images, image, asks_when_told, &s);
}

static void start_with(uint64_t max_image, uint64_t max_cache, uint64_t min_free)
{
    images = images_new(&(struct images_opts){.loop = loop,
                                              .lane = lane,
                                              .disk_lane = disk,
                                              .store = store,
                                              .registries = &registries,
                                              .http = http,
                                              .max_image_size = max_image,
                                              .max_cache_size = max_cache,
                                              .min_free = min_free,
                                              .changed = changed});
}

static void start(uint64_t max_image, uint64_t max_cache)
{
    start_with(max_image, max_cache, 0);
}

static int set_up(void **state UNUSED)
{
    struct err e = ERR_INIT;

    snprintf(dir, sizeof(dir), "/tmp/cw-images-XXXXXX");
    assert_non_null(mkdtemp(dir));
    /* Its own, so that its free space is nobody else's. */
    assert_int_equal(mount("tmpfs", dir, "tmpfs", 0, "size=16m"), 0);
    asks_when_told = NULL;
    version = asked_for_tag = asked_for_layers = denied = held = changes = 0;
    held_tags = tags_at_once = 0;
    server_start(&registry, serve, NULL);
    snprintf(name, sizeof(name), "127.0.0.1:%d/x", registry.port);
    snprintf(registry.url, sizeof(registry.url), "127.0.0.1:%d", registry.port);
    str_list_add(&registries.insecure, registry.url);
    assert_ok(loop_new(&loop, &e), &e);
    lane = lane_new(loop, "pull", LANE_THREADS);
    disk = lane_new(loop, "disk", 1);
    assert_ok(oci_store_open(dir, &store, &e), &e);
    assert_ok(http_client_new("test", &http, &e), &e);
    return 0;
}

static void stop_loop(void *arg UNUSED)
{
    loop_stop(loop);
}

/* One round of the loop, of a few milliseconds. */
static void turn(void)
{
    struct loop_watch *timer = loop_add_timer(loop, stop_loop, NULL);

    loop_arm(timer, 5 * NS_PER_MS);
    loop_run(loop);
    loop_watch_free(timer);
}

#define UNTIL(condition)                                 \
    do {                                                 \
        uint64_t deadline_ = clock_in_ns(60 * NS_PER_S); \
        while (!(condition)) {                           \
            if (clock_passed(deadline_))                 \
                fail_msg("never: %s", #condition);       \
            turn();                                      \
        }                                                \
    } while (0)

static void stop(void)
{
    held = held_tags = 0;
    images_stop(images);
    UNTIL(images_active(images) == 0);
    images_free(images);
    images = NULL;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;

    stop();
    assert_true(lane_stop(lane, 60 * NS_PER_S));
    assert_true(lane_stop(disk, 60 * NS_PER_S));
    loop_drain(loop);
    lane_free(lane);
    lane_free(disk);
    http_client_free(http);
    oci_store_close(store);
    oci_registries_free(&registries);
    memset(&registries, 0, sizeof(registries));
    loop_free(loop);
    server_stop(&registry);
    assert_int_equal(umount2(dir, MNT_DETACH), 0);
    assert_ok(tree_remove_at(AT_FDCWD, dir, &e), &e);
    return 0;
}

static struct images_status ask(const char *image, const char *run)
{
    struct images_status s = {0};

    images_get(images, image, run, &s);
    return s;
}

static struct images_status answer(const char *image, const char *run)
{
    UNTIL(ask(image, run).state != IMAGES_DOWNLOADING);
    UNTIL(images_active(images) == 0);
    return ask(image, run);
}

static void assert_ready(const struct images_status s, int which)
{
    AUTO_FREE char *digest = mem_printf("%s@%s", name, made[which].digest);

    if (s.state != IMAGES_READY)
        fail_msg("not ready: %s", s.message);
    assert_string_equal(s.digest, digest);
    assert_int_equal(s.image->lowerdirs.n, 1);
    assert_int_equal(access(s.image->lowerdirs.items[0], F_OK), 0);
}

/* ---- tests ---- */

static void one_pull_however_many_wait(void **state UNUSED)
{
    start(0, 0);
    held = 1;
    struct images_status s = ask(name, "a");

    assert_int_equal(s.state, IMAGES_DOWNLOADING);
    assert_string_equal(s.message, "Download starting");
    ask(name, "b");
    UNTIL(asked_for_layers == 1);
    ask(name, "c");
    assert_int_equal(images_active(images), 1);
    held = 0;
    assert_ready(answer(name, "a"), 0);
    assert_true(changes > 0);
    assert_string_equal(ask(name, "a").message, "Image ready");
    /* Each keeps its answer, however often it looks (D30). */
    for (int i = 0; i < 3; i++)
        assert_ready(ask(name, i == 0 ? "a" : i == 1 ? "b" : "c"), 0);
    assert_int_equal(images_active(images), 0);
    assert_int_equal(asked_for_tag, 1);
    assert_int_equal(asked_for_layers, 1);
}

static char content_of(const struct images_status s)
{
    AUTO_FREE char *path = mem_printf("%s/file", s.image->lowerdirs.items[0]);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char c = 0;

    assert_int_equal(read(fd, &c, 1), 1);
    return c;
}

/* And the one that was given it before keeps what was checked for it: it starts from that, not from the tag (D35). */
static void a_moved_tag_is_noticed_by_the_next_run(void **state UNUSED)
{
    start(0, 0);
    assert_ready(answer(name, "a"), 0);
    version = 1;
    assert_ready(answer(name, "a"), 0);
    assert_ready(answer(name, "b"), 1);
    assert_ready(ask(name, "a"), 0);
    assert_int_equal(content_of(ask(name, "a")), 'a');
    assert_int_equal(content_of(ask(name, "b")), 'b');
    assert_int_equal(asked_for_tag, 2);
}

/* One image under two names: each run is told the digest under the name it asked for (D36). */
static void the_digest_is_told_under_the_name_asked_for(void **state UNUSED)
{
    AUTO_FREE char *other = mem_printf("127.0.0.1:%d/y", registry.port);
    AUTO_FREE char *with_tag = mem_printf("%s:latest", name);
    AUTO_FREE char *digest = mem_printf("%s@%s", other, made[0].digest);

    start(0, 0);
    struct images_status s = answer(other, "a");
    assert_int_equal(s.state, IMAGES_READY);
    assert_string_equal(s.digest, digest);
    assert_ready(answer(name, "b"), 0);
    /* A port is no tag, and a tag behind a port is one (D33). */
    assert_ready(answer(with_tag, "c"), 0);
    assert_string_equal(ask(other, "a").digest, digest);
    assert_int_equal(asked_for_layers, 1);
}

/* As many at once as the lane has threads, and all of them end when nobody wants them any more (D38). */
static void pulls_are_bounded_and_end_when_told(void **state UNUSED)
{
    start(0, 0);
    held_tags = 1;
    for (int i = 0; i < LANE_THREADS + 3; i++) {
        AUTO_FREE char *image = mem_printf("%s:t%d", name, i);
        AUTO_FREE char *run = mem_printf("run%d", i);

        assert_int_equal(ask(image, run).state, IMAGES_DOWNLOADING);
    }
    UNTIL(tags_at_once == LANE_THREADS);
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(tags_at_once, LANE_THREADS);
    assert_int_equal(images_active(images), LANE_THREADS + 3);
    for (int i = 0; i < LANE_THREADS + 3; i++) {
        AUTO_FREE char *run = mem_printf("run%d", i);

        images_release(images, run);
    }
    UNTIL(images_active(images) == 0);
    assert_int_equal(asked_for_tag, LANE_THREADS);
    held_tags = 0;
    assert_ready(answer(name, "a"), 0);
}

static void the_image_at_hand_serves_when_the_registry_does_not(void **state UNUSED)
{
    start(0, 0);
    assert_ready(answer(name, "a"), 0);
    denied = 1;
    struct images_status s = answer(name, "b");

    assert_ready(s, 0);
    AUTO_FREE char *text = mem_printf(
        "Image %s:latest can not be downloaded from the cloud but it is found locally", name);
    assert_string_equal(s.message, text);
}

static void a_failure_says_why_and_is_over_with_its_run(void **state UNUSED)
{
    start(0, 0);
    denied = 1;
    struct images_status s = answer(name, "a");

    assert_int_equal(s.state, IMAGES_FAILED);
    assert_true(str_starts(s.message, "Can't download image: "));
    assert_has(s.message, "100% '%s' %n no");
    assert_null(s.image);
    denied = 0;
    assert_int_equal(ask(name, "a").state, IMAGES_FAILED);
    assert_ready(answer(name, "b"), 0);

    s = answer("a//b", "c");
    assert_int_equal(s.state, IMAGES_FAILED);
    assert_true(str_starts(s.message, "Can't download image: "));
    AUTO_FREE char *gone = mem_printf("%s/not-there", name);
    s = answer(gone, "d");
    assert_int_equal(s.state, IMAGES_FAILED);
    assert_true(str_starts(s.message, "Can't download image: "));
}

static void a_digest_at_hand_asks_nobody(void **state UNUSED)
{
    AUTO_FREE char *by_digest = mem_printf("%s@%s", name, made[0].digest);

    start(0, 0);
    assert_ready(answer(by_digest, "a"), 0);
    int before = registry.requests;

    assert_ready(answer(by_digest, "b"), 0);
    assert_int_equal(registry.requests, before);
}

/* Falling back to what is here is no way round the trust policy, by tag or by digest. */
static void the_trust_policy_holds_for_images_at_hand(void **state UNUSED)
{
    static const char rule[] = "{\"registries\":[\"example.org\"]}";
    AUTO_FREE char *by_digest = mem_printf("%s@%s", name, made[0].digest);
    struct err e = ERR_INIT;

    start(0, 0);
    assert_ready(answer(name, "a"), 0);
    assert_ready(answer(by_digest, "b"), 0);
    assert_int_equal(oci_trust_parse(rule, strlen(rule), "/", &registries.trust, &e), 0);
    int before = registry.requests;
    struct images_status s = answer(name, "c");

    assert_int_equal(s.state, IMAGES_FAILED);
    assert_has(s.message, "refused by the trust policy");
    s = answer(by_digest, "d");
    assert_int_equal(s.state, IMAGES_FAILED);
    assert_has(s.message, "refused by the trust policy");
    assert_int_equal(registry.requests, before);
}

static void nothing_of_too_big_an_image_is_fetched(void **state UNUSED)
{
    start(1024, 0);
    struct images_status s = answer(name, "a");
    AUTO_FREE char *name_text = mem_printf("%s:latest", name);
    AUTO_FREE char *wanted = images_text_too_big(name_text, made[0].layer.len, 1024);

    assert_int_equal(s.state, IMAGES_FAILED);
    assert_string_equal(s.message, wanted);
    assert_int_equal(asked_for_layers, 0);
    stop();
    start(made[0].layer.len, 0);
    assert_ready(answer(name, "a"), 0);
}

/* Of a registry that is not Docker Hub, asked while the loop goes on; one that does not tell it is no error of ours (D34). */
static void the_size_is_asked_of_any_registry(void **state UNUSED)
{
    start(made[0].layer.len, 0);
    held_tags = 1;
    assert_int_equal(ask(name, "a").state, IMAGES_DOWNLOADING);
    UNTIL(tags_at_once == 1); /* turns of the loop, while the registry takes its time */
    held_tags = 0;
    assert_ready(answer(name, "a"), 0);
    denied = 1;
    assert_ready(answer(name, "b"), 0);
    AUTO_FREE char *not_here = mem_printf("127.0.0.1:%d/y", registry.port);
    struct images_status s = answer(not_here, "c");

    assert_int_equal(s.state, IMAGES_FAILED);
    assert_has(s.message, "Cannot fetch image size before pulling Docker image: ");
    assert_has(s.message, "100% '%s' %n no");
}

static void a_pull_nobody_waits_for_is_cancelled(void **state UNUSED)
{
    start(0, 0);
    held = 1;
    ask(name, "a");
    ask(name, "b");
    UNTIL(asked_for_layers == 1);
    images_release(images, "a");
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(images_active(images), 1);
    images_release(images, "b");
    /* It ends though the layer never comes; who asks now gets a pull of his own. */
    assert_int_equal(ask(name, "c").state, IMAGES_DOWNLOADING);
    assert_int_equal(images_active(images), 2);
    UNTIL(images_active(images) == 1);
    held = 0;
    assert_ready(answer(name, "c"), 0);
}

static void an_adopted_run_holds_without_a_registry(void **state UNUSED)
{
    start(0, 1);
    assert_ready(answer(name, "a"), 0);
    AUTO_FREE char *digest = mem_strdup(ask(name, "a").digest);
    stop();

    start(0, 1);
    int before = registry.requests;

    images_hold(images, digest, "a");
    assert_ready(answer(digest, "a"), 0);
    assert_int_equal(registry.requests, before);
    /* What is not here any more is asked for when the run does ask, be it while it is told so. */
    AUTO_FREE char *other = mem_printf("%s@%s", name, made[1].digest);
    asks_when_told = "b";
    images_hold(images, other, "b");
    UNTIL(images_active(images) == 0);
    assert_ready(answer(other, "b"), 1);
}

static bool is_here(const char *reference)
{
    AUTO(oci_ref) struct oci_ref *ref = NULL;
    AUTO(image) struct image *img = NULL;
    struct err e = ERR_INIT;

    assert_ok(oci_ref_parse(reference, &ref, &e), &e);
    return oci_store_find(store, ref, &img, &e) == 0;
}

static void the_cache_gives_up_what_no_run_uses(void **state UNUSED)
{
    AUTO_FREE char *first = mem_printf("%s@%s", name, made[0].digest);
    AUTO_FREE char *second = mem_printf("%s@%s", name, made[1].digest);

    start(0, 1);
    assert_ready(answer(first, "a"), 0);
    assert_ready(answer(second, "b"), 1);
    assert_true(is_here(first) && is_here(second));
    images_release(images, "a");
    UNTIL(images_active(images) == 0);
    assert_false(is_here(first));
    assert_true(is_here(second));
    images_release(images, "b");
    UNTIL(images_active(images) == 0);
    assert_false(is_here(second));
    assert_int_equal(oci_store_bytes(store), 0);
}

static void without_a_limit_nothing_is_removed(void **state UNUSED)
{
    start(0, 0);
    assert_ready(answer(name, "a"), 0);
    images_release(images, "a");
    UNTIL(images_active(images) == 0);
    assert_true(is_here(name));
}

static void rooms_add_up(void **state UNUSED)
{
    static const struct {
        struct images_room room;
        uint64_t bytes, free_bytes, target;
    } rows[] = {
        {{0, 0}, 100, 0, UINT64_MAX},   {{70, 0}, 100, 0, 70},   {{70, 0}, 50, 0, 70},
        {{0, 20}, 100, 20, UINT64_MAX}, {{0, 20}, 100, 15, 95},  {{0, 200}, 100, 15, 0},
        {{70, 20}, 100, 15, 70},        {{97, 20}, 100, 15, 95}, {{97, 20}, 100, 25, 97},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_true(images_room_target(&rows[i].room, rows[i].bytes, rows[i].free_bytes) ==
                    rows[i].target);
}

/* Unused ones go as soon as too little of the disk is free, and for a pull that would not leave enough. */
static void room_is_made_and_what_is_missing_is_named(void **state UNUSED)
{
    AUTO_FREE char *first = mem_printf("%s@%s", name, made[0].digest);
    AUTO_FREE char *second = mem_printf("%s@%s", name, made[1].digest);

    start(0, 0);
    assert_ready(answer(first, "a"), 0);
    uint64_t free_bytes = oci_store_free(store);

    stop();
    start_with(0, 0, free_bytes + 1000);
    images_hold(images, first, "a");
    struct images_status s = answer(second, "b");

    assert_int_equal(s.state, IMAGES_FAILED);
    assert_has(s.message, "needs about");
    assert_has(s.message, "to be left free");
    assert_has(s.message, "are missing");
    assert_has(s.message, dir);
    assert_int_equal(asked_for_layers, 1);
    assert_true(is_here(first)); /* in use */
    stop();
    start_with(0, 0, free_bytes - LAYER_BYTES / 4);
    assert_ready(answer(second, "b"), 1);
    assert_false(is_here(first));
    stop();
    start_with(0, 0, oci_store_free(store) + LAYER_BYTES / 4);
    images_hold(images, second, "b");
    UNTIL(images_active(images) == 0);
    images_release(images, "b");
    UNTIL(images_active(images) == 0);
    assert_false(is_here(second));
}

static void fetched_before_anyone_asks(void **state UNUSED)
{
    AUTO(str_list) struct str_list list = {0};

    str_list_add(&list, name);
    str_list_add(&list, "No Reference");
    str_list_add(&list, name);
    start(0, 0);
    images_prepull(images, &list);
    UNTIL(images_active(images) == 0);
    assert_true(is_here(name));
    assert_int_equal(asked_for_layers, 1);
    /* No claim is left; a run asks what the tag is now, and joins a fetch under way. */
    assert_ready(answer(name, "a"), 0);
    assert_int_equal(asked_for_tag, 2);
    assert_int_equal(asked_for_layers, 1);
    version = held = 1;
    images_prepull(images, &list);
    UNTIL(asked_for_layers == 2);
    ask(name, "b");
    assert_int_equal(images_active(images), 1);
    held = 0;
    assert_ready(answer(name, "b"), 1);
    assert_int_equal(asked_for_layers, 2);
}

static void stopping_fails_no_run(void **state UNUSED)
{
    start(0, 1);
    held = 1;
    ask(name, "a");
    UNTIL(asked_for_layers == 1);
    images_stop(images);
    UNTIL(images_active(images) == 0);
    assert_int_equal(ask(name, "a").state, IMAGES_DOWNLOADING);
    assert_int_equal(ask(name, "b").state, IMAGES_DOWNLOADING);
    assert_int_equal(images_active(images), 0);
}

static void progress_reads_as_dockers(void **state UNUSED)
{
    static const struct {
        struct oci_progress p;
        const char *text;
    } rows[] = {
        {{.phase = OCI_RESOLVING}, "Download starting"},
        {{.phase = OCI_DOWNLOADING, .bytes = 20320000, .total = 28540000},
         "Downloading 20.32MB/28.54MB (71% done)"},
        {{.phase = OCI_EXTRACTING, .bytes = 28540000, .total = 28540000},
         "Extracting 28.54MB/28.54MB (100% done)"},
        {{.phase = OCI_DOWNLOADING, .layers_done = 1, .layers = 3}, "Downloading (33% done)"},
        {{.phase = OCI_DOWNLOADING}, ""},
        {{.phase = OCI_COMMITTING, .total = 5}, ""},
        {{.phase = OCI_DONE, .bytes = 5, .total = 5}, ""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO_FREE char *text = images_text_progress(&rows[i].p);

        assert_string_equal(text, rows[i].text);
    }
}

static void names_get_their_tag(void **state UNUSED)
{
    static const struct {
        const char *image, *text;
    } rows[] = {
        {"python", "python:latest"},
        {"python:3", "python:3"},
        {"host:5000/x", "host:5000/x:latest"},
        {"host:5000/x:latest", "host:5000/x:latest"},
    };
    char big[] = "The size of a:b: 1.5k exceeds the maximum image size allowed 1k.";

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(oci_ref) struct oci_ref *ref = NULL;
        struct err e = ERR_INIT;

        assert_ok(oci_ref_parse(rows[i].image, &ref, &e), &e);
        AUTO_FREE char *text = images_text_name(rows[i].image, ref);
        assert_string_equal(text, rows[i].text);
    }
    AUTO_FREE char *text = images_text_too_big("a:b", 1536, 1024);
    assert_string_equal(text, big);
}

static int make_images(void **state UNUSED)
{
    for (int i = 0; i < VERSIONS; i++)
        make_image(&made[i], i);
    return 0;
}

static int free_images(void **state UNUSED)
{
    for (int i = 0; i < VERSIONS; i++) {
        str_free(&made[i].layer);
        str_free(&made[i].config);
        str_free(&made[i].manifest);
    }
    return 0;
}

#define WITH_REGISTRY(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_REGISTRY(one_pull_however_many_wait),
        WITH_REGISTRY(a_moved_tag_is_noticed_by_the_next_run),
        WITH_REGISTRY(the_digest_is_told_under_the_name_asked_for),
        WITH_REGISTRY(pulls_are_bounded_and_end_when_told),
        WITH_REGISTRY(the_image_at_hand_serves_when_the_registry_does_not),
        WITH_REGISTRY(a_failure_says_why_and_is_over_with_its_run),
        WITH_REGISTRY(a_digest_at_hand_asks_nobody),
        WITH_REGISTRY(the_trust_policy_holds_for_images_at_hand),
        WITH_REGISTRY(nothing_of_too_big_an_image_is_fetched),
        WITH_REGISTRY(the_size_is_asked_of_any_registry),
        WITH_REGISTRY(a_pull_nobody_waits_for_is_cancelled),
        WITH_REGISTRY(an_adopted_run_holds_without_a_registry),
        WITH_REGISTRY(the_cache_gives_up_what_no_run_uses),
        WITH_REGISTRY(without_a_limit_nothing_is_removed),
        cmocka_unit_test(rooms_add_up),
        WITH_REGISTRY(room_is_made_and_what_is_missing_is_named),
        WITH_REGISTRY(fetched_before_anyone_asks),
        WITH_REGISTRY(stopping_fails_no_run),
        cmocka_unit_test(progress_reads_as_dockers),
        cmocka_unit_test(names_get_their_tag),
    };

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return 1;
    return cmocka_run_group_tests(tests, make_images, free_images);
}
