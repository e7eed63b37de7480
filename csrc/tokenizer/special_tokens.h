/* special_tokens.h - finds control and user-defined tokens in text. */
#ifndef FASTGPT_SPECIAL_TOKENS_H
#define FASTGPT_SPECIAL_TOKENS_H

#include "fastgpt.h"
#include "tokenizer/hash_tables.h"

/* No text is searched further than this for one token, so that the search takes linear time. */
enum { SPECIAL_MAX_BYTES = 256 };

/* A trie; node 0 is its root. */
typedef struct special_tokens {
    pair_table edges;   /* (node, byte) -> node */
    int32_t *tokens;    /* [n_nodes] which token ends here, -1 = none */
    int32_t n_nodes;
    bool begins[256];   /* whether a token begins with the byte */
} special_tokens;

/* Takes the tokens of these types; bytes are their texts.  Returns OK, MEMORY or FORMAT. */
fastgpt_status special_tokens_create(special_tokens *special, const string_list *bytes, const int32_t *types,
                                     fastgpt_error *error);
void special_tokens_free(special_tokens *special);
size_t special_tokens_sizeof(const special_tokens *special);

/* The first token in text [n], and of several that begin there the longest: where it begins, or n when there is none.
 *   token, length  receive which it is, and its bytes */
size_t special_tokens_find(const special_tokens *special, const uint8_t *text, size_t n, int32_t *token,
                           size_t *length);

#endif
