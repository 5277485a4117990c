#include "cmd/cwrun_gpus.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "runtime/gpu.h"
#include "runtime/spec.h"

/* "2", "1:0" (the first instance of GPU 1, as NVIDIA's tools count), or a UUID: what it means on this host. */
static const char *find(const struct ctr_gpu *list, size_t n, const char *word)
{
    unsigned gpu = UINT_MAX, instance = UINT_MAX, seen = 0;
    char rest;
    bool is_mig = sscanf(word, "%u:%u%c", &gpu, &instance, &rest) == 2;

    if (!is_mig && sscanf(word, "%u%c", &gpu, &rest) != 1)
        return word;
    for (size_t i = 0; i < n; i++) {
        if (list[i].index != gpu || list[i].is_mig != is_mig)
            continue;
        if (!is_mig || seen++ == instance)
            return list[i].uuid;
    }
    return NULL;
}

static int choose_named(const struct ctr_gpu *list, size_t n, const char *names,
                        struct str_list *ret, struct err *e)
{
    AUTO(str_list) struct str_list words = {0};

    str_list_split(&words, names, ',');
    for (char **word = words.items; word && *word; word++) {
        const char *uuid = find(list, n, *word);
        char shown[STR_SHOW_MAX];

        if (!uuid)
            return err_set(e, ERR_ABSENT, "--gpus: this host has no GPU %s",
                           str_show(shown, *word));
        if (!str_list_has(ret, uuid))
            str_list_add(ret, uuid);
    }
    return 0;
}

static int choose_some(const struct ctr_gpu *list, size_t n, const char *text, struct str_list *ret,
                       struct err *e)
{
    bool all = str_eq(text, "all") || str_eq(text, "-1");
    uint64_t wanted = UINT64_MAX;

    if (!all && units_u64(text, 256, &wanted, e) < 0)
        return err_wrap(e, "--gpus");
    for (size_t i = 0; i < n && ret->n < wanted; i++)
        if (list[i].usable)
            str_list_add(ret, list[i].uuid);
    if (ret->n < wanted && !all)
        return err_set(e, ERR_ABSENT, "--gpus %s: this host has %zu that can be used", text,
                       ret->n);
    return 0;
}

/* Docker's users write '"device=0,2"', with the quotes that its command line needs; here they may be left out. */
static char *without_quotes(const char *text)
{
    size_t n = strlen(text);

    return n >= 2 && text[0] == '"' && text[n - 1] == '"' ? mem_strndup(text + 1, n - 2)
                                                          : mem_strdup(text);
}

static int choose(const char *given, struct str_list *ret, struct err *e)
{
    AUTO_FREE struct ctr_gpu *list = NULL;
    AUTO_FREE char *text = without_quotes(given);
    size_t n = 0;

    if (ctr_gpu_list(&list, &n, e) < 0)
        return -1;
    if (str_starts(text, "device="))
        return choose_named(list, n, text + strlen("device="), ret, e);
    if (str_starts(text, "GPU-") || str_starts(text, "MIG-"))
        return choose_named(list, n, text, ret, e);
    return choose_some(list, n, str_starts(text, "count=") ? text + strlen("count=") : text, ret,
                       e);
}

int cwrun_add_gpus(const char *text, struct ctr_spec *s, const char *scratch, struct err *e)
{
    AUTO(str_list) struct str_list uuids = {0};

    if (choose(text, &uuids, e) < 0 ||
        ctr_gpu_edit_spec(s, (const char *const *)uuids.items, uuids.n, scratch, e) < 0)
        return -1;
    const char *note = ctr_spec_annotation(s, CTR_GPU_NOTE);

    if (note)
        fprintf(stderr, "cwrun: CDI specification not used: %s\n", note);
    return 0;
}
