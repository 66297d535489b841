/* What the daemon's answer means to the caller. No state; any thread. */
#ifndef SPB_CLIENT_CALL_REPLY_H
#define SPB_CLIENT_CALL_REPLY_H

#include "spaceblock/client.h"
#include "ttrpc/ttrpc.h"

/*
 * Fills the reply from a response that was decoded. Of a failure, err gets the code and the message
 * (control characters shown as '?', cut at a character's end), and the reply points to it.
 */
void spb_reply_from_response(const struct spb_ttrpc_response *response,
                             struct spb_client_reply *reply, struct spb_error *err);
/* The reply of a call that the daemon did not answer; err says why and is borrowed. */
void spb_reply_from_error(const struct spb_error *err, struct spb_client_reply *reply);

#endif
