/* special_tokens.h - finds control and user-defined tokens in text. */
#ifndef FASTGPT_SPECIAL_TOKENS_H
#define FASTGPT_SPECIAL_TOKENS_H

#include "fastgpt.h"
#include "tokenizer/hash_tables.h"

/* No text is searched further than this for one token, so that the search takes linear time. */
enum { SPECIAL_MAX_BYTES = 256 };

/* Text is searched twice, as by the library `tokenizers`: control tokens are cut out of all of it, then user-defined
 * tokens of what lies between them.  (The library's own names are "not normalized" and "normalized".) */
typedef enum special_pass { CONTROL_PASS, USER_DEFINED_PASS, N_SPECIAL_PASSES } special_pass;

/* A trie of the tokens of both passes; node 0 is its root. */
typedef struct special_tokens {
    pair_table edges;  /* (node, byte) -> node */
    int32_t *tokens;   /* [n_nodes] which token ends here, -1 = none */
    uint8_t *passes;   /* [n_nodes] the pass of that token */
    int32_t n_nodes;
    bool begins[N_SPECIAL_PASSES][256]; /* whether a token of the pass begins with the byte */
} special_tokens;

/* Takes the tokens of these types; bytes are their texts.  Returns OK, MEMORY or FORMAT. */
fastgpt_status special_tokens_create(special_tokens *special, const string_list *bytes, const int32_t *types,
                                     fastgpt_error *error);
void special_tokens_free(special_tokens *special);
size_t special_tokens_sizeof(const special_tokens *special);

/* The first token of the pass in text [n], and of several that begin there the longest: where it begins, or n when
 * there is none.
 *   token, length  receive which it is, and its bytes */
size_t special_tokens_find(const special_tokens *special, special_pass pass, const uint8_t *text, size_t n,
                           int32_t *token, size_t *length);

#endif
