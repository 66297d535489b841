/* What the services share that make, move and delete image files. Workers: all block. */
#ifndef SPB_SERVER_SERVICES_IMAGE_LIFE_H
#define SPB_SERVER_SERVICES_IMAGE_LIFE_H

#include "spaceblock/status.h"

/* Makes what the folder of a path shows durable. One that is gone holds nothing to come back. */
SPB_MUST_USE spb_status spb_sync_folder_of(const char *path, struct spb_error *err);

#endif
