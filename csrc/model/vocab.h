/* vocab.h - the tokenizer part of a model file: its strings, and token -> bytes. */
#ifndef FASTGPT_VOCAB_H
#define FASTGPT_VOCAB_H

#include "fastgpt.h"
#include "model/gguf.h"
#include "common/string_list.h"

/* tokenizer.ggml.token_type, as far as it matters here. */
enum { TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4, TOKEN_UNUSED = 5, TOKEN_LAST_TYPE = 6 };

static inline bool token_is_special(int32_t type) { return type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED; }

/* Most tokens that may end a text: chat models have two or three. */
enum { MAX_EOS_TOKENS = 64 };

typedef struct vocab {
    string_list tokens; /* as in the file, in GPT-2's byte alphabet */
    string_list merges; /* "a b" by rank */
    string_list bytes;  /* what each token stands for */
    int32_t *types;     /* [n_vocab] or NULL */
    int32_t eos_tokens[MAX_EOS_TOKENS]; /* what ends a text, each once */
    int32_t n_eos_tokens;
    int32_t *encoding_types; /* [n_vocab] or NULL: types, but where NORMALIZED_KEY says in which order an encoder cuts
                                out tokens, control tokens are those of the first pass */
} vocab;

/* A file without a tokenizer gives empty lists.  Returns OK, MEMORY, FORMAT or UNSUPPORTED. */
fastgpt_status vocab_read(vocab *v, const gguf_file *gguf, int32_t n_vocab, fastgpt_error *error);
void vocab_free(vocab *v);
size_t vocab_sizeof(const vocab *v);

/* What each token stands for; types [tokens->n] or NULL.  False when there is no memory. */
bool vocab_decode(string_list *bytes, const fastgpt_strings *tokens, const int32_t *types);

#endif
