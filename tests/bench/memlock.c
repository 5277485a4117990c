/* A library that answers "done" when RLIMIT_MEMLOCK is to be raised; for crun, see start.py. */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    return resource == RLIMIT_MEMLOCK ? 0 : (int)syscall(SYS_setrlimit, resource, limit);
}
