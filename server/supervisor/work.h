/*
 * What workers do for a guest: making a run ready (images, files, folder, command line, and the
 * record that it is about to be), and taking everything back when its QEMU has ended. Begun on the
 * supervisor's thread, where what came of it becomes an input of the guest's life.
 */
#ifndef SPB_SUPERVISOR_WORK_H
#define SPB_SUPERVISOR_WORK_H

#include "supervisor/guest.h"

/* A run is made; SPB_LIFE_PREPARED or _FAILED follows. */
void spb_work_prepare(struct spb_guest *guest);
/* SPB_LIFE_RELEASED follows, and the run is gone. */
void spb_work_release(struct spb_guest *guest);

/* Folders of runs that could not be removed then are looked for again. */
void spb_work_sweep(struct spb_guest *guest);

/* Whether what the configuration names is there: images, kernel, initial RAM disk. Workers. */
SPB_MUST_USE spb_status spb_work_check(struct spb_daemon *daemon, uint16_t tenant,
                                       const PB_GuestConfig *config, struct spb_error *err);

/* The file of a kernel or initial RAM disk; the caller's, free(). Workers; blocks. SPB_NOT_FOUND,
 * SPB_INVALID. */
SPB_MUST_USE spb_status spb_boot_file_find(struct spb_daemon *daemon, uint16_t tenant,
                                           const PB_BootFile *file, const char *what, char **path,
                                           struct spb_error *err);
/* Does the artifact that is the kernel or initial RAM disk still hold what its name says? All of it
 * is read. SPB_CORRUPT, SPB_IO. A file of guest_files has no name to be held to. Workers; blocks.
 */
SPB_MUST_USE spb_status spb_boot_file_verify(struct spb_daemon *daemon, uint16_t tenant,
                                             const PB_BootFile *file, const char *what,
                                             struct spb_error *err);

#endif
