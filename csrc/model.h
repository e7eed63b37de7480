/* model.h - hyper-parameters and the tensor table. */
#ifndef FASTGPT_MODEL_H
#define FASTGPT_MODEL_H

#include "fastgpt.h"
#include "os.h"
#include "vocab.h"

/* y = x W^T + b */
typedef struct weight {
    const float *w; /* [n_out][n_in] */
    const float *b; /* [n_out], NULL = no bias */
    int32_t n_out;
    int32_t n_in;
} weight;

typedef struct norm {
    const float *w; /* [n_embd] */
    const float *b; /* [n_embd] */
} norm;

typedef struct layer {
    norm ln_1;
    weight qkv;       /* rows: n_embd of queries, n_embd of keys, n_embd of values */
    weight attn_proj;
    norm ln_2;
    weight fc;        /* n_embd -> n_ff */
    weight proj;      /* n_ff -> n_embd */
} layer;

struct fastgpt_model {
    int32_t n_vocab, n_ctx, n_embd, n_head, n_layer, n_ff;
    float layer_norm_epsilon;

    const float *wte; /* [n_vocab][n_embd] */
    const float *wpe; /* [n_ctx][n_embd] */
    layer *layers;    /* [n_layer] */
    norm ln_f;
    weight lm_head;   /* wte itself where the file has no output.weight */

    os_file file;       /* F32 tensors lie in here */
    float *widened;     /* one block with every F16 and BF16 tensor as F32 */
    size_t n_widened;
    vocab vocab;
    char *name;
    const char *type;
    int64_t n_params;
    uint64_t id; /* one a load: ties caches to their model without touching it */
};

#endif
