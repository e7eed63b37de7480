/* text_stream.c - tokens in, whole characters out. */
#include <string.h>

#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

enum { MAX_PENDING = 3, N_REPLACEMENT = 3 };
static const char REPLACEMENT[] = "\xEF\xBF\xBD"; /* U+FFFD */

struct fastgpt_stream {
    const fastgpt_tokenizer *tokenizer;
    size_t n_pending;
    uint8_t *bytes; /* [MAX_PENDING + n_longest] the beginning of a character, then the bytes of a token */
    char *text;     /* what the stream gives: at most a U+FFFD for each of them, and NUL */
};

static size_t max_bytes(const fastgpt_tokenizer *tokenizer) { return MAX_PENDING + tokenizer->n_longest; }
static size_t max_text(const fastgpt_tokenizer *tokenizer) { return N_REPLACEMENT * max_bytes(tokenizer) + 1; }

fastgpt_status fastgpt_stream_create(const fastgpt_tokenizer *tokenizer, fastgpt_stream **out) {
    if (!out) return FASTGPT_ERR_ARGUMENT;
    *out = NULL;
    if (!tokenizer) return FASTGPT_ERR_ARGUMENT;
    fastgpt_stream *s = calloc(1, sizeof *s);
    if (!s) return FASTGPT_ERR_MEMORY;
    s->tokenizer = tokenizer;
    s->bytes = malloc(max_bytes(tokenizer));
    s->text = malloc(max_text(tokenizer));
    if (!s->bytes || !s->text) {
        fastgpt_stream_free(s);
        return FASTGPT_ERR_MEMORY;
    }
    *out = s;
    return FASTGPT_OK;
}

void fastgpt_stream_free(fastgpt_stream *stream) {
    if (!stream) return;
    free(stream->bytes);
    free(stream->text);
    free(stream);
}

size_t fastgpt_stream_sizeof(const fastgpt_stream *stream) {
    return sizeof *stream + max_bytes(stream->tokenizer) + max_text(stream->tokenizer);
}

/* Moves the whole characters of bytes [n] to text, and keeps the rest.  Returns the length of the text. */
static size_t move_characters(fastgpt_stream *s, size_t n) {
    char *text = s->text;
    size_t i = 0;
    while (i < n) {
        uint32_t code;
        int length = utf8_next(s->bytes + i, n - i, &code);
        if (length == 0) break;
        size_t n_text = length > 0 ? (size_t)length : N_REPLACEMENT;
        memcpy(text, length > 0 ? (const char *)s->bytes + i : REPLACEMENT, n_text);
        text += n_text;
        i += (size_t)(length > 0 ? length : -length);
    }
    s->n_pending = n - i;
    memmove(s->bytes, s->bytes + i, s->n_pending);
    *text = '\0';
    return (size_t)(text - s->text);
}

fastgpt_status fastgpt_stream_push(fastgpt_stream *stream, int32_t token, const char **text, size_t *n_bytes) {
    if (!stream || !text || !n_bytes) return FASTGPT_ERR_ARGUMENT;
    const string_list *list = &stream->tokenizer->bytes;
    if (token < 0 || token >= list->n) return FASTGPT_ERR_TOKEN_RANGE;
    const uint64_t *at = list->offsets + token;
    memcpy(stream->bytes + stream->n_pending, list->text + at[0], at[1] - at[0]);
    *n_bytes = move_characters(stream, stream->n_pending + (at[1] - at[0]));
    *text = stream->text;
    return FASTGPT_OK;
}

fastgpt_status fastgpt_stream_finish(fastgpt_stream *stream, const char **text, size_t *n_bytes) {
    if (!stream || !text || !n_bytes) return FASTGPT_ERR_ARGUMENT;
    *text = stream->n_pending ? REPLACEMENT : "";
    *n_bytes = stream->n_pending ? N_REPLACEMENT : 0;
    stream->n_pending = 0;
    return FASTGPT_OK;
}
