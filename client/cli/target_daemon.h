/* What the files of the target through a daemon share. */
#ifndef SPB_CLI_TARGET_DAEMON_H
#define SPB_CLI_TARGET_DAEMON_H

#include "cli/daemon.h"
#include "cli/target.h"

struct daemon_target {
    struct cli_target base;
    struct cli *cli; /* borrowed */
    struct cli_daemon daemon;
    struct cli_image_ref image; /* its name is borrowed from the arguments */
};

static inline struct daemon_target *daemon_of(struct cli_target *target)
{
    /* base is the first member. */
    return (struct daemon_target *)target;
}

spb_status daemon_inspect(struct cli_target *target, struct cli_inspection *inspection,
                          struct spb_error *err);
spb_status daemon_check(struct cli_target *target, bool repair, struct cli_progress *progress,
                        struct cli_check *check, struct spb_error *err);
spb_status daemon_defrag(struct cli_target *target, struct cli_progress *progress,
                         struct cli_defrag *defrag, struct spb_error *err);
/* The image's epoch (Images.Get). */
SPB_MUST_USE spb_status daemon_epoch(struct daemon_target *target, uint64_t *epoch,
                                     struct spb_error *err);
spb_status daemon_product_list(struct cli_target *target, bool verify,
                               struct cli_progress *progress, struct cli_products *products,
                               struct spb_error *err);
spb_status daemon_product_put(struct cli_target *target,
                              const struct spb_product_attributes *attributes, bool replace,
                              struct cli_source *source, struct cli_progress *progress,
                              struct spb_product *product, struct spb_error *err);
spb_status daemon_product_find(struct cli_target *target, const char *name, size_t name_len,
                               bool padded, struct cli_progress *progress,
                               struct cli_product *product, struct spb_error *err);
spb_status daemon_product_read(struct cli_target *target, const struct cli_product *product,
                               uint64_t from, struct cli_progress *progress, cli_sink sink,
                               void *user, struct spb_error *err);
spb_status daemon_product_delete(struct cli_target *target, const char *name, size_t name_len,
                                 struct spb_error *err);

#endif
