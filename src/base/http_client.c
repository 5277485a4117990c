#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/http.h"
#include "base/http_transfer.h"
#include "base/late_curl.h"
#include "base/mem.h"

/* Idle slots kept: lanes have a few threads each, and a few origins are spoken to. */
#define SLOTS_KEPT 32

struct http_client {
    pthread_mutex_t lock;   /* guards idle and n_idle */
    struct http_slot *idle; /* last used first */
    unsigned n_idle;
    char *user_agent;
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_started;

static void start_curl(void)
{
    curl_started = curl_global_init(CURL_GLOBAL_DEFAULT);
}

int http_client_new(const char *user_agent, struct http_client **ret, struct err *e)
{
    pthread_once(&curl_once, start_curl);
    if (curl_started != CURLE_OK)
        return err_set(e, ERR_HOST, "start libcurl: %s", curl_easy_strerror(curl_started));

    struct http_client *c = mem_new(struct http_client);

    pthread_mutex_init(&c->lock, NULL);
    c->user_agent = mem_strdup(user_agent ? user_agent : "cworker/" CW_VERSION);
    *ret = c;
    return 0;
}

void http_slot_drop(struct http_slot *s)
{
    if (!s)
        return;
    curl_easy_cleanup(s->easy);
    curl_multi_cleanup(s->multi);
    free(s->key);
    free(s);
}

void http_client_free(struct http_client *c)
{
    if (!c)
        return;
    while (c->idle) {
        struct http_slot *s = c->idle;

        c->idle = s->next;
        http_slot_drop(s);
    }
    pthread_mutex_destroy(&c->lock);
    free(c->user_agent);
    free(c);
}

static struct http_slot *new_slot(const char *key)
{
    struct http_slot *s = mem_new(struct http_slot);

    s->multi = curl_multi_init();
    s->easy = curl_easy_init();
    BUG_ON(!s->multi || !s->easy); /* out of memory */
    curl_multi_setopt(s->multi, CURLMOPT_MAXCONNECTS, 2L);
    s->key = mem_strdup(key);
    return s;
}

struct http_slot *http_slot_take(struct http_client *c, const char *key)
{
    struct http_slot *s = NULL;

    pthread_mutex_lock(&c->lock);
    for (struct http_slot **p = &c->idle; *p; p = &(*p)->next) {
        if (strcmp((*p)->key, key) == 0) {
            s = *p;
            *p = s->next;
            c->n_idle--;
            break;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return s ? s : new_slot(key);
}

/* Unlink the slot that was used longest ago; caller holds the lock and frees it without. */
static struct http_slot *oldest(struct http_client *c)
{
    struct http_slot **p = &c->idle;

    while ((*p)->next)
        p = &(*p)->next;

    struct http_slot *s = *p;

    *p = NULL;
    c->n_idle--;
    return s;
}

void http_slot_put(struct http_client *c, struct http_slot *s)
{
    struct http_slot *surplus = NULL;

    curl_easy_reset(s->easy);
    pthread_mutex_lock(&c->lock);
    s->next = c->idle;
    c->idle = s;
    if (++c->n_idle > SLOTS_KEPT)
        surplus = oldest(c);
    pthread_mutex_unlock(&c->lock);
    http_slot_drop(surplus);
}

const char *http_client_agent(const struct http_client *c)
{
    return c->user_agent;
}
