/*
 * Every field of config.json that concerns Linux (runtime-spec 1.3): it changes the plan of the launch or the limits of
 * the group, or it is kept for those who act on it later, or it is refused by its name. Never is it passed over.
 */
#include <cjson/cJSON.h>

#include "base/json.h"
#include "base/mem.h"
#include "runtime/cgroup_limits.h"
#include "runtime/plan.h"
#include "runtime/seccomp.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"
#include "runtime/user.h"
#include "tests/unit/test.h"

static const char base[] =
    "{\"ociVersion\":\"1.3.0\",\"root\":{\"path\":\"r\"},\"process\":{\"args\":[\"/x\"],\"cwd\":\"/\"},\"linux\":{\"namespaces\":["
    "{\"type\":\"mount\"},{\"type\":\"pid\"},{\"type\":\"network\"},{\"type\":\"uts\"},{\"type\":\"ipc\"},{\"type\":\"cgroup\"}]}}";

enum how {
    PLAN,  /* the plan of the launch says it */
    LIMIT, /* the group's files say it */
    KEPT, /* it comes back in the document the container is remembered by; acted on by launch, hooks, container */
    REFUSED, /* an error that says it */
};

#define MOUNT(rest)  "{\"mounts\":[{\"destination\":\"/d\"," rest "}]}"
#define BIND(option) MOUNT("\"type\":\"bind\",\"source\":\"/s\",\"options\":[\"" option "\"]")
#define LINUX(rest)  "{\"linux\":{" rest "}}"
#define RES(rest)    "{\"linux\":{\"resources\":{" rest "}}}"
#define PROC(rest)   "{\"process\":{" rest "}}"
#define NS(type)     "{\"linux\":{\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"" type "\"}]}}"
#define NS_AT(type) \
    "{\"linux\":{\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"" type "\",\"path\":\"/n\"}]}}"
#define SECCOMP(rest) "{\"linux\":{\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ALLOW\"," rest "}}}"
#define USERNS                                                                                       \
    "\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"user\"}],\"uidMappings\":[{\"containerID\":0," \
    "\"hostID\":7000,\"size\":9}],\"gidMappings\":[{\"containerID\":0,\"hostID\":8000,\"size\":9}]"

static const struct {
    const char *patch; /* merged into the base */
    enum how how;
    const char *says;
} rows[] = {
    /* config.md */
    {"{\"ociVersion\":\"1.4.0\"}", REFUSED, "ociVersion"},
    {"{\"root\":{\"path\":\"elsewhere\"}}", KEPT, "\"path\":\"elsewhere\""},
    {"{\"root\":{\"readonly\":true}}", PLAN, "setattr / 0x1"},
    {"{\"hostname\":\"h\"}", PLAN, "hostname h"},
    {"{\"domainname\":\"d\"}", PLAN, "domainname d"},
    {"{\"annotations\":{\"a\":\"b\"}}", KEPT, "\"a\":\"b\""},
    {"{\"windows\":{\"x\":1}}", REFUSED, "windows"},
    {"{\"vm\":{\"x\":1}}", REFUSED, "vm"},
    {"{\"solaris\":{\"x\":1}}", REFUSED, "solaris"},
    {"{\"zos\":{\"x\":1}}", REFUSED, "zos"},
    {"{\"freebsd\":{\"x\":1}}", REFUSED, "freebsd"},
    /* hooks */
    {"{\"hooks\":{\"prestart\":[{\"path\":\"/h\",\"args\":[\"a\"],\"env\":[\"E=1\"],\"timeout\":7}]}}",
     KEPT, "\"timeout\":7"},
    {"{\"hooks\":{\"createRuntime\":[{\"path\":\"/h\"}]}}", KEPT, "createRuntime"},
    {"{\"hooks\":{\"createContainer\":[{\"path\":\"/h\"}]}}", KEPT, "createContainer"},
    {"{\"hooks\":{\"startContainer\":[{\"path\":\"/h\"}]}}", KEPT, "startContainer"},
    {"{\"hooks\":{\"poststart\":[{\"path\":\"/h\"}]}}", KEPT, "poststart"},
    {"{\"hooks\":{\"poststop\":[{\"path\":\"/h\"}]}}", KEPT, "poststop"},
    {"{\"hooks\":{\"poststop\":[{\"path\":\"h\"}]}}", REFUSED, "hooks.poststop[0]"},
    {"{\"hooks\":{\"poststop\":[{\"path\":\"/h\",\"timeout\":0}]}}", REFUSED, "timeout"},
    /* mounts */
    {MOUNT("\"type\":\"tmpfs\",\"source\":\"s\",\"options\":[\"size=5m\"]"), PLAN,
     "tmpfs source=s size=5m"},
    {MOUNT("\"type\":\"bind\",\"source\":\"/s\""), PLAN, "bind /s"},
    {BIND("rbind"), PLAN, "bind /s recursive"},
    {BIND("ro"), PLAN, " set 0x1 "},
    {BIND("nosuid"), PLAN, " set 0x2 "},
    {BIND("suid"), PLAN, " set 0 clear 0x2"},
    {BIND("nodev"), PLAN, " set 0x4 "},
    {BIND("dev"), PLAN, " set 0 clear 0x4"},
    {BIND("noexec"), PLAN, " set 0x8 "},
    {BIND("exec"), PLAN, " set 0 clear 0x8"},
    {BIND("noatime"), PLAN, " set 0x10 clear 0x70"},
    {BIND("relatime"), PLAN, " set 0 clear 0x70"},
    {BIND("strictatime"), PLAN, " set 0x20 clear 0x70"},
    {BIND("nodiratime"), PLAN, " set 0x80 "},
    {BIND("diratime"), PLAN, " set 0 clear 0x80"},
    {BIND("nosymfollow"), PLAN, " set 0x200000 "},
    {BIND("symfollow"), PLAN, " set 0 clear 0x200000"},
    {BIND("rro"), PLAN, "tree set 0x1 "},
    {BIND("rrw"), PLAN, "tree set 0 clear 0x1"},
    {BIND("rnosuid"), PLAN, "tree set 0x2 "},
    {BIND("rnodev"), PLAN, "tree set 0x4 "},
    {BIND("rnoexec"), PLAN, "tree set 0x8 "},
    {BIND("rnoatime"), PLAN, "tree set 0x10 clear 0x70"},
    {BIND("rnodiratime"), PLAN, "tree set 0x80 "},
    {BIND("rnosymfollow"), PLAN, "tree set 0x200000 "},
    {BIND("private"), PLAN, "propagation 0x40000\n"},
    {BIND("rprivate"), PLAN, "propagation 0x44000\n"},
    {BIND("slave"), PLAN, "propagation 0x80000\n"},
    {BIND("rslave"), PLAN, "propagation 0x84000\n"},
    {BIND("shared"), PLAN, "propagation 0x100000\n"},
    {BIND("rshared"), PLAN, "propagation 0x104000\n"},
    {BIND("unbindable"), PLAN, "propagation 0x20000\n"},
    {BIND("runbindable"), PLAN, "propagation 0x24000\n"},
    {BIND("remount"), PLAN, "remount /d"},
    {MOUNT("\"type\":\"tmpfs\",\"options\":[\"sync\"]"), PLAN, "tmpfs sync"},
    {MOUNT("\"type\":\"tmpfs\",\"options\":[\"dirsync\"]"), PLAN, "tmpfs dirsync"},
    {MOUNT("\"type\":\"tmpfs\",\"options\":[\"lazytime\"]"), PLAN, "tmpfs lazytime"},
    {MOUNT("\"type\":\"tmpfs\",\"options\":[\"tmpcopyup\"]"), PLAN, "copy-up slot 1 /d"},
    {BIND("tmpcopyup"), REFUSED, "tmpcopyup"},
    {BIND("idmap"), REFUSED, "option idmap"},
    {MOUNT(
         "\"type\":\"bind\",\"source\":\"/s\",\"options\":[\"ridmap\"],\"uidMappings\":[{\"containerID\":0,\"hostID\":5,\"size\":1}],"
         "\"gidMappings\":[{\"containerID\":0,\"hostID\":6,\"size\":1}]"),
     PLAN, "idmap=mount"},
    {MOUNT(
         "\"type\":\"bind\",\"source\":\"/s\",\"gidMappings\":[{\"containerID\":0,\"hostID\":6,\"size\":1}]"),
     REFUSED, "uidMappings"},
    {MOUNT("\"type\":\"tmpfs\",\"uidMappings\":[{\"containerID\":0,\"hostID\":5,\"size\":1}],"
           "\"gidMappings\":[{\"containerID\":0,\"hostID\":6,\"size\":1}]"),
     REFUSED, "ids can be mapped on a bind"},
    {BIND("idmap=uids=0-1-10;gids=0-2-10"), KEPT, "\"hostID\":2"},
    {BIND("idmap=uids=0-1;gids=0-2-10"), REFUSED, "idmap=uids"},
    /* process */
    {PROC("\"args\":[]"), REFUSED, "process.args"},
    {PROC("\"args\":[\"/x\",\"y z\"]"), PLAN, "arg y z"},
    {PROC("\"env\":[\"A=b\"]"), PLAN, "env A=b"},
    {PROC("\"cwd\":\"/w\""), PLAN, "chdir /w"},
    {PROC("\"cwd\":\"w\""), REFUSED, "process.cwd"},
    {PROC("\"terminal\":true,\"consoleSize\":{\"height\":24,\"width\":80}"), REFUSED, "devpts"},
    {"{\"mounts\":[{\"destination\":\"/dev/pts\",\"type\":\"devpts\"}],\"process\":{\"terminal\":true,\"consoleSize\":{\"height\":24,\"width\":80}}}",
     PLAN, "console slot 1 /dev/console 0x180050"},
    {PROC("\"commandLine\":\"x\""), REFUSED, "commandLine"},
    {PROC("\"user\":{\"username\":\"x\"}"), REFUSED, "username"},
    {PROC("\"user\":{\"umask\":63}"), PLAN, "umask 0077"},
    {PROC("\"user\":{\"uid\":-1}"), REFUSED, "uid"},
    {PROC("\"user\":{\"uid\":5,\"gid\":6,\"additionalGids\":[7]}"), KEPT, "\"additionalGids\":[7]"},
    {PROC("\"capabilities\":{\"bounding\":[\"CAP_KILL\"]}"), PLAN, "bounding 0x20"},
    {PROC("\"capabilities\":{\"effective\":[\"CAP_KILL\"]}"), PLAN, "effective 0x20 "},
    {PROC("\"capabilities\":{\"permitted\":[\"CAP_KILL\"]}"), PLAN, "permitted 0x20 "},
    {PROC("\"capabilities\":{\"inheritable\":[\"CAP_KILL\"]}"), PLAN, "inheritable 0x20 "},
    {PROC(
         "\"capabilities\":{\"ambient\":[\"CAP_KILL\"],\"permitted\":[\"CAP_KILL\"],\"inheritable\":[\"CAP_KILL\"]}"),
     PLAN, "ambient 0x20\n"},
    {PROC("\"capabilities\":{\"bounding\":[\"CAP_FLY\"]}"), REFUSED, "CAP_FLY"},
    {PROC("\"rlimits\":[{\"type\":\"RLIMIT_CPU\",\"soft\":5,\"hard\":6}]"), PLAN, "rlimit 0 5 6"},
    {PROC("\"rlimits\":[{\"type\":\"RLIMIT_X\",\"soft\":5,\"hard\":6}]"), REFUSED, "RLIMIT_X"},
    {PROC("\"noNewPrivileges\":true"), PLAN, "no-new-privs"},
    {PROC("\"oomScoreAdj\":9"), PLAN, "oom-score slot 1 9"},
    {PROC("\"apparmorProfile\":\"p\""), PLAN, "apparmor/exec exec p"},
    {PROC("\"selinuxLabel\":\"l\""), PLAN, "exec-label slot 1 exec l"},
    {PROC(
         "\"scheduler\":{\"policy\":\"SCHED_BATCH\",\"nice\":3,\"priority\":0,\"flags\":[\"SCHED_FLAG_RESET_ON_FORK\"]}"),
     PLAN, "scheduler"},
    {PROC(
         "\"scheduler\":{\"policy\":\"SCHED_DEADLINE\",\"runtime\":70,\"deadline\":80,\"period\":90}"),
     PLAN, "scheduler 6 70 80 90"},
    {PROC("\"scheduler\":{\"policy\":\"SCHED_NOW\"}"), REFUSED, "scheduler.policy"},
    {PROC("\"scheduler\":{\"policy\":\"SCHED_FIFO\",\"flags\":[\"X\"]}"), REFUSED,
     "scheduler.flags"},
    {PROC("\"ioPriority\":{\"class\":\"IOPRIO_CLASS_BE\",\"priority\":3}"), PLAN,
     "io-priority 0x4003"},
    {PROC("\"ioPriority\":{\"class\":\"X\"}"), REFUSED, "ioPriority"},
    {PROC("\"execCPUAffinity\":{\"initial\":\"0\",\"final\":\"0-1\"}"), KEPT, "\"final\":\"0-1\""},
    {PROC("\"execCPUAffinity\":{\"initial\":\"z\"}"), REFUSED, "execCPUAffinity.initial"},
    /* linux: namespaces */
    {NS("pid"), PLAN, "namespaces 0x20020000"},
    {NS("network"), PLAN, "namespaces 0x40020000"},
    {NS("ipc"), PLAN, "namespaces 0x8020000"},
    {NS("uts"), PLAN, "namespaces 0x4020000"},
    {NS("cgroup"), PLAN, "new-cgroup-ns"},
    {NS("time"), PLAN, "namespaces 0x20080"},
    {NS("moon"), REFUSED, "moon"},
    {NS_AT("pid"), KEPT, "\"path\":\"/n\""},
    {NS_AT("user"), PLAN, "wait-maps"},
    {NS_AT("time"), KEPT, "\"path\":\"/n\""},
    {"{\"linux\":{\"namespaces\":[{\"type\":\"mount\",\"path\":\"/n\"}]}}", PLAN, "namespaces 0\n"},
    {"{\"linux\":{\"namespaces\":[{\"type\":\"mount\",\"path\":\"n\"}]}}", REFUSED, "not absolute"},
    {"{\"linux\":{\"namespaces\":[]}}", PLAN, "chroot slot 0 /root/of/it"},
    {LINUX(USERNS), PLAN, "wait-maps"},
    {LINUX(USERNS), KEPT, "\"hostID\":8000"},
    {NS("user"), REFUSED, "uidMappings"},
    {LINUX("\"uidMappings\":[{\"containerID\":0,\"hostID\":1,\"size\":1}]"), REFUSED,
     "uidMappings"},
    {LINUX("\"timeOffsets\":{\"monotonic\":{\"secs\":1}}"), REFUSED, "time namespace"},
    {LINUX(
         "\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"time\"}],\"timeOffsets\":{\"boottime\":{\"secs\":-1,\"nanosecs\":5}}"),
     KEPT, "\"secs\":-1"},
    /* linux: the rest */
    {LINUX(
         "\"devices\":[{\"path\":\"/dev/q\",\"type\":\"b\",\"major\":1,\"minor\":2,\"fileMode\":384,\"uid\":3,\"gid\":4}]"),
     PLAN, "mknod /dev/q 060600 1:2 owner 3:4"},
    {LINUX("\"devices\":[{\"path\":\"/dev/q\",\"type\":\"x\",\"major\":1}]"), REFUSED,
     "linux.devices[0]"},
    {LINUX("\"netDevices\":{\"eth0\":{\"name\":\"in0\"}}"), KEPT,
     "\"netDevices\":{\"eth0\":{\"name\":\"in0\"}}"},
    {LINUX("\"netDevices\":{\"eth0\":{\"name\":\"in/0\"}}"), REFUSED, "netDevices"},
    {LINUX("\"namespaces\":[{\"type\":\"mount\"}],\"netDevices\":{\"eth0\":{}}"), REFUSED,
     "netDevices"},
    {LINUX("\"cgroupsPath\":\"/a/b\""), KEPT, "\"cgroupsPath\":\"/a/b\""},
    {LINUX("\"rootfsPropagation\":\"rslave\""), PLAN, "propagation 0x84000"},
    {LINUX("\"rootfsPropagation\":\"x\""), REFUSED, "rootfsPropagation"},
    {LINUX("\"sysctl\":{\"net.core.somaxconn\":\"9\"}"), PLAN,
     "sysctl slot 1 net/core/somaxconn 9"},
    {LINUX("\"sysctl\":{\"vm.swappiness\":\"9\"}"), REFUSED, "vm.swappiness"},
    {LINUX("\"sysctl\":{\"kernel.hostname\":\"x\"}"), REFUSED, "kernel.hostname"},
    {"{\"domainname\":\"a\",\"linux\":{\"sysctl\":{\"kernel.domainname\":\"b\"}}}", REFUSED,
     "kernel.domainname contradicts the field domainname"},
    {"{\"domainname\":\"a\",\"linux\":{\"sysctl\":{\"kernel.domainname\":\"a\"}}}", PLAN,
     "sysctl slot 1 kernel/domainname a"},
    {LINUX("\"sysctl\":{\"kernel.domainname\":\"b\"}"), PLAN, "sysctl slot 1 kernel/domainname b"},
    {"{\"hostname\":\"a\",\"linux\":{\"sysctl\":{\"kernel.hostname\":\"b\"}}}", REFUSED,
     "kernel.hostname is the field hostname"},
    {LINUX("\"maskedPaths\":[\"/m\"]"), PLAN, "mask slot 1 /m"},
    {LINUX("\"readonlyPaths\":[\"/o\"]"), PLAN, "readonly /o"},
    {"{\"mounts\":[{\"destination\":\"/d\",\"type\":\"tmpfs\"}],\"linux\":{\"mountLabel\":\"l\"}}",
     PLAN, "tmpfs context=l"},
    {LINUX("\"personality\":{\"domain\":\"LINUX32\"}"), PLAN, "personality 0x8"},
    {LINUX("\"personality\":{\"domain\":\"BSD\"}"), REFUSED, "personality"},
    {LINUX("\"personality\":{\"domain\":\"LINUX\",\"flags\":[\"X\"]}"), REFUSED,
     "personality.flags"},
    {LINUX("\"intelRdt\":{\"closID\":\"x\"}"), KEPT, "\"closID\":\"x\""},
    {LINUX("\"intelRdt\":{\"closID\":\"a/b\"}"), REFUSED, "closID"},
    {LINUX("\"intelRdt\":{\"closID\":\"info\"}"), REFUSED, "closID"},
    {LINUX("\"intelRdt\":{\"l3CacheSchema\":\"L3:0=f\"}"), KEPT, "L3:0=f"},
    {LINUX("\"intelRdt\":{\"memBwSchema\":\"MB:0=20\"}"), KEPT, "MB:0=20"},
    {LINUX("\"intelRdt\":{\"memBwSchema\":\"0=20\"}"), REFUSED, "memBwSchema"},
    {LINUX("\"intelRdt\":{\"schemata\":[\"L2:0=f\"]}"), KEPT, "L2:0=f"},
    {LINUX("\"intelRdt\":{\"enableMonitoring\":true}"), KEPT, "enableMonitoring"},
    {LINUX("\"intelRdt\":{\"enableCMT\":true}"), KEPT, "enableMonitoring"},
    {LINUX("\"intelRdt\":{\"enableMBM\":true}"), KEPT, "enableMonitoring"},
    {LINUX(
         "\"memoryPolicy\":{\"mode\":\"MPOL_BIND\",\"nodes\":\"0\",\"flags\":[\"MPOL_F_STATIC_NODES\"]}"),
     PLAN, "mem-policy 0x8002"},
    {LINUX("\"memoryPolicy\":{\"mode\":\"MPOL_X\"}"), REFUSED, "memoryPolicy.mode"},
    {LINUX("\"memoryPolicy\":{\"mode\":\"MPOL_BIND\",\"flags\":[\"X\"]}"), REFUSED,
     "memoryPolicy.flags"},
    {LINUX("\"memoryPolicy\":{\"mode\":\"MPOL_BIND\",\"nodes\":\"x\"}"), REFUSED,
     "memoryPolicy.nodes"},
    /* linux.seccomp */
    {LINUX("\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":38}"), PLAN,
     "seccomp"},
    {SECCOMP("\"architectures\":[\"SCMP_ARCH_X86_64\",\"SCMP_ARCH_X86\"]"), PLAN, "seccomp"},
    {SECCOMP("\"architectures\":[\"SCMP_ARCH_VAX\"]"), REFUSED, "SCMP_ARCH_VAX"},
    {SECCOMP("\"flags\":[\"SECCOMP_FILTER_FLAG_LOG\"]"), PLAN, "flags 0x2"},
    {SECCOMP("\"flags\":[\"X\"]"), REFUSED, "unknown flag"},
    {SECCOMP(
         "\"listenerPath\":\"/l\",\"listenerMetadata\":\"m\",\"syscalls\":[{\"names\":[\"mkdir\"],\"action\":\"SCMP_ACT_NOTIFY\"}]"),
     PLAN, "listener /l m"},
    {SECCOMP("\"listenerMetadata\":\"m\""), REFUSED, "listenerPath"},
    {SECCOMP(
         "\"syscalls\":[{\"names\":[\"mkdir\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":5,\"args\":[{\"index\":1,\"value\":7,\"valueTwo\":7,\"op\":\"SCMP_CMP_MASKED_EQ\"}]}]"),
     PLAN, "seccomp"},
    {SECCOMP("\"syscalls\":[{\"names\":[\"mkdir\"],\"action\":\"X\"}]"), REFUSED, "unknown action"},
    /* linux.resources */
    {RES("\"devices\":[{\"allow\":true,\"type\":\"c\",\"major\":5,\"access\":\"r\"}]"), KEPT,
     "\"access\":\"r\""},
    {RES("\"devices\":[{\"allow\":true,\"type\":\"x\"}]"), REFUSED, "devices[0]"},
    {RES("\"memory\":{\"limit\":4096}"), LIMIT, "memory.max=4096\n"},
    {RES("\"memory\":{\"limit\":4096,\"swap\":8192}"), LIMIT, "memory.swap.max=4096\n"},
    {RES("\"memory\":{\"reservation\":4096}"), LIMIT, "memory.low=4096\n"},
    {RES("\"memory\":{\"kernel\":4096}"), REFUSED, "memory.kernel"},
    {RES("\"memory\":{\"kernelTCP\":4096}"), REFUSED, "memory.kernelTCP"},
    {RES("\"memory\":{\"swappiness\":5}"), REFUSED, "swappiness"},
    {RES("\"memory\":{\"disableOOMKiller\":true}"), REFUSED, "disableOOMKiller"},
    {RES("\"memory\":{\"useHierarchy\":false}"), REFUSED, "useHierarchy"},
    {RES("\"memory\":{\"checkBeforeUpdate\":true}"), KEPT, "\"checkBeforeUpdate\":true"},
    {RES("\"cpu\":{\"shares\":1024}"), LIMIT, "cpu.weight=100\n"},
    {RES("\"cpu\":{\"quota\":50,\"period\":100}"), LIMIT, "cpu.max=50 100\n"},
    {RES("\"cpu\":{\"quota\":50,\"burst\":7}"), LIMIT, "cpu.max.burst=7\n"},
    {RES("\"cpu\":{\"idle\":1}"), LIMIT, "cpu.idle=1\n"},
    {RES("\"cpu\":{\"cpus\":\"0-1\",\"mems\":\"0\"}"), LIMIT, "cpuset.cpus=0-1\ncpuset.mems=0\n"},
    {RES("\"cpu\":{\"realtimeRuntime\":5}"), REFUSED, "realtimeRuntime"},
    {RES("\"cpu\":{\"realtimePeriod\":5}"), REFUSED, "realtimePeriod"},
    {RES("\"pids\":{\"limit\":5}"), LIMIT, "pids.max=5\n"},
    {RES("\"blockIO\":{\"weight\":10}"), LIMIT, "io.weight=1\n"},
    {RES("\"blockIO\":{\"leafWeight\":10}"), REFUSED, "leafWeight"},
    {RES("\"blockIO\":{\"weightDevice\":[{\"major\":8,\"minor\":0,\"weight\":10}]}"), LIMIT,
     "io.weight=8:0 1\n"},
    {RES("\"blockIO\":{\"weightDevice\":[{\"major\":8,\"minor\":0,\"weight\":10,\"leafWeight\":5}]}"),
     REFUSED, "leafWeight"},
    {RES("\"blockIO\":{\"throttleReadBpsDevice\":[{\"major\":8,\"minor\":0,\"rate\":5}]}"), LIMIT,
     "io.max=8:0 rbps=5\n"},
    {RES("\"blockIO\":{\"throttleWriteBpsDevice\":[{\"major\":8,\"minor\":0,\"rate\":5}]}"), LIMIT,
     "io.max=8:0 wbps=5\n"},
    {RES("\"blockIO\":{\"throttleReadIOPSDevice\":[{\"major\":8,\"minor\":0,\"rate\":5}]}"), LIMIT,
     "io.max=8:0 riops=5\n"},
    {RES("\"blockIO\":{\"throttleWriteIOPSDevice\":[{\"major\":8,\"minor\":0,\"rate\":5}]}"), LIMIT,
     "io.max=8:0 wiops=5\n"},
    {RES("\"hugepageLimits\":[{\"pageSize\":\"2MB\",\"limit\":9}]"), LIMIT,
     "hugetlb.2MB.max=9\nhugetlb.2MB.rsvd.max=9\n"},
    {RES("\"hugepageLimits\":[{\"pageSize\":\"../x\",\"limit\":9}]"), REFUSED, "pageSize"},
    {RES("\"network\":{\"classID\":5}"), REFUSED, "classID"},
    {RES("\"network\":{\"priorities\":[{\"name\":\"eth0\",\"priority\":5}]}"), REFUSED,
     "priorities"},
    {RES("\"rdma\":{\"mlx\":{\"hcaHandles\":3,\"hcaObjects\":4}}"), LIMIT,
     "rdma.max=mlx hca_handle=3 hca_object=4\n"},
    {RES("\"unified\":{\"memory.high\":\"9\"}"), LIMIT, "memory.high=9\n"},
    {RES("\"unified\":{\"../x\":\"9\"}"), REFUSED, "unified"},
};

/* RFC 7386, as far as it is needed: objects are merged, all else is replaced. */
static void merge(cJSON *into, const cJSON *patch)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, patch) {
        cJSON *old = cJSON_GetObjectItemCaseSensitive(into, item->string);

        if (cJSON_IsObject(item) && cJSON_IsObject(old)) {
            merge(old, item);
            continue;
        }
        cJSON_DeleteItemFromObjectCaseSensitive(into, item->string);
        cJSON_AddItemToObject(into, item->string, cJSON_Duplicate(item, true));
    }
}

static char *document(const char *patch)
{
    AUTO(cJSON) cJSON *doc = cJSON_Parse(base), *other = cJSON_Parse(patch);

    if (!other)
        fail_msg("not JSON: %s", patch);
    merge(doc, other);
    return json_text(doc);
}

static int plan(const struct ctr_spec *s, char **ret, struct err *e)
{
    AUTO(launch_plan) struct launch_plan *p = NULL;
    AUTO(ctr_seccomp) struct ctr_seccomp filter = {0};
    struct ctr_user user = {.home = (char *)"/"};
    struct plan_input in = {.user = &user,
                            .seccomp = &filter,
                            .user_namespace = ctr_spec_namespace(s, "user", NULL) >= 0,
                            .selinux = true,
                            .root_path = "/root/of/it"};

    if (ctr_seccomp_for_spec(s, NULL, &filter, e) < 0 || plan_build(s, &in, &p, e) < 0)
        return -1;
    AUTO_FREE char *text = plan_text(p);

    *ret = mem_printf("%sflags %#x\nlistener %s %s\n", text, filter.flags,
                      filter.listener_path ? filter.listener_path : "",
                      filter.listener_metadata ? filter.listener_metadata : "");
    return 0;
}

static int limits(const struct ctr_spec *s, char **ret, struct err *e)
{
    AUTO(ctr_cgroup_limits) struct ctr_cgroup_limits l = {0};
    AUTO(str) struct str text = STR_INIT(1 << 16);

    if (ctr_cgroup_limits_of(&s->resources, &l, e) < 0)
        return -1;
    for (size_t i = 0; i < l.n; i++)
        assert_int_equal(str_appendf(&text, "%s=%s\n", l.items[i].file, l.items[i].value), 0);
    *ret = mem_strdup(str_text(&text));
    return 0;
}

static int judge(const char *json, char **ret_plan, char **ret_limits, char **ret_kept,
                 struct err *e)
{
    AUTO(ctr_spec) struct ctr_spec *s = NULL;

    if (ctr_spec_from_json(json, strlen(json), &s, e) < 0 || ctr_spec_validate(s, e) < 0 ||
        plan(s, ret_plan, e) < 0 || limits(s, ret_limits, e) < 0)
        return -1;
    *ret_kept = ctr_spec_to_json(s);
    return 0;
}

static void every_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO_FREE char *json = document(rows[i].patch);
        AUTO_FREE char *plan_says = NULL, *limits_say = NULL, *kept = NULL;
        struct err e = ERR_INIT;
        bool accepted = judge(json, &plan_says, &limits_say, &kept, &e) == 0;

        if (accepted != (rows[i].how != REFUSED))
            fail_msg("%s: %s", rows[i].patch, accepted ? "accepted" : e.msg);
        const char *says = rows[i].how == PLAN    ? plan_says
                           : rows[i].how == LIMIT ? limits_say
                           : rows[i].how == KEPT  ? kept
                                                  : e.msg;

        if (!says || !strstr(says, rows[i].says))
            fail_msg("%s: no \"%s\" in: %s", rows[i].patch, rows[i].says, says ? says : "");
    }
}

/* The same without the field says nothing of the kind: a row cannot hold for another reason. */
static void the_base_says_none_of_it(void **state)
{
    AUTO_FREE char *plan_says = NULL, *limits_say = NULL, *kept = NULL;
    struct err e = ERR_INIT;

    (void)state;
    assert_ok(judge(base, &plan_says, &limits_say, &kept, &e), &e);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const char *says = rows[i].how == PLAN    ? plan_says
                           : rows[i].how == LIMIT ? limits_say
                                                  : kept;

        if (says && rows[i].how != REFUSED && strcmp(rows[i].says, "new-cgroup-ns") != 0 &&
            strstr(says, rows[i].says))
            fail_msg("%s: \"%s\" is said without it", rows[i].patch, rows[i].says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field),
        cmocka_unit_test(the_base_says_none_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
