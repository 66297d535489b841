/* What the two files of the offline target share. */
#ifndef SPB_CLI_TARGET_FILE_H
#define SPB_CLI_TARGET_FILE_H

#include "cli/target.h"

struct file_target {
    struct cli_target base;
    struct spb_volume *volume; /* owned, with its device */
};

static inline struct spb_volume *volume_of(struct cli_target *target)
{
    /* base is the first member. */
    return ((struct file_target *)target)->volume;
}

spb_status file_product_list(struct cli_target *target, bool verify, struct cli_progress *progress,
                             struct cli_products *products, struct spb_error *err);
spb_status file_product_put(struct cli_target *target,
                            const struct spb_product_attributes *attributes, bool replace,
                            struct cli_source *source, struct cli_progress *progress,
                            struct spb_product *product, struct spb_error *err);
spb_status file_product_find(struct cli_target *target, const char *name, size_t name_len,
                             bool padded, struct cli_progress *progress,
                             struct cli_product *product, struct spb_error *err);
spb_status file_product_read(struct cli_target *target, const struct cli_product *product,
                             uint64_t from, struct cli_progress *progress, cli_sink sink,
                             void *user, struct spb_error *err);
spb_status file_product_delete(struct cli_target *target, const char *name, size_t name_len,
                               struct spb_error *err);

#endif
