/* shim: for cworkerd and cwrun, which leave descriptors as runtime/shim_proto.h draws them. */
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/err.h"
#include "base/opt.h"
#include "cwrt.h"
#include "runtime/container.h"
#include "runtime/shim_make.h"
#include "runtime/shim_proto.h"

int cwrt_shim(int argc, char **argv, struct err *e)
{
    static const struct opt none[] = {{0}};
    AUTO(str_list) struct str_list words = {0};
    int r = cwrt_flags(none, argc, argv, NULL, &words, 2, 2, "cwrt shim CWSHIM ID", e);

    if (r != 0)
        return r < 0 ? -1 : 0;
    if (!ctr_is_id(words.items[1]))
        return err_set(e, ERR_USER, "invalid container id");
    for (int fd = SHIM_FD_CONFIG; fd < SHIM_N_FDS; fd++)
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            return err_set(e, ERR_USER, "cwrt shim is started by cworkerd and cwrun only");
            /* One process only, no threads: a second one is made so that init, not the daemon, reaps it. */
#undef fork
    pid_t pid = fork();

    if (pid != 0)
        return pid < 0 ? err_sys(e, "fork") : 0;
    setsid();
    return ctr_shim_make(words.items[0], words.items[1]);
}
