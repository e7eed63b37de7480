/* story.c - what may follow a prompt, and a story that goes on from there.  README.md has the build line. */
#include <fastgpt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_LIKELIEST = 5, N_NEW = 40 };

static void must(fastgpt_status status) {
    if (status == FASTGPT_OK) return;
    fprintf(stderr, "story: %s\n", fastgpt_status_text(status));
    exit(1);
}

/* Temperature 0 always takes the likeliest token; 1 leaves the model's distribution as it is. */
static fastgpt_sampler *new_sampler(int32_t n_vocab, float temperature) {
    const fastgpt_sampler_params params = {.struct_size = sizeof params, .temperature = temperature};
    fastgpt_sampler *sampler;
    must(fastgpt_sampler_create(n_vocab, &params, &sampler));
    return sampler;
}

static void print_likeliest(const fastgpt_model *model, float *p) {
    for (int i = 0; i < N_LIKELIEST; i++) {
        int32_t best = 0;
        for (int32_t token = 1; token < fastgpt_model_n_vocab(model); token++)
            if (p[token] > p[best]) best = token;
        size_t n_bytes;
        const char *bytes = fastgpt_model_token_bytes(model, best, &n_bytes);
        printf("%5.1f%%  %.*s\n", 100 * p[best], (int)n_bytes, bytes);
        p[best] = 0;
    }
}

static int32_t print_piece(void *user, int32_t token, const char *text, size_t n_bytes) {
    (void)user, (void)token;
    fwrite(text, 1, n_bytes, stdout);
    fflush(stdout);
    return 0; /* go on */
}

static void tell(const fastgpt_model *model, const char *prompt) {
    const int32_t n_vocab = fastgpt_model_n_vocab(model);
    const int32_t capacity = (int32_t)strlen(prompt) + 1; /* always enough */
    int32_t *tokens = malloc((size_t)capacity * sizeof *tokens), n_tokens;
    float *logits = malloc((size_t)n_vocab * sizeof *logits);
    float *probabilities = malloc((size_t)n_vocab * sizeof *probabilities);
    fastgpt_tokenizer *tokenizer;
    fastgpt_pool *pool;
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv;
    fastgpt_sampler *as_is = new_sampler(n_vocab, 1), *greedy = new_sampler(n_vocab, 0);
    must(tokens && logits && probabilities ? FASTGPT_OK : FASTGPT_ERR_MEMORY);
    must(fastgpt_tokenizer_create(model, &tokenizer, NULL));
    must(fastgpt_pool_create(0, &pool)); /* one thread a core */
    must(fastgpt_context_create(model, pool, 0, &ctx));
    must(fastgpt_kv_cache_create(model, 0, &kv));

    must(fastgpt_encode(tokenizer, prompt, strlen(prompt), FASTGPT_ENCODE_LITERAL, tokens, capacity, &n_tokens));
    must(fastgpt_prefill(ctx, kv, tokens, n_tokens, logits));
    must(fastgpt_sampler_probabilities(as_is, logits, probabilities));
    print_likeliest(model, probabilities);

    must(fastgpt_kv_cache_truncate(kv, 0));
    printf("%s", prompt);
    must(fastgpt_generate(ctx, kv, greedy, tokenizer, tokens, n_tokens, N_NEW, print_piece, NULL, NULL));
    printf("\n");

    fastgpt_sampler_free(as_is);
    fastgpt_sampler_free(greedy);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
    fastgpt_pool_free(pool);
    fastgpt_tokenizer_free(tokenizer);
    free(probabilities);
    free(logits);
    free(tokens);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: story MODEL.gguf PROMPT\n");
        return 2;
    }
    fastgpt_model *model;
    fastgpt_error error;
    if (fastgpt_model_load("missing.gguf", NULL, &model, &error)) printf("no story: %s\n", error.text);
    if (fastgpt_model_load(argv[1], NULL, &model, &error)) {
        fprintf(stderr, "story: %s\n", error.text);
        return 1;
    }
    tell(model, argv[2]);
    fastgpt_model_free(model);
    return 0;
}
