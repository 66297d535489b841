/*
 * An image that the daemon serves: its file, its volume and its state.
 *
 * Threads. The volume is changed by the image's actor alone, and read by anybody (volume.h). `lock`
 * is over the members marked so, among them which volume is open; it is held briefly, never across
 * I/O, and the loop's thread takes it too. A hold keeps the volume open for longer (bulk reads,
 * uploads); only the actor opens and closes it, and waits for the holds first.
 */
#ifndef SPB_SERVER_IMAGE_H
#define SPB_SERVER_IMAGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "actor.h"
#include "attach.h"
#include "audit/tables.h"
#include "follow.h"
#include "spaceblock/group.h"
#include "spaceblock/volume.h"
#include "scrub.h"
#include "watch.h"

#define SPB_IMAGE_NAME_MAX 64u
#define SPB_IMAGE_TEXT_SIZE 80u /* "TENANT/NAME" */

enum spb_image_state {
    SPB_IMAGE_READY,
    SPB_IMAGE_READ_ONLY,   /* served; changes are refused */
    SPB_IMAGE_DAMAGED,     /* no volume: the superblock is damaged or names another tenant */
    SPB_IMAGE_UNAVAILABLE, /* no volume: held by another owner, or cannot be read */
    SPB_IMAGE_QUARANTINED, /* no volume: not the image that the registry knows */
    SPB_IMAGE_DELETED,     /* no volume and no file */
    SPB_IMAGE_ATTACHED,    /* a guest writes it: served from the disk; changes are refused */
};

struct spb_image {
    struct spb_daemon *daemon;
    struct spb_image *next_in_bucket; /* the registry's, as the next four */
    struct spb_image *next_reserving;
    struct spb_image *next_claim;
    bool has_claim; /* on a uuid that no other image may have then */
    uint8_t claim[SPB_UUID_SIZE];
    atomic_uint refs;
    uint16_t tenant;
    char name[SPB_IMAGE_NAME_MAX + 1];
    char *path; /* owned */
    struct spb_actor actor;
    struct spb_image_row row; /* the actor's; or who opens it first. id 0: not in the registry yet.
                                 While a guest has the image, of who looks at it (follow.h) */
    struct spb_watch_point watch;   /* as watch.h says */
    struct spb_scrub_point scrub;   /* as scrub.h says */
    struct spb_follow_point follow; /* as follow.h says */

    pthread_mutex_t lock;
    pthread_cond_t unheld;      /* holds fell to 0 */
    struct spb_volume *volume;  /* under lock but for the actor; NULL in the states that say so */
    enum spb_image_state state; /* under lock, as all below */
    enum spb_code reason_code;  /* why the state is not READY */
    char reason[SPB_ERROR_TEXT_SIZE]; /* also of one that is READY and lacks space */
    bool lacks_space;                 /* its file has not all its space, and got none */
    bool may_pass;                    /* why it was not opened, or for reading only */
    struct spb_superblock superblock;
    uint32_t sector_size;                      /* 0: the superblock could not be read */
    uint8_t incarnation[SPB_INCARNATION_SIZE]; /* as in the row */
    bool closing; /* being closed or reopened: who wants to read asks again through the actor */
    uint32_t holds;
    char guest[SPB_GUEST_TEXT_SIZE]; /* who has it, whatever the state; empty: nobody */
};

/* name is checked. The caller has the one reference. */
SPB_MUST_USE spb_status spb_image_new(struct spb_daemon *daemon, uint16_t tenant, const char *name,
                                      struct spb_image **image, struct spb_error *err);
void spb_image_ref(struct spb_image *image);
/* The last one closes what is open. */
void spb_image_unref(struct spb_image *image);

/* The path of an image's file, the caller's, free(); NULL without memory. */
char *spb_image_path(const struct spb_daemon *daemon, uint16_t tenant, const char *name);

/* 1 to 64 of A-Z a-z 0-9 . _ -, not starting with a dot. */
bool spb_image_name_is_valid(const void *name, size_t n);

/*
 * Opens the file, holds it against the registry's row, settles what was left open, or finds out why
 * not: the state says which; and logs that. Blocks. The actor's, or before there is one.
 */
void spb_image_open(struct spb_image *image);
/* The same, but leaves descriptors for connections. */
void spb_image_open_at_start(struct spb_image *image);
/* Whether there are descriptors to open one more, before it is made. SPB_LIMIT. */
SPB_MUST_USE spb_status spb_image_room(struct spb_error *err);
/* The same with a device that a guest has had, which is handed over; it takes writes again. Another
 * image than the registry knows is found before anything is written. */
void spb_image_open_returned(struct spb_image *image, struct spb_device *device);
/* Opens a volume that failed in place, and settles. On failure it stays as it is. */
SPB_MUST_USE spb_status spb_image_recover(struct spb_image *image, struct spb_error *err);
/* Cursors that were given out so far begin anew: the events are not those that they count. The
 * actor's. Blocks. */
SPB_MUST_USE spb_status spb_image_renew(struct spb_image *image, struct spb_error *err);
/* A new one for a row. */
SPB_MUST_USE spb_status spb_image_draw_incarnation(struct spb_image_row *row,
                                                   struct spb_error *err);
/* Accepts one that is not open. No hold may be left; the actor's, or when there is none any more.
 */
void spb_image_close(struct spb_image *image);

/*
 * Locks the image for looking at its volume, which is returned. NULL: it is not locked, and the
 * call has been answered, or runs again when the volume is to be had.
 */
struct spb_volume *spb_image_read_begin(struct spb_call *call);
void spb_image_read_end(struct spb_image *image);

const char *spb_image_state_word(enum spb_image_state state);
enum spb_image_state spb_image_state(struct spb_image *image);
/* Whether it is being closed or reopened: who asks again through the actor finds out to what end.
 */
bool spb_image_is_closing(struct spb_image *image);
/* Sets the error of an image in this state on the call. */
void spb_image_set_unserved(struct spb_image *image, struct spb_call *call);

/* Sets the error, and returns true, where a guest has the image: it is neither changed nor copied
 * nor checked then. */
bool spb_image_refuse_guests(struct spb_call *call);

/*
 * Keeps the volume open for a call's work on a worker. NULL: the call has been answered, or runs
 * again when the volume is to be had.
 */
struct spb_volume *spb_image_hold_for(struct spb_call *call);
/* For work of its own; false where the volume is closed or closing. */
bool spb_image_hold(struct spb_image *image);
void spb_image_unhold(struct spb_image *image);

/* The actor's: waits until nothing holds the volume, and keeps it so until done. */
void spb_image_reclaim(struct spb_image *image);
/* The same, but watches go on waiting: for who lets them look (spb_watch_notify) after
 * spb_image_reclaim_done. */
void spb_image_pause(struct spb_image *image);
void spb_image_reclaim_done(struct spb_image *image);

/*
 * After a failed write or flush: where the volume takes no more changes, the image becomes
 * READ_ONLY with the reason, its uploads end, and it is logged. Returns whether it did so or was so
 * already. failed (may be NULL) is the first cause. Takes the lock.
 */
bool spb_image_note_failure(struct spb_image *image, const struct spb_error *failed);

/* The volume takes changes again. */
void spb_image_note_recovery(struct spb_image *image);
/* The file is gone. */
void spb_image_note_deletion(struct spb_image *image);

/* The image as the API shows it, in the call's arena; sets an error and returns NULL. Takes the
 * lock. */
PB_Image *spb_image_show(struct spb_image *image, struct spb_call *call);

#endif
