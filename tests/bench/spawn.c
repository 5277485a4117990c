/*
 * Starts a command many times, so many at once, and says how long each took. A program of its own, because an interpreter
 * takes a millisecond to start one and starts one at a time: natively that is as long as a container takes.
 *
 *     spawn COUNT AT_ONCE COMMAND ARG...      a "%" in an argument becomes the number of the start
 *
 * Prints a line each, "wall_us cpu_us", then "all us". Standard error is the caller's. Ends with the first failure.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

struct started {
    pid_t pid;
    uint64_t at_us;
};

static uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t us_of(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec;
}

static char *with_number(const char *text, int n)
{
    const char *percent = strchr(text, '%');
    char *out = NULL;

    if (!percent)
        return strdup(text);
    return asprintf(&out, "%.*s%d%s", (int)(percent - text), text, n, percent + 1) < 0 ? NULL : out;
}

static struct started start(char **words, int n, const posix_spawn_file_actions_t *quiet)
{
    char *argv[64] = {NULL};
    struct started s;

    for (int i = 0; words[i] && i < 63; i++)
        if (!(argv[i] = with_number(words[i], n)))
            exit(125);
    s.at_us = now_us();
    if (posix_spawnp(&s.pid, argv[0], quiet, NULL, argv, environ) != 0) {
        perror(argv[0]);
        exit(127);
    }
    for (int i = 0; argv[i]; i++)
        free(argv[i]);
    return s;
}

static void await_one(struct started *running, int n)
{
    struct rusage usage;
    int status;
    pid_t pid = wait4(-1, &status, 0, &usage);
    uint64_t now = now_us();

    for (int i = 0; i < n; i++) {
        if (running[i].pid != pid)
            continue;
        printf("%llu %llu\n", (unsigned long long)(now - running[i].at_us),
               (unsigned long long)(us_of(usage.ru_utime) + us_of(usage.ru_stime)));
        running[i].pid = 0;
    }
    if (status != 0)
        exit(WIFEXITED(status) ? WEXITSTATUS(status) : 126);
}

int main(int argc, char **argv)
{
    int count = argc > 3 ? atoi(argv[1]) : 0, at_once = argc > 3 ? atoi(argv[2]) : 0, live = 0;
    struct started *running = calloc((size_t)at_once + 1, sizeof(*running));
    posix_spawn_file_actions_t quiet;

    if (count < 1 || at_once < 1 || !running)
        return 2;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    uint64_t begin = now_us();

    for (int n = 0; n < count || live;) {
        if (n < count && live < at_once) {
            int place = 0;

            while (running[place].pid)
                place++;
            running[place] = start(argv + 3, n++, &quiet);
            live++;
        } else {
            await_one(running, at_once);
            live--;
        }
    }
    printf("all %llu\n", (unsigned long long)(now_us() - begin));
    return 0;
}
