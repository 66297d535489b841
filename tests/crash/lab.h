/*
 * The laboratory of the crash tests: builds images byte by byte (an encoder of its own, after
 * format.md), lets a volume run a scenario on the simulated medium, and tries every state that
 * power loss, the death of the process or a failing medium may leave.
 *
 * A failed check prints scenario, block size, seed and state, and ends the program with 1. No
 * global state; one thread.
 */
#ifndef SPB_TESTS_CRASH_LAB_H
#define SPB_TESTS_CRASH_LAB_H

#include "spaceblock/group.h"
#include "spaceblock/volume.h"
#include "support/medium.h"
#include "support/model.h"
#include "support/random.h"

#define LAB_CALLS 1024

/* The changes that one call decided. */
struct lab_call {
    size_t first, count;
    bool slot; /* an entry was written to a slot, and not a value put */
};

struct lab {
    const char *program;
    const char *scenario;
    uint32_t block_size; /* S */
    uint32_t blocks;
    size_t size; /* bytes of the image */
    uint64_t seed, random;
    bool trace;          /* print what is done */
    bool lenient;        /* a group may give other generations where it reuses corrupt slots */
    uint64_t limit;      /* of states of one stretch; sampled beyond */
    uint8_t *image;      /* before the scenario's change */
    struct model *model; /* of image */
    /* Where the change runs, where its states are opened, what these recover to, and heirs. */
    struct medium *medium, *cut, *nested, *heir;
    uint8_t *statement; /* the encoded changes, as read back from a file; NULL without */
    size_t statement_size;
    struct lab_call calls[LAB_CALLS]; /* of the statement, in order */
    size_t call_count;
    char where[240]; /* the state that is being checked, for messages */
    uint64_t states, recoveries, deaths, faults;
    uint64_t settled_states; /* of this scenario, for lab_check_completion */
    uint64_t completions;    /* of calls that a crash left in part */
};

#define CHECK(lab, cond, ...)                                                                      \
    do {                                                                                           \
        if (!(cond))                                                                               \
            lab_fail(lab, __FILE__, __LINE__, __VA_ARGS__);                                        \
    } while (0)

_Noreturn void lab_fail(const struct lab *lab, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Reads --seed, --samples (also $SPB_CRASH_SAMPLES), --trace 1. */
void lab_init(struct lab *lab, const char *program, int argc, char **argv);
void lab_done(struct lab *lab);
/* Prints a line where --trace was given. */
void lab_trace(const struct lab *lab, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A new empty image and its model, formatted by hand: dp_blocks blocks of data products. */
void lab_begin(struct lab *lab, const char *scenario, uint32_t block_size, uint32_t dp_blocks);
/* Where an option is on the command line, what follows it; else NULL. */
const char *lab_option(int argc, char **argv, const char *name);
uint64_t lab_limit(const struct lab *lab); /* that fits the block size */

/* ---- Planting: into lab->image and lab->model ---------------------------------------------- */

uint32_t lab_param_slots(const struct lab *lab);
size_t lab_param_offset(const struct lab *lab, uint32_t slot);
bool lab_slot_crosses(const struct lab *lab, uint32_t slot);
/* The nth slot (from 0) that crosses a sector boundary, or that does not. */
uint32_t lab_slot(const struct lab *lab, uint32_t nth, bool crossing);
void lab_plant_param(struct lab *lab, uint32_t slot, uint32_t id, uint16_t generation,
                     const char *value);
/* Its CRC is wrong. Plant valid entries of the id first. */
void lab_plant_corrupt(struct lab *lab, uint32_t slot, uint32_t id, uint16_t generation);
/* Fills slots that do not cross, from the nth on, each with an id of its own, first_id on. */
void lab_plant_full(struct lab *lab, uint32_t from, uint32_t first_id);
/* The newest count events before a pointer. */
void lab_plant_events(struct lab *lab, uint32_t pointer, uint32_t count);
/* Spoils the nth newest live event, from 0. */
void lab_plant_event_corrupt(struct lab *lab, uint32_t nth);
uint32_t lab_catalog_entries(const struct lab *lab);
bool lab_entry_crosses(const struct lab *lab, uint32_t entry);
uint32_t lab_entry(const struct lab *lab, uint32_t nth, bool crossing);
/* A product of random bytes that end in a byte that is neither 0 nor 0x80. */
void lab_plant_product(struct lab *lab, uint32_t entry, const char *name, uint32_t block_offset,
                       size_t size);
/* The same, its data spoilt; the model has it as corrupt unless the name is there already. */
void lab_plant_rotten(struct lab *lab, uint32_t entry, const char *name, uint32_t block_offset,
                      size_t size);
struct spb_event lab_event(struct lab *lab);

/* ---- Opening -------------------------------------------------------------------------------- */

struct spb_volume *lab_open(const struct lab *lab, struct medium *medium, bool writable);
/* Compares and ends the program where it differs. */
void lab_compare(const struct lab *lab, struct model *model, struct spb_volume *volume,
                 const char *when);
/* Blocks 0 to 33 are durable as they are visible, and no rule of the medium was broken. */
void lab_check_medium(const struct lab *lab, const struct medium *medium, const char *when);
/* Power is lost (what is durable stays), the volume is opened and compared. */
void lab_check_durable(const struct lab *lab, struct medium *medium, struct model *model,
                       const char *when);
/* One more change of a kind that pick chooses, then the durable state again. Settles the model;
 * ends the volume. */
void lab_one_more(struct lab *lab, struct medium *medium, struct spb_volume *volume,
                  struct model *model, uint64_t pick);

/* ---- Scenarios ------------------------------------------------------------------------------ */

enum { S512 = 1, S1024 = 2, S4096 = 4, S65536 = 8, SALL = 15, SCROSS = 14 };
enum fill { FILL_RANDOM, FILL_AMBIGUOUS, FILL_ENDS_80, FILL_ZEROS };

#define ACT_STAGED 4

struct act_staged {
    const char *name;
    uint16_t product_class;
    uint8_t *bytes;
    size_t size;
    struct spb_reservation *reservation;
    struct spb_product_data data;
};

/* One run of a scenario. */
struct act {
    struct lab *lab;
    struct medium *medium;
    struct spb_volume *volume;
    struct spb_group *group; /* NULL: the one-shot calls are used */
    struct model *model;
    struct act_staged staged[ACT_STAGED];
    size_t staged_count;
    struct spb_report report;
    struct spb_error err;
    bool one_shot;
};

/*
 * The steps of a scenario return the first failure of the library, its text in act->err. They run
 * in a group and, if single, through the one-shot calls too.
 */
struct scenario {
    const char *name;
    unsigned sizes; /* S512 ... */
    bool single;
    bool one_shot_only;
    uint32_t dp_blocks; /* 0: 12 */
    void (*setup)(struct lab *lab);
    spb_status (*stage)(struct act *act); /* may be NULL: what writes before deciding */
    spb_status (*decide)(struct act *act);
};

spb_status act_put(struct act *act, uint32_t id, const char *value);
/* ids first_id to first_id + count - 1, in one call. */
spb_status act_put_batch(struct act *act, uint32_t first_id, uint32_t count, const char *value);
spb_status act_write_param(struct act *act, uint32_t slot, uint32_t id, uint16_t generation,
                           const char *value);
spb_status act_delete(struct act *act, uint32_t id);
spb_status act_append(struct act *act, uint32_t count);
/* Writes the bytes of a product, to be published by act_publish(act, the nth staged). */
spb_status act_stage(struct act *act, const char *name, uint16_t product_class, enum fill fill,
                     size_t size);
spb_status act_publish(struct act *act, size_t nth, bool replace);
spb_status act_delete_product(struct act *act, const char *name);
spb_status act_defrag(struct act *act);
spb_status act_check(struct act *act); /* a stage */
spb_status act_repair(struct act *act);

/* Encodes what the group decided, and reads it back from a file into the laboratory, as one who
 * comes after a crash. act_run does it. */
void act_save_statement(struct act *act);
/* Forgets the statement and its calls. */
void lab_drop_statement(struct lab *lab);

struct act act_begin(struct lab *lab, struct medium *medium, bool one_shot);
/* Stage and decide; then encodes, carries out and makes visible unless only_decide. */
spb_status act_run(struct act *act, const struct scenario *scenario, bool only_decide);
/* Frees what the run holds; the volume stays open unless close. */
void act_end(struct act *act, bool close);

void lab_run(struct lab *lab, const struct scenario *scenario, uint32_t block_size);
void lab_run_faults(struct lab *lab, const struct scenario *scenario, bool one_shot);
/* Cuts power at each moment of the record of medium, and kills the process at each. model has the
 * changes that were in flight. */
void lab_check_cuts(struct lab *lab, const struct medium *medium, struct model *model);
void lab_check_deaths(struct lab *lab, const struct medium *medium, struct model *model);
/* Completes the calls of the statement of which a part is there, as the daemon does after a crash:
 * they are judged done then, and the model allows what is there. */
void lab_complete_parts(struct lab *lab, struct spb_volume *volume, struct model *model);
/*
 * In a state that a crash left, completes first what is there in part, then all other calls too:
 * the volume then shows the end of all changes. Cuts that in turn, and completes again.
 */
void lab_check_completion(struct lab *lab, const uint8_t *image, struct model *model);
/* main of a program of scenarios; --only NAME, --size S. */
int lab_main(const char *program, const struct scenario *scenarios, size_t count, int argc,
             char **argv);

#endif
