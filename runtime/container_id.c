/* container_id.c - what may be an id: for the shim, too, which needs nothing else of containers. */
#include <string.h>

#include "runtime/container_own.h"

bool ctr_is_id(const char *id)
{
    size_t n = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.");

    return n && n <= ID_MAX && !id[n] && id[0] != '-' && id[0] != '.';
}
