/* tokenizer.h - what a tokenizer holds; build.c makes it, encode.c and text_stream.c use it. */
#ifndef FASTGPT_TOKENIZER_H
#define FASTGPT_TOKENIZER_H

#include <stdatomic.h>

#include "tokenizer/bpe.h"
#include "tokenizer/special_tokens.h"

struct fastgpt_tokenizer {
    string_list bytes; /* [n_vocab] what each token stands for */
    size_t n_longest;  /* bytes of the longest */
    string_list texts; /* [n_vocab] the text of each token, of whatever type, by the byte encoder; empty where it has
                          another character */
    text_table by_text;
    bpe_rules rules;
    special_tokens special;

    /* [n_vocab] 1 once merging the text of a token was seen to give that token, so that its next piece needs no
     * merging; most pieces of a text are such tokens.  Nothing else in a tokenizer changes: any thread may turn a 0
     * into 1. */
    atomic_uchar *is_whole;
};

#endif
