/* Any bytes as a message between daemon and shim. */
#include "runtime/shim_proto.h"

#include <string.h>

#include "base/err.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct shim_msg m;
    struct err e = ERR_INIT;

    if (shim_msg_parse(data, n, &m, &e) < 0)
        return 0;
    BUG_ON(!memchr(m.text, 0, sizeof(m.text)));
    shim_msg_error(&m, &e);
    BUG_ON(e.kind <= ERR_NONE || e.kind > ERR_BUG || !memchr(e.msg, 0, sizeof(e.msg)));
    return 0;
}
