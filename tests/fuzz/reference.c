/* rows: S07 S62 */
/* Any text as an image reference: what is taken names a registry, has a grammar throughout, and reads the same again. */
#include <string.h>

#include "base/digest.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "fuzz.h"
#include "oci/ref.h"

/* Nothing that could leave its place in a URL, a file name or a header. */
static void check_part(const char *text)
{
    BUG_ON(!*text || strstr(text, "..") || strpbrk(text, " \t\r\n\"'\\?#%&"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTO_FREE char *text = mem_strndup(n ? (const char *)data : "", n);
    AUTO(oci_ref) struct oci_ref *ref = NULL;
    AUTO(oci_ref) struct oci_ref *again = NULL;
    struct err e = ERR_INIT;

    if (oci_ref_parse(text, &ref, &e) < 0) {
        BUG_ON(e.kind != ERR_USER);
        return 0;
    }
    BUG_ON(ref->transport != OCI_REGISTRY || ref->path || (!ref->tag && !ref->digest));
    check_part(ref->registry);
    check_part(ref->repository);
    BUG_ON(strpbrk(ref->repository, ":@") || strchr(ref->registry, '/'));
    BUG_ON(ref->digest && !digest_is_valid(ref->digest));
    AUTO_FREE char *canonical = oci_ref_text(ref), *familiar = oci_ref_familiar(ref);

    BUG_ON(oci_ref_parse(familiar, &again, &e) < 0);
    AUTO_FREE char *same = oci_ref_text(again);

    BUG_ON(!str_eq(canonical, same));
    return 0;
}
