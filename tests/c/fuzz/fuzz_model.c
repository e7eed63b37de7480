/* fuzz_model.c - loads damaged model files:  fuzz_model N SEED  makes N of them, the same ones for the same SEED.
 *
 * Each is a valid file with a few mutations.  It is loaded mapped and copied; what loads runs a few steps and is asked
 * for its whole vocabulary.  Prints how many were refused and exits non-zero when anything is not as the header
 * promises; a sanitizer, or the system, reports the rest.  File number i of SEED is file number 0 of SEED + i, and a
 * crash leaves the file behind, so that it can be looked at. */
#include "support/load.h"
#include "support/mutations.h"

#include <inttypes.h>

enum { N_BASES = 10 };

/* A valid file, to be damaged. */
typedef struct base {
    buffer file;
    size_t data_at; /* the tensors' data begin here */
} base;

static uint64_t file_number; /* its seed */

/* Another value for the next key after some place that begins with "gpt2.". */
static void set_hyper_parameter(buffer *file, size_t reach) {
    for (size_t at = 8 + place(reach, 8); at + 5 < file->n; at++) {
        if (memcmp(file->data + at, "gpt2.", 5) != 0) continue;
        uint64_t n_name = gguf_u64(file->data + at - 8);
        if (n_name < 64) write_number(file, at + n_name + 4, interesting_number(), 4);
        return;
    }
}

static mutation *const mutations[] = {flip_bits, set_bytes, set_interesting_number, set_hyper_parameter,
                                      chop,      splice,    change_length,          shift};

/* ---- What must hold ---- */

static int n_unexpected;

static void expect(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "fuzz_model 1 %" PRIu64 ": %s\n", file_number, what);
    n_unexpected++;
}

static uint64_t sum; /* of all bytes that the model hands out, so that each is read */

static void read_all(const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) sum += (uint8_t)bytes[i];
}

static void read_strings(fastgpt_strings list) {
    expect(list.n >= 0 && list.offsets[0] == 0, "a list does not begin at 0");
    for (int64_t i = 0; i < list.n; i++) expect(list.offsets[i] <= list.offsets[i + 1], "offsets fall");
    read_all(list.text, list.offsets[list.n]);
}

static void read_vocabulary(const fastgpt_model *m) {
    int32_t n_vocab = fastgpt_model_n_vocab(m);
    read_strings(fastgpt_model_tokens(m));
    read_strings(fastgpt_model_merges(m));
    read_all(fastgpt_model_name(m), strlen(fastgpt_model_name(m)));
    const int32_t *types = fastgpt_model_token_types(m);
    for (int32_t token = -1; token <= n_vocab; token++) {
        size_t n;
        const char *bytes = fastgpt_model_token_bytes(m, token, &n);
        read_all(bytes, n);
        if (types && token >= 0 && token < n_vocab) expect(types[token] >= 1 && types[token] <= 6, "a type is odd");
    }
    expect(fastgpt_model_eos_token(m) >= -1 && fastgpt_model_eos_token(m) < n_vocab, "eos_token is not a token");
}

/* What the reader lets pass may still be no tokenizer. */
static void make_tokenizer(const fastgpt_model *m) {
    fastgpt_tokenizer *t;
    fastgpt_error error = {""};
    fastgpt_status status = fastgpt_tokenizer_create(m, &t, &error);
    expect((status == FASTGPT_OK) == (t != NULL), "a refused vocabulary left a tokenizer");
    expect(t || ((status == FASTGPT_ERR_FORMAT || status == FASTGPT_ERR_UNSUPPORTED) && error.text[0]),
           "an odd refusal");
    fastgpt_tokenizer_free(t);
}

/* Weights may be anything, so logits may be NaN, which the sampler must notice. */
static void draw_token(const float *logits, int32_t n_vocab) {
    fastgpt_sampler_params params = {.struct_size = sizeof params, .temperature = 1, .top_p = 0.9f, .top_k = 5};
    fastgpt_sampler *sampler;
    int32_t token = 0;
    expect(fastgpt_sampler_create(n_vocab, &params, &sampler) == FASTGPT_OK, "no sampler");
    fastgpt_status status = fastgpt_sampler_sample(sampler, logits, &token);
    expect(status == FASTGPT_OK || status == FASTGPT_ERR_LOGITS, "sample: an odd status");
    expect(token >= 0 && token < n_vocab, "sample: not a token");
    fastgpt_sampler_free(sampler);
}

/* A prefill of up to three tokens in slices of two, and a decode where there is room. */
static void run_model(const fastgpt_model *m) {
    int32_t n_vocab = fastgpt_model_n_vocab(m), n_ctx = fastgpt_model_n_ctx(m), n = n_ctx < 3 ? n_ctx : 3;
    const int32_t tokens[3] = {0, n_vocab - 1, n_vocab / 2};
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv;
    float *logits = malloc((size_t)n_vocab * sizeof *logits);
    expect(fastgpt_context_create(m, NULL, 2, &ctx) == FASTGPT_OK, "no context");
    expect(fastgpt_kv_cache_create(m, 0, &kv) == FASTGPT_OK, "no cache");
    expect(fastgpt_prefill(ctx, kv, tokens, n, logits) == FASTGPT_OK, "prefill failed");
    if (n_ctx > n) expect(fastgpt_decode(ctx, kv, tokens[1], logits) == FASTGPT_OK, "decode failed");
    draw_token(logits, n_vocab);
    free(logits);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
}

static void check_refusal(fastgpt_status status, const fastgpt_model *m, const fastgpt_error *error) {
    expect(!m, "a refused file left a model");
    expect(status == FASTGPT_ERR_FORMAT || status == FASTGPT_ERR_UNSUPPORTED, "an odd status");
    expect(error->text[0] && memchr(error->text, 0, sizeof error->text), "no words");
}

/* Memory must be in proportion to the file, whatever its numbers say. */
static void check_model(const fastgpt_model *m, size_t n_bytes) {
    expect(fastgpt_model_sizeof(m) <= 8 * n_bytes + 65536, "more memory than the file accounts for");
    read_vocabulary(m);
    make_tokenizer(m);
    run_model(m);
}

/* Whether it loads, which must not depend on the way. */
static bool try_file(const buffer *file) {
    temporary_file temporary = write_temporary(file->data, file->n);
    fastgpt_status statuses[2];
    for (int copy = 0; copy <= 1; copy++) {
        fastgpt_load_options options = {.struct_size = sizeof options, .no_mmap = copy};
        fastgpt_model *m;
        fastgpt_error error;
        statuses[copy] = fastgpt_model_load(temporary.path, &options, &m, &error);
        if (statuses[copy]) check_refusal(statuses[copy], m, &error);
        else check_model(m, file->n);
        fastgpt_model_free(m);
    }
    expect(statuses[0] == statuses[1], "mapped and copied, it loads in one way only");
    unlink(temporary.path);
    return statuses[0] == FASTGPT_OK;
}

static void make_bases(base *bases) {
    static const uint32_t types[N_BASES] = {FILE_F32,  FILE_F16,  FILE_BF16, FILE_F32,  FILE_Q4_1,
                                            FILE_Q5_0, FILE_Q5_1, FILE_Q4_K, FILE_Q5_K, FILE_I8};
    for (int i = 0; i < N_BASES; i++) {
        bool wide = types[i] == FILE_Q4_K || types[i] == FILE_Q5_K;
        model_shape shape = types[i] == FILE_I8 ? tiled_shape : wide ? wide_shape : i < 4 ? tiny_shape : block_shape;
        shape.type = types[i];
        shape.untied = i % 2;
        draft d = draft_of(shape);
        if (i == 3) draft_set_string(&d, "tokenizer.ggml.model", "none");
        bases[i].file = draft_write(&d, &bases[i].data_at);
        draft_free(&d);
    }
}

static bool try_number(const base *bases, uint64_t seed) {
    random_state = file_number = seed;
    const base *b = &bases[pick(N_BASES)];
    buffer file = {0};
    put(&file, b->file.data, b->file.n);
    mutate(&file, b->data_at, mutations, sizeof mutations / sizeof *mutations);
    bool loaded = try_file(&file);
    free(file.data);
    return loaded;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: fuzz_model N SEED\n");
        return 2;
    }
    uint64_t n = strtoull(argv[1], NULL, 10), seed = strtoull(argv[2], NULL, 10), n_loaded = 0;
    base bases[N_BASES];
    make_bases(bases);
    for (int i = 0; i < N_BASES; i++) expect(try_file(&bases[i].file), "a valid file was refused");
    for (uint64_t i = 0; i < n; i++) n_loaded += try_number(bases, seed + i);
    for (int i = 0; i < N_BASES; i++) free(bases[i].file.data);
    if (n >= 1000) expect(n_loaded > n / 50 && n_loaded < n - n / 50, "the mutations are too strong or too weak");
    printf("%" PRIu64 " files: %" PRIu64 " loaded, %" PRIu64 " refused, %d unexpected (sum %" PRIx64 ")\n", n, n_loaded,
           n - n_loaded, n_unexpected, sum);
    return n_unexpected > 0;
}
