/*
 * doctor: what this host lacks, in words.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/confine.h"
#include "cmd/cwrun.h"
#include "netns/doctor.h"
#include "oci/pull.h"
#include "runtime/doctor.h"
#include "runtime/gpu.h"
#include "worker/options.h"

#define DAEMON_JSON    "/etc/docker/daemon.json"
#define SERVICE_CONFIG "/etc/cworker/cworkerd.conf"

static void print_gpus(void)
{
    struct ctr_gpu *gpus = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;

    if (ctr_gpu_list(&gpus, &n, &e) < 0) {
        printf("warn     GPUs: %s\n", e.msg);
        return;
    }
    printf("ok       GPUs: %zu\n", n);
    for (size_t i = 0; i < n; i++)
        printf("%s  gpu %u: %s %s %s\n", gpus[i].usable ? "ok     " : "MISSING", gpus[i].index,
               gpus[i].uuid, gpus[i].name, gpus[i].usable ? "" : gpus[i].why_not);
    if (n && gpus[0].kind == CTR_GPU_NVIDIA) {
        char text[400];

        ctr_gpu_cdi_text(text, sizeof(text));
        printf("%-8s CDI specification: %s\n", strncmp(text, "stale", 5) == 0 ? "warn" : "ok",
               text);
    }
    free(gpus);
}

/* What stands in the way of the runs' networks: "warn: ...", "note: ..."; nothing when all is well. */
static void print_networks(void)
{
    AUTO(str_list) struct str_list lines = {0};
    struct err e = ERR_INIT;

    if (net_doctor(NULL, &lines, &e) < 0)
        printf("warn     networks: %s\n", e.msg);
    else if (!lines.n)
        printf("ok       networks: nothing stands in their way\n");
    for (size_t i = 0; i < lines.n; i++) {
        char *colon = strchr(lines.items[i], ':');

        if (colon)
            *colon = '\0';
        printf("%-8s networks:%s\n", colon ? lines.items[i] : "note",
               colon ? colon + 1 : lines.items[i]);
    }
}

/* S31: what a thread that unpacks layers is still allowed here. */
static void print_unpacking(void)
{
    AUTO_CLOSE int top = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    unsigned walls = confine_try(top);
    bool usual = (walls & CONFINE_USUAL) == CONFINE_USUAL;

    printf("%-8s unpacking: on threads with%s%s%s%s; Landlock: %s\n", usual ? "ok" : "warn",
           walls & CONFINE_FILES ? " no other descriptor," : "",
           walls & CONFINE_ROOT ? " the layer as their root," : "",
           walls & CONFINE_CAPS ? " few capabilities," : "",
           walls & CONFINE_CALLS ? " file system calls only" : " all system calls",
           walls & CONFINE_LANDLOCK ? "on top of it" : "not in this kernel (the others stand)");
}

/* S17: registries whose certificates nobody looks at, by whose word. */
static void print_insecure(const struct str_list *hosts, const char *where)
{
    AUTO_FREE char *text = str_list_join(hosts, ", ");

    if (hosts->n)
        printf("warn     registries: not verified, or by http: %s (%s)\n", text, where);
}

static void print_registries(void)
{
    struct oci_registries docker = {0};
    AUTO(options) struct options service = {0};
    struct err e = ERR_INIT;

    if (oci_registries_load(&docker, DAEMON_JSON, &e) < 0)
        printf("MISSING  registries: %s\n", e.msg);
    print_insecure(&docker.insecure, DAEMON_JSON);
    if (access(SERVICE_CONFIG, F_OK) == 0 &&
        opt_parse_file(options_table, SERVICE_CONFIG, &service, &e) < 0)
        printf("MISSING  service: %s\n", e.msg);
    print_insecure(&service.insecure_registries, SERVICE_CONFIG);
    if (!docker.insecure.n && !service.insecure_registries.n && e.kind == ERR_NONE)
        printf("ok       registries: all but those of loopback are verified\n");
    oci_registries_free(&docker);
}

struct doctor_options {
    bool images, repair;
    char *store;
};
static const struct opt doctor_table[] = {
    OPT_ROW(
        struct doctor_options, images, "images", 0, OPT_FLAG, NULL, NULL,
        "check the image store instead: every layer is read and compared with what was unpacked"),
    OPT_ROW(struct doctor_options, repair, "repair", 0, OPT_FLAG, NULL, NULL,
            "with --images: remove what is damaged, so that the next pull fetches it anew"),
    OPT_ROW(struct doctor_options, store, "store", 0, OPT_STR, "DIR", CWRUN_WORK_DIR "/images",
            "image store"),
    {0}};

int cwrun_doctor(int argc, char **argv)
{
    static const char *const words[] = {
        [CTR_CHECK_OK] = "ok", [CTR_CHECK_WARN] = "warn", [CTR_CHECK_MISSING] = "MISSING"};
    struct ctr_check *checks = NULL;
    size_t n = 0, missing = 0;
    struct doctor_options o = {0};
    int rc = cwrun_parse(doctor_table, "cwrun doctor [--images [--repair]]",
                         "Check kernel, cgroups, namespaces, overlay and GPUs. Exit status 1 "
                         "when something that runs need is missing.",
                         argc, argv, true, &o, NULL, NULL);

    if (rc == 0 && o.images)
        missing = (size_t)cwrun_check_images(o.store, o.repair);
    bool done = rc != 0 || o.images;

    opt_free(doctor_table, &o);
    if (done)
        return rc < 0 ? EXIT_USAGE : (int)missing;
    if (geteuid() != 0)
        fputs("cwrun: not root: some checks cannot look\n", stderr);
    ctr_doctor(&checks, &n);
    for (size_t i = 0; i < n; i++) {
        printf("%-8s %s: %s\n", words[checks[i].result], checks[i].name, checks[i].text);
        missing += checks[i].result == CTR_CHECK_MISSING;
    }
    free(checks);
    print_unpacking();
    print_networks();
    print_registries();
    print_gpus();
    return missing ? 1 : 0;
}
