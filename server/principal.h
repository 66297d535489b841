/* Who makes a call. Set once when a connection is taken, copied into every call. */
#ifndef SPB_SERVER_PRINCIPAL_H
#define SPB_SERVER_PRINCIPAL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum spb_principal_kind {
    SPB_PRINCIPAL_LOCAL, /* plaintext loopback: somebody on this host */
    SPB_PRINCIPAL_UID,   /* a unix socket's peer */
};

struct spb_principal {
    enum spb_principal_kind kind;
    uint32_t uid;       /* of SPB_PRINCIPAL_UID */
    char name[32];      /* "local" or "uid:1000": also its identity */
    uint16_t tenant;    /* its own: what a bare image name means */
    bool is_site_admin; /* may name any tenant */
};

static inline bool spb_principal_is_same(const struct spb_principal *a,
                                         const struct spb_principal *b)
{
    return a->tenant == b->tenant && a->kind == b->kind && strcmp(a->name, b->name) == 0;
}

#endif
