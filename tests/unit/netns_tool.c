/*
 * Drives netns/ for the end-to-end tests (tests/e2e/net_*): commands on stdin, one answer a line on stdout.
 *
 *   open STATE_DIR PREFIX [pool4=CIDR] [pool6=CIDR] [resolv=FILE] [deny=LIST] [allow=LIST] [only=LIST] [out=RATE] [in=RATE]
 *   attach ID internal|external NETNS_FILE HOSTNAME   ->  ok GENERAL4 GENERAL6 ADDR4 ADDR6 IF_GENERAL IF NS
 *   many FIRST N internal|external      N namespaces of its own, attached as mFIRST…  ->  ok WALL_NS:CPU_NS…
 *   few FIRST N                         detached, the namespaces closed               ->  likewise
 *   doctor [FILE] | lease ID | detach ID | reconcile ID... | close | remove | connect NETNS_FILE HOST PORT | resolv ID | hosts ID
 *   connects NETNS_FILE HOST PORT N   N at once, each read to its end  ->  ok BYTES, or error … of one
 *   stuck NETNS_FILE HOST PORT        a connection in the background, waiting up to a minute
 *   stuck-done                        ->  ok yes|no
 *   traffic ID   ->  ok SENT RECEIVED
 *
 * An answer is "ok ..." or "error KIND ERRNO TEXT". `make unit` runs it with nothing on stdin: it does nothing then.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "netns/doctor.h"
#include "netns/inside.h"
#include "netns/network.h"

static struct net *net;

static void answer_error(const struct err *e)
{
    printf("error %s %d %s\n", err_kind_name(e->kind), e->sys, e->msg);
}

static void answer_lease(const struct net_lease *l, uint64_t ns)
{
    printf("ok %s %s %s %s %s %s %llu\n", l->general4, l->general6[0] ? l->general6 : "-", l->addr4,
           l->addr6[0] ? l->addr6 : "-", l->host_if_general, l->host_if, (unsigned long long)ns);
}

static void do_open(char **word, size_t n)
{
    struct net_config c = {.state_dir = word[1], .prefix = word[2]};
    struct err e = ERR_INIT;

    for (size_t i = 3; i < n; i++) {
        const struct {
            const char *key;
            const char **value;
        } keys[] = {{"pool4=", &c.pool4}, {"pool6=", &c.pool6}, {"resolv=", &c.resolv_conf},
                    {"deny=", &c.deny},   {"allow=", &c.allow}, {"only=", &c.only}};
        for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
            if (str_starts(word[i], keys[k].key))
                *keys[k].value = word[i] + strlen(keys[k].key);
        if (str_starts(word[i], "out="))
            c.out_rate = strtoull(word[i] + 4, NULL, 10);
        if (str_starts(word[i], "in="))
            c.in_rate = strtoull(word[i] + 3, NULL, 10);
    }
    if (net_open(&c, &net, &e) < 0)
        answer_error(&e);
    else
        puts("ok");
}

static void do_attach(char **word)
{
    AUTO(net_lease) struct net_lease *l = NULL;
    AUTO_CLOSE int ns = open(word[3], O_RDONLY | O_CLOEXEC);
    struct err e = ERR_INIT;
    uint64_t start = clock_now_ns();

    if (net_attach(net, word[1], str_eq(word[2], "external") ? NET_EXTERNAL : NET_INTERNAL, ns,
                   word[4], &l, &e) < 0)
        answer_error(&e);
    else
        answer_lease(l, clock_now_ns() - start);
}

static uint64_t cpu_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

struct stopwatch {
    uint64_t wall, cpu;
};

static struct stopwatch start_watch(void)
{
    return (struct stopwatch){clock_now_ns(), cpu_now_ns()};
}

static void stop_watch(struct str *out, struct stopwatch w)
{
    BUG_ON(str_appendf(out, " %llu:%llu", (unsigned long long)(clock_now_ns() - w.wall),
                       (unsigned long long)(cpu_now_ns() - w.cpu)) < 0);
}

/* Namespaces of this process's own: a thousand processes that sit in one each would take minutes to start. */
#define MANY_MAX 4096
static int many_fd[MANY_MAX];

static void do_many(char **word)
{
    unsigned first = (unsigned)strtoul(word[1], NULL, 10), n = (unsigned)strtoul(word[2], NULL, 10);
    enum net_class c = str_eq(word[3], "external") ? NET_EXTERNAL : NET_INTERNAL;
    struct err e = ERR_INIT;
    AUTO(str) struct str out = STR_INIT(MANY_MAX * 32);

    for (unsigned i = first; i < first + n && i < MANY_MAX; i++) {
        AUTO(net_lease) struct net_lease *l = NULL;
        char id[16];
        struct stopwatch w;

        snprintf(id, sizeof(id), "m%u", i);
        many_fd[i] = net_namespace_new(&e);
        w = start_watch();
        if (many_fd[i] < 0 || net_attach(net, id, c, many_fd[i], "h", &l, &e) < 0) {
            answer_error(&e);
            return;
        }
        stop_watch(&out, w);
    }
    printf("ok%s\n", str_text(&out));
}

static void do_few(char **word)
{
    unsigned first = (unsigned)strtoul(word[1], NULL, 10), n = (unsigned)strtoul(word[2], NULL, 10);
    struct err e = ERR_INIT;
    AUTO(str) struct str out = STR_INIT(MANY_MAX * 32);

    for (unsigned i = first; i < first + n && i < MANY_MAX; i++) {
        char id[16];
        struct stopwatch w = start_watch();

        snprintf(id, sizeof(id), "m%u", i);
        if (net_detach(net, id, &e) < 0) {
            answer_error(&e);
            return;
        }
        stop_watch(&out, w);
        close(many_fd[i]);
    }
    printf("ok%s\n", str_text(&out));
}

static void do_lease(char **word)
{
    AUTO(net_lease) struct net_lease *l = NULL;
    struct err e = ERR_INIT;

    if (net_lease_get(net, word[1], &l, &e) < 0)
        answer_error(&e);
    else if (str_eq(word[0], "lease"))
        answer_lease(l, 0);
    else
        printf("%s.\n", str_eq(word[0], "resolv") ? l->resolv_conf : l->hosts);
}

static void do_traffic(const char *id)
{
    struct net_traffic t;
    struct err e = ERR_INIT;

    if (net_traffic_get(net, id, &t, &e) < 0)
        answer_error(&e);
    else
        printf("ok %llu %llu\n", (unsigned long long)t.sent, (unsigned long long)t.received);
}

/* Netcat as the worker does it: a thread each. */
struct reader {
    int ns;
    const char *host;
    uint16_t port;
    uint64_t timeout, bytes;
    struct err e;
    atomic_bool done;
    pthread_t thread;
};

static void *read_to_end(void *arg)
{
    struct reader *r = arg;
    AUTO_CLOSE int fd = net_connect_inside(r->ns, r->host, r->port, r->timeout, &r->e);
    char buf[65536];
    ssize_t n = 0;

    while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0)
        r->bytes += (uint64_t)n;
    if (n < 0)
        err_sys(&r->e, "read");
    atomic_store(&r->done, true);
    return NULL;
}

static void do_connects(char **word)
{
    unsigned n = (unsigned)strtoul(word[4], NULL, 10);
    AUTO_CLOSE int ns = open(word[1], O_RDONLY | O_CLOEXEC);
    AUTO_FREE struct reader *r = mem_array(n, sizeof(*r));
    const struct err *failed = NULL;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < n; i++) {
        r[i] = (struct reader){.ns = ns,
                               .host = word[2],
                               .port = (uint16_t)strtoul(word[3], NULL, 10),
                               .timeout = 60 * NS_PER_S};
        BUG_ON(pthread_create(&r[i].thread, NULL, read_to_end, &r[i]));
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(r[i].thread, NULL);
        bytes += r[i].bytes;
        if (r[i].e.kind != ERR_NONE)
            failed = &r[i].e;
    }
    if (failed)
        answer_error(failed);
    else
        printf("ok %llu\n", (unsigned long long)bytes);
}

static struct reader stuck;

static void do_stuck(char **word)
{
    static char host[64];

    snprintf(host, sizeof(host), "%s", word[2]);
    stuck = (struct reader){.ns = open(word[1], O_RDONLY | O_CLOEXEC),
                            .host = host,
                            .port = (uint16_t)strtoul(word[3], NULL, 10),
                            .timeout = 60 * NS_PER_S};
    BUG_ON(pthread_create(&stuck.thread, NULL, read_to_end, &stuck));
    pthread_detach(stuck.thread);
    puts("ok");
}

static void do_connect(char **word)
{
    AUTO_CLOSE int ns = open(word[1], O_RDONLY | O_CLOEXEC);
    struct err e = ERR_INIT;
    AUTO_CLOSE int fd =
        net_connect_inside(ns, word[2], (uint16_t)strtoul(word[3], NULL, 10), 20 * NS_PER_S, &e);
    char buf[256];
    ssize_t got;

    if (fd < 0) {
        answer_error(&e);
        return;
    }
    got = read(fd, buf, sizeof(buf) - 1);
    printf("ok %.*s\n", got > 0 ? (int)got : 0, buf);
}

static void do_doctor(const char *resolv_conf)
{
    AUTO(str_list) struct str_list l = {0};
    struct err e = ERR_INIT;

    if (net_doctor(resolv_conf, &l, &e) < 0)
        printf("error: %s\n", e.msg);
    for (size_t i = 0; i < l.n; i++)
        puts(l.items[i]);
    puts(".");
}

static void answer(int rc, const struct err *e)
{
    if (rc < 0)
        answer_error(e);
    else
        puts("ok");
}

static void command(char **word, size_t n)
{
    struct err e = ERR_INIT;

    if (str_eq(word[0], "open") && n >= 3)
        do_open(word, n);
    else if (str_eq(word[0], "attach") && n == 5)
        do_attach(word);
    else if ((str_eq(word[0], "lease") || str_eq(word[0], "resolv") || str_eq(word[0], "hosts")) &&
             n == 2)
        do_lease(word);
    else if (str_eq(word[0], "traffic") && n == 2)
        do_traffic(word[1]);
    else if (str_eq(word[0], "many") && n == 4)
        do_many(word);
    else if (str_eq(word[0], "few") && n == 3)
        do_few(word);
    else if (str_eq(word[0], "detach") && n == 2)
        answer(net_detach(net, word[1], &e), &e);
    else if (str_eq(word[0], "doctor"))
        do_doctor(n > 1 ? word[1] : NULL);
    else if (str_eq(word[0], "reconcile"))
        answer(net_reconcile(net, (const char *const *)word + 1, n - 1, &e), &e);
    else if (str_eq(word[0], "connects") && n == 5)
        do_connects(word);
    else if (str_eq(word[0], "stuck") && n == 4)
        do_stuck(word);
    else if (str_eq(word[0], "stuck-done"))
        puts(atomic_load(&stuck.done) ? "ok yes" : "ok no");
    else if (str_eq(word[0], "connect") && n == 4)
        do_connect(word);
    else if (str_eq(word[0], "close") || str_eq(word[0], "remove"))
        answer(net_close(take_ptr(&net), str_eq(word[0], "remove"), &e), &e);
    else
        puts("error user 0 what?");
}

int main(void)
{
    struct err e = ERR_INIT;
    static char line[65536];

    setvbuf(stdout, NULL, _IOLBF, 0);
    while (!isatty(0) && fgets(line, sizeof(line), stdin)) {
        char *word[4096], *save = NULL;
        size_t n = 0;

        for (char *w = strtok_r(line, " \n", &save); w && n < ARRAY_SIZE(word);
             w = strtok_r(NULL, " \n", &save))
            word[n++] = w;
        if (n)
            command(word, n);
    }
    return net_close(take_ptr(&net), false, &e) < 0 ? 1 : 0;
}
