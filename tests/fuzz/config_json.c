/* Any bytes as config.json: read, judged, planned, and the same again after writing. */
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "fuzz.h"
#include "runtime/plan.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"
#include "runtime/user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTO(ctr_spec) struct ctr_spec *s = NULL, *again = NULL;
    AUTO(launch_plan) struct launch_plan *p = NULL;
    struct ctr_user user = {.home = (char *)"/"};
    struct plan_input in = {.user = &user};
    struct err e = ERR_INIT;

    if (ctr_spec_from_json((const char *)data, n, &s, &e) < 0)
        return 0;
    AUTO_FREE char *first = ctr_spec_to_json(s);

    BUG_ON(ctr_spec_from_json(first, strlen(first), &again, &e) < 0);
    AUTO_FREE char *second = ctr_spec_to_json(again);

    BUG_ON(strcmp(first, second) != 0);
    if (ctr_spec_validate(s, &e) == 0 && plan_build(s, &in, &p, &e) == 0)
        free(plan_text(p));
    return 0;
}
