#include "oci/scheme.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "base/str.h"

enum { HOSTS = 32, AUTHORITY_MAX = 264 }; /* a longer name is not remembered */

static struct {
    char authority[AUTHORITY_MAX];
    uint64_t until_ns; /* 0: free */
} hosts[HOSTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Its place, or HOSTS. */
static size_t find(const char *authority)
{
    size_t i = 0;

    while (i < HOSTS && (!hosts[i].until_ns || !str_eq(hosts[i].authority, authority)))
        i++;
    return i;
}

static size_t oldest(void)
{
    size_t best = 0;

    for (size_t i = 1; i < HOSTS; i++)
        if (hosts[i].until_ns < hosts[best].until_ns)
            best = i;
    return best;
}

void oci_scheme_note(const char *authority, bool plain, uint64_t now_ns)
{
    size_t n = strlen(authority);

    if (n >= AUTHORITY_MAX)
        return;
    pthread_mutex_lock(&lock);
    size_t i = find(authority);

    if (!plain) {
        if (i < HOSTS)
            hosts[i].until_ns = 0;
    } else if (i == HOSTS ||
               now_ns >= hosts[i].until_ns) { /* it is not kept longer for being used */
        i = i < HOSTS ? i : oldest();
        memcpy(hosts[i].authority, authority, n + 1);
        hosts[i].until_ns = now_ns + OCI_SCHEME_KEEP_NS;
    }
    pthread_mutex_unlock(&lock);
}

bool oci_scheme_is_plain(const char *authority, uint64_t now_ns)
{
    pthread_mutex_lock(&lock);
    size_t i = find(authority);
    bool plain = i < HOSTS && now_ns < hosts[i].until_ns;

    pthread_mutex_unlock(&lock);
    return plain;
}
