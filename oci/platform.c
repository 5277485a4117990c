#include "oci/platform.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/str.h"

static const struct {
    const char *machine, *arch, *variant;
} machines[] = {
    {"x86_64", "amd64", "v1"},  {"aarch64", "arm64", "v8"},     {"armv7l", "arm", "v7"},
    {"armv8l", "arm", "v7"},    {"armv6l", "arm", "v6"},        {"i386", "386", ""},
    {"i686", "386", ""},        {"ppc64le", "ppc64le", ""},     {"s390x", "s390x", ""},
    {"riscv64", "riscv64", ""}, {"loongarch64", "loong64", ""},
};

/* x86-64 psABI levels; what the compiler's run-time probe covers decides. */
static const char *amd64_level(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt") &&
              __builtin_cpu_supports("ssse3");
    bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
              __builtin_cpu_supports("fma");
    bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vl");

    return v4 ? "v4" : v3 ? "v3" : v2 ? "v2" : "v1";
#else
    return "v1";
#endif
}

void oci_platform_host(struct oci_platform *ret)
{
    struct utsname u;
    const char *arch = "unknown", *variant = "";

    uname(&u);
    for (size_t i = 0; i < ARRAY_SIZE(machines); i++) {
        if (!str_eq(machines[i].machine, u.machine))
            continue;
        arch = machines[i].arch;
        variant = machines[i].variant;
    }
    if (str_eq(arch, "amd64"))
        variant = amd64_level();
    *ret = (struct oci_platform){.os = "linux"};
    snprintf(ret->arch, sizeof(ret->arch), "%s", arch);
    snprintf(ret->variant, sizeof(ret->variant), "%s", variant);
}

/* "v7" is 7; what no variant means differs by architecture: the base level, for arm v7, arm64 v8. */
static int level(const char *arch, const char *variant)
{
    if (!*variant)
        return str_eq(arch, "arm") ? 7 : str_eq(arch, "arm64") ? 8 : 1;
    if (variant[0] != 'v' || variant[1] < '1' || variant[1] > '9' || variant[2])
        return -1;
    return variant[1] - '0';
}

int oci_platform_score(const struct oci_platform *host, const struct oci_platform *offered)
{
    if (!str_eq(host->os, offered->os) || !str_eq(host->arch, offered->arch))
        return 0;
    if (str_eq(host->variant, offered->variant))
        return 100;
    int have = level(host->arch, host->variant), want = level(offered->arch, offered->variant);

    return want < 0 || want > have ? 0 : 1 + want;
}

char *oci_platform_text(const struct oci_platform *p, char buf[OCI_PLATFORM_TEXT])
{
    snprintf(buf, OCI_PLATFORM_TEXT, "%s/%s%s%s", p->os, p->arch, *p->variant ? "/" : "",
             p->variant);
    return buf;
}
