/* vocab.h - the tokenizer part of a model file: its strings, and token -> bytes. */
#ifndef FASTGPT_VOCAB_H
#define FASTGPT_VOCAB_H

#include "fastgpt.h"
#include "gguf.h"

/* Strings end to end; string i is text[offsets[i] .. offsets[i + 1]). */
typedef struct string_list {
    int64_t n;
    char *text;
    uint64_t *offsets; /* [n + 1] */
} string_list;

typedef struct vocab {
    string_list tokens; /* as in the file, in GPT-2's byte alphabet */
    string_list merges; /* "a b" by rank */
    string_list bytes;  /* what each token stands for */
    int32_t *types;     /* [n_vocab] or NULL */
    int32_t eos_token;  /* -1 = none */
} vocab;

/* A file without a tokenizer gives empty lists.  Returns OK, MEMORY, FORMAT or UNSUPPORTED. */
fastgpt_status vocab_read(vocab *v, const gguf_file *gguf, int32_t n_vocab, fastgpt_error *error);
void vocab_free(vocab *v);
size_t vocab_sizeof(const vocab *v);

#endif
