#include "oci/ref.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"

#define DOCKER_IO "docker.io"
#define LOWER     "abcdefghijklmnopqrstuvwxyz"
#define UPPER     "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGIT     "0123456789"

enum { TAG_MAX = 128, REPOSITORY_MAX = 255 };

void oci_ref_free(struct oci_ref *r)
{
    if (!r)
        return;
    free(r->path);
    free(r->registry);
    free(r->repository);
    free(r->tag);
    free(r->digest);
    free(r->name);
    free(r);
}

static int bad(const char *text, const char *part, const char *rule, struct err *e)
{
    char shown[STR_SHOW_MAX], shown_part[STR_SHOW_MAX];

    return err_set(e, ERR_USER, "image reference \"%s\": column %zu: \"%s\" %s",
                   str_show(shown, text), (size_t)(part - text) + 1, str_show(shown_part, part),
                   rule);
}

/* Is the part before the first slash a host? Docker's rule: it has a dot or a colon, or is localhost, or
 * has an upper-case letter (which no repository may have). */
static bool is_host(const char *text, size_t n)
{
    return memchr(text, '.', n) || memchr(text, ':', n) ||
           (n == 9 && !memcmp(text, "localhost", 9)) || strcspn(text, UPPER) < n;
}

static bool is_host_name(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!p[i] || !strchr(LOWER UPPER DIGIT "-.", p[i]))
            return false;
    return n && p[0] != '-' && p[0] != '.' && p[n - 1] != '-' && p[n - 1] != '.' &&
           !memmem(p, n, "..", 2);
}

/* "name", "name:port", "1.2.3.4:port", "[::1]:port" */
static bool is_valid_host(const char *p, size_t n)
{
    const char *end = p + n, *colon;
    struct err ignored;
    uint64_t port;

    if (*p == '[') {
        const char *close = memchr(p, ']', n);

        if (!close || close == p + 1 ||
            strspn(p + 1, DIGIT "abcdefABCDEF:.") != (size_t)(close - p - 1))
            return false;
        colon = close + 1;
    } else {
        colon = memchr(p, ':', n);
        if (!colon)
            colon = end;
        if (!is_host_name(p, (size_t)(colon - p)))
            return false;
    }
    if (colon == end)
        return true;
    AUTO_FREE char *digits = mem_strndup(colon + 1, (size_t)(end - colon - 1));

    return *colon == ':' && units_u64(digits, 65535, &port, &ignored) == 0 && port > 0;
}

/* Lower-case letters and digits, with ".", "_", "__" or dashes between them. */
static bool is_component(const char *p, size_t n)
{
    const char *end = p + n;

    for (;;) {
        size_t run = strspn(p, LOWER DIGIT);

        if (!run || p + run > end)
            return false;
        p += run;
        if (p == end)
            return true;
        size_t dashes = strspn(p, "-"), bars = strspn(p, "_");

        if (dashes)
            p += dashes;
        else if (bars == 1 || bars == 2)
            p += bars;
        else if (*p == '.')
            p++;
        else
            return false;
    }
}

static bool is_repository(const char *p)
{
    for (;;) {
        size_t n = strcspn(p, "/");

        if (!is_component(p, n))
            return false;
        if (!p[n])
            return true;
        p += n + 1;
    }
}

static bool is_tag(const char *p)
{
    size_t n = strlen(p);

    return n && n <= TAG_MAX && strspn(p, LOWER UPPER DIGIT "_.-") == n && *p != '.' && *p != '-';
}

/* "index.docker.io" and "registry-1.docker.io" are docker.io under other names. */
static void set_registry(struct oci_ref *r, const char *host, size_t n, const char *path)
{
    r->registry = mem_strndup(host, n);
    if (str_eq(r->registry, "index.docker.io") || str_eq(r->registry, "registry-1.docker.io"))
        mem_replace(&r->registry, DOCKER_IO);
    if (!str_eq(r->registry, DOCKER_IO)) {
        r->repository = mem_strdup(path);
        r->name = mem_printf("%s/%s", r->registry, path);
        return;
    }
    r->repository = strchr(path, '/') ? mem_strdup(path) : mem_printf("library/%s", path);
    /* "docker.io/a.b/c" without its registry would be c of another one, a.b. */
    if (strchr(path, '/') && is_host(path, strcspn(path, "/"))) {
        r->name = mem_printf(DOCKER_IO "/%s", path);
        return;
    }
    r->name = mem_strdup(str_starts(r->repository, "library/") && !strchr(r->repository + 8, '/')
                             ? r->repository + 8
                             : r->repository);
}

int oci_ref_parse(const char *text, struct oci_ref **ret, struct err *e)
{
    AUTO(oci_ref) struct oci_ref *r = mem_new(struct oci_ref);

    if (strlen(text) > BOUND_REF)
        return err_set(e, ERR_USER, "image reference above %d bytes", BOUND_REF);
    if (!*text)
        return err_set(e, ERR_USER, "image reference is empty");

    const char *at = strchr(text, '@');
    AUTO_FREE char *rest = mem_strndup(text, at ? (size_t)(at - text) : strlen(text));
    char *path = rest, *slash = strchr(rest, '/');

    if (at && !digest_is_valid(at + 1))
        return bad(text, at + 1, "is not a digest (sha256: and 64 hexadecimal digits)", e);
    bool has_host = slash && is_host(rest, (size_t)(slash - rest));

    if (has_host) {
        if (!is_valid_host(rest, (size_t)(slash - rest)))
            return bad(text, text, "does not begin with a host and port", e);
        path = slash + 1;
    }
    char *colon = strchr(path, ':');

    if (colon) {
        *colon = '\0';
        if (!is_tag(colon + 1))
            return bad(text, text + (colon + 1 - rest), "is not a tag", e);
        r->tag = mem_strdup(colon + 1);
    }
    if (!is_repository(path))
        return bad(text, text + (path - rest),
                   "is not a repository name (lower-case letters, digits, "
                   "separators)",
                   e);
    if (strlen(path) > REPOSITORY_MAX)
        return bad(text, text + (path - rest), "is a repository name above 255 bytes", e);
    if (at)
        r->digest = mem_strdup(at + 1);
    else if (!r->tag)
        r->tag = mem_strdup("latest");
    if (has_host)
        set_registry(r, rest, (size_t)(slash - rest), path);
    else
        set_registry(r, DOCKER_IO, strlen(DOCKER_IO), path);
    *ret = take_ptr(&r);
    return 0;
}

/* ---- images of files ---- */

static const char *const transports[] = {
    [OCI_LAYOUT] = "oci:",
    [OCI_ARCHIVE] = "oci-archive:",
    [OCI_DOCKER_ARCHIVE] = "docker-archive:",
};

static char *file_text(const struct oci_ref *r)
{
    return mem_printf("%s%s%s%s", transports[r->transport], r->path, r->tag ? ":" : "",
                      r->tag ? r->tag : "");
}

/* Does the text behind the transport mean a file? */
static bool means_file(const char *path)
{
    return strchr(path, '/') || *path == '.' || access(path, F_OK) == 0;
}

static int parse_file(enum oci_transport transport, const char *text, const char *rest,
                      struct oci_ref **ret, struct err *e)
{
    AUTO(oci_ref) struct oci_ref *r = mem_new(struct oci_ref);
    AUTO_FREE char *path = mem_strndup(rest, strcspn(rest, ":"));
    const char *tag = rest + strlen(path);

    r->transport = transport;
    r->path = realpath(path, NULL);
    if (!r->path && *path == '/')
        r->path = mem_strdup(path); /* of an image we know, gone since: who opens it will say so */
    if (!r->path)
        return err_sys(e, "image %s%s", transports[transport], path);
    if (strchr(r->path, ':'))
        return bad(text, rest, "is in a directory whose name has a colon", e);
    if (*tag)
        r->tag = mem_strdup(tag + 1);
    if (strlen(r->path) > BOUND_REF || (r->tag && (!*r->tag || strlen(r->tag) > BOUND_REF)))
        return bad(text, tag, "is too long, or no name", e);
    r->registry = mem_strdup("");
    r->repository = mem_strdup("");
    r->name = file_text(r);
    *ret = take_ptr(&r);
    return 0;
}

int oci_ref_parse_local(const char *text, struct oci_ref **ret, struct err *e)
{
    for (enum oci_transport t = OCI_LAYOUT; t < ARRAY_SIZE(transports); t++)
        if (str_starts(text, transports[t])) {
            AUTO_FREE char *path = mem_strdup(text + strlen(transports[t]));

            path[strcspn(path, ":")] = '\0';
            if (means_file(path))
                return parse_file(t, text, text + strlen(transports[t]), ret, e);
        }
    return oci_ref_parse(text, ret, e);
}

char *oci_ref_text(const struct oci_ref *r)
{
    if (r->transport != OCI_REGISTRY)
        return file_text(r);
    if (r->digest)
        return mem_printf("%s/%s@%s", r->registry, r->repository, r->digest);
    return mem_printf("%s/%s:%s", r->registry, r->repository, r->tag);
}

char *oci_ref_familiar(const struct oci_ref *r)
{
    if (r->transport != OCI_REGISTRY)
        return file_text(r);
    if (r->digest)
        return mem_printf("%s@%s", r->name, r->digest);
    return mem_printf("%s:%s", r->name, r->tag);
}
