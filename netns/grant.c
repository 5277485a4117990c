#include "netns/grant.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"

#define GRANTS_MAX 1000
#define PORT_MAX   65535

/* AWS, GCP, Azure, OpenStack; AWS's tasks; Azure's wire server; Alibaba; Oracle; AWS and GCP over IPv6. */
static const char metadata[] =
    "169.254.169.254 169.254.170.2 168.63.129.16 100.100.100.200 192.0.0.192 "
    "fd00:ec2::254 fd20:ce::254";

static int add(struct net_grants *l, const struct net_grant *g, struct err *e)
{
    if (l->n >= GRANTS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d destinations in a list", GRANTS_MAX);
    if (l->n % 16 == 0)
        l->items = mem_realloc(l->items, l->n + 16, sizeof(*l->items));
    l->items[l->n++] = *g;
    return 0;
}

static int add_metadata(struct net_grants *l, uint16_t port, struct err *e)
{
    struct net_cidrs c = {0};
    int rc = net_ipam_parse_list(metadata, &c, e);

    for (size_t i = 0; i < c.n && rc == 0; i++)
        rc = add(l, &(struct net_grant){.to = c.items[i], .port = port}, e);
    free(c.items);
    return rc;
}

/*
 * Cut ":PORT" off: behind "]", or behind the only colon (an IPv6 address has more of them). What stays in word is
 * without brackets.
 */
static int cut_port(char *word, uint16_t *ret, struct err *e)
{
    char *colon = strchr(word, ':'), *end = strchr(word, ']');
    uint64_t port = 0;

    *ret = 0;
    if (word[0] == '[') {
        if (!end || (end[1] && end[1] != ':'))
            return err_set(e, ERR_USER, "expected \"[address]:port\"");
        colon = end[1] ? end + 1 : NULL;
        *end = 0;
        memmove(word, word + 1, strlen(word));
    } else if (colon && strchr(colon + 1, ':')) {
        colon = NULL;
    }
    if (!colon)
        return 0;
    *colon = 0;
    if (units_u64(colon + 1, PORT_MAX, &port, e) < 0)
        return -1;
    if (!port)
        return err_set(e, ERR_USER, "port 0: ports are 1 to %d", PORT_MAX);
    *ret = (uint16_t)port;
    return 0;
}

static int parse_word(char *word, struct net_grants *ret, struct err *e)
{
    struct net_grant g = {0};

    if (cut_port(word, &g.port, e) < 0)
        return -1;
    if (str_eq(word, "metadata"))
        return add_metadata(ret, g.port, e);
    g.host = str_eq(word, "host");
    if (!g.host && net_ipam_parse_cidr(word, &g.to, e) < 0)
        return -1;
    return add(ret, &g, e);
}

int net_grant_parse(const char *text, struct net_grants *ret, struct err *e)
{
    AUTO_FREE char *copy = mem_strdup(text ? text : "");
    char *save = NULL, shown[STR_SHOW_MAX];

    for (char *word = strtok_r(copy, ", \t\n", &save); word;
         word = strtok_r(NULL, ", \t\n", &save)) {
        AUTO_FREE char *whole = mem_strdup(word);

        if (parse_word(word, ret, e) < 0)
            return err_wrap(e, "destination \"%s\"", str_show(shown, whole));
    }
    return 0;
}

bool net_grant_has_host(const struct net_grants *g)
{
    for (size_t i = 0; i < g->n; i++)
        if (g->items[i].host)
            return true;
    return false;
}
