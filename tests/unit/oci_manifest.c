/* oci/manifest, oci/platform: documents are one thing, within their bounds, or refused by name. Rows: S05 S06 S12 S13 S14. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "oci/manifest.h"

#define HEX          "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OCI          "application/vnd.oci.image."
#define DESC(t, s)   "{\"mediaType\":\"" t "\",\"digest\":\"sha256:" HEX "\",\"size\":" s "}"
#define CONFIG       "\"config\":" DESC(OCI "config.v1+json", "2")
#define LAYER        DESC(OCI "layer.v1.tar+gzip", "7")
#define MANIFEST     "{\"schemaVersion\":2," CONFIG ",\"layers\":[" LAYER "]}"
#define WITH(layers) "{\"schemaVersion\":2," CONFIG ",\"layers\":[" layers "]}"
#define DIGEST_OF(d) WITH("{\"mediaType\":\"" OCI "layer.v1.tar\",\"digest\":\"" d "\",\"size\":7}")

static void test_documents(void **state)
{
    static const struct {
        const char *type, *text, *error; /* NULL: taken */
    } t[] = {
        {NULL, MANIFEST, NULL},
        {OCI "manifest.v1+json; charset=utf-8", MANIFEST, NULL},
        {"application/octet-stream", MANIFEST, NULL},
        {NULL, WITH(""), NULL},
        {NULL, "{\"schemaVersion\":2,\"unknown\":{},\"annotations\":{}," CONFIG ",\"layers\":[]}",
         NULL},
        {NULL, "{\"schemaVersion\":2,\"manifests\":[]}", NULL},
        /* S14 */
        {OCI "index.v1+json", MANIFEST, "has no manifests"},
        {OCI "manifest.v1+json", "{\"schemaVersion\":2,\"manifests\":[]}", "has no layers"},
        {NULL, "{\"schemaVersion\":2,\"manifests\":[]," CONFIG ",\"layers\":[]}", "both"},
        {OCI "manifest.v1+json",
         "{\"schemaVersion\":2,\"mediaType\":\"" OCI "index.v1+json\"," CONFIG ",\"layers\":[]}",
         "served as another type"},
        {NULL, "{\"schemaVersion\":2,\"mediaType\":\"x/y\"," CONFIG ",\"layers\":[]}",
         "do not know: x/y"},
        {"text/html", MANIFEST, "do not know: text/html"},
        {NULL, "{\"schemaVersion\":1,\"fsLayers\":[]}", "schema 1"},
        {NULL, "{\"schemaVersion\":3," CONFIG ",\"layers\":[]}", "schemaVersion"},
        {NULL, "{\"schemaVersion\":\"2\"," CONFIG ",\"layers\":[]}", "schemaVersion"},
        {NULL, "{" CONFIG ",\"layers\":[]}", "schemaVersion"},
        {NULL, "[]", "not a JSON object"},
        {NULL, "", ""},
        {NULL, MANIFEST "x", ""},
        {NULL, MANIFEST MANIFEST, ""},
        {NULL, "{\"schemaVersion\":2," CONFIG ",\"layers\":[],\"layers\":[]}", "layers"},
        {NULL, "{\"schemaVersion\":2," CONFIG ",\"layers\":{}}", "layers"},
        {NULL, "{\"schemaVersion\":2,\"config\":[],\"layers\":[]}", "config"},
        {NULL, "{\"schemaVersion\":2,\"layers\":[]}", "config"},
        {NULL, WITH("7"), "layer 1"},
        {NULL, WITH(LAYER ",{}"), "layer 2"},
        {NULL, WITH(DESC("a/b", "7")), "do not know: a/b"},
        {NULL, WITH(DESC("", "7")), "do not know"},
        {NULL,
         "{\"schemaVersion\":2,\"config\":" DESC("application/vnd.cncf.helm.config.v1+json",
                                                 "2") ",\"layers\":[]}",
         "not a container image"},
        /* S06 */
        {NULL, WITH(DESC(OCI "layer.v1.tar", "-1")), "size"},
        {NULL, WITH(DESC(OCI "layer.v1.tar", "1.5")), "size"},
        {NULL, WITH(DESC(OCI "layer.v1.tar", "1e30")), "size"},
        {NULL, WITH(DESC(OCI "layer.v1.tar", "\"7\"")), "size"},
        {NULL, WITH(DESC(OCI "layer.v1.tar", "9223372036854775808")), "size"},
        {NULL, WITH(DESC(OCI "layer.v1.tar", "null")), "size"},
        {NULL,
         "{\"schemaVersion\":2,\"config\":" DESC(OCI "config.v1+json", "8388609") ",\"layers\":[]}",
         "config above"},
        /* S13 */
        {NULL, DIGEST_OF("sha256:" HEX HEX), "digest"},
        {NULL, DIGEST_OF("sha256:../../../../../../../../../../../../../../../../../etc/passwd"),
         "not a digest"},
        {NULL, DIGEST_OF("sha256:"), "not a digest"},
        {NULL, DIGEST_OF(""), "not a digest"},
        {NULL, DIGEST_OF("sha1:0123456789abcdef0123456789abcdef01234567"), "not a digest"},
        {NULL, DIGEST_OF("sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"),
         "not a digest"},
        {NULL, DIGEST_OF("sha512:" HEX HEX), NULL},
        {NULL, "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"x/y\",\"size\":1}]}",
         "not a digest"},
        {NULL, "{\"schemaVersion\":2,\"manifests\":[7]}", "manifests"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        AUTO(oci_doc) struct oci_doc d = {0};
        struct err e = ERR_INIT;
        int rc = oci_doc_parse(t[i].text, strlen(t[i].text), t[i].type, &d, &e);

        print_message("%.150s\n", t[i].text);
        assert_int_equal(rc, t[i].error ? -1 : 0);
        if (t[i].error && !strstr(e.msg, t[i].error))
            fail_msg("says: %s", e.msg);
    }
}

/* S05: lists end where the bound is. */
static void test_bounds(void **state)
{
    (void)state;
    for (size_t n = BOUND_LAYERS; n <= BOUND_LAYERS + 1; n++) {
        AUTO(str) struct str text = STR_INIT(BOUND_MANIFEST);
        AUTO(oci_doc) struct oci_doc d = {0};
        struct err e = ERR_INIT;

        assert_int_equal(str_append_text(&text, "{\"schemaVersion\":2," CONFIG ",\"layers\":["), 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(str_append_text(&text, i ? "," LAYER : LAYER), 0);
        assert_int_equal(str_append_text(&text, "]}"), 0);
        assert_int_equal(oci_doc_parse(str_text(&text), text.len, NULL, &d, &e),
                         n > BOUND_LAYERS ? -1 : 0);
    }
}

static void test_configs(void **state)
{
#define ROOTFS(ids) "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[" ids "]}"
    static const struct {
        const char *text, *error;
    } t[] = {
        {"{" ROOTFS("") "}", NULL},
        {"{" ROOTFS("\"sha256:" HEX "\"") ",\"config\":null}", NULL},
        {"{" ROOTFS("") ",\"config\":{\"Env\":null,\"Cmd\":[\"a\"],\"User\":\"x\",\"X\":1}}", NULL},
        {"{}", "rootfs"},
        {"[]", "not a JSON object"},
        {"{\"rootfs\":{\"type\":\"windows\",\"diff_ids\":[]}}", "rootfs.type"},
        {"{\"rootfs\":{\"diff_ids\":[]}}", "type"},
        {"{" ROOTFS("\"sha256:../x\"") "}", "not a digest"},
        {"{" ROOTFS("7") "}", "diff_ids"},
        {"{" ROOTFS("") ",\"config\":[]}", "config"},
        {"{" ROOTFS("") ",\"config\":{\"Env\":\"A=1\"}}", "Env"},
        {"{" ROOTFS("") ",\"config\":{\"Cmd\":[7]}}", "Cmd"},
        {"{" ROOTFS("") ",\"config\":{\"User\":7}}", "User"},
        {"{" ROOTFS("") ",\"config\":{\"User\":\"a\\u0000b\"}}", ""},
        {"{" ROOTFS("") "," ROOTFS("") "}", "rootfs"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        AUTO(oci_config_doc) struct oci_config_doc c = {0};
        struct err e = ERR_INIT;
        int rc = oci_config_parse(t[i].text, strlen(t[i].text), &c, &e);

        print_message("%s\n", t[i].text);
        assert_int_equal(rc, t[i].error ? -1 : 0);
        if (t[i].error && !strstr(e.msg, t[i].error))
            fail_msg("says: %s", e.msg);
    }
}

/* Which of the offered ones a host takes. */
static void test_choice(void **state)
{
    static const struct {
        struct oci_platform host;
        const char *offered, *taken; /* os/arch/variant, by comma; "": none */
    } t[] = {
        {{"linux", "amd64", "v3"}, "linux/arm64,linux/amd64,windows/amd64", "linux/amd64"},
        {{"linux", "amd64", "v3"},
         "linux/amd64,linux/amd64/v2,linux/amd64/v3,linux/amd64/v4",
         "linux/amd64/v3"},
        {{"linux", "amd64", "v1"}, "linux/amd64/v2,linux/amd64/v4", ""},
        {{"linux", "arm64", "v8"}, "linux/arm/v7,linux/arm64/v8", "linux/arm64/v8"},
        {{"linux", "arm64", "v8"}, "linux/arm64", "linux/arm64"},
        {{"linux", "arm", "v7"},
         "linux/arm/v5,linux/arm/v6,linux/arm/v7,linux/arm64",
         "linux/arm/v7"},
        {{"linux", "arm", "v6"}, "linux/arm/v7,linux/arm/v5", "linux/arm/v5"},
        {{"linux", "amd64", "v1"}, "unknown/unknown,linux/386,darwin/amd64", ""},
        {{"linux", "riscv64", ""}, "linux/riscv64", "linux/riscv64"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        AUTO(str_list) struct str_list offered = {0};
        struct oci_index_entry entries[8] = {0};
        struct oci_doc index = {.kind = OCI_DOC_INDEX, .entries = entries};
        const struct oci_desc *chosen = NULL;
        struct err e = ERR_INIT;
        int taken = -1;

        str_list_split(&offered, t[i].offered, ',');
        for (size_t k = 0; k < offered.n; k++) {
            AUTO(str_list) struct str_list parts = {0};
            struct oci_platform *p = &entries[k].platform;

            str_list_split(&parts, offered.items[k], '/');
            snprintf(p->os, sizeof(p->os), "%s", parts.items[0]);
            snprintf(p->arch, sizeof(p->arch), "%s", parts.items[1]);
            snprintf(p->variant, sizeof(p->variant), "%s", parts.n > 2 ? parts.items[2] : "");
            index.n_entries++;
        }
        if (oci_doc_choose(&index, &t[i].host, &chosen, &e) == 0)
            for (size_t k = 0; k < index.n_entries; k++)
                if (chosen == &entries[k].desc)
                    taken = (int)k;
        print_message("%s\n", t[i].offered);
        assert_string_equal(taken < 0 ? "" : offered.items[taken], t[i].taken);
        if (taken < 0)
            assert_int_equal(e.kind, ERR_ABSENT);
    }
}

static void test_platforms(void **state)
{
    static const struct {
        const char *text, *is; /* NULL: none */
    } t[] = {
        {"linux/amd64", "linux/amd64"},
        {"linux/arm/v7", "linux/arm/v7"},
        {"linux/aarch64", "linux/arm64"},
        {"linux/x86_64/v3", "linux/amd64/v3"},
        {"linux", NULL},
        {"", NULL},
        {"/amd64", NULL},
        {"linux/", NULL},
        {"linux/amd64/", NULL},
        {"linux/amd64/v1/x", NULL},
        {"Linux/amd64", NULL},
        {"linux/amd64\n", NULL},
        {"linux/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        struct oci_platform p;
        struct err e = ERR_INIT;
        char text[OCI_PLATFORM_TEXT];
        int rc = oci_platform_parse(t[i].text, &p, &e);

        print_message("%s\n", t[i].text);
        assert_int_equal(rc, t[i].is ? 0 : -1);
        if (t[i].is)
            assert_string_equal(oci_platform_text(&p, text), t[i].is);
        else
            assert_int_equal(e.kind, ERR_USER);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_configs),   cmocka_unit_test(test_choice),
        cmocka_unit_test(test_platforms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
