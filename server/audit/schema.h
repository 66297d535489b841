/*
 * The schema of the audit's database, as steps from one version to the next. A step once published
 * is never changed: what is to be different comes as a new one at the end. Called once, by the
 * thread that opens.
 */
#ifndef SPB_SERVER_AUDIT_SCHEMA_H
#define SPB_SERVER_AUDIT_SCHEMA_H

#include "audit/database.h"

/* "SPBA" in the file's header, so that another program's database is not taken for ours. */
#define SPB_SCHEMA_APPLICATION_ID INT64_C(0x53504241)

/* What leads to the next version. */
struct spb_schema_step {
    const char *tables, *views; /* SQL, in this order */
};

struct spb_schema_steps {
    const struct spb_schema_step *steps; /* the first leads to version 1 */
    int64_t count;                       /* the version that they lead to */
};

extern const struct spb_schema_steps spb_schema;

/* SPB_CORRUPT: it is another program's, or of a later version. Changes nothing. */
SPB_MUST_USE spb_status spb_schema_check(struct spb_db *db, const struct spb_schema_steps *steps,
                                         struct spb_error *err);
/*
 * Brings the database to the newest version, each step in a transaction of its own. It was
 * checked.
 */
SPB_MUST_USE spb_status spb_schema_migrate(struct spb_db *db, const struct spb_schema_steps *steps,
                                           struct spb_error *err);

#endif
