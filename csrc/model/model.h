/* model.h - hyper-parameters, weights and vocabulary of a model file. */
#ifndef FASTGPT_MODEL_H
#define FASTGPT_MODEL_H

#include <stdatomic.h>

#include "dtypes/dtype.h"
#include "fastgpt.h"
#include "model/gguf.h"
#include "kernels/kernels.h"
#include "common/os.h"
#include "model/vocab.h"

/* y = x W^T + b */
typedef struct weight {
    const uint8_t *w; /* [n_out][n_in] of the type, as in the file */
    const float *b;   /* [n_out], NULL = no bias */
    const float *scales; /* [n_out] of the rows of tiles; NULL for other types */
    dtype type;
    int32_t n_out;
    int32_t n_in;
} weight;

typedef struct norm {
    const float *w; /* [n_embd] */
    const float *b; /* [n_embd] */
} norm;

typedef struct layer_weights {
    norm ln_1;
    weight qkv;       /* rows: n_embd of queries, n_embd of keys, n_embd of values */
    weight attn_proj;
    norm ln_2;
    weight fc;        /* n_embd -> n_ff */
    weight proj;      /* n_ff -> n_embd */
} layer_weights;

/* Row i of a matrix; of tiles, the tile that begins there. */
static inline const uint8_t *weight_row(const weight *w, int64_t i) { return w->w + i * row_bytes(w->type, w->n_in); }

/* From number k of row i on, where a block begins. */
static inline const uint8_t *weight_at(const weight *w, int64_t i, int64_t k) {
    return weight_row(w, i) + row_bytes(w->type, k);
}

struct fastgpt_model {
    int32_t n_vocab, n_ctx, n_embd, n_head, n_layer, n_ff;
    float layer_norm_epsilon;
    activation activation;

    weight wte;    /* [n_vocab][n_embd] */
    weight wpe;    /* [n_ctx][n_embd] */
    layer_weights *layers; /* [n_layer] */
    norm ln_f;
    weight lm_head; /* wte itself where the file has no output.weight */

    gguf_file gguf; /* its tables, for whoever asks for a key */
    os_file file;   /* matrices and F32 vectors lie in here */
    float *f32_vectors; /* one block with every vector of another type as F32 */
    size_t n_f32_vectors;
    block_q8_0 *requantized; /* one block with every matrix of a type that no kernel computes with */
    size_t n_requantized;
    vocab vocab;
    char *name;
    const char *type;
    int64_t n_params;
    uint64_t id; /* one a load: ties caches to their model without touching it */
    atomic_uint_fast64_t fingerprint; /* of the file, for kv_cache_file.c; 0 = not computed yet */
};

/* Fill a model from its tables of a GGUF file: all of it, or the vocabulary alone, of a file that may lack the rest. */
fastgpt_status model_read(fastgpt_model *m, fastgpt_error *error);
fastgpt_status model_read_vocabulary(fastgpt_model *m, fastgpt_error *error);

/* Whether the token is one of those that end a text. */
bool model_ends_text(const fastgpt_model *m, int32_t token);

static inline bool model_has_weights(const fastgpt_model *m) { return m->n_layer > 0; }

extern const char *const activation_names[N_ACTIVATIONS];

#endif
