/*
 * Which images are in the hands of guests. While a guest has an image it is the one that writes:
 * QEMU may lock the file, the daemon keeps the owner's lock on it (no other daemon or command gets
 * in between), takes no changes, and answers reads from the disk (follow.h). A thread here notices
 * what a guest writes, by inotify and, at longer intervals, by looking at the file; so watches of
 * events see it within 100 ms, and an image whose guest writes nothing costs next to nothing.
 *
 * An image is one guest's at most. The state (SPB_IMAGE_ATTACHED) and the guest's name are the
 * image's, under its lock. Lost with the daemon: at the next start the supervisor says again which
 * images live guests have, before any image is opened.
 */
#ifndef SPB_SERVER_ATTACH_H
#define SPB_SERVER_ATTACH_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_GUEST_TEXT_SIZE 80u /* "TENANT/NAME" and its NUL */
#define SPB_FINDING_TEXT_SIZE 512u

struct spb_daemon;
struct spb_image;
struct spb_attachments;

/*
 * Lends an image to a guest. Waits until nothing of it runs (groups, checks, reads of products; no
 * new ones begin, and copies and scrubs of it are given up), ends its uploads of products, and
 * makes sure that all outcomes are in the audit and all bytes on the medium. From then on QEMU may
 * open the file for writing, changes are refused with FAILED_PRECONDITION (IMAGE_IN_USE) that names
 * the guest, and reads come from the disk. On failure the image is served as before, but for its
 * uploads.
 *
 * guest: "TENANT/NAME", shorter than SPB_GUEST_TEXT_SIZE; copied. The caller has a reference to the
 * image, which may go afterwards.
 *
 * SPB_LOCKED: a guest has it already (the text names it), or another owner. SPB_NOT_FOUND: it was
 * deleted or renamed. Otherwise where it is not READY: SPB_READ_ONLY or SPB_POISONED, SPB_BAD_* or
 * SPB_CORRUPT (damaged), SPB_IO (cannot be read), SPB_UNSUPPORTED (quarantined, or its file was
 * replaced). SPB_IO also where a flush failed, or the audit does not take the outcomes.
 *
 * Blocks, without a bound of its own. Call it on a worker of SPB_LANE_ALONE or on a thread that is
 * none of the pool: it may wait for workers of the other lanes.
 */
SPB_MUST_USE spb_status spb_image_attach(struct spb_image *image, const char *guest,
                                         struct spb_error *err);

/*
 * The guest's QEMU has ended (or was never started): takes the image back. Waits a few seconds for
 * a QEMU that still holds its locks. Holds the superblock against the registry, then opens for
 * writing: recovery, and what a crash had left open is settled. Then the image is READY, its
 * uploads and watches go on, and cursors that were given out stay good if the guest only appended
 * events; or it is QUARANTINED (uuid, size, sector size or tenant changed), DAMAGED, UNAVAILABLE (a
 * QEMU still holds it) or READ_ONLY, as spb_image_open says, and the reason is logged.
 *
 * finding (finding_size of SPB_FINDING_TEXT_SIZE is enough) gets one line about what was found
 * amiss, such as that reason or the number of corrupt records; empty where there was nothing.
 *
 * Accepts an image that no guest has, and does nothing. Blocks; to be called as spb_image_attach.
 */
void spb_image_detach(struct spb_image *image, char *finding, size_t finding_size);

/*
 * The guest may have written: looks on a worker, and tells watches. What comes while that is queued
 * is one look. Does nothing for an image that is not attached. Any thread; does not block. Nobody
 * needs to call it for what inotify or the regular look finds.
 */
void spb_image_poke(struct spb_image *image);

/* Which guest has it; false, and guest is empty, where none has. Any thread. */
bool spb_image_guest(struct spb_image *image, char guest[SPB_GUEST_TEXT_SIZE]);

/*
 * A live guest has this image: when it is opened it is attached instead of opened for writing. To
 * be called at the start, from a part that starts after "attachments" and before "images". Images
 * that are not there are of no consequence. The supervisor calls spb_image_detach when it finds
 * that the guest has ended, as for any other. SPB_NO_MEMORY; SPB_LOCKED where another guest was
 * named for it.
 */
SPB_MUST_USE spb_status spb_attach_expect(struct spb_daemon *daemon, uint16_t tenant,
                                          const char *name, const char *guest,
                                          struct spb_error *err);

/* ---- For the daemon and for opening ------------------------------------------------------- */

SPB_MUST_USE spb_status spb_attachments_new(struct spb_daemon *daemon,
                                            struct spb_attachments **attachments,
                                            struct spb_error *err);
/* Lets go of images; they stay as they are. After the workers have ended. Accepts NULL. */
void spb_attachments_free(struct spb_attachments *attachments);
/* Starts the thread, once there are workers; ends it, before they end (blocks; accepts NULL, and
 * one that was not started). */
SPB_MUST_USE spb_status spb_attachments_start(struct spb_attachments *attachments,
                                              struct spb_error *err);
void spb_attachments_stop(struct spb_attachments *attachments);

/* Whether a guest was named for an image that is about to be opened; then it is forgotten. */
bool spb_attach_is_expected(struct spb_attachments *attachments, const struct spb_image *image,
                            char guest[SPB_GUEST_TEXT_SIZE]);
/* From now on, or no more, the image's file is looked at. Any thread; never under an image's lock.
 */
void spb_attach_begin_look(struct spb_attachments *attachments, struct spb_image *image);
void spb_attach_end_look(struct spb_attachments *attachments, struct spb_image *image);

#endif
