#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 4096 };

/* Set once before the first thread, then only read. */
static enum log_level most_shown = LOG_L_INFO;
static bool with_time;
static bool to_journal;

void log_setup(enum log_level most, bool timestamps)
{
    most_shown = most;
    with_time = timestamps;
    to_journal = getenv("JOURNAL_STREAM") && !isatty(STDERR_FILENO);
}

bool log_wants(enum log_level level)
{
    return level <= most_shown;
}

static int put_prefix(char *buf, size_t size, enum log_level level, const char *file, int line)
{
    struct timespec now;
    struct tm tm;
    char date[32] = "";
    int n = 0;

    if (to_journal)
        n += snprintf(buf, size, "<%d>", (int)level);
    else if (with_time) {
        clock_gettime(CLOCK_REALTIME, &now);
        localtime_r(&now.tv_sec, &tm);
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
        n += snprintf(buf, size, "%s,%03ld ", date, now.tv_nsec / 1000000);
    }
    if (most_shown >= LOG_L_DEBUG)
        n += snprintf(buf + n, size - (size_t)n, "%s:%d ", file, line);
    return n;
}

void log_write(enum log_level level, const char *file, int line, const char *fmt, ...)
{
    char buf[LINE_MAX_BYTES];
    va_list ap;

    if (!log_wants(level))
        return;
    size_t n = (size_t)put_prefix(buf, 128, level, file, line);

    va_start(ap, fmt);
    int m = vsnprintf(buf + n, sizeof(buf) - n - 1, fmt, ap);
    va_end(ap);
    n += m < 0 ? 0 : (size_t)m < sizeof(buf) - n - 1 ? (size_t)m : sizeof(buf) - n - 2;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)buf[i] < 0x20 || buf[i] == 0x7f)
            buf[i] = ' '; /* one message is one line, and moves no terminal (S07) */
    buf[n++] = '\n';
    ssize_t ignored UNUSED = write(STDERR_FILENO, buf, n);
}
