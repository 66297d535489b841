/* Making the medium have what the page cache shows of a WAL. */
#ifndef SPB_SERVER_AUDIT_REWRITE_H
#define SPB_SERVER_AUDIT_REWRITE_H

#include "audit/database.h"

/*
 * Writes the whole WAL over itself and flushes it and its folder. Before anything of it is copied,
 * by a connection that has read from the database. Nothing to do where there is no WAL. SPB_LOCKED
 * where another process writes, SPB_IO or SPB_FULL where the disk fails; the WAL says then what it
 * said before.
 */
SPB_MUST_USE spb_status spb_wal_rewrite(struct spb_db *db, struct spb_error *err);

#endif
