/* Any bytes as a check-in's answer (S62): what gets through is whole, inside its bounds, and leads nowhere outside a bundle. */
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/path.h"
#include "fuzz.h"
#include "worker/protocol.h"

static void check_bundle(const struct bundle *b)
{
    BUG_ON(!protocol_is_uuid(b->uuid) || !b->command || !b->image || !b->store);
    BUG_ON(b->cpus < 0 || b->gpus < 0 || b->memory < 1 || b->n_deps > BOUND_BUNDLE_DEPENDENCIES);
    for (size_t i = 0; i < b->n_deps; i++) {
        const struct bundle_dep *d = &b->deps[i];
        struct err e = ERR_INIT;

        BUG_ON(!d->child_path || !protocol_is_uuid(d->parent_uuid) || !d->parent_path);
        if (protocol_check_child_path(d->child_path, &e) < 0)
            continue;
        AUTO_FREE char *plain = path_normalize(d->child_path);

        BUG_ON(!plain || strstr(d->child_path, "/../") || str_starts(d->child_path, "../"));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTO(cJSON) cJSON *answer = NULL;
    AUTO(str_list) struct str_list notes = {0};
    struct action *list = NULL;
    struct err e = ERR_INIT;

    if (json_parse((const char *)data, n, &answer, &e) < 0)
        return 0;
    protocol_read_actions(answer, &list, &notes);
    for (const struct action *a = list; a; a = a->next) {
        BUG_ON(!protocol_is_uuid(a->uuid));
        BUG_ON(a->type == ACTION_KILL && !a->kill_message);
        BUG_ON((a->type == ACTION_WRITE || a->type == ACTION_READ) && !a->path);
        BUG_ON((a->type == ACTION_WRITE || a->type == ACTION_NETCAT) && !a->text);
        BUG_ON(a->type == ACTION_READ && !cJSON_IsObject(a->read_args));
        if (a->type == ACTION_RUN)
            check_bundle(a->bundle);
    }
    for (size_t i = 0; i < notes.n; i++) /* they go to the log */
        for (const char *p = notes.items[i]; *p; p++)
            BUG_ON(*p < ' ' || *p > '~');
    action_list_free(list);
    return 0;
}
