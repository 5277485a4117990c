#include "cmd/cwrun_bundle_server.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/units.h"
#include "cmd/cwrun_bundle_file.h"
#include "worker/deps_fetch.h"
#include "worker/deps_place.h"
#include "worker/options.h"
#include "worker/protocol.h"
#include "worker/service.h"

#define ATTEMPTS 3 /* as --download-dependencies-max-retries of the worker */

struct cwrun_server {
    struct service *service;
    struct deps_dirs dirs;
    bool has_dirs, quiet;
    struct deps_place **held;
    size_t n_held;
};

int cwrun_server_open(const struct cwrun_server_opts *o, struct cwrun_server **ret, struct err *e)
{
    AUTO(cwrun_server) struct cwrun_server *s = mem_new(struct cwrun_server);
    AUTO(options) struct options who = {.password_file = mem_strdup(o->password_file)};
    const struct http_tls tls = {.ca_file = o->ca_file};

    if (options_credentials(&who, e) < 0)
        return -1;
    const struct service_opts so = {
        .server = o->server,
        .username = who.username,
        .password = who.password,
        .worker_id = "cwrun", /* never told: nothing here speaks as a worker */
        .user_agent = "cwrun/" CW_VERSION,
        .tls = o->ca_file ? &tls : NULL,
    };
    s->quiet = o->quiet;
    if (service_new(&so, &s->service, e) < 0)
        return -1;
    if (service_login(s->service, NULL, e) < 0)
        return err_wrap(e, "log into %s as %s", o->server, who.username);
    if (deps_dirs_open(o->work_dir, "cwrun", &s->dirs, e) < 0)
        return -1;
    s->has_dirs = true;
    *ret = take_ptr(&s);
    return 0;
}

void cwrun_server_close(struct cwrun_server *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_held; i++)
        deps_place_free(s->held[i]);
    free(s->held);
    if (s->has_dirs)
        deps_dirs_close(&s->dirs);
    service_free(s->service);
    free(s);
}

int cwrun_server_bundle(struct cwrun_server *s, const char *uuid, const struct str_list *overrides,
                        struct bundle **ret, struct err *e)
{
    AUTO(cJSON) cJSON *bundle = NULL;

    if (service_bundle(s->service, uuid, NULL, &bundle, e) < 0)
        return -1;
    return cwrun_bundle_file_parse(bundle, overrides, ret, e) < 0 ? err_wrap(e, "bundle %s", uuid)
                                                                  : 0;
}

struct meter {
    const char *key;
    atomic_uint_fast64_t received;
    uint64_t shown;
};

static void show_progress(void *arg)
{
    struct meter *m = arg;
    uint64_t now = atomic_load(&m->received);
    char size[UNITS_TEXT_MAX];

    if (now - m->shown < (1u << 20))
        return;
    m->shown = now;
    fprintf(stderr, "\rdependency %s: %s", m->key, units_size_str(size, (double)now, true));
}

static void no_progress(void *arg)
{
    (void)arg;
}

static int fetch(struct cwrun_server *s, const struct bundle_dep *d, struct deps_place *p,
                 struct err *e)
{
    struct meter m = {.key = d->child_path};
    struct deps_partial partial = {0};
    const struct deps_fetch f = {
        .dirs = &s->dirs,
        .service = s->service,
        .uuid = d->parent_uuid,
        .path = d->parent_path,
        .received = &m.received,
        .progress = s->quiet || !isatty(STDERR_FILENO) ? no_progress : show_progress,
        .progress_arg = &m,
        .partial = &partial,
    };
    int rc = deps_fetch(&f, p, e);

    /* What broke goes on where it was. */
    for (int i = 1; rc < 0 && i < ATTEMPTS && service_is_transient(e); i++) {
        err_clear(e);
        rc = deps_fetch(&f, p, e);
    }
    if (rc < 0)
        deps_fetch_discard(&s->dirs, p);
    if (m.shown)
        fputc('\n', stderr);
    return rc < 0 ? -1 : deps_place_commit(&s->dirs, p, d->parent_uuid, d->parent_path, e);
}

int cwrun_server_dependency(struct cwrun_server *s, const struct bundle_dep *d,
                            struct str_list *paths, struct err *e)
{
    AUTO(deps_place) struct deps_place *p = NULL;

    if (deps_place_lock(&s->dirs, d->parent_uuid, d->parent_path, NULL, &p, e) < 0 ||
        (!p->whole && fetch(s, d, p, e) < 0))
        return err_wrap(e, "Failed to download dependency %s", d->child_path);
    deps_place_share(p);
    str_list_take(paths, mem_printf("%s/%s", s->dirs.contents_path, p->name));
    s->held = mem_realloc(s->held, s->n_held + 1, sizeof(*s->held));
    s->held[s->n_held++] = take_ptr(&p);
    return 0;
}
