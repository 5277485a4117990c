#include "worker/run.h"

#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"

static const struct {
    const char *name, *state;
} stages[RUN_STAGE_COUNT] = {
    [RUN_PREPARING] = {"RUN_STAGE.PREPARING", "preparing"},
    [RUN_RUNNING] = {"RUN_STAGE.RUNNING", "running"},
    [RUN_CLEANING_UP] = {"RUN_STAGE.CLEANING_UP", "running"},
    [RUN_UPLOADING_RESULTS] = {"RUN_STAGE.UPLOADING_RESULTS", "running"},
    [RUN_FINALIZING] = {"RUN_STAGE.FINALIZING", "finalizing"},
    [RUN_FINISHED] = {"RUN_STAGE.FINISHED", "ready"},
    [RUN_RESTAGED] = {"RUN_STAGE.RESTAGED", "staged"},
};

const char *run_stage_name(enum run_stage s)
{
    BUG_ON(s >= RUN_STAGE_COUNT);
    return stages[s].name;
}

const char *run_stage_state(enum run_stage s)
{
    BUG_ON(s >= RUN_STAGE_COUNT);
    return stages[s].state;
}

#define FIELD(member, kind, flags, max) JSON_FIELD(struct run, member, #member, kind, flags, max)
#define TIME(i, name)                                                         \
    JSON_FIELD(struct run, times[i].start, name "_start", JSON_DOUBLE, 0, 0), \
        JSON_FIELD(struct run, times[i].end, name "_end", JSON_DOUBLE, 0, 0)

/* The stage and the exit code are written by hand: the tables know no enums and no int. */
static const struct json_field run_fields[] = {
    JSON_SUB(struct run, bundle, "bundle", bundle_fields, JSON_REQUIRED),
    FIELD(status, JSON_STR, 0, 0),
    FIELD(dir, JSON_STR, JSON_REQUIRED, BOUND_PATH),
    FIELD(bundle_start, JSON_DOUBLE, 0, 0),
    FIELD(has_contents, JSON_BOOL, 0, 0),
    FIELD(started, JSON_BOOL, 0, 0),
    FIELD(docker_image, JSON_STR, 0, 0),
    FIELD(cpus, JSON_STR, 0, 0),
    FIELD(mems, JSON_STR, 0, 0),
    FIELD(gpus, JSON_STR_LIST, 0, 0),
    FIELD(userns_first_id, JSON_U32, 0, 0),
    FIELD(container_start_ns, JSON_U64, 0, 0),
    FIELD(container_start, JSON_DOUBLE, 0, 0),
    FIELD(container_end, JSON_DOUBLE, 0, 0),
    FIELD(time_total, JSON_DOUBLE, 0, 0),
    FIELD(time_user, JSON_DOUBLE, 0, 0),
    FIELD(time_system, JSON_DOUBLE, 0, 0),
    FIELD(links, JSON_STR_LIST, 0, 10 * BOUND_BUNDLE_DEPENDENCIES),
    FIELD(killed, JSON_BOOL, 0, 0),
    FIELD(restaged, JSON_BOOL, 0, 0),
    FIELD(finalized, JSON_BOOL, 0, 0),
    FIELD(kill_message, JSON_STR, 0, 0),
    FIELD(failure_message, JSON_STR, 0, 0),
    FIELD(upload_error, JSON_STR, 0, 0),
    FIELD(has_exitcode, JSON_BOOL, 0, 0),
    FIELD(upload_had_5xx, JSON_BOOL, 0, 0),
    FIELD(disk_utilization, JSON_U64, 0, 0),
    TIME(0, "preparing"),
    TIME(1, "running"),
    TIME(2, "cleaning_up"),
    TIME(3, "uploading_results"),
    TIME(4, "finalizing"),
    {0},
};

struct run *run_new(struct bundle *b, const char *dir, double now)
{
    struct run *r = mem_new(struct run);

    r->bundle = *b;
    free(b);
    r->dir = mem_strdup(dir);
    r->status = mem_strdup("");
    r->bundle_start = now;
    r->times[RUN_PREPARING].start = now;
    return r;
}

void run_free(struct run *r)
{
    if (!r)
        return;
    json_free_fields(run_fields, r);
    free(r);
}

cJSON *run_to_json(const struct run *r)
{
    cJSON *o = json_write_fields(run_fields, r);

    json_add_str(o, "stage", run_stage_name(r->stage));
    if (r->has_exitcode)
        json_add_int(o, "exitcode", r->exitcode);
    return o;
}

static int read_stage(const cJSON *v, struct run *r, struct err *e)
{
    const char *name = NULL;

    if (json_get_str(v, "stage", 64, &name, e) < 0)
        return -1;
    for (int i = 0; i < RUN_STAGE_COUNT; i++)
        if (str_eq(stages[i].name, name)) {
            r->stage = (enum run_stage)i;
            return 0;
        }
    return err_set(e, ERR_USER, "unknown stage");
}

int run_from_json(const cJSON *v, struct run **ret, struct err *e)
{
    AUTO(run) struct run *r = mem_new(struct run);
    int64_t exitcode = 0;

    if (json_read_fields(v, run_fields, r, e) < 0 || read_stage(v, r, e) < 0 ||
        json_opt_i64(v, "exitcode", 0, 255, &exitcode, e) < 0)
        return -1;
    if (!protocol_is_uuid(r->bundle.uuid) || r->dir[0] != '/')
        return err_set(e, ERR_USER, "uuid or dir is not usable");
    if (!r->status)
        r->status = mem_strdup("");
    if (!r->bundle.store)
        r->bundle.store = mem_strdup("");
    r->exitcode = (int)exitcode;
    *ret = take_ptr(&r);
    return 0;
}

char *run_join_texts(char *a, const char *b)
{
    if (!b)
        return a;
    if (!a)
        return mem_strdup(b);
    size_t n = strlen(a);
    while (n && (a[n - 1] == '\n' || a[n - 1] == '.'))
        n--;
    char *both = mem_printf("%.*s. %s", (int)n, a, b);
    free(a);
    return both;
}

char *run_failure_text(const struct run *r)
{
    char *text = run_join_texts(mem_strdup(r->failure_message), r->upload_error);

    text = run_join_texts(text, r->killed ? r->kill_message : NULL);
    if (text || !r->upload_had_5xx)
        return text;
    /* The server kept the text of a failed attempt: only an empty one, not null, clears it (D09). */
    if (r->has_exitcode && r->exitcode != 0)
        return mem_printf("Exit code %d", r->exitcode);
    return mem_strdup("");
}
