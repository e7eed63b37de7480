/* test_changing_file.c - a model file that another process changes in place while it is mapped: what was checked stays
 * so.  Each byte of each length, count and offset is changed once, before each allocation of a load, and after it. */
#include <fcntl.h>

#include "support/session.h"

/* ---- The other process ---- */

static int changed_fd;
static off_t changed_at;
static uint8_t changed_to;
static int allocations_until_change; /* counts down; the one that reaches 0 comes after the change */

static void change_now(void) {
    if (pwrite(changed_fd, &changed_to, 1, changed_at) != 1) abort();
}

static void count_allocation(void) {
    if (allocations_until_change > 0 && --allocations_until_change == 0) change_now();
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_malloc(size_t n) {
    count_allocation();
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size) {
    count_allocation();
    return __real_calloc(n, size);
}

/* ---- Where the numbers stand ---- */

enum { MOST_BYTES = 4096 };

static size_t places[MOST_BYTES];
static int n_places;

static void add_places(const buffer *file, const void *at, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (n_places == MOST_BYTES) abort();
        places[n_places++] = (size_t)((const uint8_t *)at + i - file->data);
    }
}

static void find_places_of_value(const buffer *file, const gguf_value *value) {
    const uint8_t *at = value->data;
    add_places(file, value->name.text - 8, 8);
    add_places(file, value->name.text + value->name.n, 4);
    if (value->is_array) add_places(file, at - 12, 12);
    for (uint64_t i = 0; i < value->n && value->type == GGUF_STRING; i++) {
        add_places(file, at, 8);
        gguf_next_string(&at);
    }
}

/* Its rank, shape, type and offset lie behind its name. */
static void find_places_of_tensor(const buffer *file, const gguf_tensor *tensor) {
    add_places(file, tensor->name.text - 8, 8);
    add_places(file, tensor->name.text + tensor->name.n, 4 + 8 * tensor->rank + 4 + 8);
}

static void find_places(const buffer *file) {
    gguf_file gguf;
    if (gguf_parse(&gguf, file->data, file->n, false, NULL) != FASTGPT_OK) abort();
    add_places(file, file->data, 24);
    for (uint64_t i = 0; i < gguf.n_values; i++) find_places_of_value(file, &gguf.values[i]);
    for (uint64_t i = 0; i < gguf.n_tensors; i++) find_places_of_tensor(file, &gguf.tensors[i]);
    gguf_free(&gguf);
}

/* ---- All that a model tells ---- */

static uint64_t mix(uint64_t sum, const void *data, size_t n) {
    for (size_t i = 0; i < n; i++) sum = (sum ^ ((const uint8_t *)data)[i]) * UINT64_C(1099511628211);
    return sum;
}

static uint64_t mix_strings(uint64_t sum, fastgpt_strings strings) {
    sum = mix(sum, strings.offsets, ((size_t)strings.n + 1) * sizeof *strings.offsets);
    return mix(sum, strings.text, strings.offsets[strings.n]);
}

static uint64_t mix_tokenizer(uint64_t sum, const fastgpt_model *model) {
    fastgpt_tokenizer *tokenizer;
    int32_t tokens[8], n = 0;
    if (fastgpt_tokenizer_create(model, &tokenizer, NULL)) return sum;
    if (fastgpt_encode(tokenizer, "a a", 3, 0, tokens, 8, &n) == FASTGPT_OK)
        sum = mix(sum, tokens, (size_t)n * sizeof *tokens);
    fastgpt_tokenizer_free(tokenizer);
    return sum;
}

/* A hash of everything but the weights. */
static uint64_t told_by(const fastgpt_model *model, const draft *d) {
    uint64_t sum = mix(0, fastgpt_model_name(model), strlen(fastgpt_model_name(model)));
    size_t n;
    for (int i = 0; i < d->n_keys; i++) {
        const char *text = fastgpt_model_metadata(model, d->keys[i].name, &n);
        if (text) sum = mix(sum, text, n);
    }
    for (int32_t i = 0; i < fastgpt_model_n_vocab(model); i++) {
        const char *text = fastgpt_model_token_bytes(model, i, &n);
        if (text) sum = mix(sum, text, n);
    }
    sum = mix_strings(mix_strings(sum, fastgpt_model_tokens(model)), fastgpt_model_merges(model));
    return mix_tokenizer(sum, model);
}

static void take_step(const fastgpt_model *model) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *kv = new_cache(model, 0);
    CHECK(fastgpt_prefill(ctx, kv, (const int32_t[]){1, 2, 3}, 3, NULL) == FASTGPT_OK);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
}

/* ---- Changes ---- */

static void plan_change(const buffer *file, size_t at, bool back) {
    changed_at = (off_t)at;
    changed_to = back ? file->data[at] : (uint8_t)~file->data[at];
}

static void test_changes_after_load(const buffer *file, const draft *d, const char *path) {
    fastgpt_model *model;
    if (!CHECK(fastgpt_model_load(path, NULL, &model, NULL) == FASTGPT_OK)) return;
    uint64_t told = told_by(model, d);
    for (int i = 0; i < n_places; i++) {
        plan_change(file, places[i], false);
        change_now();
        CHECK_FOR(told_by(model, d) == told, "byte %zu", places[i]);
        plan_change(file, places[i], true);
        change_now();
    }
    take_step(model);
    fastgpt_model_free(model);
}

/* False where the load makes fewer than k allocations. */
static bool load_changed(const buffer *file, const draft *d, const char *path, size_t at, int k) {
    fastgpt_model *model;
    fastgpt_error error;
    plan_change(file, at, false);
    allocations_until_change = k;
    fastgpt_status status = fastgpt_model_load(path, NULL, &model, &error);
    bool reached = allocations_until_change == 0;
    allocations_until_change = 0;
    CHECK_FOR(status == FASTGPT_OK || error.text[0], "byte %zu, allocation %d", at, k);
    if (status == FASTGPT_OK) told_by(model, d);
    fastgpt_model_free(model);
    plan_change(file, at, true);
    change_now();
    return reached;
}

static void test_changes_during_load(const buffer *file, const draft *d, const char *path) {
    for (int i = 0; i < n_places; i++)
        for (int k = 1; load_changed(file, d, path, places[i], k); k++) {
        }
}

int main(void) {
    draft d = draft_of(tiny_shape);
    put(draft_set_array(&d, "fastgpt.tokenizer", GGUF_U8, 5), "12345", 5);
    buffer file = draft_write(&d, NULL);
    temporary_file path = write_temporary(file.data, file.n);
    changed_fd = open(path.path, O_WRONLY);
    if (changed_fd < 0) abort();
    find_places(&file);
    test_changes_after_load(&file, &d, path.path);
    test_changes_during_load(&file, &d, path.path);
    printf("%d bytes\n", n_places);
    close(changed_fd);
    unlink(path.path);
    free(file.data);
    draft_free(&d);
    return check_report();
}
