/*
 * What a guest is to be made of, from a command's options. Kernel and initial RAM disk that are
 * local files are stored as artifacts first: a daemon opens no path of a client's. One thread.
 */
#ifndef SPB_CLI_GUEST_CONFIG_H
#define SPB_CLI_GUEST_CONFIG_H

#include "cli/guest/guest.h"
#include "digest/sha256.h"

/* What the message points to; it stays where it is while that is used. */
struct cli_guest_config {
    Spaceblock__V1__GuestConfig message;
    Spaceblock__V1__ImageRef images[CLI_REPEAT_MAX], *image_list[CLI_REPEAT_MAX];
    Spaceblock__V1__GuestLabel labels[CLI_REPEAT_MAX], *label_list[CLI_REPEAT_MAX];
    Spaceblock__V1__BootFile kernel, initrd;
    uint8_t kernel_hash[SPB_SHA256_SIZE], initrd_hash[SPB_SHA256_SIZE];
};

/* Options alone: no call is made. SPB_INVALID with the text of a usage error. */
SPB_MUST_USE spb_status cli_guest_config_init(const struct cli *cli,
                                              const struct cli_image_ref *guest,
                                              struct cli_guest_config *config,
                                              struct spb_error *err);
/* Finds or stores --kernel and --initrd. */
SPB_MUST_USE spb_status cli_guest_config_boot_files(struct cli_guest *guest,
                                                    struct cli_guest_config *config,
                                                    struct spb_error *err);

#endif
