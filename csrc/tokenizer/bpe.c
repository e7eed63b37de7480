/* bpe.c - see bpe.h. */
#include "tokenizer/bpe.h"

#include <string.h>

static const uint32_t NO_RANK = UINT32_MAX;

/* ---- Scratch ---- */

static void use_local(bpe_scratch *scratch) {
    scratch->symbols = scratch->local_symbols;
    scratch->heap = scratch->local_heap;
    scratch->capacity = BPE_LOCAL;
}

void bpe_scratch_init(bpe_scratch *scratch) { use_local(scratch); }

void bpe_scratch_free(bpe_scratch *scratch) {
    if (scratch->symbols == scratch->local_symbols) return;
    free(scratch->symbols);
    free(scratch->heap);
    use_local(scratch);
}

static bool reserve_symbols(bpe_scratch *scratch, size_t n) {
    if (n <= scratch->capacity) return true;
    bpe_scratch_free(scratch);
    bpe_symbol *symbols = malloc(n * sizeof *symbols);
    uint64_t *heap = malloc(2 * n * sizeof *heap);
    if (!symbols || !heap) {
        free(symbols);
        free(heap);
        return false;
    }
    scratch->symbols = symbols;
    scratch->heap = heap;
    scratch->capacity = n;
    return true;
}

/* ---- A heap of 64-bit keys, the smallest on top ---- */

static inline void heap_push(uint64_t *heap, size_t *n, uint64_t key) {
    size_t i = (*n)++;
    for (; i > 0 && heap[(i - 1) / 2] > key; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = key;
}

static inline uint64_t heap_pop(uint64_t *heap, size_t *n) {
    uint64_t top = heap[0], moving = heap[--*n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < *n; i = child) {
        child += child + 1 < *n && heap[child + 1] < heap[child];
        if (heap[child] >= moving) break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
    return top;
}

/* ---- Merging ---- */

/* Looks up the pair that begins at symbol i, and puts it into the heap if it has a rank. */
static void find_pair(const bpe_rules *rules, bpe_scratch *scratch, uint32_t i, uint32_t n_bytes, size_t *n_heap) {
    bpe_symbol *symbol = &scratch->symbols[i];
    symbol->rank = NO_RANK;
    if (symbol->after == n_bytes) return;
    const pair_slot *pair = pair_table_find(&rules->pairs, symbol->token, scratch->symbols[symbol->after].token);
    if (!pair) return;
    symbol->rank = pair->rank;
    symbol->joined = pair->joined;
    heap_push(scratch->heap, n_heap, (uint64_t)pair->rank << 32 | i);
}

/* The symbol at i and its right neighbour become one, at i. */
static void join_with_right(bpe_symbol *symbols, uint32_t i, uint32_t n_bytes) {
    uint32_t right = symbols[i].after, after = symbols[right].after;
    symbols[i].token = symbols[i].joined;
    symbols[i].after = after;
    symbols[right].rank = NO_RANK;
    if (after < n_bytes) symbols[after].before = i;
}

fastgpt_status bpe_merge(const bpe_rules *rules, const uint8_t *bytes, uint32_t n_bytes, bpe_scratch *scratch) {
    if (!reserve_symbols(scratch, n_bytes)) return FASTGPT_ERR_MEMORY;
    bpe_symbol *symbols = scratch->symbols;
    size_t n_heap = 0; /* at most n_bytes - 1 at first, and each of as many joins takes one and brings two */
    for (uint32_t i = 0; i < n_bytes; i++) {
        symbols[i] = (bpe_symbol){.token = rules->byte_tokens[bytes[i]], .before = i - 1, .after = i + 1};
        if (symbols[i].token < 0) return FASTGPT_ERR_NO_TOKEN;
    }
    for (uint32_t i = 0; i < n_bytes; i++) find_pair(rules, scratch, i, n_bytes, &n_heap);
    while (n_heap > 0) {
        uint64_t key = heap_pop(scratch->heap, &n_heap);
        uint32_t i = (uint32_t)key;
        if (symbols[i].rank != key >> 32) continue; /* a join has changed this pair, and no pair ever comes back */
        join_with_right(symbols, i, n_bytes);
        if (i > 0) find_pair(rules, scratch, symbols[i].before, n_bytes, &n_heap);
        find_pair(rules, scratch, i, n_bytes, &n_heap);
    }
    return FASTGPT_OK;
}
