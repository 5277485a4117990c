/*
 * A process that stays and pulls what it is told to, by the code and in the way of cworkerd's image manager: one store
 * and one HTTP client for its life. For the benchmark, which would else measure how long a program takes to start. Nor has
 * cworkerd to load the library that speaks HTTP when it pulls: it has spoken with its server before.
 *
 *     pull_resident STORE REGISTRY     reads references from stdin, one a line; says "ok SECONDS" or why not of each
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/http.h"
#include "base/str.h"
#include "oci/image.h"
#include "oci/pull.h"
#include "oci/ref.h"
#include "oci/store.h"

static int pull(struct oci_store *store, const struct oci_pull_opts *o, const char *text,
                struct err *e)
{
    AUTO(oci_ref) struct oci_ref *ref = NULL;
    AUTO(image) struct image *image = NULL;

    return oci_ref_parse(text, &ref, e) < 0 ? -1 : oci_pull(store, ref, o, &image, e);
}

/* Nobody is at that port. */
static void speak_http(struct http_client *http)
{
    const struct http_request r = {.method = "GET", .url = "http://127.0.0.1:1/", .max_body = 1};
    AUTO(http_response) struct http_response answer = {0};
    struct err e = ERR_INIT;

    if (http_perform(http, &r, &answer, &e) == 0)
        fprintf(stderr, "pull_resident: somebody answers at port 1\n");
}

int main(int argc, char **argv)
{
    AUTO(oci_store) struct oci_store *store = NULL;
    AUTO(http_client) struct http_client *http = NULL;
    struct oci_registries registries = {0};
    struct oci_pull_opts o = {.registries = &registries};
    struct err e = ERR_INIT;
    char line[1024];

    if (argc != 3 || oci_store_open(argv[1], &store, &e) < 0 ||
        http_client_new(NULL, &http, &e) < 0) {
        fprintf(stderr, "pull_resident: %s\n", argc == 3 ? e.msg : "usage: STORE REGISTRY");
        return 1;
    }
    o.http = http;
    speak_http(http);
    str_list_add(&registries.insecure, argv[2]);
    while (fgets(line, sizeof(line), stdin)) {
        uint64_t start = clock_now_ns();

        line[strcspn(line, "\n")] = '\0';
        err_clear(&e);
        if (pull(store, &o, line, &e) == 0)
            printf("ok %.6f\n", (double)(clock_now_ns() - start) / 1e9);
        else
            printf("%s\n", e.msg);
        fflush(stdout);
    }
    oci_registries_free(&registries);
    return 0;
}
