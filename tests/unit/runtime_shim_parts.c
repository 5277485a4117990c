/*
 * Shims: their messages, their log's caps, and how little memory and power one has while its run lives.
 * needs: root cgroup2 alone
 * timeout: 120
 * rows: S48
 */
#include "tests/unit/shim_lab.h"

/* "Key:\tvalue…" of a file in /proc; a new string. */
static char *proc_value(pid_t pid, const char *file, const char *key)
{
    AUTO_FREE char *path = mem_printf("/proc/%d/%s", pid, file);
    AUTO(str) struct str text = STR_INIT(65536);
    struct err e = ERR_INIT;

    assert_ok(fd_read_file_at(AT_FDCWD, path, &text, &e), &e);
    const char *at = strstr(str_text(&text), key);

    if (!at) {
        fail_msg("%s has no %s", path, key);
        return NULL;
    }
    at += strlen(key);
    at += strspn(at, ": \t");
    return mem_strndup(at, strcspn(at, "\n"));
}

static pid_t shim_pid(const char *id)
{
    AUTO_FREE char *path = mem_printf("%s/%s/pid", runtime_dir, id);
    AUTO(str) struct str text = STR_INIT(64);
    struct err e = ERR_INIT;

    assert_ok(fd_read_file_at(AT_FDCWD, path, &text, &e), &e);
    return (pid_t)strtol(str_text(&text), NULL, 10);
}

static bool has_mapped(pid_t pid, const char *text)
{
    AUTO_FREE char *path = mem_printf("/proc/%d/maps", (int)pid);
    AUTO(str) struct str maps = STR_INIT(1 << 20);
    struct err e = ERR_INIT;

    assert_ok(fd_read_file_at(AT_FDCWD, path, &maps, &e), &e);
    return strstr(str_text(&maps), text);
}

static bool is_sanitized(pid_t pid)
{
    return has_mapped(pid, "/libasan.so") || has_mapped(pid, "/libtsan.so");
}

/* A shim is one of a thousand on a host, and the last thing of ours beside a hostile program (S48). */
static void small_and_weak(void **state UNUSED)
{
    static const char *const none[] = {"CapInh", "CapAmb", "CapBnd"};
    struct ctr_spec *spec = make_spec("weak", "echo up; exec sleep 1000");
    struct err e = ERR_INIT;
    struct ctr_shim *again = NULL;

    /* with ids of its own: the processes are not root's, and the signals must arrive all the same */
    ctr_spec_add_namespace(spec, "user", NULL);
    ctr_spec_add_idmap(&spec->uid_maps, 0, 1000000, 65536);
    ctr_spec_add_idmap(&spec->gid_maps, 0, 1000000, 65536);
    spec->userns_optional = true;
    struct ctr_shim *s = spawn("weak", spec, &e);
    if (!s)
        fail_msg("%s", e.msg);
    assert_ok(ctr_shim_start(s, &e), &e);
    pid_t pid = shim_pid("weak");
    for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
        AUTO_FREE char *caps = proc_value(pid, "status", none[i]);
        assert_string_equal(caps, "0000000000000000");
    }
    AUTO_FREE char *permitted = proc_value(pid, "status", "CapPrm");
    AUTO_FREE char *effective = proc_value(pid, "status", "CapEff");
    AUTO_FREE char *privileges = proc_value(pid, "status", "NoNewPrivs");
    assert_string_equal(permitted, "0000000000000020"); /* CAP_KILL */
    assert_string_equal(effective, permitted);
    assert_string_equal(privileges, "1");
    AUTO_FREE char *clean_kb = proc_value(pid, "smaps_rollup", "Private_Clean");
    AUTO_FREE char *dirty_kb = proc_value(pid, "smaps_rollup", "Private_Dirty");
    AUTO_FREE char *anonymous_kb = proc_value(pid, "smaps_rollup", "Anonymous");
    printf("cwshim: private clean %s, dirty %s; anonymous %s\n", clean_kb, dirty_kb, anonymous_kb);
    if (!is_sanitized(pid)) { /* the shadow memory is not the shim's fault */
        assert_true(strtol(dirty_kb, NULL, 10) + strtol(clean_kb, NULL, 10) < 512);
        assert_true(strtol(anonymous_kb, NULL, 10) < 128);
        assert_false(has_mapped(pid, ".so")); /* static: no loader, no library */
    }
    ctr_shim_free(s);
    assert_ok(ctr_shim_adopt(runtime_dir, "weak", &again, &e), &e);
    assert_true(ctr_shim_netns(again) >= 0);
    assert_ok(ctr_shim_kill(again, SIGTERM, &e), &e); /* the container's init ignores it */
    assert_ok(ctr_shim_kill(again, SIGKILL, &e), &e);
    struct exit_record r = finish("weak", again);
    assert_int_equal(r.signal, SIGKILL);
    clean("weak");
}

static void messages(void **state UNUSED)
{
    struct err e = ERR_INIT, back = ERR_INIT;
    struct shim_msg m = shim_msg_make(SHIM_KILL, 9, 1, "text"), got;

    assert_ok(shim_msg_parse(&m, sizeof(m), &got, &e), &e);
    assert_memory_equal(&m, &got, sizeof(m));
    assert_int_equal(shim_msg_parse(&m, sizeof(m) - 1, &got, &e), -1);
    assert_int_equal(shim_msg_parse(&m, 0, &got, &e), -1);
    m.magic++;
    assert_int_equal(shim_msg_parse(&m, sizeof(m), &got, &e), -1);
    m.magic--;
    memset(m.text, 'x', sizeof(m.text));
    assert_int_equal(shim_msg_parse(&m, sizeof(m), &got, &e), -1);
    err_set(&e, ERR_USER, "exec /x: no");
    m = shim_msg_of_error(SHIM_FAILED, &e);
    assert_int_equal(shim_msg_error(&m, &back), -1);
    assert_string_equal(back.msg, "exec /x: no");
    assert_int_equal(back.kind, ERR_USER);
    m.a = 4711; /* a kind that does not exist */
    assert_int_equal(shim_msg_error(&m, &back), -1);
    assert_int_equal(back.kind, ERR_HOST);
}

/* Whatever is written, the file is the head, and behind it all of the rest or a mark and the end of it. */
static void log_cap(void **state UNUSED)
{
    static const size_t sizes[] = {0,
                                   1,
                                   SHIM_LOG_HEAD - 1,
                                   SHIM_LOG_HEAD,
                                   SHIM_LOG_HEAD + 1,
                                   SHIM_LOG_HEAD + SHIM_LOG_TAIL,
                                   SHIM_LOG_HEAD + SHIM_LOG_TAIL + 1,
                                   3 * SHIM_LOG_HEAD,
                                   50000};
    AUTO_CLOSE int dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_FREE char *all = mem_alloc(50000);

    for (size_t i = 0; i < 50000; i++)
        all[i] = (char)('a' + i * 7 / 3 % 26);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        for (size_t step = 1; step < 20000; step = step * 5 + 2) {
            AUTO(str) struct str text = STR_INIT(20000);
            struct err e = ERR_INIT;
            struct shim_log l;
            int into = -1;

            assert_ok(shim_log_open(dir, "cap", &l, &into, &e), &e);
            for (size_t at = 0; at < sizes[i]; at += step) {
                size_t n = sizes[i] - at < step ? sizes[i] - at : step;

                assert_int_equal(write(into, all + at, n), n);
                if (at % 3 == 0 || step > 4000)
                    shim_log_drain(&l, 1 << 20);
            }
            close(into);
            while (shim_log_drain(&l, 1 << 20))
                continue;
            shim_log_close(&l);
            assert_ok(fd_read_file_at(dir, "cap", &text, &e), &e);
            size_t head = sizes[i] < SHIM_LOG_HEAD ? sizes[i] : SHIM_LOG_HEAD,
                   rest = sizes[i] - head;
            size_t tail = rest < SHIM_LOG_TAIL ? rest : SHIM_LOG_TAIL;

            assert_true(text.len <= BOUND_CTR_STDERR);
            assert_memory_equal(str_text(&text), all, head);
            assert_true(text.len >= head + tail);
            assert_memory_equal(str_text(&text) + text.len - tail, all + sizes[i] - tail, tail);
            if (rest > tail)
                assert_has(str_text(&text), " bytes left out");
            else
                assert_int_equal(text.len, sizes[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages),
        cmocka_unit_test(log_cap),
        cmocka_unit_test(small_and_weak),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
