/* rows: S10 S62 */
/* Any bytes as ~/.docker/config.json, for three registries: what comes out can stand in a header, and no error shows a secret. */
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "fuzz.h"
#include "oci/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const hosts[] = {"registry-1.docker.io", "quay.io", "host:5000"};

    /* The name of a helper may well be shown. */
    bool helps = data && n && (memmem(data, n, "cred", 4) || memmem(data, n, "\\u", 2));

    for (size_t i = 0; i < 3; i++) {
        AUTO(oci_credentials) struct oci_credentials c = {0};
        struct err e = ERR_INIT;

        if (oci_credentials_read(n ? (const char *)data : "", n, hosts[i], "team/x", 0, &c, &e) < 0)
            BUG_ON(!helps && (strstr(e.msg, "c2VjcmV0") || strstr(e.msg, "secret")));
        BUG_ON((c.user != NULL) != (c.password != NULL));
        BUG_ON(c.registry_token && strpbrk(c.registry_token, " \r\n\t"));
    }
    return 0;
}
