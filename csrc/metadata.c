/* metadata.c - what a file says besides the numbers: its licence and source, tokenizers that others run. */
#include "gguf.h"
#include "model.h"

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
