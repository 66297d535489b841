/*
 * Whole files that become images: uploaded ones (import) and copies (clone). A file is looked at
 * before it gets its name, the name is never another's, and the uuid is claimed before anything is
 * done. Workers only; all block.
 */
#ifndef SPB_SERVER_COPY_IMAGE_H
#define SPB_SERVER_COPY_IMAGE_H

#include "call.h"
#include "spaceblock/volume.h"

struct spb_image;

/* SPB_EXISTS where an image of that name is served or its file is there; so far as is seen now. */
SPB_MUST_USE spb_status spb_image_name_is_free(struct spb_daemon *daemon, uint16_t tenant,
                                               const char *name, struct spb_error *err);
/* What a file shows that is to be an image. SPB_BAD_*: it is none. text names it in errors. */
struct spb_image_look {
    struct spb_superblock superblock;
    uint32_t sector_size;
};
SPB_MUST_USE spb_status spb_image_look(const char *path, uint32_t sector_size, const char *text,
                                       struct spb_image_look *look, struct spb_error *err);
/* The superblock's tenant and uuid; durable. */
SPB_MUST_USE spb_status spb_image_reidentify(const char *path, uint16_t tenant,
                                             const uint8_t uuid[SPB_UUID_SIZE], const char *text,
                                             struct spb_error *err);

/*
 * An image that is not served yet and shows what the look found, for the reply to be set before it
 * is published. *image is the caller's reference.
 */
SPB_MUST_USE spb_status spb_image_foresee(struct spb_daemon *daemon, uint16_t tenant,
                                          const char *name, const struct spb_image_look *look,
                                          struct spb_image **image, struct spb_error *err);
/*
 * Its name, and the uuid that it foresees, are its own within the tenant from now on, until they
 * are given up or the image is deleted; or SPB_EXISTS. The name comes first of all that is done:
 * else another image could come and go under it meanwhile. A row that one which is gone has left
 * goes then, and what is open of that one is settled as unknown, as are acts in doubt (doubts.h);
 * where that cannot be, the name is not to be had.
 */
SPB_MUST_USE spb_status spb_image_claim_name(struct spb_image *image, struct spb_error *err);
SPB_MUST_USE spb_status spb_image_claim_uuid(struct spb_image *image, struct spb_error *err);
void spb_image_unclaim(struct spb_image *image);
/*
 * Gives the file the image's name, which is claimed, opens the image and lets it be found. *named:
 * the file has its name; where that could not be made durable, or the image cannot be found, that
 * is an error all the same.
 */
SPB_MUST_USE spb_status spb_image_publish(struct spb_image *image, const char *from, bool *named,
                                          struct spb_error *err);

#endif
