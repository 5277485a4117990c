/* rows: S05 S62 */
/* Any bytes as an image archive: walked, and asked for what docker save and a layout would hold. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "fuzz.h"
#include "oci/local.h"
#include "oci/manifest.h"
#include "oci/ref.h"

static int drop(void *arg, const void *data, size_t n, struct err *e)
{
    (void)arg, (void)data, (void)n, (void)e;
    return 0;
}

static void ask(struct oci_ref *ref)
{
    AUTO(oci_local) struct oci_local *l = NULL;
    AUTO(str) struct str body = STR_INIT(BOUND_MANIFEST);
    AUTO(oci_doc) struct oci_doc doc = {0};
    AUTO_FREE char *type = NULL;
    char digest[DIGEST_TEXT_MAX];
    struct err e = ERR_INIT;

    if (oci_local_open(ref, &l, &e) < 0 ||
        oci_local_manifest(l, NULL, &body, &type, digest, &e) < 0 ||
        oci_doc_parse(str_text(&body), body.len, type, &doc, &e) < 0)
        return;
    BUG_ON(!digest_is_valid(digest));
    for (size_t i = 0; i < doc.n_layers; i++)
        if (oci_local_blob(l, &doc.layers[i], 0, drop, NULL, &e) < 0)
            return;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    int fd = memfd_create("archive", MFD_CLOEXEC);
    AUTO_FREE char *path = mem_printf("/proc/self/fd/%d", fd);
    struct oci_ref ref = {.path = path};

    BUG_ON(fd < 0 || fd_write_all(fd, data, n) < 0);
    ref.transport = OCI_DOCKER_ARCHIVE;
    ask(&ref);
    ref.transport = OCI_ARCHIVE;
    ask(&ref);
    close(fd);
    return 0;
}
