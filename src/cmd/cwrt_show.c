/* state, list, ps, pause, resume: looking at containers. */
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/opt.h"
#include "base/proc.h"
#include "cwrt.h"
#include "runtime/container.h"
#include "runtime/spec.h"

static const struct opt no_flags[] = {{0}};

/* A command of one word; 0 with an open container, 1 done. */
static int open_one(int argc, char **argv, const char *usage, struct ctr **ret, struct err *e)
{
    AUTO(str_list) struct str_list words = {0};
    int r = cwrt_flags(no_flags, argc, argv, NULL, &words, 1, 1, usage, e);

    return r == 0 ? ctr_open(cwrt_global.root, words.items[0], ret, e) : r;
}

/* runc's `state`: the specification's fields and some of its own. */
static cJSON *describe(const struct ctr_info *i)
{
    cJSON *o = cJSON_CreateObject();

    json_add_str(o, "ociVersion", i->oci_version);
    json_add_str(o, "id", i->id);
    json_add_int(o, "pid", i->pid);
    json_add_str(o, "status", ctr_status_name(i->status));
    json_add_str(o, "bundle", i->bundle);
    json_add_str(o, "rootfs", i->rootfs);
    json_add_str(o, "created", i->created);
    if (i->spec && i->spec->n_annotations) {
        cJSON *a = json_add_object(o, "annotations");

        for (size_t k = 0; k < i->spec->n_annotations; k++)
            json_add_str(a, i->spec->annotations[k].key, i->spec->annotations[k].value);
    }
    json_add_str(o, "owner", "");
    return o;
}

int cwrt_state(int argc, char **argv, struct err *e)
{
    AUTO(ctr) struct ctr *c = NULL;
    const struct ctr_info *info;
    int r = open_one(argc, argv, "cwrt state ID", &c, e);

    if (r != 0)
        return r < 0 ? -1 : 0;
    if (ctr_info(c, &info, e) < 0)
        return -1;
    AUTO(cJSON) cJSON *o = describe(info);
    char *text = cJSON_Print(o);

    printf("%s\n", text);
    cJSON_free(text);
    return 0;
}

struct list_options {
    char *format;
    bool quiet;
};

static void list_one(const struct ctr_info *i, const struct list_options *o, cJSON *all)
{
    if (o->quiet)
        printf("%s\n", i->id);
    else if (str_eq(o->format, "json"))
        cJSON_AddItemToArray(all, describe(i));
    else
        printf("%-20s %-10d %-10s %-30s %-30s %s\n", i->id, i->pid, ctr_status_name(i->status),
               i->bundle, i->created, "root");
}

static int list_all(const struct list_options *o, struct err *e)
{
    AUTO(str_list) struct str_list ids = {0};
    AUTO(cJSON) cJSON *all = cJSON_CreateArray();

    if (ctr_list(cwrt_global.root, &ids, e) < 0)
        return -1;
    if (!o->quiet && !str_eq(o->format, "json"))
        printf("%-20s %-10s %-10s %-30s %-30s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED",
               "OWNER");
    for (size_t i = 0; i < ids.n; i++) {
        AUTO(ctr) struct ctr *c = NULL;
        const struct ctr_info *info;
        struct err why = ERR_INIT;

        /* One that is being made or removed at this moment is not listed. */
        if (ctr_open(cwrt_global.root, ids.items[i], &c, &why) == 0 &&
            ctr_info(c, &info, &why) == 0)
            list_one(info, o, all);
    }
    if (!o->quiet && str_eq(o->format, "json")) {
        AUTO_FREE char *text = json_text(all);

        printf("%s\n", ids.n ? text : "null");
    }
    return 0;
}

int cwrt_list(int argc, char **argv, struct err *e)
{
    static const struct opt table[] = {
        OPT_ROW(struct list_options, format, "format", 'f', OPT_STR, "FORMAT", "table",
                "table or json"),
        OPT_ROW(struct list_options, quiet, "quiet", 'q', OPT_FLAG, NULL, NULL, "ids only"),
        {0}};
    struct list_options o = {0};
    AUTO(str_list) struct str_list words = {0};
    int r = cwrt_flags(table, argc, argv, &o, &words, 0, 0, "cwrt list [flags]", e);

    if (r == 0)
        r = list_all(&o, e);
    opt_free(table, &o);
    return r < 0 ? -1 : 0;
}

int cwrt_pause(int argc, char **argv, struct err *e)
{
    AUTO(ctr) struct ctr *c = NULL;
    const struct ctr_info *info;
    int r = open_one(argc, argv, "cwrt pause ID", &c, e);

    if (r != 0)
        return r < 0 ? -1 : 0;
    if (ctr_info(c, &info, e) < 0)
        return -1;
    if (info->status != CTR_RUNNING && info->status != CTR_CREATED)
        return err_set(e, ERR_USER, "container not running: %s", ctr_status_name(info->status));
    return ctr_pause(c, true, e);
}

int cwrt_resume(int argc, char **argv, struct err *e)
{
    AUTO(ctr) struct ctr *c = NULL;
    const struct ctr_info *info;
    int r = open_one(argc, argv, "cwrt resume ID", &c, e);

    if (r != 0)
        return r < 0 ? -1 : 0;
    if (ctr_info(c, &info, e) < 0)
        return -1;
    if (info->status != CTR_PAUSED)
        return err_set(e, ERR_USER, "container not paused");
    return ctr_pause(c, false, e);
}

struct ps_options {
    char *format;
};

/* Like runc: the host's ps(1), and of its lines those of the container. */
static int ps_table(const int *pids, size_t n, const struct str_list *words, struct err *e)
{
    AUTO(str_list) struct str_list args = {0}, lines = {0};
    AUTO(str) struct str out = STR_INIT(16U << 20);
    struct proc_result result;

    str_list_add(&args, "ps");
    for (size_t i = 1; i < words->n; i++)
        str_list_add(&args, words->items[i]);
    if (words->n < 2)
        str_list_add(&args, "-ef");
    if (proc_run(args.items, NULL, NULL, 0, &out, NULL, 10000000000ULL, &result, e) < 0)
        return -1;
    str_list_split(&lines, str_text(&out), '\n');
    size_t column = 0, seen = 0;

    for (const char *p = lines.items[0]; *p; seen++) {
        p += strspn(p, " ");
        if (strncmp(p, "PID", 3) == 0 && strcspn(p, " ") == 3)
            column = seen;
        p += strcspn(p, " ");
    }
    printf("%s\n", lines.items[0]);
    for (size_t l = 1; l < lines.n; l++) {
        const char *p = lines.items[l];

        for (size_t i = 0; i < column; i++) {
            p += strspn(p, " ");
            p += strcspn(p, " ");
        }
        int pid = (int)strtol(p, NULL, 10);

        for (size_t i = 0; i < n; i++)
            if (pids[i] == pid)
                printf("%s\n", lines.items[l]);
    }
    return 0;
}

static int ps(const struct ps_options *o, const struct str_list *words, struct err *e)
{
    AUTO(ctr) struct ctr *c = NULL;
    AUTO_FREE int *pids = NULL;
    size_t n = 0;

    if (ctr_open(cwrt_global.root, words->items[0], &c, e) < 0 || ctr_pids(c, &pids, &n, e) < 0)
        return -1;
    if (!str_eq(o->format, "json"))
        return ps_table(pids, n, words, e);
    putchar('[');
    for (size_t i = 0; i < n; i++)
        printf(i ? ",%d" : "%d", pids[i]);
    puts("]");
    return 0;
}

int cwrt_ps(int argc, char **argv, struct err *e)
{
    static const struct opt table[] = {OPT_ROW(struct ps_options, format, "format", 'f', OPT_STR,
                                               "FORMAT", "table", "table or json"),
                                       {0}};
    struct ps_options o = {0};
    AUTO(str_list) struct str_list words = {0};
    int r = cwrt_flags(table, argc, argv, &o, &words, 1, 64, "cwrt ps [flags] ID [ps options]", e);

    if (r == 0)
        r = ps(&o, &words, e);
    opt_free(table, &o);
    return r < 0 ? -1 : 0;
}
