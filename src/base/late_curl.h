#pragma once
/*
 * late_curl.h - libcurl, loaded when it is first used (late.h). Instead of <curl/curl.h>.
 */
#include <curl/curl.h>

#define LATE_CURL(X)            \
    X(curl_easy_cleanup)        \
    X(curl_easy_getinfo)        \
    X(curl_easy_init)           \
    X(curl_easy_pause)          \
    X(curl_easy_perform)        \
    X(curl_easy_recv)           \
    X(curl_easy_reset)          \
    X(curl_easy_send)           \
    X(curl_easy_setopt)         \
    X(curl_easy_strerror)       \
    X(curl_free)                \
    X(curl_getdate)             \
    X(curl_global_init)         \
    X(curl_multi_add_handle)    \
    X(curl_multi_cleanup)       \
    X(curl_multi_info_read)     \
    X(curl_multi_init)          \
    X(curl_multi_perform)       \
    X(curl_multi_poll)          \
    X(curl_multi_remove_handle) \
    X(curl_multi_setopt)        \
    X(curl_multi_strerror)      \
    X(curl_slist_append)        \
    X(curl_slist_free_all)      \
    X(curl_url)                 \
    X(curl_url_cleanup)         \
    X(curl_url_get)             \
    X(curl_url_set)

struct late_curl {
#define LATE_MEMBER(f) __typeof__(&(f)) to_##f;
    LATE_CURL(LATE_MEMBER)
#undef LATE_MEMBER
};
const struct late_curl *late_curl(void);

/* curl.h has macros of three of these names, which check types. */
#undef curl_easy_getinfo
#undef curl_easy_setopt
#undef curl_multi_setopt
#define curl_easy_cleanup        (late_curl()->to_curl_easy_cleanup)
#define curl_easy_getinfo        (late_curl()->to_curl_easy_getinfo)
#define curl_easy_init           (late_curl()->to_curl_easy_init)
#define curl_easy_pause          (late_curl()->to_curl_easy_pause)
#define curl_easy_perform        (late_curl()->to_curl_easy_perform)
#define curl_easy_recv           (late_curl()->to_curl_easy_recv)
#define curl_easy_reset          (late_curl()->to_curl_easy_reset)
#define curl_easy_send           (late_curl()->to_curl_easy_send)
#define curl_easy_setopt         (late_curl()->to_curl_easy_setopt)
#define curl_easy_strerror       (late_curl()->to_curl_easy_strerror)
#define curl_free                (late_curl()->to_curl_free)
#define curl_getdate             (late_curl()->to_curl_getdate)
#define curl_global_init         (late_curl()->to_curl_global_init)
#define curl_multi_add_handle    (late_curl()->to_curl_multi_add_handle)
#define curl_multi_cleanup       (late_curl()->to_curl_multi_cleanup)
#define curl_multi_info_read     (late_curl()->to_curl_multi_info_read)
#define curl_multi_init          (late_curl()->to_curl_multi_init)
#define curl_multi_perform       (late_curl()->to_curl_multi_perform)
#define curl_multi_poll          (late_curl()->to_curl_multi_poll)
#define curl_multi_remove_handle (late_curl()->to_curl_multi_remove_handle)
#define curl_multi_setopt        (late_curl()->to_curl_multi_setopt)
#define curl_multi_strerror      (late_curl()->to_curl_multi_strerror)
#define curl_slist_append        (late_curl()->to_curl_slist_append)
#define curl_slist_free_all      (late_curl()->to_curl_slist_free_all)
#define curl_url                 (late_curl()->to_curl_url)
#define curl_url_cleanup         (late_curl()->to_curl_url_cleanup)
#define curl_url_get             (late_curl()->to_curl_url_get)
#define curl_url_set             (late_curl()->to_curl_url_set)
