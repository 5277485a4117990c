#pragma once
/*
 * late_ssl.h - libssl, loaded when it is first used (late.h), which is when libcurl has loaded it. Instead of
 * <openssl/ssl.h>.
 */
#include <openssl/ssl.h>

#define LATE_SSL(X)          \
    X(SSL_CTX_get_ex_data)   \
    X(SSL_CTX_set_cert_cb)   \
    X(SSL_CTX_set_ex_data)   \
    X(SSL_ctrl)              \
    X(SSL_get0_peer_CA_list) \
    X(SSL_get_SSL_CTX)       \
    X(SSL_use_PrivateKey)    \
    X(SSL_use_certificate)

struct late_ssl {
#define LATE_MEMBER(f) __typeof__(&(f)) to_##f;
    LATE_SSL(LATE_MEMBER)
#undef LATE_MEMBER
};
const struct late_ssl *late_ssl(void);

#define SSL_CTX_get_ex_data   (late_ssl()->to_SSL_CTX_get_ex_data)
#define SSL_CTX_set_cert_cb   (late_ssl()->to_SSL_CTX_set_cert_cb)
#define SSL_CTX_set_ex_data   (late_ssl()->to_SSL_CTX_set_ex_data)
#define SSL_ctrl              (late_ssl()->to_SSL_ctrl)
#define SSL_get0_peer_CA_list (late_ssl()->to_SSL_get0_peer_CA_list)
#define SSL_get_SSL_CTX       (late_ssl()->to_SSL_get_SSL_CTX)
#define SSL_use_PrivateKey    (late_ssl()->to_SSL_use_PrivateKey)
#define SSL_use_certificate   (late_ssl()->to_SSL_use_certificate)
