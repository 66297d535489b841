/*
 * The laboratory of the audit's crash tests: a child works with an audit on a disk that strikes
 * (audit_disk.h), and tells in shared memory what it was promised; the parent looks whether that is
 * so. A failed check prints where, and ends the program with 1.
 */
#ifndef SPB_CRASH_AUDIT_LAB_H
#define SPB_CRASH_AUDIT_LAB_H

#include "audit/audit.h"
#include "crash/audit_disk.h"
#include "log.h"

#define LAB_WORKERS 3
#define LAB_GROUPS_MAX 4096
#define LAB_TRIED_MAX 64

enum lab_begun {
    LAB_TRIED, /* and then nothing was heard */
    LAB_ACKNOWLEDGED,
    LAB_FAILED,
};

/* What a worker did, one after another. A worker has an image of its own, as an actor has. */
struct lab_group {
    enum lab_begun begun;
    uint8_t calls;
    bool ending;              /* about to be told: the outcome that follows */
    bool ended, settled;      /* told; told so that it is durable */
    bool gone;                /* it failed, and the same process committed another since */
    enum spb_outcome outcome; /* PENDING: abandoned */
};

/*
 * What the image's row may say: what is known to be durable there, or anything that was put since
 * and of which nothing was heard, or only a failure before the process died. More than one such,
 * where a process died and the next did too, before anybody looked.
 */
struct lab_row {
    uint32_t sure;
    uint32_t count; /* of tried */
    struct lab_try {
        uint32_t blocks;
        bool failed; /* while the process that heard so lives it is not there */
    } tried[LAB_TRIED_MAX];
};

struct lab_worker {
    uint32_t count; /* of groups; one's number is its place + 1 */
    struct lab_group groups[LAB_GROUPS_MAX];
    struct lab_row row;
};

struct lab {
    char folder[64], path[80];
    struct spb_log log; /* to /dev/null */
    struct {
        struct lab_worker workers[LAB_WORKERS];
    } * shared;
    uint64_t cases;
    char where[160]; /* for messages */
};

/* What a child does. */
struct lab_run {
    struct disk_plan plan;
    bool from_the_start; /* the plan begins before the database is opened, else after */
    bool closes;         /* at its end; otherwise it just goes */
    uint32_t groups;     /* of each worker */
    uint64_t seed;
};

enum lab_end { LAB_DIED, LAB_DONE, LAB_NOT_OPENED };

void lab_init(struct lab *lab);
void lab_done(struct lab *lab);
/* A new folder, without database. */
void lab_begin(struct lab *lab);
/* Lets a child run. DIED: the disk killed it; NOT_OPENED: the disk let the opening fail. */
enum lab_end lab_run(struct lab *lab, const struct lab_run *run);
/* The same, but the child is killed when so much time has passed. */
void lab_run_for(struct lab *lab, const struct lab_run *run, int64_t ns);
/* Opens what is there, compares it with what was promised, and settles what is open. alive: the
 * last child ended without dying, so that nothing may be left of what had failed. */
void lab_check(struct lab *lab, bool alive);

#endif
