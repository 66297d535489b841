/*
 * What the check and the scrub share: findings, and the parts of the check that look at records.
 */
#ifndef SPB_VOLUME_CHECK_H
#define SPB_VOLUME_CHECK_H

#include "volume/state.h"

SPB_MUST_USE spb_status spb_report_add(struct spb_report *report, enum spb_finding_kind kind,
                                       uint32_t index, bool repairable, struct spb_error *err,
                                       const char *format, ...)
    __attribute__((format(printf, 6, 7)));
SPB_MUST_USE spb_status spb_report_rotten(const struct spb_product *product,
                                          struct spb_report *report, struct spb_error *err);
void spb_report_space(const struct spb_volume *volume, struct spb_report *report);

/* Every slot and every live event, as the volume has them in memory. The actor's, or on a volume
 * that nobody else has. */
SPB_MUST_USE spb_status spb_check_params(const struct spb_volume *volume, struct spb_report *report,
                                         struct spb_error *err);
SPB_MUST_USE spb_status spb_check_events(const struct spb_volume *volume, struct spb_report *report,
                                         struct spb_error *err);

/* One reading of the catalog, with what the data of each entry turned out to be. */
struct spb_survey {
    struct spb_product *products;
    uint32_t count;
    spb_progress progress;
    void *user;
    uint64_t done, total; /* bytes */
};

/* Passes progress of one piece of work on as that of the whole. */
bool spb_survey_progress(void *user, uint64_t done, uint64_t total);
bool spb_survey_has_data(const struct spb_product *product);
/* Reports on one entry, by what its data and the other entries turned out to be. */
SPB_MUST_USE spb_status spb_survey_report(const struct spb_survey *survey, uint32_t index,
                                          struct spb_report *report, struct spb_error *err);

#endif
