/*
 * The lock bytes of an image file (OFD locks), chosen so that QEMU's file driver and we respect
 * each other. QEMU read-locks 100 + p for each permission p that it uses and 200 + p for each that
 * it does not share; 0 is consistent read, 1 is write. Byte 64 is ours alone: one owner.
 */
#ifndef SPB_DEVICE_LOCK_H
#define SPB_DEVICE_LOCK_H

#include <stddef.h>

#include "spaceblock/status.h"

#define SPB_LOCK_OWNER 64
#define SPB_LOCK_USES_READ 100
#define SPB_LOCK_USES_WRITE 101
#define SPB_LOCK_KEEPS_READ 200
#define SPB_LOCK_KEEPS_WRITE 201

/* Takes all bytes of an owner who writes; SPB_LOCKED names the holder. On failure none is kept. */
SPB_MUST_USE spb_status spb_lock_own(int fd, const char *name, struct spb_error *err);
/* Takes the bytes of an owner whose image a QEMU has: no test of what that holds. */
SPB_MUST_USE spb_status spb_lock_own_lent(int fd, const char *name, struct spb_error *err);
/* Lets QEMU write: releases 101 and 201. */
SPB_MUST_USE spb_status spb_lock_lend(int fd, const char *name, struct spb_error *err);
/* Takes them back; SPB_LOCKED while a QEMU holds the image. */
SPB_MUST_USE spb_status spb_lock_take_back(int fd, const char *name, struct spb_error *err);
/*
 * Gives all of them up. To be called before the file is closed: a child that is being spawned just
 * then has the descriptor too, and the locks would last until it has executed its program.
 */
void spb_lock_give_up(int fd);
/* Does somebody else hold it? Fills words and pid (0: not told). */
bool spb_lock_holder(int fd, char *words, size_t words_size, int *pid);

#endif
