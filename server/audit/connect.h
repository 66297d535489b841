/*
 * The audit's two lasting connections: the keeper's, which recovers and migrates and then copies
 * the WAL, and the one that writes.
 */
#ifndef SPB_SERVER_AUDIT_CONNECT_H
#define SPB_SERVER_AUDIT_CONNECT_H

#include "audit/database.h"

struct spb_audit;

/* Makes the file if absent, recovers, checks and migrates it. Before there is a thread. */
SPB_MUST_USE spb_status spb_connect_open(struct spb_audit *audit, struct spb_error *err);
/* When there is no thread any more. Accepts what was opened in part. is_sound: the WAL may be
 * copied and removed. */
void spb_connect_close(struct spb_audit *audit, bool is_sound);
/* Both connections, opened anew if they are stale. SPB_IO where the file is another now. */
SPB_MUST_USE spb_status spb_connect_ensure(struct spb_audit *audit, struct spb_error *err);
/*
 * Copies the whole WAL once more, whatever was copied before, and begins it anew. Only after a
 * commit that succeeded. SPB_LOCKED where somebody else has the database open. On failure the WAL
 * stays as it is.
 */
SPB_MUST_USE spb_status spb_connect_renew(struct spb_audit *audit, struct spb_error *err);

#endif
