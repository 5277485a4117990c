#pragma once
/*
 * registries.h - where a registry is spoken to and how: mirrors, insecure hosts, private CAs. Inside of
 * oci/; the struct and its loading are in oci/pull.h.
 *
 * A host is "named" when the operator said something of it (insecure list, mirror, certs.d): only named hosts may
 * lie at special addresses (S15). This machine's own loopback is named, too, as with Docker, when it is the
 * registry that was asked for; when another registry sends us there (`sender`), it is not.
 * Threads: any (pure, but for looking at certs.d). Ownership: *_free.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/http.h"
#include "oci/pull.h"

/* How one "host[:port]" is spoken to. */
struct oci_host_policy {
    bool insecure; /* http allowed, certificates not looked at */
    bool named;
    struct http_tls tls;
    char *ca_pem; /* owners of what tls points to */
    struct str_list identities;
};
/* sender: the authority whose redirect or token realm leads here; NULL: we come on our own account. */
void oci_host_policy_get(const struct oci_registries *r, const char *authority, const char *sender,
                         struct oci_host_policy *ret);
void oci_host_policy_free(struct oci_host_policy *p);
DEFINE_AUTO_VALUE(oci_host_policy, oci_host_policy_free)

/* Base URLs ("https://host:5000") to try for a registry, in order: mirrors, then itself; an insecure one
 * by https and then by http. Returns how many of them are mirrors. */
size_t oci_registries_bases(const struct oci_registries *r, const char *registry,
                            struct str_list *ret);
/* Where a repository is below such a base; one that has a path of its own below "/v2" (a proxying registry that keeps
 * others under a prefix) is taken at its word. A new string. */
char *oci_registries_url(const char *base, const char *repository, const char *path);
/* "host:port" of a URL; a new string. */
char *oci_url_authority(const char *url);
/* May we go to that URL at all: https, or http to a host that may be spoken to so. */
bool oci_url_allowed(const struct oci_registries *r, const char *url, const char *sender);
/* Read a configuration file of the operator's (links are followed, Kubernetes mounts secrets so): 1 read, 0 not
 * there or empty, -1 with e. */
int oci_config_read(const char *path, struct str *ret, struct err *e) MUST_CHECK;
