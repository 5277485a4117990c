/* needs: root */
/* A network that swallows everything is noticed long before a slow server would be given up. Rows: S18 S59. */
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/http.h"
#include "base/mem.h"
#include "tests/unit/http_server.h"

enum { BODY = 16 << 20 }; /* more than the sockets of both ends hold */

static struct server server;
static atomic_bool over;

static void set_loopback(bool up)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = up ? IFF_UP : 0};
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &r), 0);
}

/* The head has come; from now on nothing passes. */
static bool serve(struct exchange *x UNUSED, void *arg UNUSED)
{
    set_loopback(false);
    while (!over)
        usleep(2000);
    return false;
}

/* With 10 minutes for silence, which the test would not live to see. */
static void a_network_that_swallows_everything(void **state UNUSED)
{
    AUTO_FREE char *body = mem_zalloc(BODY);
    AUTO(http_response) struct http_response answer = {0};
    struct http_client *client = NULL;
    struct err e = ERR_INIT;

    set_loopback(true);
    server_start(&server, serve, NULL);
    assert_int_equal(http_client_new("test", &client, &e), 0);
    AUTO_FREE char *url = mem_printf("%s/", server.url);
    const struct http_request r = {.method = "POST",
                                   .url = url,
                                   .body = body,
                                   .body_n = BODY,
                                   .max_body = 1000,
                                   .proxy = "",
                                   .stall_timeout_ns = 600 * NS_PER_S,
                                   .dead_peer_ns = NS_PER_S};

    assert_int_equal(http_perform(client, &r, &answer, &e), -1);
    assert_int_equal(e.kind, ERR_REMOTE);
    over = true;
    set_loopback(true);
    http_client_free(client);
    server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_network_that_swallows_everything)};

    if (unshare(CLONE_NEWNET) < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
