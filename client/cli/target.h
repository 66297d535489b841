/*
 * What a command works on: an image file through libspaceblock, or an image of a daemon. Commands
 * see only this table of functions. Outputs are filled on success only; those that hold memory have
 * a _done function that accepts what was zeroed. All calls block. One thread.
 */
#ifndef SPB_CLI_TARGET_H
#define SPB_CLI_TARGET_H

#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/source.h"
#include "spaceblock/group.h"

struct cli_inspection {
    struct spb_superblock superblock;
    uint32_t sector_size;
    uint32_t param_slots;
    uint32_t event_pointer, event_capacity, event_window;
    uint32_t product_entries;
    uint64_t free_blocks;
    uint32_t largest_free_blocks;
    char *summary;            /* owned */
    struct spb_param *params; /* owned; every slot that is not free, by slot */
    size_t param_count;
};

struct cli_params {
    struct spb_param *params; /* owned */
    size_t count;
    uint32_t *corrupt_ids; /* owned; ids that only corrupt slots name */
    size_t corrupt_count;
};

/* Empty lists of severities and codes take all. */
struct cli_event_query {
    uint32_t newest;                    /* 0: all */
    const uint64_t *severities, *codes; /* borrowed */
    size_t severity_count, code_count;
};

struct cli_events {
    struct spb_event *events; /* owned; oldest first */
    size_t count;
    uint32_t pointer;
    uint64_t epoch;
    bool cut; /* there may be older ones that were asked for and could not be had */
};

struct cli_new_event {
    bool has_time; /* else now */
    int64_t unix_s;
    uint8_t severity;
    uint16_t code;
    const void *payload; /* borrowed */
    size_t len;
};

struct cli_defrag {
    uint32_t moved;
    uint64_t free_blocks;
    uint32_t largest_free_blocks;
};

struct cli_check {
    struct spb_report report;
    bool repaired;
};

#define CLI_IDENTITY_MAX 128u

struct cli_product {
    struct spb_product product;
    uint8_t identity[CLI_IDENTITY_MAX]; /* the daemon's word for this content */
    size_t identity_len;
};

struct cli_products {
    struct cli_product *products; /* owned; by catalog entry */
    size_t count;
};

/* Takes the next n bytes of a product. */
typedef spb_status (*cli_sink)(void *user, const void *data, size_t n, struct spb_error *err);

struct cli_target;

struct cli_target_ops {
    spb_status (*inspect)(struct cli_target *target, struct cli_inspection *inspection,
                          struct spb_error *err);
    spb_status (*check)(struct cli_target *target, bool repair, struct cli_progress *progress,
                        struct cli_check *check, struct spb_error *err);
    spb_status (*defrag)(struct cli_target *target, struct cli_progress *progress,
                         struct cli_defrag *defrag, struct spb_error *err);
    spb_status (*param_put)(struct cli_target *target, const struct spb_param_put *put,
                            uint16_t *generation, struct spb_error *err);
    spb_status (*param_get)(struct cli_target *target, uint32_t id, struct spb_param *param,
                            struct spb_param_warning *warning, struct spb_error *err);
    spb_status (*param_list)(struct cli_target *target, struct cli_params *params,
                             struct spb_error *err);
    spb_status (*param_history)(struct cli_target *target, uint32_t id, struct cli_params *params,
                                struct spb_error *err);
    spb_status (*param_delete)(struct cli_target *target, uint32_t id, struct spb_error *err);
    spb_status (*event_append)(struct cli_target *target, const struct cli_new_event *event,
                               uint32_t *index, struct spb_error *err);
    spb_status (*event_list)(struct cli_target *target, const struct cli_event_query *query,
                             struct cli_events *events, struct spb_error *err);
    spb_status (*product_list)(struct cli_target *target, bool verify,
                               struct cli_progress *progress, struct cli_products *products,
                               struct spb_error *err);
    /* The source has its size; product is what was published. */
    spb_status (*product_put)(struct cli_target *target,
                              const struct spb_product_attributes *attributes, bool replace,
                              struct cli_source *source, struct cli_progress *progress,
                              struct spb_product *product, struct spb_error *err);
    /* Verifies: the state is GOOD; or ROTTEN where padded, and length that of the blocks. */
    spb_status (*product_find)(struct cli_target *target, const char *name, size_t name_len,
                               bool padded, struct cli_progress *progress,
                               struct cli_product *product, struct spb_error *err);
    /* Streams the bytes of product->product.length in order, from an offset on. */
    spb_status (*product_read)(struct cli_target *target, const struct cli_product *product,
                               uint64_t from, struct cli_progress *progress, cli_sink sink,
                               void *user, struct spb_error *err);
    spb_status (*product_delete)(struct cli_target *target, const char *name, size_t name_len,
                                 struct spb_error *err);
    void (*close)(struct cli_target *target);
};

/* First member of both implementations. */
struct cli_target {
    const struct cli_target_ops *ops;
};

/* Opens what --file, --image or the command's first word names. On failure *exit_code is the run's,
 * and the error has been printed. */
bool cli_target_open(struct cli *cli, struct cli_target **target, int *exit_code);
/* Accepts NULL. */
void cli_target_close(struct cli_target *target);
/* Closes the target of a command at the end of its scope. */
void cli_target_cleanup(struct cli_target **target);
#define CLI_AUTO_TARGET __attribute__((cleanup(cli_target_cleanup)))

/* The bytes of a product that are there already, and their CRC. */
struct cli_fetched {
    uint64_t length;
    uint32_t crc;
};
/* product_read of the others; all together are compared with the product's CRC unless it is rotten.
 * SPB_CORRUPT where it differs. */
SPB_MUST_USE spb_status cli_product_fetch(struct cli_target *target,
                                          const struct cli_product *product,
                                          struct cli_fetched fetched, struct cli_progress *progress,
                                          cli_sink sink, void *user, struct spb_error *err);

void cli_inspection_done(struct cli_inspection *inspection);
void cli_params_done(struct cli_params *params);
void cli_events_done(struct cli_events *events);
void cli_products_done(struct cli_products *products);

/* Does the query take this event? Corrupt ones pass. */
bool cli_event_matches(const struct cli_event_query *query, const struct spb_event *event);

/* The two kinds. sector_size 0: not told. owner (of 128 bytes) gets who else has the file, or "".
 */
#define CLI_OWNER_SIZE 128u
SPB_MUST_USE spb_status cli_target_file_open(const char *path, uint32_t sector_size, bool writable,
                                             struct cli_target **target, char owner[CLI_OWNER_SIZE],
                                             struct spb_error *err);
SPB_MUST_USE spb_status cli_target_daemon_open(struct cli *cli, const struct cli_image_ref *image,
                                               struct cli_target **target, struct spb_error *err);

#endif
