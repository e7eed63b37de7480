/* main.c - continues a prompt, without Python:  fastgpt -m model.gguf -p "Once upon a time"
 *
 * Uses nothing but the public header; the order of the calls in run() is the whole way from text to text. */
#include <errno.h>
#include <float.h>
#include <fastgpt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char HELP[] =
    "usage: fastgpt -m FILE -p PROMPT [OPTION VALUE ...]\n"
    "\n"
    "Continues a prompt until N tokens or the model's end-of-text token, and prints both.\n"
    "\n"
    "  -m FILE      model, a GGUF file (fastgpt-c convert makes them)\n"
    "  -p PROMPT    text to continue\n"
    "  -n N         tokens to generate (100)\n"
    "  --temp T     temperature; 0 = always the likeliest token (0.8)\n"
    "  --top-k K    only the K likeliest tokens (all)\n"
    "  --top-p P    only the likeliest tokens that sum to P (0.95)\n"
    "  --min-p P    only tokens P times as likely as the likeliest (all)\n"
    "  --seed N     the same seed draws the same text (fresh)\n"
    "  --threads N  threads to compute with (all usable cores)\n"
    "  --help, --version\n";

typedef struct settings {
    const char *model, *prompt;
    int32_t n_new, n_threads;
    fastgpt_sampler_params sampling;
} settings;

/* ---- Errors ---- */

/* Ends the program: 2 for wrong usage, 1 for what fails. */
static void die(int code, const char *what, const char *why) {
    fprintf(stderr, "fastgpt: %s%s%s%s\n", what, why ? ": " : "", why ? why : "",
            code == 2 ? "; see fastgpt --help" : "");
    exit(code);
}

static void must(fastgpt_status status, const char *what) {
    if (status != FASTGPT_OK) die(1, what, fastgpt_status_text(status));
}

/* What an option's value is given to: ARGUMENT is then the user's fault, and all else is not. */
static void must_take(fastgpt_status status, const char *options) {
    if (status == FASTGPT_ERR_ARGUMENT) die(2, options, "outside its range");
    must(status, options);
}

/* ---- Output ---- */

static int output_error; /* errno of the first write that failed */

static void note_output_error(bool failed) {
    if (failed && output_error == 0) output_error = errno ? errno : EIO;
}

/* Some writes fail only now, as on a full disk. */
static void end_output(void) {
    note_output_error(ferror(stdout) != 0);
    note_output_error(fclose(stdout) != 0);
    if (output_error) die(1, "standard output", strerror(output_error));
}

/* A fastgpt_piece_callback; where nothing can be written the text ends. */
static int32_t print_piece(void *user, int32_t token, const char *text, size_t n_bytes) {
    (void)user, (void)token;
    note_output_error(fwrite(text, 1, n_bytes, stdout) < n_bytes || fflush(stdout) != 0);
    return output_error != 0;
}

/* ---- Arguments ---- */

static double number(const char *option, const char *text) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || errno || value != value) die(2, option, "wants a number");
    return value;
}

static int32_t count(const char *option, const char *text) {
    double value = number(option, text);
    if (!(value >= 0 && value <= INT32_MAX) || value != (int32_t)value) die(2, option, "wants a whole number");
    return (int32_t)value;
}

static uint64_t seed(const char *option, const char *text) {
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end || errno || strchr(text, '-')) die(2, option, "wants a whole number below 2^64");
    return value;
}

/* 0 keeps the likeliest token alone, as with other programs; in the library's struct zero turns the filter off. */
static float top_p(const char *option, const char *text) {
    float p = (float)number(option, text);
    return p == 0 ? FLT_MIN : p;
}

static void set(settings *s, const char *option, const char *value) {
    if (!strcmp(option, "-m")) s->model = value;
    else if (!strcmp(option, "-p")) s->prompt = value;
    else if (!strcmp(option, "-n")) s->n_new = count(option, value);
    else if (!strcmp(option, "--temp")) s->sampling.temperature = (float)number(option, value);
    else if (!strcmp(option, "--top-k")) s->sampling.top_k = count(option, value);
    else if (!strcmp(option, "--top-p")) s->sampling.top_p = top_p(option, value);
    else if (!strcmp(option, "--min-p")) s->sampling.min_p = (float)number(option, value);
    else if (!strcmp(option, "--seed")) s->sampling.seed = seed(option, value);
    else if (!strcmp(option, "--threads")) s->n_threads = count(option, value);
    else die(2, option, "no such option");
}

static settings read_arguments(int argc, char **argv) {
    settings s = {.n_new = 100};
    s.sampling = (fastgpt_sampler_params){.struct_size = sizeof s.sampling, .temperature = 0.8f, .top_p = 0.95f};
    s.sampling.seed = (uint64_t)time(NULL) * 1000003 + (uint64_t)clock();
    for (int i = 1; i < argc; i += 2) {
        int help = !strcmp(argv[i], "--help") || !strcmp(argv[i], "-h");
        if (help || !strcmp(argv[i], "--version")) {
            printf("%s%s", help ? HELP : fastgpt_version(), help ? "" : "\n");
            end_output();
            exit(0);
        }
        if (i + 1 == argc) die(2, argv[i], "wants a value");
        set(&s, argv[i], argv[i + 1]);
    }
    if (!s.model) die(2, "no model: give one with -m FILE", NULL);
    if (!s.prompt) die(2, "no prompt: give one with -p PROMPT", NULL);
    return s;
}

/* ---- From text to text ---- */

/* A text begins where the one before it ended: so an empty prompt becomes the end-of-text token. */
static int32_t *encode(const settings *s, const fastgpt_model *model, const fastgpt_tokenizer *tokenizer, int32_t *n) {
    size_t n_bytes = strlen(s->prompt);
    int32_t *tokens = malloc((n_bytes + 1) * sizeof *tokens);
    if (!tokens) die(1, "prompt", "not enough memory");
    must(fastgpt_encode(tokenizer, s->prompt, n_bytes, FASTGPT_ENCODE_SPECIAL, tokens, (int32_t)n_bytes, n), "prompt");
    if (*n == 0) tokens[(*n)++] = fastgpt_model_eos_token(model);
    if (tokens[0] < 0) die(2, "the prompt is empty, and the model has no end-of-text token to begin with", NULL);
    return tokens;
}

static void check_room(const settings *s, const fastgpt_model *model, int32_t n_tokens) {
    char text[200];
    int32_t n_ctx = fastgpt_model_n_ctx(model);
    if ((int64_t)n_tokens + s->n_new <= n_ctx) return;
    snprintf(text, sizeof text, "the model has room for %d tokens, not for %d of the prompt and %d new ones",
             (int)n_ctx, (int)n_tokens, (int)s->n_new);
    die(1, text, NULL);
}

static void run(const settings *s) {
    fastgpt_model *model;
    fastgpt_tokenizer *tokenizer;
    fastgpt_sampler *sampler;
    fastgpt_pool *pool;
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv;
    fastgpt_error error;
    int32_t n_tokens;
    if (fastgpt_model_load(s->model, NULL, &model, &error)) die(1, error.text, NULL);
    if (fastgpt_tokenizer_create(model, &tokenizer, &error)) die(1, error.text, NULL);
    must_take(fastgpt_sampler_create(fastgpt_model_n_vocab(model), &s->sampling, &sampler),
              "--temp, --top-k, --top-p or --min-p");
    int32_t *tokens = encode(s, model, tokenizer, &n_tokens);
    check_room(s, model, n_tokens);
    must_take(fastgpt_pool_create(s->n_threads, &pool), "--threads");
    must(fastgpt_context_create(model, pool, 0, &ctx), "memory for a step");
    must(fastgpt_kv_cache_create(model, 0, &kv), "KV cache");
    if (print_piece(NULL, -1, s->prompt, strlen(s->prompt))) end_output();
    must(fastgpt_generate(ctx, kv, sampler, tokenizer, tokens, n_tokens, s->n_new, print_piece, NULL, NULL),
         "generate");
    print_piece(NULL, -1, "\n", 1);
    end_output();
    free(tokens);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
    fastgpt_pool_free(pool);
    fastgpt_sampler_free(sampler);
    fastgpt_tokenizer_free(tokenizer);
    fastgpt_model_free(model);
}

int main(int argc, char **argv) {
    settings s = read_arguments(argc, argv);
    run(&s);
    return 0;
}
