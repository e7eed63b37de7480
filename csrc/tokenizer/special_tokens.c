/* special_tokens.c - see special_tokens.h. */
#include "tokenizer/special_tokens.h"

#include <string.h>

#include "common/status.h"
#include "model/vocab.h"

static size_t length_of(const string_list *list, int64_t i) { return list->offsets[i + 1] - list->offsets[i]; }

static bool is_special(const string_list *bytes, const int32_t *types, int64_t i) {
    return types && token_is_special(types[i]) && length_of(bytes, i) > 0;
}

/* The node after this one by a byte, made if need be; -1 when the table refuses. */
static int32_t next_node(special_tokens *special, int32_t node, uint8_t byte) {
    const pair_slot *edge = pair_table_find(&special->edges, node, byte);
    if (edge) return edge->joined;
    int32_t next = special->n_nodes++;
    special->tokens[next] = -1;
    return pair_table_put(&special->edges, (pair_slot){node, byte, 0, next}) ? next : -1;
}

static fastgpt_status add_token(special_tokens *special, const string_list *bytes, int32_t token, special_pass pass,
                                fastgpt_error *error) {
    const char *text = bytes->text + bytes->offsets[token];
    size_t n = length_of(bytes, token);
    if (n > SPECIAL_MAX_BYTES)
        return fail(error, FASTGPT_ERR_FORMAT,
                    "token %d is a control or user-defined token of %zu bytes; the limit is %d", token, n,
                    SPECIAL_MAX_BYTES);
    int32_t node = 0;
    for (size_t i = 0; i < n && node >= 0; i++) node = next_node(special, node, (uint8_t)text[i]);
    if (node < 0) return fail(error, FASTGPT_ERR_FORMAT, "the control tokens were made to collide in a hash table");
    if (special->tokens[node] >= 0)
        return fail(error, FASTGPT_ERR_FORMAT, "the vocabulary has '%.*s' twice: tokens %d and %d", (int)n, text,
                    special->tokens[node], token);
    special->tokens[node] = token;
    special->passes[node] = (uint8_t)pass;
    special->begins[pass][(uint8_t)text[0]] = true;
    return FASTGPT_OK;
}

fastgpt_status special_tokens_create(special_tokens *special, const string_list *bytes, const int32_t *types,
                                     fastgpt_error *error) {
    size_t n_bytes = 0;
    for (int64_t i = 0; i < bytes->n; i++)
        if (is_special(bytes, types, i)) n_bytes += length_of(bytes, i);
    if (n_bytes >= INT32_MAX) return fail(error, FASTGPT_ERR_FORMAT, "the control tokens have %zu bytes", n_bytes);
    special->tokens = malloc((n_bytes + 1) * sizeof *special->tokens);
    special->passes = malloc((n_bytes + 1) * sizeof *special->passes);
    if (!special->tokens || !special->passes || !pair_table_alloc(&special->edges, n_bytes))
        return fail(error, FASTGPT_ERR_MEMORY, "no memory for the tokenizer");
    special->tokens[0] = -1;
    special->n_nodes = 1;
    fastgpt_status status = FASTGPT_OK;
    for (int32_t i = 0; i < bytes->n && !status; i++)
        if (is_special(bytes, types, i))
            status = add_token(special, bytes, i, types[i] == TOKEN_CONTROL ? CONTROL_PASS : USER_DEFINED_PASS, error);
    return status;
}

void special_tokens_free(special_tokens *special) {
    pair_table_free(&special->edges);
    free(special->tokens);
    free(special->passes);
}

size_t special_tokens_sizeof(const special_tokens *special) {
    return pair_table_sizeof(&special->edges) +
           (size_t)special->n_nodes * (sizeof *special->tokens + sizeof *special->passes);
}

/* Length of the longest token of the pass that text [n] begins with, 0 = none. */
static size_t longest_at(const special_tokens *special, special_pass pass, const uint8_t *text, size_t n,
                         int32_t *token) {
    size_t longest = 0;
    int32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        const pair_slot *edge = pair_table_find(&special->edges, node, text[i]);
        if (!edge) break;
        node = edge->joined;
        if (special->tokens[node] < 0 || special->passes[node] != pass) continue;
        *token = special->tokens[node];
        longest = i + 1;
    }
    return longest;
}

size_t special_tokens_find(const special_tokens *special, special_pass pass, const uint8_t *text, size_t n,
                           int32_t *token, size_t *length) {
    const bool *begins = special->begins[pass];
    for (size_t i = 0; i < n; i++)
        if (begins[text[i]] && (*length = longest_at(special, pass, text + i, n - i, token)) > 0) return i;
    return n;
}
