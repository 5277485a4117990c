#pragma once
/*
 * auth.h - who we are to a registry: challenges, docker's config.json, helpers, bearer tokens. Inside of
 * oci/.
 *
 * One oci_auth serves one pull; its tokens (oci/logins.h) are shared by all pulls. Credentials are looked
 * up when a challenge asks for them, never sent before, and go to the registry and the token service it
 * names, the latter over https or to a host that may be spoken to by http (S16).
 * Threads: any. Ownership: *_free.
 * Source: distribution-spec "Authentication"; Docker token authentication specification; RFC 9110 11.6.1.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "oci/logins.h"

struct cancel;
struct err;
struct http_client;
struct oci_registries;
struct str_list;

struct oci_challenge {
    bool bearer, basic;            /* what is offered; neither: nothing we know */
    char *realm, *service, *scope; /* of the bearer challenge */
};
/* One WWW-Authenticate value, possibly of several challenges, added to ret. ERR_REMOTE when malformed. */
int oci_challenge_parse(const char *text, struct oci_challenge *ret, struct err *e) MUST_CHECK;
void oci_challenge_free(struct oci_challenge *c);
DEFINE_AUTO_VALUE(oci_challenge, oci_challenge_free)

struct oci_credentials {
    char *user, *password, *identity_token, *registry_token; /* NULL: none */
};
/*
 * From the registries' configuration, the document first, then the file: credHelpers, credsStore, auths. Of keys with
 * a path ("quay.io/team") the longest the repository is below. Nothing found is no error.
 * Blocks: for a helper, half a minute or the registries' patience at most (S09).
 * Source: docker config.json; containers-auth.json(5); docker-credential-helpers' protocol.
 */
int oci_credentials_find(const struct oci_registries *r, const char *authority,
                         const char *repository, struct oci_credentials *ret, struct err *e)
    MUST_CHECK;
/* The same from the text of one document; helpers are not started when patience_ns is 0. Also for tests. */
int oci_credentials_read(const char *text, size_t n, const char *authority, const char *repository,
                         uint64_t patience_ns, struct oci_credentials *ret, struct err *e)
    MUST_CHECK;
void oci_credentials_free(struct oci_credentials *c);
DEFINE_AUTO_VALUE(oci_credentials, oci_credentials_free)

struct oci_auth;
struct oci_auth *oci_auth_new(const struct oci_registries *r, struct http_client *http,
                              struct cancel *c);
void oci_auth_free(struct oci_auth *a);
DEFINE_AUTO(oci_auth, oci_auth_free)
void oci_auth_stop_with(struct oci_auth *a, struct cancel *c);

/* What worked or was granted last for that authority and repository; empty when nothing yet. */
void oci_auth_known(struct oci_auth *a, const char *authority, const char *repository,
                    struct oci_login *ret);
/* Answer a 401 from that authority. refused: the login the 401 answered (may be empty). ERR_USER: denied. */
int oci_auth_answer(struct oci_auth *a, const char *authority, const char *repository,
                    const struct str_list *headers, const struct oci_login *refused,
                    struct oci_login *ret, struct err *e) MUST_CHECK;
