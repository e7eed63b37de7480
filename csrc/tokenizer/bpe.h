/* bpe.h - byte-pair encoding of one piece (Sennrich et al. 2016, arXiv 1508.07909). */
#ifndef FASTGPT_BPE_H
#define FASTGPT_BPE_H

#include "fastgpt.h"
#include "tokenizer/hash_tables.h"

typedef struct bpe_rules {
    int32_t byte_tokens[256]; /* -1 where the vocabulary has none */
    pair_table pairs;
} bpe_rules;

/* A token of the piece; bytes merged into a token before them have none. */
typedef struct bpe_symbol {
    int32_t token;
    uint32_t before, after; /* neighbours; n, the number of bytes, is the end */
    uint32_t rank;          /* of the pair with the right neighbour; NO_RANK = no merge */
    int32_t joined;         /* the token that this pair becomes */
} bpe_symbol;

enum { BPE_LOCAL = 64 }; /* longer pieces need memory */

/* Memory of bpe_merge, used again for each piece.  Belongs to one thread. */
typedef struct bpe_scratch {
    bpe_symbol *symbols; /* [n_bytes] after bpe_merge; the first token is symbols[0], the next symbols[after] ... */
    uint64_t *heap;      /* [2 capacity] */
    size_t capacity;
    bpe_symbol local_symbols[BPE_LOCAL];
    uint64_t local_heap[2 * BPE_LOCAL];
} bpe_scratch;

void bpe_scratch_init(bpe_scratch *scratch);
void bpe_scratch_free(bpe_scratch *scratch);

/* Joins the pair of neighbours with the lowest rank, the leftmost of equals, until no pair has one.
 * Time O(n log n), memory O(n) for n = n_bytes >= 1: the symbols form a linked list, and a heap holds (rank, place)
 * of each pair.  Returns OK, MEMORY, or NO_TOKEN. */
fastgpt_status bpe_merge(const bpe_rules *rules, const uint8_t *bytes, uint32_t n_bytes, bpe_scratch *scratch);

#endif
