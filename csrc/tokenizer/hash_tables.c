/* hash_tables.c - see hash_tables.h. */
#include "tokenizer/hash_tables.h"

#include <string.h>

/* Every bit of the result depends on every bit of x (the constants and shifts are those of SplitMix64). */
static inline uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

/* A power of two minus 1, so that n entries fill half of the slots at most. */
static size_t mask_for(size_t n) {
    size_t size = 16;
    while (size < 2 * n) size *= 2;
    return size - 1;
}

/* ---- Text -> token ---- */

static inline uint64_t read_bytes(const char *text, size_t n) {
    uint64_t word = 0;
    memcpy(&word, text, n);
    return word;
}

/* Of words of 8 bytes; the last one overlaps the one before it, shorter texts are read from both ends. */
static inline uint32_t hash_text(const char *text, size_t n) {
    uint64_t hash = n, tail;
    if (n >= 8) {
        for (size_t i = 0; i + 8 < n; i += 8) hash = mix(hash ^ read_bytes(text + i, 8));
        tail = read_bytes(text + n - 8, 8);
    } else if (n >= 4) tail = read_bytes(text, 4) | read_bytes(text + n - 4, 4) << 32;
    else if (n >= 2) tail = read_bytes(text, 2) | read_bytes(text + n - 2, 2) << 16;
    else tail = n ? (uint8_t)text[0] : 0;
    return (uint32_t)mix(hash * UINT64_C(0x9E3779B97F4A7C15) ^ tail);
}

bool text_table_alloc(text_table *table, const string_list *texts, size_t n) {
    table->mask = mask_for(n);
    table->texts = texts;
    table->slots = malloc((table->mask + 1) * sizeof *table->slots);
    if (!table->slots) return false;
    memset(table->slots, 0xFF, (table->mask + 1) * sizeof *table->slots);
    return true;
}

void text_table_free(text_table *table) { free(table->slots); }

size_t text_table_sizeof(const text_table *table) { return (table->mask + 1) * sizeof *table->slots; }

int32_t text_table_find(const text_table *table, const char *text, size_t n) {
    uint32_t hash = hash_text(text, n);
    for (size_t i = 0; i < MAX_PROBES; i++) {
        const text_slot *slot = &table->slots[(hash + i) & table->mask];
        if (slot->token < 0) break;
        if (slot->hash != hash) continue;
        const uint64_t *at = table->texts->offsets + slot->token;
        if (at[1] - at[0] == n && memcmp(table->texts->text + at[0], text, n) == 0) return slot->token;
    }
    return -1;
}

bool text_table_add(text_table *table, int32_t token) {
    const uint64_t *at = table->texts->offsets + token;
    uint32_t hash = hash_text(table->texts->text + at[0], at[1] - at[0]);
    for (size_t i = 0; i < MAX_PROBES; i++) {
        text_slot *slot = &table->slots[(hash + i) & table->mask];
        if (slot->token >= 0) continue;
        *slot = (text_slot){hash, token};
        return true;
    }
    return false;
}

/* ---- Pair -> rank ---- */

static inline size_t hash_pair(int32_t left, int32_t right) {
    return (size_t)mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right);
}

bool pair_table_alloc(pair_table *table, size_t n) {
    table->mask = mask_for(n);
    table->slots = malloc((table->mask + 1) * sizeof *table->slots);
    if (!table->slots) return false;
    memset(table->slots, 0xFF, (table->mask + 1) * sizeof *table->slots);
    return true;
}

void pair_table_free(pair_table *table) { free(table->slots); }

size_t pair_table_sizeof(const pair_table *table) { return (table->mask + 1) * sizeof *table->slots; }

const pair_slot *pair_table_find(const pair_table *table, int32_t left, int32_t right) {
    size_t hash = hash_pair(left, right);
    for (size_t i = 0; i < MAX_PROBES; i++) {
        const pair_slot *slot = &table->slots[(hash + i) & table->mask];
        if (slot->left == left && slot->right == right) return slot;
        if (slot->left < 0) break;
    }
    return NULL;
}

bool pair_table_put(pair_table *table, pair_slot pair) {
    size_t hash = hash_pair(pair.left, pair.right);
    for (size_t i = 0; i < MAX_PROBES; i++) {
        pair_slot *slot = &table->slots[(hash + i) & table->mask];
        if (slot->left >= 0 && (slot->left != pair.left || slot->right != pair.right)) continue;
        *slot = pair;
        return true;
    }
    return false;
}
