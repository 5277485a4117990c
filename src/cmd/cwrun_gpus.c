#include "cmd/cwrun_gpus.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/str.h"
#include "base/units.h"
#include "runtime/gpu.h"
#include "runtime/spec.h"

static int choose(const char *text, struct str_list *ret, struct err *e)
{
    AUTO_FREE struct ctr_gpu *list = NULL;
    uint64_t wanted = UINT64_MAX;
    size_t n = 0;

    if (strncmp(text, "GPU-", 4) == 0 || strncmp(text, "MIG-", 4) == 0) {
        str_list_split(ret, text, ',');
        return 0;
    }
    if (!str_eq(text, "all") && units_u64(text, 256, &wanted, e) < 0)
        return err_wrap(e, "--gpus");
    if (ctr_gpu_list(&list, &n, e) < 0)
        return -1;
    for (size_t i = 0; i < n && ret->n < wanted; i++)
        if (list[i].usable)
            str_list_add(ret, list[i].uuid);
    if (ret->n < wanted && !str_eq(text, "all"))
        return err_set(e, ERR_ABSENT, "--gpus %s: this host has %zu that can be used", text,
                       ret->n);
    return 0;
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
