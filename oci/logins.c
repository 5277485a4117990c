#include "oci/logins.h"

#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

enum { GRANTS_MAX = 64, RENEWALS_MAX = 64 };
#define MARGIN_S 10  /* a token that ends in the middle of a request is of no use */
#define KEPT_S   600 /* the longest: credentials may have changed meanwhile */

struct grant {
    char *authority, *repository;
    struct oci_login login;
    uint64_t until_ns;
};

struct renewal {
    char *authority, *configured, *token;
};

struct oci_logins {
    pthread_mutex_t lock; /* guards the rest */
    struct grant grants[GRANTS_MAX];
    struct renewal renewals[RENEWALS_MAX];
    size_t n_grants, n_renewals;
};

static void forget(char **secret)
{
    if (*secret)
        explicit_bzero(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

void oci_login_free(struct oci_login *l)
{
    forget(&l->bearer);
    forget(&l->user);
    forget(&l->password);
}

struct oci_login oci_login_copy(const struct oci_login *l)
{
    return (struct oci_login){mem_strdup(l->bearer), mem_strdup(l->user), mem_strdup(l->password)};
}

struct oci_logins *oci_logins_new(void)
{
    struct oci_logins *l = mem_new(struct oci_logins);

    pthread_mutex_init(&l->lock, NULL);
    return l;
}

static void grant_free(struct grant *g)
{
    free(g->authority);
    free(g->repository);
    oci_login_free(&g->login);
    *g = (struct grant){0};
}

static void renewal_free(struct renewal *r)
{
    free(r->authority);
    forget(&r->configured);
    forget(&r->token);
    *r = (struct renewal){0};
}

void oci_logins_free(struct oci_logins *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->n_grants; i++)
        grant_free(&l->grants[i]);
    for (size_t i = 0; i < l->n_renewals; i++)
        renewal_free(&l->renewals[i]);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* ---- tokens ---- */

static struct grant *find_grant(struct oci_logins *l, const char *authority, const char *repository)
{
    for (size_t i = 0; i < l->n_grants; i++)
        if (str_eq(l->grants[i].authority, authority) &&
            str_eq(l->grants[i].repository, repository))
            return &l->grants[i];
    return NULL;
}

/* One more; when all are taken, in the place of the one that ends first. */
static struct grant *new_grant(struct oci_logins *l)
{
    struct grant *first = &l->grants[0];

    if (l->n_grants < GRANTS_MAX)
        return &l->grants[l->n_grants++];
    for (size_t i = 1; i < GRANTS_MAX; i++)
        if (l->grants[i].until_ns < first->until_ns)
            first = &l->grants[i];
    grant_free(first);
    return first;
}

void oci_logins_known(struct oci_logins *l, const char *authority, const char *repository,
                      struct oci_login *ret)
{
    pthread_mutex_lock(&l->lock);
    struct grant *g = find_grant(l, authority, repository);

    if (g && !clock_passed(g->until_ns))
        *ret = oci_login_copy(&g->login);
    pthread_mutex_unlock(&l->lock);
}

void oci_logins_remember(struct oci_logins *l, const char *authority, const char *repository,
                         const struct oci_login *login, uint64_t seconds)
{
    uint64_t kept = seconds > 2 * MARGIN_S ? seconds - MARGIN_S : seconds;

    pthread_mutex_lock(&l->lock);
    struct grant *g = find_grant(l, authority, repository);

    if (!g) {
        g = new_grant(l);
        g->authority = mem_strdup(authority);
        g->repository = mem_strdup(repository);
    }
    oci_login_free(&g->login);
    g->login = oci_login_copy(login);
    g->until_ns = clock_in_ns((kept < KEPT_S ? kept : KEPT_S) * NS_PER_S);
    pthread_mutex_unlock(&l->lock);
}

/* ---- refresh tokens ---- */

static struct renewal *find_renewal(struct oci_logins *l, const char *authority,
                                    const char *configured)
{
    for (size_t i = 0; i < l->n_renewals; i++)
        if (str_eq(l->renewals[i].authority, authority) &&
            str_eq(l->renewals[i].configured, configured))
            return &l->renewals[i];
    return NULL;
}

char *oci_logins_renewed(struct oci_logins *l, const char *authority, const char *configured)
{
    pthread_mutex_lock(&l->lock);
    const struct renewal *r = find_renewal(l, authority, configured);
    char *token = r ? mem_strdup(r->token) : NULL;

    pthread_mutex_unlock(&l->lock);
    return token;
}

/* The oldest one goes when there are too many: its successor is asked for with what is configured. */
static struct renewal *new_renewal(struct oci_logins *l)
{
    if (l->n_renewals == RENEWALS_MAX) {
        renewal_free(&l->renewals[0]);
        memmove(&l->renewals[0], &l->renewals[1], (--l->n_renewals) * sizeof(l->renewals[0]));
    }
    return &l->renewals[l->n_renewals++];
}

void oci_logins_renew(struct oci_logins *l, const char *authority, const char *configured,
                      const char *token)
{
    pthread_mutex_lock(&l->lock);
    struct renewal *r = find_renewal(l, authority, configured);

    if (token && !r) {
        r = new_renewal(l);
        *r = (struct renewal){mem_strdup(authority), mem_strdup(configured), NULL};
    }
    if (token) {
        forget(&r->token);
        r->token = mem_strdup(token);
    } else if (r) {
        renewal_free(r);
        *r = l->renewals[--l->n_renewals];
    }
    pthread_mutex_unlock(&l->lock);
}
