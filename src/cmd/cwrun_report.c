#include "cmd/cwrun_report.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/units.h"
#include "cmd/cwrun.h"
#include "oci/image.h"
#include "worker/run.h"

#define TAIL_BYTES (64 * 1024)

static void show_line(const char *line, size_t n)
{
    bool text = str_is_utf8(line, n);

    fputs("  | ", stdout);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)line[i];
        /* C2 80 to C2 9F are the control characters of ISO 8859, which terminals may obey. */
        bool c1 = c == 0xc2 && i + 1 < n && (unsigned char)line[i + 1] < 0xa0;

        if ((c >= 0x20 && c < 0x7f) || c == '\t' || (c >= 0x80 && text && !c1))
            putchar(c);
        else
            printf("\\x%02x", c);
    }
    putchar('\n');
}

static void show_lines(const char *text, size_t n)
{
    while (n) {
        const char *end = memchr(text, '\n', n);
        size_t length = end ? (size_t)(end - text) : n;

        show_line(text, length);
        length += end != NULL;
        text += length;
        n -= length;
    }
}

/* The last lines of a file the run wrote: it may be anything by now, a pipe or a link to elsewhere. */
static void show_tail(int dir, const char *name, size_t lines)
{
    AUTO_CLOSE int fd = openat(dir, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    AUTO_FREE char *buf = mem_alloc(TAIL_BYTES);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size == 0)
        return;
    if (st.st_size > TAIL_BYTES && lseek(fd, st.st_size - TAIL_BYTES, SEEK_SET) < 0)
        return;
    ssize_t n = fd_read_full(fd, buf, TAIL_BYTES);
    size_t from = n > 0 ? (size_t)n : 0, seen = 0;
    for (; from > 0; from--)
        if (buf[from - 1] == '\n' && from != (size_t)n && ++seen == lines)
            break;
    bool cut = from > 0 || st.st_size > TAIL_BYTES;
    printf("%s%s:\n", name, cut ? ", the end" : "");
    if (n > 0 && lines)
        show_lines(buf + from, (size_t)n - from);
}

const char *cwrun_report_state(const struct run *r)
{
    AUTO_FREE char *text = run_failure_text(r);

    if (text && strstr(text, "Kill requested"))
        return "killed";
    return (text && *text) || (r->has_exitcode && r->exitcode != 0) ? "failed" : "ready";
}

static void row(const char *name, const char *text)
{
    printf("%-16s %s\n", name, text);
}

static void show_report(const struct run *r, const struct image *image)
{
    AUTO_FREE char *failure = run_failure_text(r);
    AUTO_FREE char *code = r->has_exitcode ? mem_printf("%d", r->exitcode) : mem_strdup("none");
    AUTO_FREE char *time = mem_printf("%.2f s (user %.2f s, system %.2f s)", r->time_total,
                                      r->time_user, r->time_system);
    char disk[UNITS_TEXT_MAX];

    if (!failure && r->has_exitcode && r->exitcode != 0)
        failure = mem_printf("Exit code %d",
                             r->exitcode); /* the server's words for null (protocol 1.5) */
    row("state", cwrun_report_state(r));
    row("exitcode", code);
    if (failure && *failure) {
        AUTO_FREE char *safe = mem_alloc(4 * strlen(failure) + 1);
        row("failure_message", str_escape(safe, 4 * strlen(failure) + 1, failure, strlen(failure)));
    }
    row("time", time);
    row("disk", units_size_str(disk, (double)r->disk_utilization, true) ? disk : "?");
    row("image", image->repo_digest ? image->repo_digest : image->id);
    if (r->has_contents)
        row("results", r->dir);
}

int cwrun_report(const struct run *r, const struct image *image, const char *own_output,
                 size_t tail)
{
    AUTO_CLOSE int dir = open(r->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (own_output && *own_output) {
        puts("bash's own output:");
        show_lines(own_output, strlen(own_output));
    }
    if (dir >= 0) {
        show_tail(dir, "stdout", tail);
        show_tail(dir, "stderr", tail);
    }
    show_report(r, image);
    fflush(stdout);
    if (r->has_exitcode)
        return r->exitcode;
    return r->killed ? 137 : EXIT_OURS;
}
