#pragma once
/*
 * cwrun_attach.h - visits to the terminals of programs in runs, for exec and attach. Single-threaded programs only.
 */
#include <sys/types.h>

#include "base/cleanup.h"

struct err;

/*
 * With our terminal raw, be with program `pid` of run `uuid` until it ends or the visit does, and say how to come back.
 *   sock   to the keeper (runtime/tty_session.h); borrowed
 */
int cwrun_visit(int sock, int signals, const char *runtime_dir, const char *uuid, pid_t pid,
                int *ret_status, struct err *e) MUST_CHECK;
