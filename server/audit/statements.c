/* The text of every statement that is kept prepared; see statements.h. */
#include "audit/statements.h"

#define IMAGE_ROWS                                                                                 \
    "SELECT i.id, i.tenant, i.name, i.uuid, i.sector_size, i.total_blocks, i.incarnation,"         \
    " max(i.event_pointer, ifnull(s.pointer, 0)), max(i.group_number, ifnull(s.number, 0))"        \
    " FROM image_rows i LEFT JOIN newest_groups s ON s.image_id = i.id"

static const char *const texts[SPB_SQL_COUNT] = {
    [SPB_SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SPB_SQL_COMMIT] = "COMMIT",
    [SPB_SQL_ROLLBACK] = "ROLLBACK",

    [SPB_SQL_FIND_PRINCIPAL] = "SELECT id FROM principals WHERE tenant = ?1 AND name = ?2",
    [SPB_SQL_ADD_PRINCIPAL] = "INSERT INTO principals (tenant, name) VALUES (?1, ?2)",
    [SPB_SQL_FIND_METHOD] = "SELECT id FROM methods WHERE name = ?2",
    [SPB_SQL_ADD_METHOD] = "INSERT INTO methods (name) VALUES (?2)",
    [SPB_SQL_FIND_TARGET] = "SELECT id FROM targets WHERE tenant = ?1 AND name = ?2",
    [SPB_SQL_ADD_TARGET] = "INSERT INTO targets (tenant, name) VALUES (?1, ?2)",

    [SPB_SQL_ADD_GROUP] = "INSERT INTO groups VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10)",
    [SPB_SQL_ADD_CALL] =
        "INSERT INTO calls VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL, ?9, ?10, ?11, ?12)",
    [SPB_SQL_END_GROUP] = "UPDATE groups SET outcome = ?2, changes = NULL WHERE id = ?1",
    [SPB_SQL_SET_RESPONSE] = "UPDATE calls SET response = ?2 WHERE id = ?1",
    [SPB_SQL_SET_CALL_OUTCOME] = "UPDATE calls SET outcome = ?2 WHERE id = ?1",
    [SPB_SQL_LIST_OPEN] =
        "SELECT id, image_id FROM groups WHERE outcome = 0 AND id >= (SELECT mark FROM state)"
        " UNION ALL SELECT id, image_id FROM open_groups JOIN groups ON id = group_id"
        " WHERE outcome = 0 ORDER BY id",
    [SPB_SQL_GET_GROUP] =
        "SELECT g.kind, g.image_id, t.tenant, t.name, g.number, g.call_count, g.changes"
        " FROM groups g JOIN targets t ON t.id = g.target WHERE g.id = ?1",
    [SPB_SQL_GET_CALLS] =
        "SELECT c.id, p.tenant, p.name, m.name, c.request_id, c.payload_crc, c.first_change,"
        " c.change_count FROM groups g CROSS JOIN calls c"
        " ON c.id >= g.first_call AND c.id < g.first_call + g.call_count"
        " CROSS JOIN principals p ON p.id = c.principal CROSS JOIN methods m ON m.id = c.method"
        " WHERE g.id = ?1 ORDER BY c.id",
    [SPB_SQL_ADD_CLOCK_STEP] = "INSERT OR IGNORE INTO clock_steps VALUES (?1)",
    [SPB_SQL_COUNT_POINTER] =
        "UPDATE image_rows SET event_pointer = max(image_rows.event_pointer, g.event_pointer)"
        " FROM groups AS g WHERE g.id = ?1 AND g.event_pointer IS NOT NULL"
        " AND image_rows.id = g.image_id",
    [SPB_SQL_DROP_POINTER] = "UPDATE groups SET event_pointer = NULL WHERE id = ?1",
    [SPB_SQL_DROP_POINTERS] = "UPDATE groups SET event_pointer = NULL"
                              " WHERE id >= (SELECT mark FROM state) AND image_id = ?1"
                              " AND event_pointer IS NOT NULL",

    [SPB_SQL_COUNT_GROUPS] = "UPDATE image_rows SET group_number = max(group_number, seen.number),"
                             " event_pointer = max(event_pointer, seen.pointer)"
                             " FROM newest_groups AS seen WHERE image_rows.id = seen.image_id",
    [SPB_SQL_CLEAR_OPEN] = "DELETE FROM open_groups",
    [SPB_SQL_ADD_OPEN] = "INSERT INTO open_groups VALUES (?1)",
    [SPB_SQL_SET_MARK] = "UPDATE state SET mark = ?1",

    /* Where each stretch ends, rising. */
    [SPB_SQL_LIST_STRETCHES] =
        "SELECT first_group FROM clock_steps UNION ALL SELECT max(id) + 1 FROM groups ORDER BY 1",
    [SPB_SQL_NEXT_GROUP_TIME] =
        "SELECT id, time_us FROM groups WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1",
    [SPB_SQL_LIST_GROUPS] =
        "SELECT g.time_us, g.number, g.outcome, g.first_call, g.call_count, t.tenant, t.name"
        " FROM groups g CROSS JOIN targets t ON t.id = g.target"
        " WHERE g.id >= ?1 AND g.id <= ?2 ORDER BY g.id DESC",
    [SPB_SQL_LIST_CALLS] =
        "SELECT c.id, p.name, m.name, c.request_id, c.outcome, c.object, c.before, c.after"
        " FROM calls c CROSS JOIN principals p ON p.id = c.principal"
        " CROSS JOIN methods m ON m.id = c.method"
        " WHERE c.id >= ?1 AND c.id < ?2 ORDER BY c.id DESC",
    [SPB_SQL_GROUP_OF_CALL_BEFORE] =
        "SELECT group_id FROM calls WHERE id < ?1 ORDER BY id DESC LIMIT 1",

    [SPB_SQL_CALLS_OF_GROUPS] =
        "SELECT first.first_call, last.first_call + last.call_count - 1"
        " FROM (SELECT first_call FROM groups WHERE id >= ?1 ORDER BY id LIMIT 1) AS first,"
        " (SELECT first_call, call_count FROM groups WHERE id <= ?2 ORDER BY id DESC LIMIT 1)"
        " AS last",
    [SPB_SQL_REPLAYS_BACK] =
        "SELECT id, principal FROM calls WHERE id >= ?1 AND id < ?2 AND request_id IS NOT NULL"
        " ORDER BY id DESC",
    [SPB_SQL_REPLAYS] =
        "SELECT c.id, g.time_us, p.tenant, p.name, m.name, c.request_id, c.payload_crc,"
        " coalesce(c.outcome, g.outcome), c.principal"
        " FROM calls c CROSS JOIN groups g ON g.id = c.group_id"
        " CROSS JOIN principals p ON p.id = c.principal CROSS JOIN methods m ON m.id = c.method"
        " WHERE c.id >= ?1 AND c.id < ?2 AND c.request_id IS NOT NULL ORDER BY c.id",
    [SPB_SQL_GET_RESPONSE] = "SELECT response FROM calls WHERE id = ?1",

    [SPB_SQL_LIST_OLD] =
        "SELECT id, time_us, outcome, first_call, call_count FROM groups"
        " WHERE id > ?1 AND id < min(?2, (SELECT max(id) FROM groups)) ORDER BY id",
    [SPB_SQL_REMOVE_CALLS] = "DELETE FROM calls WHERE id >= ?1 AND id < ?2",
    [SPB_SQL_REMOVE_GROUP] = "DELETE FROM groups WHERE id = ?1",

    [SPB_SQL_LIST_IMAGES] = IMAGE_ROWS " ORDER BY i.tenant, i.name",
    [SPB_SQL_FIND_IMAGE] = IMAGE_ROWS " WHERE i.tenant = ?1 AND i.name = ?2",
    [SPB_SQL_ADD_IMAGE] =
        "INSERT INTO image_rows (tenant, name, uuid, sector_size, total_blocks, incarnation,"
        " event_pointer, group_number) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)",
    [SPB_SQL_SET_IMAGE] =
        "UPDATE image_rows SET tenant = ?1, name = ?2, uuid = ?3, sector_size = ?4,"
        " total_blocks = ?5, incarnation = ?6, event_pointer = ?7 WHERE id = ?8",
    [SPB_SQL_REMOVE_IMAGE] = "DELETE FROM image_rows WHERE id = ?1",

    [SPB_SQL_LIST_UPLOADS] =
        "SELECT id, kind, owner_kind, owner_tenant, owner, tenant, image, name, product_class,"
        " priority, replaces, new_identity, sector_size, sha256, size, block_offset, block_count,"
        " durable_offset, durable_crc, created_us, used_us, image_id FROM upload_rows"
        " ORDER BY created_us, id",
    /* Which call published it is not the writer's to say. */
    [SPB_SQL_PUT_UPLOAD] =
        "INSERT OR REPLACE INTO upload_rows (id, kind, owner_kind, owner_tenant, owner, tenant,"
        " image, name, product_class, priority, replaces, new_identity, sector_size, sha256, size,"
        " block_offset, block_count, durable_offset, durable_crc, created_us, used_us, image_id,"
        " publishing_call)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,"
        " ?19, ?20, ?21, ?22,"
        " ifnull((SELECT publishing_call FROM upload_rows WHERE id = ?1), 0))",
    [SPB_SQL_PUBLISH_UPLOAD] = "UPDATE upload_rows SET publishing_call = ?2 WHERE id = ?1",
    [SPB_SQL_IS_PUBLISHED] = "SELECT coalesce(c.outcome, g.outcome) IN (1, 2) FROM upload_rows u"
                             " CROSS JOIN calls c ON c.id = u.publishing_call"
                             " CROSS JOIN groups g ON g.id = c.group_id WHERE u.id = ?1",
    [SPB_SQL_REMOVE_UPLOAD] = "DELETE FROM upload_rows WHERE id = ?1",

    [SPB_SQL_PUT_ARTIFACT] =
        "INSERT OR REPLACE INTO artifact_rows (sha256, tenant, name, size, created_us)"
        " VALUES (?1, ?2, ?3, ?4, ?5)",
    [SPB_SQL_REMOVE_ARTIFACT] = "DELETE FROM artifact_rows WHERE sha256 = ?1 AND tenant = ?2",
    [SPB_SQL_LIST_ARTIFACTS] = "SELECT sha256, tenant, name, size, created_us FROM artifact_rows"
                               " WHERE (?1 IS NULL OR sha256 > ?1) AND (?2 < 0 OR tenant = ?2)"
                               " ORDER BY sha256, tenant",

    [SPB_SQL_LIST_GUESTS] =
        "SELECT id, tenant, name, uuid, config, wants_run, state, ending, accel, exit_status, run,"
        " run_base, created_ms, started_ms, ended_ms, restart_at_ms, restarts, short_runs,"
        " crash_loop, alive, console_bytes, version, reason, quit_at_ms, stop_ms FROM guest_rows"
        " ORDER BY tenant, name",
    [SPB_SQL_ADD_GUEST] =
        "INSERT INTO guest_rows (wants_run, state, ending, accel, exit_status, run, run_base,"
        " created_ms, started_ms, ended_ms, restart_at_ms, restarts, short_runs, crash_loop, alive,"
        " console_bytes, version, reason, quit_at_ms, stop_ms, tenant, name, uuid, config)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,"
        " ?19, ?20, ?21, ?22, ?23, ?24)",
    /* What was found later may be written first: it stays. */
    [SPB_SQL_SET_GUEST] =
        "UPDATE guest_rows SET wants_run = ?1, state = ?2, ending = ?3, accel = ?4,"
        " exit_status = ?5, run = ?6, run_base = ?7, created_ms = ?8, started_ms = ?9,"
        " ended_ms = ?10, restart_at_ms = ?11, restarts = ?12, short_runs = ?13, crash_loop = ?14,"
        " alive = ?15, console_bytes = ?16, version = ?17, reason = ?18,"
        " quit_at_ms = ?19, stop_ms = ?20 WHERE id = ?21 AND version <= ?17",
    [SPB_SQL_REMOVE_GUEST] = "DELETE FROM guest_rows WHERE id = ?1",
};

const char *spb_sql_text(enum spb_sql which)
{
    return texts[which];
}
