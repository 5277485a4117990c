/* rows: S16 S62 */
/* Any text as WWW-Authenticate: a bearer challenge that is taken has a realm, and no part is longer than the text. */
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "fuzz.h"
#include "oci/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTO_FREE char *text = mem_strndup(n ? (const char *)data : "", n);
    AUTO(oci_challenge) struct oci_challenge c = {0};
    struct err e = ERR_INIT;

    if (oci_challenge_parse(text, &c, &e) < 0)
        BUG_ON(e.kind != ERR_REMOTE);
    BUG_ON(c.bearer != (c.realm != NULL));
    BUG_ON(c.realm && strlen(c.realm) > strlen(text));
    BUG_ON((c.service || c.scope) && !c.bearer);
    return 0;
}
