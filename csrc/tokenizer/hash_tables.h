/* hash_tables.h - two hash tables of a tokenizer: text -> token, and pair of tokens -> rank.
 *
 * Open addressing, at most half full.  Whatever is in a table is found within MAX_PROBES steps: a vocabulary that
 * was made to collide is refused while the tables are built. */
#ifndef FASTGPT_HASH_TABLES_H
#define FASTGPT_HASH_TABLES_H

#include "common/string_list.h"

enum { MAX_PROBES = 256 };

/* ---- Text -> token ---- */

typedef struct text_slot {
    uint32_t hash;
    int32_t token; /* -1 = empty */
} text_slot;

typedef struct text_table {
    text_slot *slots;         /* [mask + 1] */
    size_t mask;
    const string_list *texts; /* of every token; borrowed */
} text_table;

/* Room for n tokens.  False when there is no memory. */
bool text_table_alloc(text_table *table, const string_list *texts, size_t n);
void text_table_free(text_table *table);
size_t text_table_sizeof(const text_table *table);

/* The token with this text, -1 when there is none. */
int32_t text_table_find(const text_table *table, const char *text, size_t n);

/* Adds a token whose text is not in the table.  False when it would collide too often. */
bool text_table_add(text_table *table, int32_t token);

/* ---- Pair -> rank ---- */

typedef struct pair_slot {
    int32_t left, right; /* left -1 = empty */
    uint32_t rank;
    int32_t joined;
} pair_slot;

typedef struct pair_table {
    pair_slot *slots; /* [mask + 1] */
    size_t mask;
} pair_table;

/* Room for n pairs.  False when there is no memory. */
bool pair_table_alloc(pair_table *table, size_t n);
void pair_table_free(pair_table *table);
size_t pair_table_sizeof(const pair_table *table);

/* NULL when there is no such pair. */
const pair_slot *pair_table_find(const pair_table *table, int32_t left, int32_t right);

/* Adds a pair, or replaces what it stood for.  False when it would collide too often. */
bool pair_table_put(pair_table *table, pair_slot pair);

#endif
