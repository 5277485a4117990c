/*
 * The older iptables keeps its tables in the kernel as one block of entries (linux/netfilter_ipv4/ip_tables.h), which
 * a raw socket hands out. IPv4 and IPv6 have the same form in different structs; `struct form` says where things are.
 * The tables are asked only where they are in use: asking would load them.
 */
#include <fcntl.h>
#include <netinet/in.h> /* before linux/netfilter.h, which would define the same */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/netfilter.h>
#include <linux/netfilter/x_tables.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>

#include "base/mem.h"
#include "netns/firewalls.h"
#include "netns/names.h"

#define TABLE_BYTES_MAX (16U << 20)

struct form {
    int family, level, get_info, get_entries;
    const char *names, *command;
    size_t match_bytes, iniface, target_offset, next_offset, entry_bytes;
};

static const struct form forms[] = {
    {AF_INET, SOL_IP, IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES, "/proc/net/ip_tables_names",
     "iptables-legacy", sizeof(struct ipt_ip), offsetof(struct ipt_ip, iniface),
     offsetof(struct ipt_entry, target_offset), offsetof(struct ipt_entry, next_offset),
     sizeof(struct ipt_entry)},
    {AF_INET6, SOL_IPV6, IP6T_SO_GET_INFO, IP6T_SO_GET_ENTRIES, "/proc/net/ip6_tables_names",
     "ip6tables-legacy", sizeof(struct ip6t_ip6), offsetof(struct ip6t_ip6, iniface),
     offsetof(struct ip6t_entry, target_offset), offsetof(struct ip6t_entry, next_offset),
     sizeof(struct ip6t_entry)},
};

static bool in_use(const char *names)
{
    FILE *f = fopen(names, "re");
    bool found = false;
    char line[64];

    while (f && fgets(line, sizeof(line), f))
        found = found || str_eq(line, "filter\n");
    if (f)
        fclose(f);
    return found;
}

/* ipt_get_entries and ip6t_get_entries, ipt_getinfo and ip6t_getinfo are the same but for their names. */
static struct ipt_get_entries *read_table(const struct form *f, struct ipt_getinfo *info)
{
    AUTO_CLOSE int sk = socket(f->family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    AUTO_FREE struct ipt_get_entries *all = NULL;
    socklen_t n = sizeof(*info);

    *info = (struct ipt_getinfo){.name = "filter"};
    if (sk < 0 || getsockopt(sk, f->level, f->get_info, info, &n) < 0 ||
        info->size > TABLE_BYTES_MAX)
        return NULL;
    n = (socklen_t)(sizeof(*all) + info->size);
    all = mem_array(n, 1);
    memcpy(all->name, info->name, sizeof(all->name));
    all->size = info->size;
    return getsockopt(sk, f->level, f->get_entries, all, &n) < 0 ? NULL : take_ptr(&all);
}

struct entry {
    const uint8_t *p;
    uint16_t target, next; /* offsets */
};

static bool entry_at(const struct form *f, const uint8_t *table, size_t size, size_t at,
                     struct entry *ret)
{
    ret->p = table + at;
    if (at + f->entry_bytes > size)
        return false;
    memcpy(&ret->target, ret->p + f->target_offset, sizeof(ret->target));
    memcpy(&ret->next, ret->p + f->next_offset, sizeof(ret->next));
    return ret->next >= f->entry_bytes && at + ret->next <= size &&
           (size_t)ret->target + sizeof(struct xt_standard_target) <= ret->next;
}

/* Verdicts are stored as -NF_DROP - 1 and the like, by a target without a name. */
static bool target_is(const struct entry *x, int verdict)
{
    struct xt_standard_target t;

    memcpy(&t, x->p + x->target, sizeof(t));
    return !t.target.u.user.name[0] && t.verdict == -verdict - 1;
}

static bool refuses(const struct entry *x)
{
    struct xt_standard_target t;

    memcpy(&t, x->p + x->target, sizeof(t));
    return target_is(x, NF_DROP) || str_eq(t.target.u.user.name, "REJECT");
}

static bool unconditional(const struct form *f, const struct entry *x)
{
    static const uint8_t zero[sizeof(struct ip6t_ip6)];

    return x->target == f->entry_bytes && memcmp(x->p, zero, f->match_bytes) == 0;
}

static bool is_for_ours(const struct form *f, const struct entry *x)
{
    return strncmp((const char *)x->p + f->iniface, NET_LINK_COMMON, strlen(NET_LINK_COMMON)) ==
               0 &&
           target_is(x, NF_ACCEPT);
}

/* Does FORWARD drop what it does not name, and name ours nowhere? */
static bool blocks(const struct form *f, const uint8_t *table, const struct ipt_getinfo *info)
{
    size_t first = info->hook_entry[NF_INET_FORWARD], last = info->underflow[NF_INET_FORWARD];
    bool drops = false;
    struct entry x;

    for (size_t at = 0; at < info->size && entry_at(f, table, info->size, at, &x); at += x.next) {
        if (is_for_ours(f, &x))
            return false;
        if (at >= first && at <= last && unconditional(f, &x) && refuses(&x))
            drops = true;
    }
    return drops;
}

void net_firewalls_legacy(struct str_list *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        const struct form *f = &forms[i];
        struct ipt_getinfo info;

        if (!in_use(f->names))
            continue;
        AUTO_FREE struct ipt_get_entries *all = read_table(f, &info);
        if (!all || !blocks(f, (const uint8_t *)all->entrytable, &info))
            continue;
        AUTO_FREE char *text = mem_printf(
            "warn: %s drops forwarded packets by default; external runs get out only if it lets "
            "links \"%s*\" through, e.g.: %s -I FORWARD -i '%s+' -j ACCEPT; %s -I FORWARD -o '%s+' "
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f->command, NET_LINK_COMMON, f->command, NET_LINK_COMMON, f->command, NET_LINK_COMMON);
        str_list_add(ret, text);
    }
}
