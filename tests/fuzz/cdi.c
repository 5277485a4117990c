/* Any bytes as a CDI file, JSON or YAML: refused, or edits that leave a spec that can be freed and validated. */
#include "runtime/cdi.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/str.h"
#include "fuzz.h"
#include "runtime/spec.h"

static const char *scratch(void)
{
    static char path[] = "/tmp/fuzz-cdi-XXXXXX";
    static int made;

    if (!made)
        BUG_ON(!mkdtemp(path));
    made = 1;
    return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const devices[] = {"0", "all"};
    const char *dirs[] = {scratch()};
    AUTO_CLOSE int dir = open(dirs[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const char *name = n && data[0] == '{' ? "x.json" : "x.yaml";
    AUTO_CLOSE int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    AUTO(ctr_cdi) struct ctr_cdi *c = NULL;
    struct err e = ERR_INIT;

    BUG_ON(fd < 0 || fd_write_all(fd, data, n) < 0);
    if (ctr_cdi_load(dirs, 1, "nvidia.com/gpu", &c, &e) == 0 && c) {
        for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
            AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
            AUTO(str_list) struct str_list libs = {0};

            BUG_ON(ctr_cdi_check(c, &devices[i], 1, "535.1", &e) < 0 && e.kind == ERR_NONE);
            BUG_ON(ctr_cdi_apply(c, &devices[i], 1, s, &libs, &e) < 0 && e.kind == ERR_NONE);
        }
    }
    BUG_ON(unlinkat(dir, name, 0) < 0);
    return 0;
}
