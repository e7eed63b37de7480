/* two_ways.c - the explicit KV cache: read a prompt once, continue it, go back, continue it another way.
 *
 *     cc two_ways.c $(pkg-config --cflags --libs fastgpt) -o two_ways && ./two_ways model.gguf
 *
 * README.md beside this file says where pkg-config finds an installation by pip. */
#include <fastgpt.h>
#include <stdio.h>
#include <stdlib.h>

static void must(fastgpt_status status) {
    if (status == FASTGPT_OK) return;
    fprintf(stderr, "two_ways: %s\n", fastgpt_status_text(status));
    exit(1);
}

static void print_token(const fastgpt_model *model, int32_t token) {
    size_t n;
    const char *bytes = fastgpt_model_token_bytes(model, token, &n);
    fwrite(bytes, 1, n, stdout);
}

static int32_t best(const float *logits, int32_t n_vocab) {
    int32_t best = 0;
    for (int32_t i = 1; i < n_vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* Prints `token` and 20 tokens that follow it greedily. */
static void tell(fastgpt_context *ctx, fastgpt_kv_cache *kv, const fastgpt_model *model, int32_t token, float *logits) {
    for (int i = 0; i < 20; i++) {
        print_token(model, token);
        must(fastgpt_decode(ctx, kv, token, logits));
        token = best(logits, fastgpt_model_n_vocab(model));
    }
    printf("\n");
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: two_ways MODEL.gguf\n");
        return 2;
    }
    fastgpt_error error;
    fastgpt_model *model;
    if (fastgpt_model_load(argv[1], NULL, &model, &error)) {
        fprintf(stderr, "two_ways: %s\n", error.text);
        return 1;
    }
    fastgpt_pool *pool;
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv;
    must(fastgpt_pool_create(0, &pool));
    must(fastgpt_context_create(model, pool, 0, &ctx));
    must(fastgpt_kv_cache_create(model, 0, &kv));

    /* The prompt is the first 8 tokens that the model itself puts after its end-of-text token. */
    int32_t n_vocab = fastgpt_model_n_vocab(model), token = fastgpt_model_eos_token(model);
    float *logits = malloc((size_t)n_vocab * sizeof *logits);
    if (token < 0 || !logits) return 1;
    must(fastgpt_prefill(ctx, kv, &token, 1, logits));
    for (int i = 0; i < 8; i++) {
        token = best(logits, n_vocab);
        print_token(model, token);
        must(fastgpt_decode(ctx, kv, token, logits));
    }
    int32_t n_prompt = fastgpt_kv_cache_n_past(kv), first = best(logits, n_vocab);
    logits[first] = -1e30f;
    int32_t second = best(logits, n_vocab);

    printf(" ...\n1: ");
    tell(ctx, kv, model, first, logits);
    must(fastgpt_kv_cache_truncate(kv, n_prompt)); /* nothing of the prompt is computed again */
    printf("2: ");
    tell(ctx, kv, model, second, logits);

    free(logits);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
    fastgpt_pool_free(pool);
    fastgpt_model_free(model);
    return 0;
}
