/* Any bytes as exit.json: refused, or a record whose values are in range and that writes and reads back the same. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "fuzz.h"
#include "runtime/exit.h"

static int scratch(void)
{
    static char path[] = "/tmp/fuzz-exit-XXXXXX";
    static int dir = -1;

    if (dir < 0) {
        BUG_ON(!mkdtemp(path));
        dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return dir;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct exit_record r, again;
    struct err e = ERR_INIT;
    AUTO_CLOSE int fd =
        openat(scratch(), "exit.json", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    BUG_ON(fd < 0 || fd_write_all(fd, data, n) < 0);
    close_fd(&fd);
    if (ctr_exit_read(scratch(), &r, &e) < 0) {
        BUG_ON(e.kind == ERR_NONE);
        return 0;
    }
    BUG_ON(r.status < -1 || r.status > 255 || r.signal < 0 || r.signal > 127);
    BUG_ON(!memchr(r.start_error, 0, sizeof(r.start_error)));
    BUG_ON(ctr_exit_write(scratch(), &r, &e) < 0 || ctr_exit_read(scratch(), &again, &e) < 0);
    BUG_ON(r.status != again.status || r.oom_kills != again.oom_kills ||
           strcmp(r.start_error, again.start_error) != 0);
    return 0;
}
