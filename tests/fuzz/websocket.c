/*
 * Any bytes from the peer of a websocket (S62): as the answer to the handshake, and as frames behind it. The connection below is
 * replaced: it gives the input in pieces and takes everything.
 */
#include <string.h>

#include "base/late_curl.h"

static CURLcode fake_recv(CURL *curl, void *buf, size_t n, size_t *got);
static CURLcode fake_send(CURL *curl, const void *buf, size_t n, size_t *sent);
#undef curl_easy_recv
#undef curl_easy_send
#define curl_easy_recv fake_recv
#define curl_easy_send fake_send
#include "base/websocket.c" // NOLINT(bugprone-suspicious-include): its insides are the target
#undef curl_easy_recv
#undef curl_easy_send

#include "fuzz.h"

static const uint8_t *input;
static size_t input_n;

static CURLcode fake_recv(CURL *curl UNUSED, void *buf, size_t n, size_t *got)
{
    size_t piece = input_n < 7 ? input_n : 7;

    *got = piece < n ? piece : n;
    memcpy(buf, input, *got);
    input += *got;
    input_n -= *got;
    return CURLE_OK; /* 0 bytes is the end */
}

static CURLcode fake_send(CURL *curl UNUSED, const void *buf UNUSED, size_t n, size_t *sent)
{
    *sent = n;
    return CURLE_OK;
}

static struct websocket *new_websocket(const uint8_t *data, size_t n)
{
    struct websocket *w = mem_new(struct websocket);

    input = data;
    input_n = n;
    w->sock = CURL_SOCKET_BAD;
    w->early = STR_INIT(HEADERS_MAX);
    w->message = STR_INIT(MESSAGE_MAX);
    return w;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTO(str) struct str message = STR_INIT(MESSAGE_MAX);
    struct err e = ERR_INIT;
    struct websocket *w = new_websocket(data, n);

    /* The key is random, so it is never accepted; the parsing is the same. */
    BUG_ON(shake_hands(w, "h", "/", clock_in_ns(NS_PER_S), NULL, &e) == 0);
    websocket_close(w);

    err_clear(&e);
    w = new_websocket(data, n);
    BUG_ON(open_frames(w, &e) < 0);
    while (websocket_next(w, clock_now_ns(), NULL, &message, &e) > 0)
        BUG_ON(message.len > MESSAGE_MAX);
    BUG_ON(e.kind == ERR_NONE);
    websocket_close(w);
    return 0;
}
