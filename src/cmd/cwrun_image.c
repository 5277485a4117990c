/*
 * pull, images, inspect, rmi, prune.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/http.h"
#include "base/jobs.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/units.h"
#include "cmd/cwrun.h"
#include "cmd/cwrun_progress.h"
#include "oci/image.h"
#include "oci/pull.h"
#include "oci/ref.h"
#include "oci/store.h"

/* A pull that is told to end takes a moment to keep what it has. */
static struct cancel *told_to_end;
static volatile sig_atomic_t told_by;

static void on_signal(int number)
{
    told_by = number;
    cancel_fire(told_to_end); /* an atomic flag and a write to an eventfd */
}

static void listen_to(const int *signals, struct sigaction *before, size_t n)
{
    const struct sigaction ours = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    for (size_t i = 0; i < n; i++)
        sigaction(signals[i], &ours, &before[i]);
}

static int pull_with(const struct oci_pull_opts *opts, struct oci_store *store,
                     const struct oci_ref *ref, struct image **ret, struct err *e)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction before[ARRAY_SIZE(signals)];
    struct oci_pull_opts o = *opts;

    told_to_end = o.cancel = cancel_new();
    listen_to(signals, before, ARRAY_SIZE(signals));
    int rc = oci_pull(store, ref, &o, ret, e);

    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &before[i], NULL);
    cancel_unref(take_ptr(&told_to_end));
    if (rc < 0 && told_by) {
        fputs("cwrun: told to end; the next pull goes on from here\n", stderr);
        raise(told_by);
    }
    return rc;
}

static enum progress_form form_of(const struct image_options *o)
{
    return o->json                 ? PROGRESS_JSON
           : o->quiet              ? PROGRESS_NONE
           : isatty(STDERR_FILENO) ? PROGRESS_BARS
                                   : PROGRESS_LINES;
}

static int open_registries(const struct image_options *o, struct oci_registries *reg, struct err *e)
{
    str_list_copy(&reg->insecure, &o->insecure);
    reg->certs_dir = mem_strdup(o->certs_dir);
    reg->patience_ns = o->registry_timeout > 0 ? (uint64_t)o->registry_timeout * NS_PER_S : 0;
    oci_registries_credentials(reg, o->docker_config);
    for (size_t i = 0; i < o->mirrors.n; i++)
        if (oci_registries_add_mirror(reg, o->mirrors.items[i], e) < 0)
            return -1;
    return oci_registries_load_trust(reg, o->trust_policy, e) < 0
               ? -1
               : oci_registries_load(reg, "/etc/docker/daemon.json", e);
}

static int pull(const struct image_options *o, const struct oci_registries *reg,
                struct oci_store *store, const struct oci_ref *ref, struct image **ret,
                struct err *e)
{
    AUTO(http_client) struct http_client *http = NULL;

    if (http_client_new("cworker/" CW_VERSION, &http, e) < 0)
        return -1;
    struct oci_pull_opts opts = {.registries = reg,
                                 .http = http,
                                 .platform = o->platform,
                                 .take_names = o->take_names,
                                 .progress = progress_show,
                                 .progress_arg = progress_new(form_of(o))};
    int rc = pull_with(&opts, store, ref, ret, e);

    progress_free(opts.progress_arg);
    return rc;
}

/* What is here already may be used without asking, unless its file may have changed, or the trust policy wants more. */
static int settle_policy(const struct oci_registries *reg, const struct oci_ref *ref,
                         enum pull_policy *policy, struct err *e)
{
    struct err refused = ERR_INIT;

    if (*policy == PULL_MISSING && ref->transport != OCI_REGISTRY)
        *policy = PULL_ALWAYS;
    if (*policy == PULL_ALWAYS || oci_registries_admit(reg, ref, &refused) == 0)
        return 0;
    if (*policy == PULL_NEVER) {
        *e = refused;
        return -1;
    }
    *policy = PULL_ALWAYS;
    return 0;
}

/* The image that is here, if it is for the platform that is asked for. */
static int find(const struct image_options *o, struct oci_store *store, const struct oci_ref *ref,
                struct image **ret, struct err *e)
{
    AUTO(image) struct image *found = NULL;
    bool suits;

    if (oci_store_find(store, ref, &found, e) < 0 ||
        oci_platform_admits(o->platform, found->platform, &suits, e) < 0)
        return -1;
    if (!suits)
        return err_set(e, ERR_ABSENT, "the image here is for %s: %s", found->platform, found->name);
    *ret = take_ptr(&found);
    return 0;
}

static int get(const struct image_options *o, const struct oci_registries *reg,
               struct oci_store *store, const struct oci_ref *ref, enum pull_policy policy,
               struct image **ret, struct err *e)
{
    if (settle_policy(reg, ref, &policy, e) < 0)
        return -1;
    if (policy == PULL_ALWAYS)
        return pull(o, reg, store, ref, ret, e);
    if (find(o, store, ref, ret, e) == 0)
        return 0;
    return policy == PULL_MISSING && e->kind == ERR_ABSENT ? pull(o, reg, store, ref, ret, e) : -1;
}

int cwrun_get_image(const struct image_options *o, const char *reference, enum pull_policy policy,
                    struct oci_store **ret_store, struct image **ret, struct err *e)
{
    AUTO(oci_store) struct oci_store *store = NULL;
    AUTO(oci_ref) struct oci_ref *ref = NULL;
    struct oci_registries reg = {0};
    int rc = -1;

    if ((o->registries_only ? oci_ref_parse : oci_ref_parse_local)(reference, &ref, e) == 0 &&
        oci_store_open(o->store, &store, e) == 0 && open_registries(o, &reg, e) == 0)
        rc = get(o, &reg, store, ref, policy, ret, e);
    oci_registries_free(&reg);
    if (rc == 0)
        *ret_store = take_ptr(&store);
    return rc;
}

struct only_image_options {
    struct image_options i; /* first member: the tables below fill a struct image_options */
};
static const struct opt image_table[] = {IMAGE_OPTION_ROWS(struct only_image_options, i), {0}};

static const struct opt pull_table[] = {
    IMAGE_OPTION_ROWS(struct only_image_options, i),
    OPT_ROW(struct only_image_options, i.json, "json", 0, OPT_FLAG, NULL, NULL,
            "progress and results as JSON events on stdout, one a line"),
    {0}};

static void print_result(const struct image *i, bool json)
{
    if (!json) {
        printf("%s\n", i->repo_digest ? i->repo_digest : i->id);
        return;
    }
    AUTO(cJSON) cJSON *v = cJSON_CreateObject();

    json_add_str(v, "event", "image");
    json_add_str(v, "name", i->name);
    json_add_str(v, "repoDigest", i->repo_digest);
    json_add_str(v, "id", i->id);
    json_add_int(v, "size", (int64_t)i->size);
    json_add_int(v, "compressedSize", (int64_t)i->compressed_size);
    AUTO_FREE char *text = json_text(v);

    puts(text);
}

static int fail(const struct err *e, const char *name, bool json)
{
    if (json) {
        AUTO(cJSON) cJSON *v = cJSON_CreateObject();

        json_add_str(v, "event", "error");
        json_add_str(v, "name", name);
        json_add_str(v, "message", e->msg);
        AUTO_FREE char *text = json_text(v);

        puts(text);
    }
    return cwrun_fail(e);
}

int cwrun_pull(int argc, char **argv)
{
    AUTO(str_list) struct str_list words = {0};
    struct image_options o = {0};
    struct err e = ERR_INIT;
    int rc = cwrun_parse(
        pull_table, "cwrun pull [flags] IMAGE...",
        "Fetch images from registries, or of files: oci:DIR[:TAG], oci-archive:FILE[:TAG], "
        "docker-archive:FILE[:NAME:TAG]. Prints the digest of each, the id of one of a file.",
        argc, argv, false, &o, &words, NULL);

    if (rc == 0 && !words.n) {
        fputs("cwrun pull: error: which image?\n", stderr);
        rc = -1;
    }
    o.take_names = true;
    for (size_t i = 0; rc == 0 && i < words.n; i++) {
        AUTO(oci_store) struct oci_store *store = NULL;
        AUTO(image) struct image *image = NULL;

        if (cwrun_get_image(&o, words.items[i], PULL_ALWAYS, &store, &image, &e) < 0)
            rc = fail(&e, words.items[i], o.json);
        else if (image)
            print_result(image, o.json);
    }
    opt_free(pull_table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}

static void print_image(const struct oci_image_info *i)
{
    AUTO_FREE char *names = str_list_join(&i->names, ", ");
    char size[UNITS_TEXT_MAX], own[UNITS_TEXT_MAX], date[32];
    time_t used = (time_t)i->last_used;
    struct tm tm;

    localtime_r(&used, &tm);
    strftime(date, sizeof(date), "%Y-%m-%d %H:%M", &tm);
    printf("%-40s %-16.16s %-14s %10s %10s  %s%s%s\n", *names ? names : "(none)",
           i->id + strlen("sha256:"), *i->platform ? i->platform : "-",
           units_decimal_str(size, i->size), units_decimal_str(own, i->exclusive_size), date,
           i->in_use ? "  in use" : "", i->pinned ? "  pinned" : "");
}

int cwrun_images(int argc, char **argv)
{
    AUTO(oci_store) struct oci_store *store = NULL;
    struct image_options o = {0};
    struct oci_image_info *list = NULL;
    struct err e = ERR_INIT;
    char total[UNITS_TEXT_MAX];
    size_t n = 0;
    int rc =
        cwrun_parse(image_table, "cwrun images [flags]", NULL, argc, argv, true, &o, NULL, NULL);

    if (rc == 0 &&
        (oci_store_open(o.store, &store, &e) < 0 || oci_store_list(store, &list, &n, &e) < 0))
        rc = cwrun_fail(&e);
    else if (rc == 0) {
        printf("%-40s %-16s %-14s %10s %10s  %s\n", "IMAGE", "ID", "PLATFORM", "SIZE", "ITS OWN",
               "LAST USED");
        for (size_t i = 0; i < n && rc == 0; i++) {
            bool suits;

            if (oci_platform_admits(o.platform, list[i].platform, &suits, &e) < 0)
                rc = cwrun_fail(&e);
            else if (suits)
                print_image(&list[i]);
        }
        printf("\n%zu images, %s on disk (shared layers counted once)\n", n,
               units_decimal_str(total, oci_store_bytes(store)));
    }
    oci_image_info_free(list, n);
    opt_free(image_table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}

static cJSON *image_json(const struct image *i)
{
    cJSON *v = cJSON_CreateObject();

    json_add_str(v, "name", i->name);
    json_add_str(v, "id", i->id);
    json_add_str(v, "repoDigest", i->repo_digest);
    json_add_str(v, "manifestDigest", i->manifest_digest);
    json_add_str(v, "platform", i->platform);
    json_add_int(v, "size", (int64_t)i->size);
    json_add_int(v, "compressedSize", (int64_t)i->compressed_size);
    json_add_str_list(v, "lowerdirs", &i->lowerdirs);
    cJSON *config = json_add_object(v, "config");

    json_add_str_list(config, "env", &i->config.env);
    json_add_str_list(config, "entrypoint", &i->config.entrypoint);
    json_add_str_list(config, "cmd", &i->config.cmd);
    json_add_str(config, "user", i->config.user);
    json_add_str(config, "workingDir", i->config.working_dir);
    json_add_str(config, "stopSignal", i->config.stop_signal);
    return v;
}

int cwrun_inspect(int argc, char **argv)
{
    AUTO(str_list) struct str_list words = {0};
    struct image_options o = {0};
    struct err e = ERR_INIT;
    int rc = cwrun_parse(image_table, "cwrun inspect [flags] IMAGE...", NULL, argc, argv, false, &o,
                         &words, NULL);

    for (size_t i = 0; rc == 0 && i < words.n; i++) {
        AUTO(oci_store) struct oci_store *store = NULL;
        AUTO(image) struct image *image = NULL;

        if (cwrun_get_image(&o, words.items[i], PULL_NEVER, &store, &image, &e) < 0) {
            rc = cwrun_fail(&e);
            break;
        }
        AUTO(cJSON) cJSON *v = image_json(image);
        AUTO_FREE char *text = cJSON_Print(v);

        puts(text ? text : "");
    }
    opt_free(image_table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}

int cwrun_rmi(int argc, char **argv)
{
    AUTO(oci_store) struct oci_store *store = NULL;
    AUTO(str_list) struct str_list words = {0};
    struct image_options o = {0};
    struct err e = ERR_INIT;
    int rc = cwrun_parse(image_table, "cwrun rmi [flags] IMAGE...", "Remove images by name or id.",
                         argc, argv, false, &o, &words, NULL);

    if (rc == 0 && oci_store_open(o.store, &store, &e) < 0)
        rc = cwrun_fail(&e);
    for (size_t i = 0; rc == 0 && i < words.n; i++)
        if (oci_store_remove(store, words.items[i], &e) < 0)
            rc = cwrun_fail(&e);
    opt_free(image_table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}

struct prune_options {
    struct image_options i;
    int64_t keep;
};
static const struct opt prune_table[] = {IMAGE_OPTION_ROWS(struct prune_options, i),
                                         OPT_ROW(struct prune_options, keep, "keep", 0, OPT_SIZE,
                                                 "SIZE", "0",
                                                 "remove until the layers take at most this"),
                                         {0}};

int cwrun_prune(int argc, char **argv)
{
    AUTO(oci_store) struct oci_store *store = NULL;
    struct prune_options o = {0};
    struct err e = ERR_INIT;
    uint64_t freed = 0;
    char text[UNITS_TEXT_MAX];
    int rc = cwrun_parse(
        prune_table, "cwrun prune [--keep SIZE]",
        "Remove images nobody uses, least recently used first, then layers without an image.", argc,
        argv, true, &o, NULL, NULL);

    if (rc == 0 && (oci_store_open(o.i.store, &store, &e) < 0 ||
                    oci_store_prune(store, o.keep < 0 ? 0 : (uint64_t)o.keep, &freed, &e) < 0))
        rc = cwrun_fail(&e);
    else if (rc == 0)
        printf("freed %s\n", units_decimal_str(text, freed));
    opt_free(prune_table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}
