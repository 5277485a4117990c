#include "runtime/caps.h"

#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <linux/capability.h>

#include "base/err.h"
#include "base/str.h"
#include "runtime/names.h"

static bool is_known(unsigned cap)
{
    return prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0;
}

uint64_t ctr_caps_all(void)
{
    /* The kernel's answer is the same each time. Threads that find it empty together store the same. */
    static _Atomic uint64_t known;

    if (known)
        return known;
    /* They have no gaps: two questions, unless the kernel is older or newer than the headers we were built with. */
    unsigned last = CAP_LAST_CAP;

    while (last < 63 && is_known(last + 1))
        last++;
    while (last > 0 && !is_known(last))
        last--;
    known = ~0ULL >> (63 - last);
    return known;
}

static int find(const char *name, uint64_t *ret_bit)
{
    const char *bare = strncasecmp(name, "CAP_", 4) == 0 ? name + 4 : name;

    for (const struct name_value *c = ctr_names_capabilities; c->name; c++) {
        if (strcasecmp(c->name + 4, bare) == 0) {
            *ret_bit = 1ULL << c->value;
            return 0;
        }
    }
    return -1;
}

int ctr_caps_parse(const struct str_list *names, uint64_t *ret, struct err *e)
{
    char shown[STR_SHOW_MAX];
    uint64_t all = ctr_caps_all(), mask = 0, bit = 0;

    for (size_t i = 0; i < names->n; i++) {
        if (strcasecmp(names->items[i], "ALL") == 0)
            bit = all;
        else if (find(names->items[i], &bit) < 0)
            return err_set(e, ERR_USER, "unknown capability '%s'",
                           str_show(shown, names->items[i]));
        /* Known to us but not to this kernel: nothing can be granted and nothing is lost. */
        mask |= bit & all;
    }
    *ret = mask;
    return 0;
}

void ctr_caps_names(uint64_t mask, struct str_list *ret)
{
    for (const struct name_value *c = ctr_names_capabilities; c->name; c++)
        if (mask >> c->value & 1)
            str_list_add(ret, c->name);
}
