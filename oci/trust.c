#include "oci/trust.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pubkey.h"
#include "base/str.h"
#include "oci/ref.h"
#include "oci/registry.h"
#include "oci/signature.h"

enum { REFERRER_PAGES = 8 };

struct rule {
    char *scope; /* "quay.io/team"; "" for all */
    struct pubkey **keys;
    size_t n_keys;
    bool match;
};

struct oci_trust {
    bool limited; /* "registries" was given */
    struct str_list registries;
    bool digests_only, no_files;
    struct rule *rules;
    size_t n_rules;
};

void oci_trust_free(struct oci_trust *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_rules; i++) {
        for (size_t k = 0; k < t->rules[i].n_keys; k++)
            pubkey_free(t->rules[i].keys[k]);
        free(t->rules[i].keys);
        free(t->rules[i].scope);
    }
    free(t->rules);
    str_list_free(&t->registries);
    free(t);
}

/* ---- reading ---- */

static int only_members(const cJSON *obj, const char *const *known, struct err *e)
{
    const cJSON *item;
    char shown[STR_SHOW_MAX];

    if (!cJSON_IsObject(obj))
        return err_set(e, ERR_USER, "is not a JSON object");
    cJSON_ArrayForEach(item, obj) {
        const char *const *k = known;

        while (*k && !str_eq(*k, item->string))
            k++;
        if (!*k)
            return err_set(e, ERR_USER, "there is no such rule: %s", str_show(shown, item->string));
    }
    return 0;
}

/* "host", "host:port", "host/path": as references name them. */
static int check_scope(const char *scope, struct err *e)
{
    AUTO_FREE char *probe = mem_printf("%s%s", scope, strchr(scope, '/') ? "" : "/x");
    AUTO(oci_ref) struct oci_ref *ref = NULL;
    struct err ignored = ERR_INIT;
    char shown[STR_SHOW_MAX];

    if (oci_ref_parse(probe, &ref, &ignored) < 0 || ref->digest || !str_eq(ref->tag, "latest") ||
        !str_starts(probe, ref->registry) || probe[strlen(ref->registry)] != '/')
        return err_set(e, ERR_USER, "not a registry, or a repository with its registry: %s",
                       str_show(shown, scope));
    return 0;
}

static int read_key(const char *name, const char *dir, struct pubkey **ret, struct err *e)
{
    AUTO_FREE char *path = *name == '/' ? mem_strdup(name) : mem_printf("%s/%s", dir, name);
    AUTO(str) struct str pem = STR_INIT(BOUND_SIGNATURE);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0)
        return err_sys(e, "key %s", path);
    if (fd_read_all(fd, &pem, e) < 0 || pubkey_parse(str_text(&pem), pem.len, ret, e) < 0)
        return err_wrap(e, "key %s", path);
    return 0;
}

static int read_keys(const cJSON *item, const char *dir, struct rule *r, struct err *e)
{
    AUTO(str_list) struct str_list names = {0};

    if (json_opt_str_list(item, "keys", BOUND_SIGNATURES, BOUND_PATH, &names, e) < 0)
        return -1;
    if (!names.n)
        return err_set(e, ERR_USER, "names no keys");
    r->keys = mem_array(names.n, sizeof(struct pubkey *));
    for (; r->n_keys < names.n; r->n_keys++)
        if (read_key(names.items[r->n_keys], dir, &r->keys[r->n_keys], e) < 0)
            return -1;
    return 0;
}

static int read_rule(const cJSON *item, const char *dir, struct rule *r, struct err *e)
{
    static const char *const known[] = {"scope", "keys", "identity", NULL};
    const char *scope, *identity = "match";
    char shown[STR_SHOW_MAX];

    if (only_members(item, known, e) < 0 || json_get_str(item, "scope", BOUND_REF, &scope, e) < 0 ||
        json_opt_str(item, "identity", 20, &identity, e) < 0)
        return -1;
    if (!str_eq(scope, "*") && check_scope(scope, e) < 0)
        return -1;
    if (!str_eq(identity, "match") && !str_eq(identity, "any"))
        return err_set(e, ERR_USER, "identity is \"match\" or \"any\", not %s",
                       str_show(shown, identity));
    r->scope = mem_strdup(str_eq(scope, "*") ? "" : scope);
    r->match = str_eq(identity, "match");
    return read_keys(item, dir, r, e);
}

static int read_rules(const cJSON *doc, const char *dir, struct oci_trust *t, struct err *e)
{
    const cJSON *list = NULL, *item;

    if (json_opt_array(doc, "signatures", BOUND_TRUST_RULES, &list, e) < 0)
        return -1;
    t->rules = mem_array((size_t)cJSON_GetArraySize(list), sizeof(*t->rules));
    cJSON_ArrayForEach(item, list) {
        if (read_rule(item, dir, &t->rules[t->n_rules++], e) < 0)
            return err_wrap(e, "signatures: rule %zu", t->n_rules);
    }
    return 0;
}

int oci_trust_parse(const char *text, size_t n, const char *dir, struct oci_trust **ret,
                    struct err *e)
{
    static const char *const known[] = {"registries", "digestsOnly", "files", "signatures", NULL};
    AUTO(oci_trust) struct oci_trust *t = mem_new(struct oci_trust);
    AUTO(cJSON) cJSON *doc = NULL;
    bool files = true;

    if (json_parse(text, n, &doc, e) < 0 || only_members(doc, known, e) < 0 ||
        json_opt_str_list(doc, "registries", BOUND_TRUST_RULES, BOUND_REF, &t->registries, e) < 0 ||
        json_opt_bool(doc, "digestsOnly", &t->digests_only, e) < 0 ||
        json_opt_bool(doc, "files", &files, e) < 0 || read_rules(doc, dir, t, e) < 0)
        return -1;
    for (size_t i = 0; i < t->registries.n; i++)
        if (check_scope(t->registries.items[i], e) < 0)
            return err_wrap(e, "registries");
    t->limited = cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(doc, "registries"));
    t->no_files = !files;
    *ret = take_ptr(&t);
    return 0;
}

/* A policy others can write is theirs. */
static int check_owner(int fd, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_sys(e, "look at it");
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_USER, "is not a regular file");
    if ((st.st_uid != 0 && st.st_uid != geteuid()) || st.st_mode & (S_IWGRP | S_IWOTH))
        return err_set(e, ERR_USER, "may be written by others than root: chown root, chmod go-w");
    return 0;
}

int oci_trust_load(const char *path, struct oci_trust **ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    const char *slash = strrchr(path, '/');
    AUTO_FREE char *dir = slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup(".");

    if (fd < 0)
        return err_sys(e, "trust policy %s", path);
    if (check_owner(fd, e) < 0 || fd_read_all(fd, &text, e) < 0 ||
        oci_trust_parse(str_text(&text), text.len, dir, ret, e) < 0)
        return err_wrap(e, "trust policy %s", path);
    return 0;
}

/* ---- judging ---- */

/* Is the repository the scope itself or below it? */
static bool covers(const char *scope, const struct oci_ref *ref)
{
    AUTO_FREE char *whole = mem_printf("%s/%s", ref->registry, ref->repository);
    size_t n = strlen(scope);

    return !n || (str_starts(whole, scope) && (whole[n] == '/' || !whole[n]));
}

static const struct rule *rule_for(const struct oci_trust *t, const struct oci_ref *ref)
{
    const struct rule *best = NULL;

    for (size_t i = 0; t && ref->transport == OCI_REGISTRY && i < t->n_rules; i++)
        if (covers(t->rules[i].scope, ref) &&
            (!best || strlen(t->rules[i].scope) > strlen(best->scope)))
            best = &t->rules[i];
    return best;
}

bool oci_trust_wants_signature(const struct oci_trust *t, const struct oci_ref *ref)
{
    return rule_for(t, ref) != NULL;
}

int oci_trust_admits(const struct oci_trust *t, const struct oci_ref *ref, struct err *e)
{
    bool listed = false;

    if (!t)
        return 0;
    if (ref->transport != OCI_REGISTRY)
        return t->no_files ? err_set(e, ERR_USER, "refused by the trust policy: no images of files")
                           : 0;
    for (size_t i = 0; i < t->registries.n && !listed; i++)
        listed = covers(t->registries.items[i], ref);
    if (t->limited && !listed)
        return err_set(e, ERR_USER,
                       "refused by the trust policy: %s/%s is not among its registries",
                       ref->registry, ref->repository);
    if (t->digests_only && !ref->digest)
        return err_set(e, ERR_USER,
                       "refused by the trust policy: only images named by digest (NAME@sha256:…)");
    return 0;
}

static int not_signed(struct err *e)
{
    return err_set(e, ERR_USER, "refused by the trust policy: it is not signed");
}

/* "sha256-HEX": what the digest is called in tags. */
static char *as_tag(const char *digest, const char *suffix)
{
    return mem_printf("%.*s-%s%s", (int)strcspn(digest, ":"), digest, digest_hex(digest), suffix);
}

static int get_document(struct oci_session *s, const char *reference, struct str *ret,
                        struct err *e)
{
    AUTO_FREE char *type = NULL;
    char ignored[DIGEST_TEXT_MAX];

    return oci_session_manifest(s, reference, ret, &type, ignored, e);
}

/* Those of a manifest, by tag or digest, added. */
static int add_signatures(struct oci_session *s, const char *reference, struct oci_signatures *ret,
                          struct err *e)
{
    AUTO(str) struct str body = STR_INIT(BOUND_MANIFEST);

    return get_document(s, reference, &body, e) < 0
               ? -1
               : oci_signature_manifest(str_text(&body), body.len, ret, e);
}

/* Those of one kind by the referrers API, page by page. Asked by kind, so that what else refers to it is not in the way. */
static int ask_referrers(struct oci_session *s, const char *digest, const char *kind,
                         struct str_list *ret, struct err *e)
{
    AUTO_FREE char *page = NULL;

    for (int pages = 0; pages == 0 || (page && pages < REFERRER_PAGES); pages++) {
        AUTO(str) struct str body = STR_INIT(BOUND_MANIFEST);

        if (oci_session_referrers(s, digest, kind, &page, &body, e) < 0 ||
            oci_signature_referrers(str_text(&body), body.len, ret, e) < 0)
            return -1;
    }
    return 0;
}

/* The same from the tag that stands in for it at registries without the API. */
static int read_referrers_tag(struct oci_session *s, const char *digest, struct str_list *ret,
                              struct err *e)
{
    AUTO_FREE char *tag = as_tag(digest, "");
    AUTO(str) struct str body = STR_INIT(BOUND_MANIFEST);

    return get_document(s, tag, &body, e) < 0
               ? -1
               : oci_signature_referrers(str_text(&body), body.len, ret, e);
}

static int add_referred(struct oci_session *s, const char *digest, struct oci_signatures *ret,
                        struct err *e)
{
    AUTO(str_list) struct str_list manifests = {0};

    /* A registry may not know the API and say so in one way or another. */
    if (ask_referrers(s, digest, OCI_BUNDLE_ARTIFACT, &manifests, e) < 0 ||
        ask_referrers(s, digest, OCI_SIGNATURE_ARTIFACT, &manifests, e) < 0) {
        if (e->kind == ERR_CANCELLED)
            return -1;
        err_clear(e);
        if (read_referrers_tag(s, digest, &manifests, e) < 0)
            return -1;
    }
    for (size_t i = 0; i < manifests.n && i < BOUND_SIGNATURES; i++)
        if (add_signatures(s, manifests.items[i], ret, e) < 0)
            return -1;
    return 0;
}

/* Under cosign's tag, and what else refers to the image. Nothing there is no failure, unless there is nothing at all. */
static int get_signatures(struct oci_session *s, const char *digest, struct oci_signatures *ret,
                          struct err *e)
{
    AUTO_FREE char *tag = as_tag(digest, ".sig");

    if (add_signatures(s, tag, ret, e) < 0 && e->kind != ERR_ABSENT)
        return err_wrap(e, "its signatures");
    err_clear(e);
    if (add_referred(s, digest, ret, e) < 0 &&
        (e->kind == ERR_CANCELLED || (e->kind != ERR_ABSENT && !ret->n)))
        return err_wrap(e, "its signatures");
    err_clear(e);
    return ret->n ? 0 : not_signed(e);
}

static int by_a_key_of(const struct rule *r, const char *text, size_t n, const void *signature,
                       size_t signature_n, struct err *e)
{
    for (size_t k = 0; k < r->n_keys; k++)
        if (pubkey_verifies(r->keys[k], text, n, signature, signature_n))
            return 0;
    return err_set(e, ERR_USER, "refused by the trust policy: not signed by a key of its rule");
}

static int refused_as(struct err *e)
{
    return err_wrap(e, "refused by the trust policy: its signature");
}

/* What a payload or statement says is looked at only when it is signed by one of ours. */
static int check_bundle(const struct rule *r, const struct str *text, const struct oci_ref *ref,
                        const char *digest, struct err *e)
{
    AUTO(oci_signature_bundle) struct oci_signature_bundle b = {0};

    if (oci_signature_bundle_parse(str_text(text), text->len, &b, e) < 0)
        return refused_as(e);
    if (by_a_key_of(r, b.signed_text, b.signed_n, b.bytes, b.n, e) < 0)
        return -1;
    return oci_signature_bundle_statement(&b, digest, ref, r->match, e) < 0 ? refused_as(e) : 0;
}

static int check_one(const struct rule *r, struct oci_session *s, const struct oci_ref *ref,
                     const char *digest, const struct oci_signature *sig, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_SIGNATURE);

    if (oci_session_config(s, &sig->payload, &text, e) < 0)
        return err_wrap(e, "its signature");
    if (sig->is_bundle)
        return check_bundle(r, &text, ref, digest, e);
    if (by_a_key_of(r, str_text(&text), text.len, sig->bytes, sig->n, e) < 0)
        return -1;
    return oci_signature_payload(str_text(&text), text.len, digest, ref, r->match, e) < 0
               ? refused_as(e)
               : 0;
}

int oci_trust_check_signature(const struct oci_trust *t, struct oci_session *s,
                              const struct oci_ref *ref, const char *digest, struct err *e)
{
    const struct rule *r = rule_for(t, ref);
    AUTO(oci_signatures) struct oci_signatures found = {0};

    if (!r)
        return 0;
    if (get_signatures(s, digest, &found, e) < 0)
        return -1;
    for (size_t i = 0; i < found.n; i++) {
        err_clear(e);
        if (check_one(r, s, ref, digest, &found.items[i], e) == 0)
            return 0;
        if (e->kind == ERR_CANCELLED)
            return -1;
    }
    return -1;
}
