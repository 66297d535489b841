/*
 * Texts that repeat in the audit (principals, methods, images) and the numbers that rows have in
 * their stead: a bounded memory of what the database's tables hold. With the turn.
 *
 * What was added within a transaction that failed is not in the database: forget then.
 */
#ifndef SPB_SERVER_AUDIT_NAMES_H
#define SPB_SERVER_AUDIT_NAMES_H

#include <stdint.h>

#include "audit/database.h"

#define SPB_NAMES_BUCKETS 1024u
#define SPB_NAMES_MAX 8192u /* kept in memory; with the next one it begins anew */

enum spb_name_kind { SPB_NAME_PRINCIPAL, SPB_NAME_METHOD, SPB_NAME_TARGET };

struct spb_name;

struct spb_names {
    struct spb_name *buckets[SPB_NAMES_BUCKETS];
    size_t count;
};

/* The text's number, given to it now if it has none. Methods have no tenant: 0. */
SPB_MUST_USE spb_status spb_names_get(struct spb_names *names, struct spb_db *db,
                                      enum spb_name_kind kind, uint16_t tenant, const char *text,
                                      int64_t *id, struct spb_error *err);
void spb_names_forget(struct spb_names *names);

#endif
