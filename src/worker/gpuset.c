#include "worker/gpuset.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/gpu.h"

bool gpuset_is_empty(const char *text)
{
    return str_eq(text, "") || str_eq(text, "NONE");
}

/* How often the list names this GPU. */
static unsigned named(const struct str_list *wanted, const struct ctr_gpu *g)
{
    char index[16];
    unsigned n = 0;

    snprintf(index, sizeof(index), "%u", g->index);
    for (size_t i = 0; i < wanted->n; i++)
        /* All instances of a divided GPU have its index; only the whole has a right to be called by it. */
        n += str_eq(wanted->items[i], g->uuid) || (!g->is_mig && str_eq(wanted->items[i], index));
    return n;
}

int gpuset_choose(const char *text, const struct ctr_gpu *all, size_t n, struct ctr_gpu **ret,
                  size_t *ret_n, void (*skipped)(const struct ctr_gpu *gpu), struct err *e)
{
    AUTO(str_list) struct str_list wanted = {0};
    AUTO_FREE struct ctr_gpu *chosen = mem_array(n + 1, sizeof(*chosen));
    size_t found = 0, offered = 0;
    bool every = str_eq(text, "ALL");

    if (!every && !gpuset_is_empty(text))
        str_list_split(&wanted, text, ',');
    for (size_t i = 0; i < n; i++) {
        unsigned times = named(&wanted, &all[i]);
        if (times > 1)
            return err_set(e, ERR_USER, "GPUSET_STR invalid: GPUs out of range");
        found += times;
        if (!every && !times)
            continue;
        if (all[i].usable)
            chosen[offered++] = all[i];
        else
            skipped(&all[i]);
    }
    if (found < wanted.n)
        return err_set(e, ERR_USER, "GPUSET_STR invalid: GPUs out of range");
    *ret = take_ptr(&chosen);
    *ret_n = offered;
    return 0;
}
