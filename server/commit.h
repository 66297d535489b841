/*
 * A group's way to the medium: its calls' intents into the audit, then the medium, then in sight.
 * The image's actor; blocks.
 */
#ifndef SPB_SERVER_COMMIT_H
#define SPB_SERVER_COMMIT_H

#include "call.h"
#include "spaceblock/group.h"

struct spb_audit;

enum spb_committed {
    SPB_COMMITTED,
    SPB_COMMIT_REFUSED,   /* by the audit, or for want of memory: nothing was done */
    SPB_COMMIT_UNSETTLED, /* the medium failed: it may or may not have happened */
};

/*
 * calls: those that decided something into the group, a list by `next`, each with its range of the
 * group's changes and its reply set; their fates are set. The group is gone afterwards. *open gets
 * what is to be ended with spb_commit_end before the answers leave; NULL: nothing.
 */
enum spb_committed spb_commit(struct spb_image *image, struct spb_group *group,
                              struct spb_call *calls, struct spb_open_group **open,
                              struct spb_error *err);
/* Accepts NULL. */
void spb_commit_end(struct spb_open_group *open);

#endif
