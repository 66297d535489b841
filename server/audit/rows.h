/*
 * What the tables of single rows (tables.h) share: listing all of them, and removing one by its
 * number. See inside.h for threads.
 */
#ifndef SPB_SERVER_AUDIT_ROWS_H
#define SPB_SERVER_AUDIT_ROWS_H

#include "audit/inside.h"

/* Calls show for each row, on the caller's thread; what is "listing guests" or the like. */
SPB_MUST_USE spb_status spb_rows_each(struct spb_audit *audit, enum spb_sql list, const char *what,
                                      void (*show)(void *user, sqlite3_stmt *row), void *user,
                                      struct spb_error *err);

/* Durable when it returns. A number that is not there is no error. */
SPB_MUST_USE spb_status spb_rows_remove(struct spb_audit *audit, enum spb_sql remove, int64_t id,
                                        const char *what, struct spb_error *err);

#endif
