/* tokenizer.h - what a tokenizer holds; build.c makes it, encode.c and text_stream.c use it. */
#ifndef FASTGPT_TOKENIZER_H
#define FASTGPT_TOKENIZER_H

#include <stdatomic.h>

#include "tokenizer/bpe.h"
#include "tokenizer/special_tokens.h"

struct fastgpt_tokenizer {
    string_list bytes; /* [n_vocab] what each token stands for */
    size_t n_longest;  /* bytes of the longest */
    string_list texts; /* [n_vocab] the text of each token, of whatever type, read in the byte alphabet; else empty */
    text_table by_text;
    bpe_rules rules;
    special_tokens special;

    /* [n_vocab] whether merging the text of a token is known to give that token, which is not so for one that no merge
     * makes.  Most of the pieces of a text are such tokens.  All that ever changes in a tokenizer: from 0 to 1, by any
     * thread that found out. */
    atomic_uchar *is_whole;
};

#endif
