/* rows: S62 */
/* Any bytes as a trust policy, and as a public key: a policy that is taken admits or refuses, and says why. */
#include <string.h>

#include "base/err.h"
#include "base/pubkey.h"
#include "base/str.h"
#include "fuzz.h"
#include "oci/ref.h"
#include "oci/trust.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"
    static const char *const names[] = {"ubuntu", "quay.io/team/x:v1", ("h:5000/x@sha256:" ZEROS)};
    const char *text = n ? (const char *)data : "";
    AUTO(oci_trust) struct oci_trust *t = NULL;
    AUTO(pubkey) struct pubkey *k = NULL;
    struct err e = ERR_INIT;

    if (pubkey_parse(text, n, &k, &e) == 0)
        BUG_ON(pubkey_verifies(k, "x", 1, text, n));
    if (oci_trust_parse(text, n, "/nonexistent", &t, &e) < 0)
        return 0;
    for (size_t i = 0; i < 3; i++) {
        AUTO(oci_ref) struct oci_ref *ref = NULL;
        struct err why = ERR_INIT;

        BUG_ON(oci_ref_parse(names[i], &ref, &e) < 0);
        if (oci_trust_admits(t, ref, &why) < 0)
            BUG_ON(why.kind != ERR_USER || !str_starts(why.msg, "refused by the trust policy"));
        BUG_ON(oci_trust_wants_signature(t, ref)); /* no key can be read there */
    }
    return 0;
}
