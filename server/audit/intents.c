/*
 * Intents of groups and their outcomes; see audit.h. Beginning is the path that everything durable
 * takes: one row for the group, one for each call, nothing looked up that is not in memory.
 */
#include <stdlib.h>
#include <string.h>

#include "audit/inside.h"

#define CHANGES_MAX (256u << 20)
#define CLOCK_SLACK_US 1000000 /* so much less than before is no step of the clock */
#define RESPONSE_MAX (16u << 20)

/* ---- Open groups -------------------------------------------------------------------------- */

void spb_open_group_link(struct spb_audit *audit, struct spb_open_group *open)
{
    open->previous = audit->open_last;
    open->next = NULL;
    if (audit->open_last == NULL)
        audit->open_first = open;
    else
        audit->open_last->next = open;
    audit->open_last = open;
}

void spb_open_group_unlink(struct spb_audit *audit, struct spb_open_group *open)
{
    *(open->previous == NULL ? &audit->open_first : &open->previous->next) = open->next;
    *(open->next == NULL ? &audit->open_last : &open->next->previous) = open->previous;
    open->previous = NULL;
    open->next = NULL;
}

void spb_open_group_free(struct spb_open_group *open)
{
    if (open != NULL)
        free(open->response);
    free(open);
}

static spb_status load_open(struct spb_audit *audit, struct spb_error *err)
{
    sqlite3_stmt *list;
    bool row;

    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_LIST_OPEN, &list, err));
    for (;;) {
        SPB_TRY(spb_db_next(&audit->db, list, "listing open groups", &row, err));
        if (!row)
            return spb_ok();
        struct spb_open_group *open = calloc(1, sizeof *open);
        if (open == NULL) {
            (void)sqlite3_reset(list);
            return spb_fail_memory(err, "listing open groups");
        }
        *open = (struct spb_open_group){.audit = audit,
                                        .id = sqlite3_column_int64(list, 0),
                                        .image_id = sqlite3_column_int64(list, 1)};
        spb_open_group_link(audit, open);
    }
}

spb_status spb_intents_load(struct spb_audit *audit, struct spb_error *err)
{
    struct spb_db *db = &audit->db;
    int64_t group, call, time_us;

    SPB_TRY(spb_db_get_number(db, "SELECT max(id) FROM groups;", &group, err));
    SPB_TRY(spb_db_get_number(db, "SELECT max(id) FROM calls;", &call, err));
    SPB_TRY(spb_db_get_number(
        db, "SELECT ifnull((SELECT time_us FROM groups ORDER BY id DESC LIMIT 1), 0);", &time_us,
        err));
    audit->counts = (struct spb_audit_counts){
        .next_group = group + 1, .next_call = call + 1, .last_us = time_us};
    return load_open(audit, err);
}

/* ---- Beginning ---------------------------------------------------------------------------- */

struct begin {
    struct spb_work work;
    struct spb_intent_group *group;
    struct spb_open_group *open;
};

static spb_status check_intent(const struct spb_intent *intent, struct spb_error *err)
{
    if (intent->principal == NULL || strlen(intent->principal) >= SPB_AUDIT_PRINCIPAL_SIZE)
        return spb_fail(err, SPB_INVALID, "recording an intent: the principal's name is %s",
                        intent->principal == NULL ? "absent" : "too long");
    if (intent->method == NULL || strlen(intent->method) >= SPB_AUDIT_METHOD_SIZE)
        return spb_fail(err, SPB_INVALID, "recording an intent: the method's name is %s",
                        intent->method == NULL ? "absent" : "too long");
    if (intent->object == NULL || intent->before == NULL || intent->after == NULL)
        return spb_fail(err, SPB_INVALID, "recording an intent: a text is absent");
    if (intent->response_size > RESPONSE_MAX)
        return spb_fail(err, SPB_LIMIT,
                        "recording an intent: a response of %zu bytes, expected at most %u",
                        intent->response_size, RESPONSE_MAX);
    return spb_ok();
}

static spb_status check_group(const struct spb_intent_group *group, struct spb_error *err)
{
    if (group->count == 0)
        return spb_fail(err, SPB_INVALID, "recording intents: there are none");
    if (group->image_name == NULL || strlen(group->image_name) >= SPB_AUDIT_NAME_SIZE)
        return spb_fail(err, SPB_INVALID, "recording intents: the image's name is %s",
                        group->image_name == NULL ? "absent" : "too long");
    if (group->changes_size > CHANGES_MAX)
        return spb_fail(err, SPB_LIMIT,
                        "recording intents: changes of %zu bytes, expected at most %u",
                        group->changes_size, CHANGES_MAX);
    for (size_t i = 0; i < group->count; i++)
        SPB_TRY(check_intent(&group->intents[i], err));
    return spb_ok();
}

/* Time never falls within a stretch of groups: see spans.h. */
static spb_status take_time(struct spb_audit *audit, int64_t id, struct spb_error *err)
{
    int64_t now_us = spb_audit_now_us();
    sqlite3_stmt *step;

    if (now_us < audit->counts.last_us && audit->counts.last_us - now_us <= CLOCK_SLACK_US)
        now_us = audit->counts.last_us;
    if (now_us < audit->counts.last_us) {
        SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_ADD_CLOCK_STEP, &step, err));
        spb_bind_number(step, 1, id);
        SPB_TRY(spb_db_run(&audit->db, step, "recording a step of the clock", err));
    }
    audit->counts.last_us = now_us;
    return spb_ok();
}

static spb_status write_group(struct spb_audit *audit, const struct begin *begin, int64_t id,
                              struct spb_error *err)
{
    const struct spb_intent_group *group = begin->group;
    sqlite3_stmt *add;
    int64_t target;

    SPB_TRY(take_time(audit, id, err));
    SPB_TRY(spb_names_get(&audit->names, &audit->db, SPB_NAME_TARGET, group->tenant,
                          group->image_name, &target, err));
    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_ADD_GROUP, &add, err));
    spb_bind_number(add, 1, id);
    spb_bind_number(add, 2, audit->counts.last_us);
    spb_bind_number(add, 3, group->kind);
    spb_bind_number(add, 4, group->image_id);
    spb_bind_number(add, 5, target);
    spb_bind_number(add, 6, (int64_t)group->number);
    if (group->has_event_pointer)
        spb_bind_number(add, 7, group->event_pointer);
    else
        spb_bind_null(add, 7);
    spb_bind_number(add, 8, audit->counts.next_call);
    spb_bind_number(add, 9, (int64_t)group->count);
    spb_bind_bytes(add, 10, group->changes, group->changes_size);
    return spb_db_run(&audit->db, add, "recording a group", err);
}

/* Who called and what: most often as the intent before. */
struct caller {
    const struct spb_intent *known;
    int64_t principal, method;
};

static spb_status find_caller(struct spb_audit *audit, const struct spb_intent *intent,
                              struct caller *caller, struct spb_error *err)
{
    const struct spb_intent *known = caller->known;

    if (known == NULL || known->principal != intent->principal ||
        known->principal_tenant != intent->principal_tenant)
        SPB_TRY(spb_names_get(&audit->names, &audit->db, SPB_NAME_PRINCIPAL,
                              intent->principal_tenant, intent->principal, &caller->principal,
                              err));
    if (known == NULL || known->method != intent->method)
        SPB_TRY(spb_names_get(&audit->names, &audit->db, SPB_NAME_METHOD, 0, intent->method,
                              &caller->method, err));
    caller->known = intent;
    return spb_ok();
}

/* What becomes of the call says what became of the upload. */
static spb_status write_publishing(struct spb_audit *audit, const uint8_t *upload,
                                   struct spb_error *err)
{
    sqlite3_stmt *set;

    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_PUBLISH_UPLOAD, &set, err));
    spb_bind_bytes(set, 1, upload, 16);
    spb_bind_number(set, 2, audit->counts.next_call);
    return spb_db_run(&audit->db, set, "recording that an upload is published", err);
}

static spb_status write_call(struct spb_audit *audit, const struct spb_intent *intent,
                             int64_t group_id, struct caller *caller, struct spb_error *err)
{
    sqlite3_stmt *add;

    SPB_TRY(find_caller(audit, intent, caller, err));
    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_ADD_CALL, &add, err));
    spb_bind_number(add, 1, audit->counts.next_call);
    spb_bind_number(add, 2, group_id);
    spb_bind_number(add, 3, caller->principal);
    spb_bind_number(add, 4, caller->method);
    spb_bind_bytes(add, 5, intent->request_id, SPB_AUDIT_REQUEST_ID_SIZE);
    spb_bind_number(add, 6, intent->payload_crc);
    spb_bind_number(add, 7, intent->first_change);
    spb_bind_number(add, 8, intent->change_count);
    spb_bind_text(add, 9, intent->object);
    spb_bind_text(add, 10, intent->before);
    spb_bind_text(add, 11, intent->after);
    spb_bind_bytes(add, 12, intent->response, intent->response_size);
    SPB_TRY(spb_db_run(&audit->db, add, "recording an intent", err));
    if (intent->upload != NULL)
        SPB_TRY(write_publishing(audit, intent->upload, err));
    audit->counts.next_call++;
    return spb_ok();
}

static spb_status run_begin(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    struct begin *begin = (struct begin *)work;
    struct spb_open_group *open = begin->open;
    struct caller caller = {.known = NULL};

    open->id = audit->counts.next_group++;
    open->first_call = audit->counts.next_call;
    SPB_TRY(write_group(audit, begin, open->id, err));
    for (size_t i = 0; i < begin->group->count; i++)
        SPB_TRY(write_call(audit, &begin->group->intents[i], open->id, &caller, err));
    return spb_ok();
}

static void note_begun(struct spb_audit *audit, struct spb_work *work)
{
    struct begin *begin = (struct begin *)work;

    for (size_t i = 0; i < begin->group->count; i++)
        begin->group->intents[i].id = begin->open->first_call + (int64_t)i;
    (void)pthread_mutex_lock(&audit->lock);
    spb_open_group_link(audit, begin->open);
    audit->owned++;
    (void)pthread_mutex_unlock(&audit->lock);
}

spb_status spb_audit_begin(struct spb_audit *audit, struct spb_intent_group *group,
                           struct spb_open_group **open, struct spb_error *err)
{
    struct begin begin = {
        .work = {.run = run_begin, .committed = note_begun, .err = err, .intents = group->count},
        .group = group};

    SPB_TRY(check_group(group, err));
    begin.open = calloc(1, sizeof *begin.open);
    if (begin.open == NULL)
        return spb_fail_memory(err, "recording intents");
    begin.open->audit = audit;
    begin.open->image_id = group->image_id;
    begin.open->is_owned = true;
    spb_status status = spb_work_do(audit, &begin.work);
    if (spb_is_ok(status))
        *open = begin.open;
    else
        spb_open_group_free(begin.open);
    return status;
}

/* ---- Ending ------------------------------------------------------------------------------- */

void spb_audit_end(struct spb_open_group *open, enum spb_outcome outcome, const uint8_t *response,
                   size_t response_size)
{
    struct spb_audit *audit = open->audit;

    SPB_ASSERT(outcome != SPB_OUTCOME_PENDING);
    if (response != NULL) {
        open->response = malloc(response_size > 0 ? response_size : 1);
        if (open->response == NULL) {
            /* With an outcome but without its response the call would be answered wrongly when it
             * is repeated. Open, it is settled, and answered as its method does then. */
            spb_audit_abandon(open);
            return;
        }
        memcpy(open->response, response, response_size);
        open->response_size = response_size;
    }
    open->outcome = outcome;
    (void)pthread_mutex_lock(&audit->lock);
    spb_open_group_unlink(audit, open);
    audit->owned--;
    audit->unwritten++;
    if (audit->ended == NULL)
        audit->ended = open;
    else
        audit->ended_last->next_ended = open;
    audit->ended_last = open;
    (void)pthread_mutex_unlock(&audit->lock);
}

void spb_audit_abandon(struct spb_open_group *open)
{
    struct spb_audit *audit = open->audit;

    (void)pthread_mutex_lock(&audit->lock);
    open->is_owned = false;
    audit->owned--;
    (void)pthread_mutex_unlock(&audit->lock);
}

spb_status spb_intents_write_outcome(struct spb_audit *audit, const struct spb_open_group *open,
                                     struct spb_error *err)
{
    sqlite3_stmt *statement;

    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_END_GROUP, &statement, err));
    spb_bind_number(statement, 1, open->id);
    spb_bind_number(statement, 2, open->outcome);
    SPB_TRY(spb_db_run(&audit->db, statement, "recording an outcome", err));
    if (open->response == NULL)
        return spb_ok();
    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_SET_RESPONSE, &statement, err));
    spb_bind_number(statement, 1, open->first_call);
    spb_bind_bytes(statement, 2, open->response, open->response_size);
    return spb_db_run(&audit->db, statement, "recording a response", err);
}
