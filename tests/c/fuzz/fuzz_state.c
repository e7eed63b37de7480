/* fuzz_state.c - loads damaged files of KV caches:  fuzz_state N SEED  makes N of them, the same ones for the same
 * SEED.
 *
 * Half of them get a right checksum after the damage, so that what comes behind it is tried, too.  What loads goes
 * through a step, saves itself again and is compared. */
#include "support/mutations.h"
#include "support/saved_state.h"

#include <inttypes.h>

enum { N_PAST = 5 };

static fastgpt_model *model;
static fastgpt_context *ctx;
static uint64_t file_number; /* its seed */

static mutation *const mutations[] = {flip_bits, set_bytes, set_interesting_number, change_length, chop, splice, shift};

#define EXPECT(condition) CHECK_FOR(condition, "fuzz_state 1 %" PRIu64, file_number)

static buffer make_base(fastgpt_type type) {
    static const int32_t tokens[N_PAST] = {1, 2, 3, 2, 1};
    fastgpt_kv_cache *kv;
    if (fastgpt_kv_cache_create_typed(model, 0, type, &kv) != FASTGPT_OK) abort();
    if (fastgpt_prefill(ctx, kv, tokens, N_PAST, NULL) != FASTGPT_OK) abort();
    buffer bytes = state_of(kv, model);
    fastgpt_kv_cache_free(kv);
    return bytes;
}

/* Numbers may be anything; the step must take them, and saving must give the file again. */
static void check_loaded(fastgpt_kv_cache *kv, const buffer *file) {
    buffer again = state_of(kv, model);
    EXPECT(again.n == file->n && memcmp(again.data, file->data, file->n) == 0);
    free(again.data);
    if (fastgpt_kv_cache_n_past(kv) < fastgpt_kv_cache_n_ctx(kv))
        EXPECT(fastgpt_decode(ctx, kv, 0, NULL) == FASTGPT_OK);
}

static bool try_file(const buffer *file) {
    fastgpt_kv_cache *kv;
    fastgpt_error error;
    fastgpt_status status = load_state(model, file, 0, &kv, &error);
    EXPECT((status == FASTGPT_OK) == (kv != NULL));
    if (kv) check_loaded(kv, file);
    else
        EXPECT(status == FASTGPT_ERR_FORMAT || status == FASTGPT_ERR_UNSUPPORTED ||
               status == FASTGPT_ERR_CACHE_MISMATCH);
    if (!kv) EXPECT(error.text[0] && memchr(error.text, 0, sizeof error.text));
    fastgpt_kv_cache_free(kv);
    return status == FASTGPT_OK;
}

static bool try_number(const buffer *bases, uint64_t seed) {
    random_state = file_number = seed;
    const buffer *base = &bases[pick(2)];
    buffer file = {0};
    put(&file, base->data, base->n);
    mutate(&file, AT_TOKENS + 4 * N_PAST, mutations, sizeof mutations / sizeof *mutations);
    if (pick(2)) mend_checksum(&file);
    bool loaded = try_file(&file);
    free(file.data);
    return loaded;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: fuzz_state N SEED\n");
        return 2;
    }
    uint64_t n = strtoull(argv[1], NULL, 10), seed = strtoull(argv[2], NULL, 10), n_loaded = 0;
    model = load_shape(tiny_shape, false);
    ctx = new_context(model, NULL, 2);
    buffer bases[2] = {make_base(FASTGPT_TYPE_F32), make_base(FASTGPT_TYPE_BF16)};
    CHECK(try_file(&bases[0]) && try_file(&bases[1]));
    for (uint64_t i = 0; i < n; i++) n_loaded += try_number(bases, seed + i);
    if (n >= 1000)
        CHECK(n_loaded > n / 50 && n_loaded < n - n / 50); /* the mutations are neither too strong nor weak */
    printf("%" PRIu64 " files: %" PRIu64 " loaded\n", n, n_loaded);
    free(bases[0].data);
    free(bases[1].data);
    fastgpt_context_free(ctx);
    fastgpt_model_free(model);
    return check_report();
}
