/*
 * Drives netns/ for the end-to-end tests (tests/e2e/net_*): commands on stdin, one answer a line on stdout.
 *
 *   open STATE_DIR PREFIX [pool4=CIDR] [pool6=CIDR] [resolv=FILE] [deny=LIST] [allow=LIST]
 *   attach ID internal|external NETNS_FILE HOSTNAME   ->  ok GENERAL4 GENERAL6 ADDR4 ADDR6 IF_GENERAL IF NS
 *   doctor [FILE] | lease ID | detach ID | reconcile ID... | close | remove | connect NETNS_FILE HOST PORT | resolv ID | hosts ID
 *
 * An answer is "ok ..." or "error KIND ERRNO TEXT". `make unit` runs it with nothing on stdin: it does nothing then.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
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
        } keys[] = {{"pool4=", &c.pool4},
                    {"pool6=", &c.pool6},
                    {"resolv=", &c.resolv_conf},
                    {"deny=", &c.deny},
                    {"allow=", &c.allow}};
        for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
            if (str_starts(word[i], keys[k].key))
                *keys[k].value = word[i] + strlen(keys[k].key);
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

static void do_connect(char **word)
{
    AUTO_CLOSE int ns = open(word[1], O_RDONLY | O_CLOEXEC);
    struct err e = ERR_INIT;
    AUTO_CLOSE int fd =
        net_connect_inside(ns, word[2], (uint16_t)strtoul(word[3], NULL, 10), 2 * NS_PER_S, &e);
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
    else if (str_eq(word[0], "detach") && n == 2)
        answer(net_detach(net, word[1], &e), &e);
    else if (str_eq(word[0], "doctor"))
        do_doctor(n > 1 ? word[1] : NULL);
    else if (str_eq(word[0], "reconcile"))
        answer(net_reconcile(net, (const char *const *)word + 1, n - 1, &e), &e);
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
