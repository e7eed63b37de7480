/* model.c - what a file says of a model: the hyper-parameters, and every tensor, whose shape they decide. */
#include "model/model.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf.h"
#include "dtypes/dequantize.h"
#include "dtypes/quantize.h"
#include "common/status.h"

/* Far above any GPT-2, and low enough that no product of two of them overflows. */
enum { MAX_LAYER = 4096, MAX_EMBD = 1 << 17, MAX_FF = 1 << 20, MAX_CTX = 1 << 22, MAX_VOCAB = 1 << 26 };

/* What the steps of loading share. */
typedef struct loader {
    fastgpt_model *model;
    gguf_file gguf;           /* the model's */
    const char *architecture; /* what its keys begin with */
    float *next_f32;      /* free part of model->f32_vectors */
    block_q8_0 *next_requantized; /* and of model->requantized */
    bool *found;              /* [gguf.n_tensors] asked for by name */
    uint64_t bytes_of_type[N_DTYPES];
    fastgpt_error *error;
} loader;

/* ---- Hyper-parameters ---- */

/* fastgpt-gpt2 is gpt2 with another activation, or with matrices in tiles of I8: a name of its own, so that programs
 * which know gpt2 only refuse it instead of running it wrong. */
static fastgpt_status read_architecture(loader *l) {
    const gguf_value *value;
    fastgpt_status status = gguf_get(&l->gguf, "general.architecture", GGUF_STRING, &value, l->error);
    if (status) return status;
    if (!value) return fail(l->error, FASTGPT_ERR_FORMAT, "key general.architecture is missing");
    const uint8_t *at = value->data;
    gguf_string architecture = gguf_next_string(&at);
    static const char *const known[] = {"gpt2", "fastgpt-gpt2"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (gguf_string_is(architecture, known[i])) l->architecture = known[i];
    if (!l->architecture)
        return fail(l->error, FASTGPT_ERR_UNSUPPORTED, "architecture %.*s; gpt2 and fastgpt-gpt2 are implemented",
                    gguf_shown(architecture), architecture.text);
    return FASTGPT_OK;
}

typedef struct key_name {
    char text[64];
} key_name;

/* "block_count" -> "gpt2.block_count" */
static key_name key_of(const loader *l, const char *last) {
    key_name key;
    snprintf(key.text, sizeof key.text, "%s.%s", l->architecture, last);
    return key;
}

/* A key of the architecture that nobody here has heard of may change the result, so it is refused. */
static fastgpt_status refuse_unknown_keys(loader *l) {
    static const char *const known[] = {"block_count",          "context_length",
                                        "embedding_length",     "feed_forward_length",
                                        "attention.head_count", "attention.layer_norm_epsilon",
                                        "vocab_size",           "activation"};
    bool plain = strcmp(l->architecture, "gpt2") == 0;
    size_t n_known = sizeof known / sizeof *known - plain; /* plain gpt2 has no activation to choose */
    key_name prefix = key_of(l, "");
    size_t n_prefix = strlen(prefix.text);
    for (uint64_t i = 0; i < l->gguf.n_values; i++) {
        gguf_string name = l->gguf.values[i].name;
        bool ours = name.n >= n_prefix && memcmp(name.text, prefix.text, n_prefix) == 0, found = false;
        for (size_t k = 0; k < n_known; k++) found |= gguf_string_is(name, key_of(l, known[k]).text);
        if (ours && !found)
            return fail(l->error, FASTGPT_ERR_UNSUPPORTED, "key %.*s is not implemented", gguf_shown(name), name.text);
    }
    return FASTGPT_OK;
}

static fastgpt_status read_size(loader *l, const char *last, uint32_t max, int32_t *out) {
    const gguf_value *value;
    key_name name = key_of(l, last);
    const char *key = name.text;
    fastgpt_status status = gguf_get(&l->gguf, key, GGUF_U32, &value, l->error);
    if (status) return status;
    if (!value) return fail(l->error, FASTGPT_ERR_FORMAT, "key %s is missing", key);
    uint32_t n = gguf_u32(value->data);
    if (n < 1 || n > max) return fail(l->error, FASTGPT_ERR_FORMAT, "key %s is %u, not in [1, %u]", key, n, max);
    *out = (int32_t)n;
    return FASTGPT_OK;
}

static fastgpt_status read_epsilon(loader *l) {
    key_name name = key_of(l, "attention.layer_norm_epsilon");
    const char *key = name.text;
    const gguf_value *value;
    fastgpt_status status = gguf_get(&l->gguf, key, GGUF_F32, &value, l->error);
    if (status) return status;
    if (!value) return fail(l->error, FASTGPT_ERR_FORMAT, "key %s is missing", key);
    uint32_t bits = gguf_u32(value->data);
    memcpy(&l->model->layer_norm_epsilon, &bits, sizeof bits);
    if (!(l->model->layer_norm_epsilon >= 0 && l->model->layer_norm_epsilon <= 1))
        return fail(l->error, FASTGPT_ERR_FORMAT, "key %s is %g, not in [0, 1]", key,
                    (double)l->model->layer_norm_epsilon);
    return FASTGPT_OK;
}

static fastgpt_status read_activation(loader *l) {
    key_name key = key_of(l, "activation");
    const gguf_value *value;
    fastgpt_status status = gguf_get(&l->gguf, key.text, GGUF_STRING, &value, l->error);
    if (status || !value) return status; /* GELU_TANH */
    const uint8_t *at = value->data;
    gguf_string wanted = gguf_next_string(&at);
    for (int i = 0; i < N_ACTIVATIONS; i++) {
        l->model->activation = (activation)i;
        if (gguf_string_is(wanted, activation_names[i])) return FASTGPT_OK;
    }
    return fail(l->error, FASTGPT_ERR_UNSUPPORTED, "key %s is %.*s; gelu_tanh, gelu_erf, relu and silu are implemented",
                key.text, gguf_shown(wanted), wanted.text);
}

/* n_vocab has no key that every writer sets: it is the number of rows of the token embedding; of tiles, of its scales.
 */
static fastgpt_status read_n_vocab(loader *l) {
    const gguf_tensor *wte = gguf_find_tensor(&l->gguf, "token_embd.weight");
    if (!wte) return fail(l->error, FASTGPT_ERR_FORMAT, "tensor token_embd.weight is missing");
    const gguf_tensor *scales = has_row_scales(wte->type) ? gguf_find_tensor(&l->gguf, "token_embd.scale") : NULL;
    if (has_row_scales(wte->type) && !scales)
        return fail(l->error, FASTGPT_ERR_FORMAT, "tensor token_embd.scale is missing");
    const uint64_t n_rows = scales ? scales->shape[0] : wte->shape[1];
    if (n_rows < 1 || n_rows > MAX_VOCAB || (!scales && wte->rank != 2))
        return fail(l->error, FASTGPT_ERR_FORMAT, "tensor token_embd.weight is not [n_vocab <= %d][n_embd]", MAX_VOCAB);
    l->model->n_vocab = (int32_t)n_rows;
    return FASTGPT_OK;
}

static fastgpt_status read_hyper_parameters(loader *l) {
    fastgpt_model *m = l->model;
    fastgpt_status status = read_architecture(l);
    if (!status) status = refuse_unknown_keys(l);
    if (!status) status = read_size(l, "block_count", MAX_LAYER, &m->n_layer);
    if (!status) status = read_size(l, "context_length", MAX_CTX, &m->n_ctx);
    if (!status) status = read_size(l, "embedding_length", MAX_EMBD, &m->n_embd);
    if (!status) status = read_size(l, "feed_forward_length", MAX_FF, &m->n_ff);
    if (!status) status = read_size(l, "attention.head_count", MAX_EMBD, &m->n_head);
    if (!status) status = read_epsilon(l);
    if (!status) status = read_activation(l);
    if (!status) status = read_n_vocab(l);
    if (!status && m->n_embd % m->n_head != 0)
        return fail(l->error, FASTGPT_ERR_FORMAT, "n_embd %d is not a multiple of n_head %d", m->n_embd, m->n_head);
    return status;
}

static fastgpt_status read_name(loader *l) {
    const gguf_value *value;
    fastgpt_status status = gguf_get(&l->gguf, "general.name", GGUF_STRING, &value, l->error);
    if (status) return status;
    const uint8_t *at = value ? value->data : NULL;
    gguf_string name = value ? gguf_next_string(&at) : (gguf_string){"", 0};
    l->model->name = calloc(name.n + 1, 1);
    if (!l->model->name) return fail(l->error, FASTGPT_ERR_MEMORY, "no memory for the model's name");
    memcpy(l->model->name, name.text, name.n);
    return FASTGPT_OK;
}

/* ---- Tensors ---- */

/* Room for all vectors that are not F32; their bytes in the file bound it. */
static fastgpt_status allocate_f32_vectors(loader *l) {
    uint64_t n = 0;
    for (uint64_t i = 0; i < l->gguf.n_tensors; i++)
        if (l->gguf.tensors[i].rank == 1 && l->gguf.tensors[i].type != TYPE_F32) n += l->gguf.tensors[i].n_elements;
    if (n == 0) return FASTGPT_OK;
    l->model->f32_vectors = os_alloc(n * sizeof(float));
    if (!l->model->f32_vectors)
        return fail(l->error, FASTGPT_ERR_MEMORY, "no memory for %llu numbers as F32", (unsigned long long)n);
    l->model->n_f32_vectors = n;
    l->next_f32 = l->model->f32_vectors;
    return FASTGPT_OK;
}

/* Room for all matrices that become Q8_0: at most 1.9 times their bytes in the file. */
static fastgpt_status allocate_requantized(loader *l) {
    uint64_t n = 0;
    for (uint64_t i = 0; i < l->gguf.n_tensors; i++)
        if (l->gguf.tensors[i].rank == 2 && is_file_only(l->gguf.tensors[i].type))
            n += l->gguf.tensors[i].n_elements / 32;
    if (n == 0) return FASTGPT_OK;
    l->model->requantized = os_alloc(n * sizeof *l->model->requantized);
    if (!l->model->requantized)
        return fail(l->error, FASTGPT_ERR_MEMORY, "no memory for %llu blocks of Q8_0", (unsigned long long)n);
    l->model->n_requantized = n;
    l->next_requantized = l->model->requantized;
    return FASTGPT_OK;
}

/* Notes that a tensor is part of the model. */
static void count_tensor(loader *l, const gguf_tensor *t) {
    l->found[t - l->gguf.tensors] = true;
    l->bytes_of_type[t->type] += t->n_bytes;
}

/* The tensor of that name, which must be [n_rows][n_columns]; n_rows 0 = a vector of n_columns. */
static fastgpt_status find_tensor(loader *l, const char *name, int32_t n_rows, int32_t n_columns,
                                  const gguf_tensor **out) {
    const gguf_tensor *t = gguf_find_tensor(&l->gguf, name);
    if (!t) return fail(l->error, FASTGPT_ERR_FORMAT, "tensor %s is missing", name);
    if (has_row_scales(t->type))
        return fail(l->error, FASTGPT_ERR_UNSUPPORTED, "tensor %s is %s, which it cannot be", name,
                    dtype_infos[t->type].name);
    bool matches = t->rank == (n_rows ? 2u : 1u) && t->shape[0] == (uint64_t)n_columns &&
                   (n_rows == 0 || t->shape[1] == (uint64_t)n_rows);
    if (!matches)
        return fail(l->error, FASTGPT_ERR_FORMAT,
                    "tensor %s has rank %u and shape [%llu][%llu]; expected [%d][%d], where 0 rows mean a vector", name,
                    t->rank, (unsigned long long)t->shape[1], (unsigned long long)t->shape[0], n_rows, n_columns);
    count_tensor(l, t);
    l->model->n_params += (int64_t)t->n_elements;
    *out = t;
    return FASTGPT_OK;
}

/* Vectors are few: those of another type become F32, so that all are F32 from here on. */
static fastgpt_status read_vector(loader *l, const char *name, int32_t n, const float **out) {
    const gguf_tensor *t = NULL;
    fastgpt_status status = find_tensor(l, name, 0, n, &t);
    if (status) return status;
    if (t->type == TYPE_F32) {
        *out = (const float *)(const void *)t->data;
        return FASTGPT_OK;
    }
    dequantize_row(t->type, l->next_f32, t->data, n);
    *out = l->next_f32;
    l->next_f32 += n;
    return FASTGPT_OK;
}

/* Its blocks, rounded to Q8_0. */
static fastgpt_status requantize_matrix(loader *l, const gguf_tensor *t, weight *out) {
    if (!requantize_to_q8_0(l->next_requantized, t->type, t->data, (int64_t)t->n_elements))
        return fail(l->error, FASTGPT_ERR_FORMAT, "tensor %.*s has numbers that are not finite, or too large for Q8_0",
                    gguf_shown(t->name), t->name.text);
    out->w = (const uint8_t *)l->next_requantized;
    out->type = TYPE_Q8_0;
    l->next_requantized += t->n_elements / 32;
    return FASTGPT_OK;
}

/* A matrix stays in the file, in its own type, if kernels compute with that. */
static fastgpt_status read_matrix(loader *l, const char *name, int32_t n_rows, int32_t n_columns, weight *out) {
    const gguf_tensor *t = NULL;
    fastgpt_status status = find_tensor(l, name, n_rows, n_columns, &t);
    if (status) return status;
    *out = (weight){.w = t->data, .type = t->type, .n_out = n_rows, .n_in = n_columns};
    return is_file_only(t->type) ? requantize_matrix(l, t, out) : FASTGPT_OK;
}

/* ---- Matrices of products that are tiles of I8 ---- */

/* A product with a scale that is NaN, infinite or negative would still run; no quantizer writes one. */
static fastgpt_status read_scales(loader *l, const char *name, int32_t n, const float **out) {
    const gguf_tensor *t = NULL;
    fastgpt_status status = find_tensor(l, name, 0, n, &t);
    if (status) return status;
    if (t->type != TYPE_F32) return fail(l->error, FASTGPT_ERR_FORMAT, "tensor %s is not F32", name);
    l->model->n_params -= n;
    *out = (const float *)(const void *)t->data;
    for (int32_t i = 0; i < n; i++)
        if (!((*out)[i] >= 0 && (*out)[i] <= FLT_MAX))
            return fail(l->error, FASTGPT_ERR_FORMAT, "tensor %s: scale %d is negative or not finite", name, i);
    return FASTGPT_OK;
}

/* Tiles of sixteen rows: [tiles][n_in / 4] lines of 64 bytes. */
static fastgpt_status check_tiles(loader *l, const char *name, int32_t n_rows, int32_t n_columns,
                                  const gguf_tensor *t) {
    if (strcmp(l->architecture, "gpt2") == 0)
        return fail(l->error, FASTGPT_ERR_UNSUPPORTED, "tensor %s is I8, which only architecture fastgpt-gpt2 has",
                    name);
    if (n_columns % I8_BLOCK_K != 0 || n_columns > I8_MAX_IN)
        return fail(l->error, FASTGPT_ERR_FORMAT,
                    "tensor %s is I8, but its rows have %d numbers, no multiple of %d up to %d", name, n_columns,
                    I8_BLOCK_K, I8_MAX_IN);
    const uint64_t tiles = ((uint64_t)n_rows + I8_TILE_ROWS - 1) / I8_TILE_ROWS,
                   lines = (uint64_t)n_columns / I8_LINE_K;
    if (t->rank != 3 || t->shape[0] != sizeof(tile_line_i8) || t->shape[1] != lines || t->shape[2] != tiles)
        return fail(l->error, FASTGPT_ERR_FORMAT,
                    "tensor %s has rank %u and shape [%llu][%llu][%llu]; tiles of [%d][%d] are [%llu][%llu][%zu]", name,
                    t->rank, (unsigned long long)t->shape[2], (unsigned long long)t->shape[1],
                    (unsigned long long)t->shape[0], n_rows, n_columns, (unsigned long long)tiles,
                    (unsigned long long)lines, sizeof(tile_line_i8));
    return FASTGPT_OK;
}

/* prefix.weight are tiles, prefix.scale [n_rows]. */
static fastgpt_status read_tiles(loader *l, const char *prefix, int32_t n_rows, int32_t n_columns, const gguf_tensor *t,
                                 weight *out) {
    char name[64];
    snprintf(name, sizeof name, "%s.weight", prefix);
    fastgpt_status status = check_tiles(l, name, n_rows, n_columns, t);
    if (status) return status;
    *out = (weight){.w = t->data, .type = TYPE_I8, .n_out = n_rows, .n_in = n_columns};
    count_tensor(l, t);
    l->model->n_params += (int64_t)n_rows * n_columns;
    snprintf(name, sizeof name, "%s.scale", prefix);
    return read_scales(l, name, n_rows, &out->scales);
}

/* prefix.weight [n_rows][n_columns], of any type or in tiles. */
static fastgpt_status read_product(loader *l, const char *prefix, int32_t n_rows, int32_t n_columns, weight *out) {
    char name[64];
    snprintf(name, sizeof name, "%s.weight", prefix);
    const gguf_tensor *t = gguf_find_tensor(&l->gguf, name);
    if (t && has_row_scales(t->type)) return read_tiles(l, prefix, n_rows, n_columns, t, out);
    return read_matrix(l, name, n_rows, n_columns, out);
}

static fastgpt_status read_norm(loader *l, norm *out, const char *prefix) {
    char name[64];
    snprintf(name, sizeof name, "%s.weight", prefix);
    fastgpt_status status = read_vector(l, name, l->model->n_embd, &out->w);
    if (status) return status;
    snprintf(name, sizeof name, "%s.bias", prefix);
    return read_vector(l, name, l->model->n_embd, &out->b);
}

static fastgpt_status read_weight(loader *l, weight *out, const char *prefix, int32_t n_out, int32_t n_in) {
    char name[64];
    fastgpt_status status = read_product(l, prefix, n_out, n_in, out);
    if (status) return status;
    snprintf(name, sizeof name, "%s.bias", prefix);
    return read_vector(l, name, n_out, &out->b);
}

static fastgpt_status read_layer(loader *l, int32_t i) {
    layer_weights *out = &l->model->layers[i];
    int32_t n_embd = l->model->n_embd, n_ff = l->model->n_ff;
    char prefix[6][32];
    static const char *const parts[6] = {"attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down"};
    for (int p = 0; p < 6; p++) snprintf(prefix[p], sizeof prefix[p], "blk.%d.%s", i, parts[p]);
    fastgpt_status status = read_norm(l, &out->ln_1, prefix[0]);
    if (!status) status = read_weight(l, &out->qkv, prefix[1], 3 * n_embd, n_embd);
    if (!status) status = read_weight(l, &out->attn_proj, prefix[2], n_embd, n_embd);
    if (!status) status = read_norm(l, &out->ln_2, prefix[3]);
    if (!status) status = read_weight(l, &out->fc, prefix[4], n_ff, n_embd);
    if (!status) status = read_weight(l, &out->proj, prefix[5], n_embd, n_ff);
    return status;
}

static fastgpt_status read_lm_head(loader *l) {
    fastgpt_model *m = l->model;
    m->lm_head = m->wte;
    if (!gguf_find_tensor(&l->gguf, "output.weight")) return FASTGPT_OK;
    return read_product(l, "output", m->n_vocab, m->n_embd, &m->lm_head);
}

/* A tensor that nobody here has heard of may change the result, so it is refused. */
static fastgpt_status refuse_unknown_tensors(loader *l) {
    for (uint64_t i = 0; i < l->gguf.n_tensors; i++) {
        gguf_string name = l->gguf.tensors[i].name;
        if (!l->found[i])
            return fail(l->error, FASTGPT_ERR_UNSUPPORTED, "tensor %.*s is not part of a gpt2 of %d layers",
                        gguf_shown(name), name.text, l->model->n_layer);
    }
    return FASTGPT_OK;
}

static fastgpt_status read_tensors(loader *l) {
    fastgpt_model *m = l->model;
    if ((uint64_t)m->n_layer > l->gguf.n_tensors)
        return fail(l->error, FASTGPT_ERR_FORMAT, "%d layers, but only %llu tensors", m->n_layer,
                    (unsigned long long)l->gguf.n_tensors);
    m->layers = calloc((size_t)m->n_layer, sizeof *m->layers);
    l->found = calloc(l->gguf.n_tensors, sizeof *l->found);
    if (!m->layers || !l->found) return fail(l->error, FASTGPT_ERR_MEMORY, "no memory for the tensor table");
    fastgpt_status status = allocate_f32_vectors(l);
    if (!status) status = allocate_requantized(l);
    if (!status) status = read_product(l, "token_embd", m->n_vocab, m->n_embd, &m->wte);
    if (!status) status = read_matrix(l, "position_embd.weight", m->n_ctx, m->n_embd, &m->wpe);
    for (int32_t i = 0; i < m->n_layer && !status; i++) status = read_layer(l, i);
    if (!status) status = read_norm(l, &m->ln_f, "output_norm");
    if (!status) status = read_lm_head(l);
    return status ? status : refuse_unknown_tensors(l);
}

static const char *main_type(const loader *l) {
    dtype best = TYPE_F32;
    for (dtype type = 0; type < N_DTYPES; type++)
        if (l->bytes_of_type[type] > l->bytes_of_type[best]) best = type;
    return dtype_infos[best].name;
}

/* ---- All of it ---- */

fastgpt_status model_read(fastgpt_model *m, fastgpt_error *error) {
    loader l = {.model = m, .gguf = m->gguf, .error = error};
    fastgpt_status status = read_hyper_parameters(&l);
    if (!status) status = read_tensors(&l);
    if (!status) status = read_name(&l);
    if (!status) status = vocab_read(&m->vocab, &l.gguf, m->n_vocab, error);
    m->type = main_type(&l);
    free(l.found);
    return status;
}

/* The number of tokens is that of the list, or else that of the embedding's rows: other tokenizers than GPT-2's have no
 * list. */
fastgpt_status model_read_vocabulary(fastgpt_model *m, fastgpt_error *error) {
    loader l = {.model = m, .gguf = m->gguf, .error = error};
    const gguf_value *tokens;
    fastgpt_status status = gguf_get_array(&l.gguf, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, error);
    if (status) return status;
    if (!tokens && !gguf_find_tensor(&l.gguf, "token_embd.weight"))
        return fail(error, FASTGPT_ERR_FORMAT, "holds no vocabulary: key tokenizer.ggml.tokens is missing");
    if (tokens && tokens->n > MAX_VOCAB)
        return fail(error, FASTGPT_ERR_FORMAT, "tokenizer.ggml.tokens has more than %d tokens", MAX_VOCAB);
    if (tokens) m->n_vocab = (int32_t)tokens->n;
    else status = read_n_vocab(&l);
    m->type = "none";
    if (!status) status = read_name(&l);
    return status ? status : vocab_read(&m->vocab, &l.gguf, m->n_vocab, error);
}
