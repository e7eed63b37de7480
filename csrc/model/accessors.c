/* accessors.c - what can be asked of a model: sizes, names, vocabulary, keys and tensors of its file, the bytes that a
 * step reads.
 */
#include <string.h>

#include "model/model.h"

/* ---- Sizes and names ---- */

const char *const activation_names[N_ACTIVATIONS] = {"gelu_tanh", "gelu_erf", "relu", "silu"};

int32_t fastgpt_model_n_vocab(const fastgpt_model *m) { return m->n_vocab; }
int32_t fastgpt_model_n_ctx(const fastgpt_model *m) { return m->n_ctx; }
int32_t fastgpt_model_n_embd(const fastgpt_model *m) { return m->n_embd; }
int32_t fastgpt_model_n_head(const fastgpt_model *m) { return m->n_head; }
int32_t fastgpt_model_n_layer(const fastgpt_model *m) { return m->n_layer; }
int32_t fastgpt_model_n_ff(const fastgpt_model *m) { return m->n_ff; }
int64_t fastgpt_model_n_params(const fastgpt_model *m) { return m->n_params; }
const char *fastgpt_model_type(const fastgpt_model *m) { return m->type; }
const char *fastgpt_model_activation(const fastgpt_model *m) { return activation_names[m->activation]; }
const char *fastgpt_model_name(const fastgpt_model *m) { return m->name; }
int32_t fastgpt_model_eos_token(const fastgpt_model *m) { return m->vocab.n_eos_tokens ? *m->vocab.eos_tokens : -1; }
int32_t fastgpt_model_n_eos_tokens(const fastgpt_model *m) { return m->vocab.n_eos_tokens; }
const int32_t *fastgpt_model_eos_tokens(const fastgpt_model *m) { return m->vocab.eos_tokens; }

float fastgpt_model_layer_norm_epsilon(const fastgpt_model *m) { return m->layer_norm_epsilon; }

bool model_ends_text(const fastgpt_model *m, int32_t token) {
    for (int32_t i = 0; i < m->vocab.n_eos_tokens; i++)
        if (token == m->vocab.eos_tokens[i]) return true;
    return false;
}

const int32_t *fastgpt_model_token_types(const fastgpt_model *m) { return m->vocab.types; }

size_t fastgpt_model_sizeof(const fastgpt_model *m) {
    size_t copied = m->file.owned ? m->file.n_bytes : 0;
    return sizeof *m + copied + m->n_f32_vectors * sizeof(float) + m->n_requantized * sizeof *m->requantized +
           (size_t)m->n_layer * sizeof *m->layers + vocab_sizeof(&m->vocab) + gguf_sizeof(&m->gguf) + strlen(m->name) +
           1;
}

const char *fastgpt_model_token_bytes(const fastgpt_model *m, int32_t token, size_t *n_bytes) {
    const string_list *bytes = &m->vocab.bytes;
    *n_bytes = 0;
    if (token < 0 || token >= bytes->n) return NULL;
    *n_bytes = bytes->offsets[token + 1] - bytes->offsets[token];
    return bytes->text + bytes->offsets[token];
}

static fastgpt_strings strings_of(const string_list *list) {
    static const uint64_t none[1];
    return list->n ? (fastgpt_strings){list->n, list->text, list->offsets} : (fastgpt_strings){0, "", none};
}

fastgpt_strings fastgpt_model_tokens(const fastgpt_model *m) { return strings_of(&m->vocab.tokens); }
fastgpt_strings fastgpt_model_merges(const fastgpt_model *m) { return strings_of(&m->vocab.merges); }
void fastgpt_model_get_tokens(const fastgpt_model *m, fastgpt_strings *out) { *out = fastgpt_model_tokens(m); }
void fastgpt_model_get_merges(const fastgpt_model *m, fastgpt_strings *out) { *out = fastgpt_model_merges(m); }

fastgpt_type fastgpt_model_kv_type(const fastgpt_model *m) {
    bool all_f32 = m->lm_head.type == TYPE_F32;
    for (int32_t i = 0; i < m->n_layer; i++) {
        const layer_weights *l = &m->layers[i];
        all_f32 &= l->qkv.type == TYPE_F32 && l->attn_proj.type == TYPE_F32 && l->fc.type == TYPE_F32 &&
                   l->proj.type == TYPE_F32;
    }
    return all_f32 ? FASTGPT_TYPE_F32 : FASTGPT_TYPE_F16;
}

/* ---- Keys of the file ---- */

const char *fastgpt_model_metadata(const fastgpt_model *m, const char *key, size_t *n_bytes) {
    const gguf_value *value = gguf_find_value(&m->gguf, key);
    *n_bytes = 0;
    if (!value) return NULL;
    bool text = value->type == GGUF_STRING && !value->is_array, bytes = value->type == GGUF_U8 && value->is_array;
    if (!text && !bytes) return NULL;
    const uint8_t *at = value->data;
    gguf_string found = text ? gguf_next_string(&at) : (gguf_string){(const char *)at, value->n};
    *n_bytes = found.n;
    return found.text;
}

/* ---- Tensors of the file ---- */

const void *fastgpt_model_tensor(const fastgpt_model *m, const char *name, fastgpt_type *type, int64_t *n_rows,
                                 int64_t *n_columns) {
    const gguf_tensor *t = model_has_weights(m) ? gguf_find_tensor(&m->gguf, name) : NULL;
    *type = t ? (fastgpt_type)dtype_infos[t->type].gguf_type : FASTGPT_TYPE_F32;
    *n_columns = t ? (int64_t)t->shape[0] : 0;
    *n_rows = t ? (int64_t)(t->shape[1] * t->shape[2]) : 0; /* 1 beyond the rank */
    return t ? t->data : NULL;
}

/* ---- What a step moves ---- */

static int64_t norm_bytes(const fastgpt_model *m) { return 2 * (int64_t)sizeof(float) * m->n_embd; }

static int64_t weight_bytes(const weight *w) {
    int64_t vectors = ((w->b != NULL) + (w->scales != NULL)) * (int64_t)sizeof(float);
    return w->n_out * (row_bytes(w->type, w->n_in) + vectors);
}

int64_t fastgpt_model_step_bytes(const fastgpt_model *m) {
    int64_t n = norm_bytes(m) + weight_bytes(&m->lm_head);
    for (int32_t i = 0; i < m->n_layer; i++) {
        const layer_weights *l = &m->layers[i];
        n += 2 * norm_bytes(m) + weight_bytes(&l->qkv) + weight_bytes(&l->attn_proj) + weight_bytes(&l->fc) +
             weight_bytes(&l->proj);
    }
    return n;
}
