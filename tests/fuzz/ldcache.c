/* Any bytes as an image's loader cache: what comes out is a cache again, and holds what was put in. */
#include "runtime/ldcache.h"

#include "base/err.h"
#include "base/str.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct ldcache_entry add[] = {{"libcuda.so.1", "/usr/lib/libcuda.so.1"}};
    AUTO(str) struct str first = STR_INIT(8 << 20);
    AUTO(str) struct str second = STR_INIT(8 << 20);
    struct err e = ERR_INIT;

    if (ldcache_merge(data, n, add, 1, &first, &e) < 0)
        return 0;
    BUG_ON(ldcache_merge(str_text(&first), first.len, add, 1, &second, &e) < 0);
    BUG_ON(first.len != second.len || memcmp(str_text(&first), str_text(&second), first.len) != 0);
    return 0;
}
