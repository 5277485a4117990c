/* Any bytes as "user:group", /etc/passwd and /etc/group: three parts, divided by the first two NULs. */
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "fuzz.h"
#include "runtime/user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTO_FREE char *text = mem_alloc(n + 3);
    AUTO(ctr_user) struct ctr_user u = {0};
    struct err e = ERR_INIT;

    if (n)
        memcpy(text, data, n);
    memset(text + n, 0, 3);
    const char *passwd = text + strlen(text) + 1, *group = passwd + strlen(passwd) + 1;

    if (ctr_user_parse(text, passwd, group > text + n + 2 ? "" : group, &u, &e) == 0)
        BUG_ON(!u.home || u.home[0] != '/');
    return 0;
}
