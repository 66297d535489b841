/* Transactions, by whoever has the turn. */
#ifndef SPB_SERVER_AUDIT_TRANSACT_H
#define SPB_SERVER_AUDIT_TRANSACT_H

#include "audit/inside.h"

/* Does all of works (may be NULL), with the outcomes that are queued, and wakes their callers. */
void spb_transact(struct spb_audit *audit, struct spb_work *works);

#endif
