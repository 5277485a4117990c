/*
 * libcurl makes the connection (TLS, proxies) and then only carries bytes; the opening handshake is written by hand, because
 * the path must go out raw (protocol 4), and wslay reads and writes frames.
 */
#include "base/websocket.h"

#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <wslay/wslay.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/late_crypto.h"
#include "base/late_curl.h"
#include "base/mem.h"

enum { MESSAGE_MAX = 65536, HEADERS_MAX = 16384, KEY_BYTES = 16, KEY_TEXT = 25 };
#define ACCEPT_SUFFIX "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* RFC 6455 section 1.3 */

struct websocket {
    CURL *curl;
    curl_socket_t sock;
    wslay_event_context_ptr ws;
    struct str early; /* bytes behind the handshake's answer */
    size_t early_used;
    struct str message;
    bool has_message, broken;
    bool
        received; /* since last asked: there may be more, in the TLS layer too, where poll(2) does not look */
};

static int wait_ready(const struct websocket *w, short events, uint64_t deadline,
                      struct cancel *cancel)
{
    struct pollfd p[2] = {{.fd = w->sock, .events = events},
                          {.fd = cancel_fd(cancel), .events = POLLIN}};
    int rc = poll(p, 2, clock_left_ms(deadline));

    if (rc > 0 && (p[1].revents & POLLIN))
        return -1;
    return rc > 0 ? 1 : 0;
}

static int send_all(struct websocket *w, const char *data, size_t n, uint64_t deadline,
                    struct cancel *cancel, struct err *e)
{
    while (n) {
        size_t sent = 0;
        CURLcode code = curl_easy_send(w->curl, data, n, &sent);

        if (code != CURLE_OK && code != CURLE_AGAIN)
            return err_set(e, ERR_REMOTE, "websocket: %s", curl_easy_strerror(code));
        data += sent;
        n -= sent;
        if (n && wait_ready(w, POLLOUT, deadline, cancel) <= 0)
            return err_set(e, cancel_fired(cancel) ? ERR_CANCELLED : ERR_REMOTE,
                           "websocket: sending took too long");
    }
    return 0;
}

/* --- frames ------------------------------------------------------------------------------------------------------ */

static ssize_t on_recv(wslay_event_context_ptr ctx, uint8_t *buf, size_t n, int flags UNUSED,
                       void *arg)
{
    struct websocket *w = arg;
    size_t got = 0;

    if (w->early_used < w->early.len) {
        got = w->early.len - w->early_used < n ? w->early.len - w->early_used : n;
        memcpy(buf, w->early.buf + w->early_used, got);
        w->early_used += got;
        w->received = true;
        return (ssize_t)got;
    }
    CURLcode code = curl_easy_recv(w->curl, buf, n, &got);

    w->received = code == CURLE_OK && got;
    if (w->received)
        return (ssize_t)got;
    w->broken = code != CURLE_AGAIN;
    wslay_event_set_error(ctx, w->broken ? WSLAY_ERR_CALLBACK_FAILURE : WSLAY_ERR_WOULDBLOCK);
    return -1;
}

static ssize_t on_send(wslay_event_context_ptr ctx, const uint8_t *data, size_t n, int flags UNUSED,
                       void *arg)
{
    struct websocket *w = arg;
    size_t sent = 0;
    CURLcode code = curl_easy_send(w->curl, data, n, &sent);

    if (code == CURLE_OK)
        return (ssize_t)sent;
    w->broken = code != CURLE_AGAIN;
    wslay_event_set_error(ctx, w->broken ? WSLAY_ERR_CALLBACK_FAILURE : WSLAY_ERR_WOULDBLOCK);
    return -1;
}

static int on_mask(wslay_event_context_ptr ctx UNUSED, uint8_t *buf, size_t n, void *arg UNUSED)
{
    return getrandom(buf, n, 0) == (ssize_t)n ? 0 : -1;
}

static void on_message(wslay_event_context_ptr ctx UNUSED,
                       const struct wslay_event_on_msg_recv_arg *m, void *arg)
{
    struct websocket *w = arg;

    if (wslay_is_ctrl_frame(m->opcode))
        return; /* pings are answered by wslay */
    str_clear(&w->message);
    w->has_message = str_append(&w->message, m->msg, m->msg_length) == 0;
}

static int open_frames(struct websocket *w, struct err *e)
{
    const struct wslay_event_callbacks callbacks = {.recv_callback = on_recv,
                                                    .send_callback = on_send,
                                                    .genmask_callback = on_mask,
                                                    .on_msg_recv_callback = on_message};

    if (wslay_event_context_client_init(&w->ws, &callbacks, w) != 0)
        return err_set(e, ERR_HOST, "websocket: out of memory");
    wslay_event_config_set_max_recv_msg_length(w->ws, MESSAGE_MAX);
    return 0;
}

/* --- opening handshake (RFC 6455 section 4.1) ---------------------------------------------------------------------- */

static void accept_for(const char *key, char ret[64])
{
    AUTO_FREE char *text = mem_printf("%s" ACCEPT_SUFFIX, key);
    unsigned char digest[SHA_DIGEST_LENGTH];

    SHA1((const unsigned char *)text, strlen(text), digest);
    EVP_EncodeBlock((unsigned char *)ret, digest, sizeof(digest));
}

static int read_answer(struct websocket *w, struct str *head, uint64_t deadline,
                       struct cancel *cancel, struct err *e)
{
    char buf[2048];

    for (;;) {
        size_t got = 0;
        CURLcode code = curl_easy_recv(w->curl, buf, sizeof(buf), &got);

        if (code != CURLE_OK && code != CURLE_AGAIN)
            return err_set(e, ERR_REMOTE, "websocket: %s", curl_easy_strerror(code));
        if (code == CURLE_OK && !got)
            return err_set(e, ERR_REMOTE, "websocket: closed during the handshake");
        if (str_append(head, buf, got) < 0)
            return err_set(e, ERR_LIMIT, "websocket: the handshake's answer is too long");
        char *end = head->len ? strstr(head->buf, "\r\n\r\n") : NULL;

        if (end) {
            size_t used = (size_t)(end + 4 - head->buf);
            int rc = str_append(&w->early, head->buf + used, head->len - used);

            end[2] = '\0';
            return rc < 0 ? err_set(e, ERR_LIMIT, "websocket: too many early bytes") : 0;
        }
        if (code == CURLE_AGAIN && wait_ready(w, POLLIN, deadline, cancel) <= 0)
            return err_set(e, cancel_fired(cancel) ? ERR_CANCELLED : ERR_REMOTE,
                           "websocket: no answer to the handshake");
    }
}

static bool has_header(const char *head, const char *name, const char *value)
{
    size_t n = strlen(name), m = strlen(value);

    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, n) != 0 || line[n] != ':')
            continue;
        const char *v = line + n + 1 + strspn(line + n + 1, " \t");

        return strncmp(v, value, m) == 0 && strchr("\r \t", v[m]);
    }
    return false;
}

static int shake_hands(struct websocket *w, const char *host, const char *path, uint64_t deadline,
                       struct cancel *cancel, struct err *e)
{
    unsigned char nonce[KEY_BYTES];
    char key[KEY_TEXT], wanted[64], shown[STR_SHOW_MAX];
    AUTO(str) struct str head = STR_INIT(HEADERS_MAX);

    if (getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
        return err_sys(e, "random number");
    EVP_EncodeBlock((unsigned char *)key, nonce, sizeof(nonce));
    AUTO_FREE char *request =
        mem_printf("GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n",
                   path, host, key);

    if (send_all(w, request, strlen(request), deadline, cancel, e) < 0 ||
        read_answer(w, &head, deadline, cancel, e) < 0)
        return -1;
    accept_for(key, wanted);
    if (!str_starts(str_text(&head), "HTTP/1.1 101") ||
        !has_header(head.buf, "Sec-WebSocket-Accept", wanted))
        return err_set(e, ERR_REMOTE, "websocket: refused: %s",
                       str_escape(shown, sizeof(shown), head.buf, strcspn(head.buf, "\r")));
    return 0;
}

/* --- connection -------------------------------------------------------------------------------------------------- */

/* curl asks about once a second, and more often while something happens. */
static int on_progress(void *arg, curl_off_t dl_total UNUSED, curl_off_t dl UNUSED,
                       curl_off_t ul_total UNUSED, curl_off_t ul UNUSED)
{
    return cancel_fired(arg);
}

static int connect_to(struct websocket *w, const char *url, const struct http_tls *tls,
                      struct cancel *cancel, uint64_t timeout_ns, struct err *e)
{
    char text[CURL_ERROR_SIZE] = "";
    CURLcode code;

    w->curl = curl_easy_init();
    if (!w->curl)
        return err_set(e, ERR_HOST, "websocket: out of memory");
    curl_easy_setopt(w->curl, CURLOPT_URL, url);
    curl_easy_setopt(w->curl, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(w->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(w->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(w->curl, CURLOPT_XFERINFODATA, cancel);
    curl_easy_setopt(w->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(w->curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(w->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(w->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)(timeout_ns / NS_PER_MS));
    curl_easy_setopt(w->curl, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(w->curl, CURLOPT_HTTPPROXYTUNNEL, 1L);
    curl_easy_setopt(w->curl, CURLOPT_ERRORBUFFER, text);
    if (tls && tls->ca_file)
        curl_easy_setopt(w->curl, CURLOPT_CAINFO, tls->ca_file);
    if (tls && tls->ca_dir)
        curl_easy_setopt(w->curl, CURLOPT_CAPATH, tls->ca_dir);
    if (tls && tls->insecure)
        curl_easy_setopt(w->curl, CURLOPT_SSL_VERIFYPEER, 0L);
    code = curl_easy_perform(w->curl);
    curl_easy_setopt(w->curl, CURLOPT_ERRORBUFFER, NULL);
    if (code == CURLE_OK)
        code = curl_easy_getinfo(w->curl, CURLINFO_ACTIVESOCKET, &w->sock);
    return code == CURLE_OK
               ? 0
               : err_set(e, ERR_REMOTE, "websocket: %s", *text ? text : curl_easy_strerror(code));
}

int websocket_open(const char *url, const struct http_tls *tls, uint64_t timeout_ns,
                   struct cancel *cancel, struct websocket **ret, struct err *e)
{
    bool secure = str_starts(url, "wss://");

    if (!secure && !str_starts(url, "ws://"))
        return err_set(e, ERR_USER, "websocket: %.100s is not a ws:// or wss:// address", url);
    const char *rest = url + (secure ? 6 : 5);
    const char *slash = strchr(rest, '/');
    AUTO_FREE char *host = slash ? mem_strndup(rest, (size_t)(slash - rest)) : mem_strdup(rest);
    AUTO_FREE char *plain = mem_printf("%s://%s/", secure ? "https" : "http", host);
    struct websocket *w = mem_new(struct websocket);

    w->early = STR_INIT(HEADERS_MAX);
    w->message = STR_INIT(MESSAGE_MAX);
    if (connect_to(w, plain, tls, cancel, timeout_ns, e) < 0 ||
        shake_hands(w, host, slash ? slash : "/", clock_in_ns(timeout_ns), cancel, e) < 0 ||
        open_frames(w, e) < 0) {
        websocket_close(w);
        return -1;
    }
    *ret = w;
    return 0;
}

int websocket_send_text(struct websocket *w, const char *text, struct err *e)
{
    const struct wslay_event_msg m = {WSLAY_TEXT_FRAME, (const uint8_t *)text, strlen(text)};

    if (wslay_event_queue_msg(w->ws, &m) != 0 || wslay_event_send(w->ws) != 0 || w->broken)
        return err_set(e, ERR_REMOTE, "websocket: closed");
    return 0;
}

int websocket_next(struct websocket *w, uint64_t deadline_ns, struct cancel *cancel, struct str *s,
                   struct err *e)
{
    for (;;) {
        w->has_message = w->received = false;
        if (wslay_event_recv(w->ws) != 0 || wslay_event_send(w->ws) != 0 || w->broken ||
            wslay_event_get_close_received(w->ws))
            return err_set(e, ERR_REMOTE, "websocket: closed by the server");
        if (!wslay_event_get_read_enabled(
                w->ws)) /* wslay has told the peer why, and hears no more */
            return err_set(e, ERR_REMOTE, "websocket: not a frame that the protocol allows");
        if (w->has_message) {
            str_clear(s);
            return str_append(s, w->message.buf, w->message.len) < 0
                       ? err_set(e, ERR_LIMIT, "websocket: message too long")
                       : 1;
        }
        int ready = w->received ? 1 : wait_ready(w, POLLIN, deadline_ns, cancel);

        if (ready < 0)
            return err_set(e, ERR_CANCELLED, "cancelled");
        if (ready == 0)
            return 0;
    }
}

void websocket_close(struct websocket *w)
{
    if (!w)
        return;
    if (w->ws) {
        wslay_event_queue_close(w->ws, WSLAY_CODE_NORMAL_CLOSURE, NULL, 0);
        wslay_event_send(w->ws);
        wslay_event_context_free(w->ws);
    }
    if (w->curl)
        curl_easy_cleanup(w->curl);
    str_free(&w->early);
    str_free(&w->message);
    free(w);
}
