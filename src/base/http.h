#pragma once
/*
 * http.h - one HTTP transfer over libcurl: stream, caps, stall, redirects.
 *
 * http_perform blocks its (lane) thread; it never retries: what may be repeated is the caller's
 * knowledge (B014, D04). Connections are reused through the client. TLS is verified, at least 1.2
 * (S17); only http and https; credentials are dropped at a redirect to another origin (S16, B011).
 * Proxies from the environment or the client (B018).
 * Threads: any; one client may be shared. Ownership: responses are freed with http_response_free.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;
struct cancel;
struct http_client;

struct http_tls {
    const char *ca_file, *ca_dir, *cert_file, *key_file; /* NULL: the system's */
    const char *ca_pem; /* the certificates themselves, in place of ca_file; NULL: none */
    /* Files, certificate and key by turns, of which the server's wish decides; in place of cert_file. May be NULL. */
    const struct str_list *identities;
    bool insecure; /* per host, explicit, S17 */
};

/* Process-wide init is done inside, once. user_agent may be NULL. */
int http_client_new(const char *user_agent, struct http_client **ret, struct err *e) MUST_CHECK;
void http_client_free(struct http_client *c);
DEFINE_AUTO(http_client, http_client_free)

struct http_response;

struct http_request {
    const char *method;             /* "GET", "POST", "PUT", "HEAD" */
    const char *url;                /* http or https */
    const struct str_list *headers; /* "Name: value" */
    const char *bearer; /* Authorization: Bearer …; dropped at redirects to another origin */
    const char *basic_user, *basic_password;

    /* Body: bytes, or a source. A source gives up to n bytes, 0 at the end, -1 to abort (fills e). */
    const void *body;
    size_t body_n;
    long (*source)(void *arg, void *buf, size_t n, struct err *e);
    void *source_arg;
    int64_t source_size; /* -1: chunked */

    /* Sink for a 2xx body; NULL: collected in response.body. n bytes; -1 aborts (fills e). Called after
     * on_head. Bodies of other statuses are collected, up to BOUND_HTTP_ERROR_BODY. */
    int (*sink)(void *arg, const void *data, size_t n, struct err *e);
    void *sink_arg;
    /* Called once with the final status and headers, before the first body byte; -1 aborts. arg: sink_arg. */
    int (*on_head)(void *arg, const struct http_response *head, struct err *e);
    uint64_t max_body; /* 2xx body cap in bytes, before any decoding; must be set */

    unsigned max_redirects; /* 0: none; GET and HEAD only (2.1) */
    /* Asked before each redirect is followed; false refuses (S15). NULL: same scheme rules only (https
     * never falls to http). */
    bool (*allow_redirect)(void *arg, const char *url);
    void *allow_arg;
    /* TLS settings for a redirect target of another origin; NULL: the system's (S17: a CA or an exception
     * given for one host does not count for others). Borrowed until http_perform returns. */
    const struct http_tls *(*redirect_tls)(void *arg, const char *url);
    bool accept_gzip_json; /* ask for and undo Content-Encoding: gzip on collected bodies */

    uint64_t connect_timeout_ns; /* 0: 30 s */
    uint64_t stall_timeout_ns;   /* no byte either way for this long; 0: 60 s */
    uint64_t
        answer_timeout_ns; /* silence between the end of our body and the answer; 0: stall_timeout_ns */
    uint64_t
        dead_peer_ns; /* a peer whose kernel acknowledges nothing for so long is gone, however long an answer may
                              take; counts for the connection this request makes. 0: 45 s */
    uint64_t min_rate;         /* bytes/s over rate_window_ns, 0: none (S18) */
    uint64_t rate_window_ns;   /* 0: a minute */
    uint64_t total_timeout_ns; /* 0: none */
    struct cancel *cancel;
    const struct http_tls *tls;
    const char *proxy; /* NULL: environment; "": none */
    bool
        forbid_special_addresses; /* S15: refuse what http_address_is_special says, after resolution;
                                    * not asked about a proxy's own address */
    bool http2;          /* over TLS, where the server offers it; else and by default HTTP/1.1 */
    bool keepalive_idle; /* TCP keep-alive while waiting long for an answer (D07) */
};

struct http_response {
    int status;
    char reason[64]; /* reason phrase, escaped; the standard one when the server gives none */
    struct str_list headers; /* "name: value", names in lower case, of the final answer */
    struct str body;         /* collected body */
    char *final_url;         /* after redirects */
    uint64_t received;       /* body bytes off the wire */
    bool answered_early;     /* status came while the body was still being sent (D07) */
};

/*
 * 0 when an answer arrived whole, whatever its status; -1: ERR_REMOTE (connect, TLS, stall, broken),
 * ERR_LIMIT (a cap), ERR_CANCELLED, ERR_USER (the request itself), or what sink/source put into e; *ret
 * is then empty. What *ret held before is overwritten, not freed. Errors name scheme and host, never the
 * query (S10). Ends within a second of the cancel token.
 */
int http_perform(struct http_client *c, const struct http_request *r, struct http_response *ret,
                 struct err *e) MUST_CHECK;
void http_response_free(struct http_response *r);
DEFINE_AUTO_VALUE(http_response, http_response_free)
/* First header of that (lower-case) name, or NULL; borrowed. */
const char *http_header(const struct http_response *r, const char *name);

/* How long the answer asks us to wait (Retry-After: seconds, or a date beside the server's own Date), at most
 * max_ns; 0 when it does not say. */
uint64_t http_retry_after_ns(const struct http_response *r, uint64_t max_ns);

/* Same scheme, host and port? False for anything unparsable. Pure. */
bool http_same_origin(const char *a, const char *b);
/* `location` resolved against `base` (RFC 3986), credentials in it removed; NULL when it is no http(s) URL. */
char *http_resolve(const char *base, const char *location);

struct sockaddr;
/*
 * Loopback, link-local, multicast, unspecified, documentation, benchmark and reserved blocks, cloud metadata
 * addresses, and IPv6 forms that carry one of these (mapped, 6to4, NAT64). Private networks (RFC 1918, ULA)
 * are not special here: registries live there. Pure.
 */
bool http_address_is_special(const struct sockaddr *sa);
/* Proxy for the URL from the environment ({scheme}_proxy, all_proxy, no_proxy, as curl reads them): a new
 * string, "" when none. */
char *http_proxy_for(const char *url);

/* Percent-encode everything but A-Za-z0-9_.-~ and the characters of `keep` (B019, B020). New string. */
char *http_escape(const char *text, const char *keep);
/* "a=b&c=d" application/x-www-form-urlencoded pairs (B004); NULL-terminated name, value, … New string. */
char *http_form(const char *const *pairs);
