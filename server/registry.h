/*
 * Which images there are: what the folders hold, DATA_DIR/images/<tenant_id>/<name>.img, read at
 * the start and kept in step by Create and Delete; and what is known of each, a row in the
 * database, which is the authority for uuid and size. Found by hash, listed in order. Any thread;
 * the registry has a lock of its own, under which no other is taken.
 */
#ifndef SPB_SERVER_REGISTRY_H
#define SPB_SERVER_REGISTRY_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

struct spb_daemon;
struct spb_image;
struct spb_registry;

SPB_MUST_USE spb_status spb_registry_new(struct spb_registry **registry, struct spb_error *err);
/* Lets go of all images. Accepts NULL. */
void spb_registry_free(struct spb_registry *registry);

/* Reads the folders, brings the rows in step with them and opens every image on the workers;
 * removes what interrupted creations left. Blocks. */
SPB_MUST_USE spb_status spb_registry_scan(struct spb_daemon *daemon, struct spb_error *err);

/* The image, referenced for the caller; NULL where there is none. */
struct spb_image *spb_registry_find(struct spb_registry *registry, uint16_t tenant,
                                    const void *name, size_t name_len);

/*
 * Sets the image's name aside for it, before anything of it is made: until it is added, or gives
 * the name up. False where another image has the name, is still to give it up, or is being made
 * under it.
 */
SPB_MUST_USE bool spb_registry_reserve(struct spb_registry *registry, struct spb_image *image);
void spb_registry_unreserve(struct spb_registry *registry, struct spb_image *image);

/* Adds it: the registry takes a reference of its own. No other has its name. */
SPB_MUST_USE spb_status spb_registry_add(struct spb_registry *registry, struct spb_image *image,
                                         struct spb_error *err);
/* Removes just this one; none if another has its place. */
void spb_registry_remove(struct spb_registry *registry, struct spb_image *image);

/*
 * Makes a uuid the image's, in the place of one that it had. False where another image of the
 * tenant has it, whose "TENANT/NAME" goes to other; then it has none. Tenants hear nothing of each
 * other.
 */
bool spb_registry_claim(struct spb_registry *registry, struct spb_image *image,
                        const uint8_t uuid[16], char other[80]);
void spb_registry_unclaim(struct spb_registry *registry, struct spb_image *image);
/* The uuid that one has becomes the other's, which has none: nobody takes it in between. */
void spb_registry_hand_over(struct spb_registry *registry, struct spb_image *from,
                            struct spb_image *to);

size_t spb_registry_count(struct spb_registry *registry);

/*
 * Up to max images, referenced for the caller, in order of tenant and name, of one tenant or of all
 * (tenant < 0), after the given place (after_name NULL: from the start). Returns how many.
 */
struct spb_registry_place {
    int32_t tenant; /* -1: all */
    int32_t after_tenant;
    const char *after_name; /* NUL-terminated, or NULL */
};
size_t spb_registry_list(struct spb_registry *registry, const struct spb_registry_place *place,
                         struct spb_image **images, size_t max);

#endif
