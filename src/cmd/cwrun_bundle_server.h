#pragma once
/*
 * cwrun_bundle_server.h - a bundle and its dependencies from a CodaLab server, for `cwrun bundle`.
 *
 * Only read: the server learns nothing of the run. Dependencies go to the worker's own cache beside the image store, under
 * its locks, so that what is there already is not fetched, and a worker on this host may use it too.
 * Threads: single-threaded programs (a download has a helper thread). Ownership: the caller's.
 */
#include "base/cleanup.h"
#include "base/str.h"

struct bundle;
struct bundle_dep;
struct err;

struct cwrun_server_opts {
    const char *server, *password_file,
        *ca_file;         /* password_file NULL: environment or terminal (protocol 11.2) */
    const char *work_dir; /* holds dependencies/ */
    bool quiet;
};
struct cwrun_server;

/* Log in. ERR_USER: refused. */
int cwrun_server_open(const struct cwrun_server_opts *o, struct cwrun_server **ret, struct err *e)
    MUST_CHECK;
/* The places of dependencies are let go: they may be evicted from now on. */
void cwrun_server_close(struct cwrun_server *s);
DEFINE_AUTO(cwrun_server, cwrun_server_close)

/* The bundle as the server would send it to a worker; overrides as in cwrun_bundle_file.h. ERR_ABSENT: unknown uuid. */
int cwrun_server_bundle(struct cwrun_server *s, const char *uuid, const struct str_list *overrides,
                        struct bundle **ret, struct err *e) MUST_CHECK;
/* Have a dependency on this host, and hold it; its path is appended. */
int cwrun_server_dependency(struct cwrun_server *s, const struct bundle_dep *d,
                            struct str_list *paths, struct err *e) MUST_CHECK;
