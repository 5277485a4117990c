#pragma once
/*
 * logins.h - what registries have granted this process: tokens for a while, refresh tokens as they are replaced. Inside
 * of oci/.
 *
 * Kept in memory only, shared by all pulls. A token is kept by registry and repository, for as long as it is good, but
 * not so long that a change of the operator's credentials goes unnoticed. Threads: any. Ownership: oci_logins_free.
 */
#include <stdint.h>

#include "base/cleanup.h"

/* What to send to a registry: nothing yet, a bearer token, or user and password. */
struct oci_login {
    char *bearer, *user, *password;
};
void oci_login_free(struct oci_login *l);
DEFINE_AUTO_VALUE(oci_login, oci_login_free)
struct oci_login oci_login_copy(const struct oci_login *l);

struct oci_logins;
struct oci_logins *oci_logins_new(void);
void oci_logins_free(struct oci_logins *l);

/* Empty when there is none that is still good. */
void oci_logins_known(struct oci_logins *l, const char *authority, const char *repository,
                      struct oci_login *ret);
void oci_logins_remember(struct oci_logins *l, const char *authority, const char *repository,
                         const struct oci_login *login, uint64_t seconds);

/*
 * A token service may give a new refresh token for each use of the old one, which is worth nothing from then on; the one
 * in the configuration stays as it is. `configured` stands for all that came after it.
 */
/* The latest, a new string; NULL: none came. */
char *oci_logins_renewed(struct oci_logins *l, const char *authority, const char *configured);
/* token NULL: the latest is refused, forget it. */
void oci_logins_renew(struct oci_logins *l, const char *authority, const char *configured,
                      const char *token);
