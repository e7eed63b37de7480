/* main.c - continues a prompt, without Python:  fastgpt -m model.gguf "Once upon a time"
 *
 * Uses the public header alone.  Options have the names of fastgpt-c generate. */
#include <errno.h>
#include <float.h>
#include <fastgpt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_STOP = 16 };

typedef struct settings {
    const char *model, *prompt;
    int32_t max_new_tokens, no_prompt, kv_type; /* the last: its place in kv_types */
    fastgpt_sampler_params sampling;
    fastgpt_generator_options generator;
    const char *stop[MAX_STOP];
} settings;

/* ---- Options ---- */

typedef enum value_kind { FLAG, TEXT, NUMBER, TOP_P, COUNT, SEED, STOP, CHOICE } value_kind;

typedef struct option {
    const char *name, *alias; /* as fastgpt-c generate has it; another one, or NULL */
    value_kind kind;
    size_t offset;            /* of the field in settings: a pointer, a float, an int32_t, a uint64_t */
    const char *value, *help; /* value NULL = a flag; for CHOICE the words, whose places are the values */
} option;

#define AT(field) offsetof(settings, field)

static const option options[] = {
    {"--model", "-m", TEXT, AT(model), "FILE", "model, a GGUF file (fastgpt-c convert makes them)"},
    {"--prompt", "-p", TEXT, AT(prompt), "PROMPT", "text to continue, if it is not an argument of its own"},
    {"--max-new-tokens", "-n", COUNT, AT(max_new_tokens), "N", "tokens to generate (100)"},
    {"--stop", NULL, STOP, AT(stop), "TEXT", "end before this text appears; repeatable"},
    {"--on-overflow", NULL, CHOICE, AT(generator.overflow), "error|truncate|slide",
     "when prompt and N do not fit: refuse (error), drop the oldest tokens, or forget the older half when full"},
    {"--kv-type", NULL, CHOICE, AT(kv_type), "auto|f32|f16|bf16|q8_0",
     "numbers of the KV cache: f16 unless all weights are f32 (auto); q8_0 takes a quarter of the memory of f32"},
    {"--no-prompt", NULL, FLAG, AT(no_prompt), NULL, "print the continuation alone"},
    {"--threads", NULL, COUNT, AT(generator.n_threads), "N", "threads to compute with (all usable cores)"},
    {"--repetition-penalty", NULL, NUMBER, AT(sampling.repetition_penalty), "X",
     "above 1, tokens of the prompt and the text are less likely"},
    {"--frequency-penalty", NULL, NUMBER, AT(sampling.frequency_penalty), "X",
     "take X from a token's logit for each time that the new text has it"},
    {"--presence-penalty", NULL, NUMBER, AT(sampling.presence_penalty), "X",
     "take X from the logit of each token that the new text has"},
    {"--no-repeat-ngram-size", NULL, COUNT, AT(sampling.no_repeat_ngram_size), "N", "no N tokens in a row come twice"},
    {"--min-new-tokens", NULL, COUNT, AT(sampling.min_new_tokens), "N", "no end of text before so many tokens"},
    {"--temperature", "--temp", NUMBER, AT(sampling.temperature), "T", "0 = always the likeliest token (0.8)"},
    {"--top-n-sigma", NULL, NUMBER, AT(sampling.top_n_sigma), "N",
     "only logits at most N standard deviations below the largest"},
    {"--top-k", NULL, COUNT, AT(sampling.top_k), "K", "only the K likeliest tokens (all)"},
    {"--top-p", NULL, TOP_P, AT(sampling.top_p), "P", "only the likeliest tokens that sum to P (0.95)"},
    {"--min-p", NULL, NUMBER, AT(sampling.min_p), "P", "only tokens P times as likely as the likeliest (all)"},
    {"--typical-p", NULL, NUMBER, AT(sampling.typical_p), "P",
     "only tokens about as surprising as expected that sum to P (all)"},
    {"--mirostat-tau", NULL, NUMBER, AT(sampling.mirostat_tau), "BITS", "keep the surprise of a token near BITS (off)"},
    {"--mirostat-eta", NULL, NUMBER, AT(sampling.mirostat_eta), "X", "how fast mirostat learns (0.1)"},
    {"--seed", NULL, SEED, AT(sampling.seed), "N", "the same seed draws the same text (fresh)"}};

static const int32_t kv_types[] = {-1, FASTGPT_TYPE_F32, FASTGPT_TYPE_F16, FASTGPT_TYPE_BF16, FASTGPT_TYPE_Q8_0};

enum { N_OPTIONS = sizeof options / sizeof *options };

static void print_help(void) {
    printf(
        "usage: fastgpt -m FILE [OPTION ...] PROMPT\n\n"
        "Continues a prompt until N tokens, a stop string or the model's end-of-text token, and prints both.\n\n"
        "  fastgpt -m model.gguf \"Once upon a time\"\n"
        "  fastgpt -m model.gguf -n 200 --temperature 0.7 --top-k 40 --stop \"The End\" \"Once upon a time\"\n\n"
        "options:\n");
    for (int i = 0; i < N_OPTIONS; i++) {
        const option *o = &options[i];
        char names[80];
        snprintf(names, sizeof names, "%s%s%s%s%s", o->alias ? o->alias : "", o->alias ? ", " : "", o->name,
                 o->value ? " " : "", o->value ? o->value : "");
        printf("  %-30s%s%*s%s\n", names, strlen(names) > 29 ? "\n" : "", strlen(names) > 29 ? 32 : 0, "", o->help);
    }
    printf("  -h, --help\n  --version\n\nEach option is one of fastgpt-c generate, which has more.\n");
}

/* ---- Errors ---- */

/* Ends the program: 2 for wrong usage, 1 for what fails. */
static void die(int code, const char *what, const char *why) {
    fprintf(stderr, "fastgpt: %s%s%s%s\n", what, why ? ": " : "", why ? why : "",
            code == 2 ? "; see fastgpt --help" : "");
    exit(code);
}

/* Whether an error of the library begins with the field that an option sets: "top_p is 2 ..." for --top-p. */
static bool names_field(const char *error, const option *o) {
    const char *name = o->name + 2;
    if (!strncmp(error, "n_", 2)) error += 2; /* n_threads */
    while (*name && (*error == *name || (*error == '_' && *name == '-'))) error++, name++;
    return !*name && !strncmp(error, " is ", 4);
}

/* What options are given to: ARGUMENT is then the user's fault, and all else is not. */
static void must(fastgpt_status status, const fastgpt_error *error) {
    if (status == FASTGPT_OK) return;
    if (status != FASTGPT_ERR_ARGUMENT) die(1, error->text, NULL);
    for (int i = 0; i < N_OPTIONS; i++)
        if (names_field(error->text, &options[i])) die(2, options[i].name, strstr(error->text, "is "));
    die(2, error->text, NULL);
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

static void print_text(const char *text, size_t n_bytes) {
    note_output_error(fwrite(text, 1, n_bytes, stdout) < n_bytes || fflush(stdout) != 0);
}

/* A fastgpt_generator_callback: the prompt, once it is known that text comes, and the text; where nothing can be
 * written the text ends. */
static int32_t print_piece(void *user, const fastgpt_piece *piece) {
    const char **prompt = user;
    if (*prompt) print_text(*prompt, strlen(*prompt));
    *prompt = NULL;
    print_text(piece->text, piece->n_bytes);
    return output_error != 0;
}

/* ---- Arguments ---- */

static double read_number(const char *name, const char *text) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || errno || value != value) die(2, name, "wants a number");
    return value;
}

/* 0 keeps the likeliest token alone, as with other programs; in the library's struct zero turns the filter off. */
static float read_top_p(const char *name, const char *text) {
    float p = (float)read_number(name, text);
    return p == 0 ? FLT_MIN : p;
}

static int32_t read_count(const char *name, const char *text) {
    double value = read_number(name, text);
    if (!(value >= 0 && value <= INT32_MAX) || value != (int32_t)value) die(2, name, "wants a whole number");
    return (int32_t)value;
}

static uint64_t read_seed(const char *name, const char *text) {
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end || errno || strchr(text, '-')) die(2, name, "wants a whole number below 2^64");
    return value;
}

/* The place of a word in "a|b|c". */
static int32_t read_choice(const char *name, const char *text, const char *words) {
    size_t n = strlen(text);
    for (int32_t place = 0; words; place++) {
        const char *end = strchr(words, '|');
        size_t n_word = end ? (size_t)(end - words) : strlen(words);
        if (n == n_word && memcmp(text, words, n) == 0) return place;
        words = end ? end + 1 : NULL;
    }
    die(2, name, "no such choice");
    return 0;
}

/* name is the option as it was typed. */
static void set_option(settings *s, const option *o, const char *name, const char *value) {
    void *field = (char *)s + o->offset;
    switch (o->kind) {
    case FLAG:   *(int32_t *)field = 1; break;
    case TEXT:   *(const char **)field = value; break;
    case NUMBER: *(float *)field = (float)read_number(name, value); break;
    case TOP_P:  *(float *)field = read_top_p(name, value); break;
    case COUNT:  *(int32_t *)field = read_count(name, value); break;
    case SEED:   *(uint64_t *)field = read_seed(name, value); break;
    case CHOICE: *(int32_t *)field = read_choice(name, value, o->value); break;
    case STOP:
        if (s->generator.n_stop == MAX_STOP) die(2, name, "given too often");
        s->stop[s->generator.n_stop++] = value;
        break;
    }
}

static const option *find_option(const char *name) {
    for (int i = 0; i < N_OPTIONS; i++)
        if (!strcmp(name, options[i].name) || (options[i].alias && !strcmp(name, options[i].alias))) return &options[i];
    die(2, name, "no such option");
    return NULL;
}

static void answer_and_exit(bool help) {
    if (help) print_help();
    else printf("%s\n", fastgpt_version());
    end_output();
    exit(0);
}

/* The defaults, and a seed that is another one each time. */
static settings default_settings(void) {
    settings s = {.max_new_tokens = 100};
    s.sampling.struct_size = sizeof s.sampling;
    s.generator.struct_size = sizeof s.generator;
    fastgpt_sampler_params_default(&s.sampling);
    s.sampling.seed = (uint64_t)time(NULL) * 1000003 + (uint64_t)clock();
    return s;
}

static settings read_arguments(int argc, char **argv) {
    settings s = default_settings();
    for (int i = 1; i < argc; i++) {
        char *name = argv[i], *equals = strncmp(name, "--", 2) == 0 ? strchr(name, '=') : NULL;
        bool help = !strcmp(name, "--help") || !strcmp(name, "-h");
        if (help || !strcmp(name, "--version")) answer_and_exit(help);
        if (name[0] != '-') {
            if (s.prompt) die(2, "more than one prompt: put it into quotes", NULL);
            s.prompt = name;
            continue;
        }
        if (equals) *equals = 0;
        const option *o = find_option(name);
        if (o->kind != FLAG && !equals && i + 1 == argc) die(2, name, "wants a value");
        set_option(&s, o, name, o->kind == FLAG ? NULL : equals ? equals + 1 : argv[++i]);
    }
    if (s.sampling.top_p == 0) s.sampling.top_p = FLT_MIN; /* the likeliest token alone; in the struct 0 is no filter */
    if (!s.model) die(2, "no model: give one with -m FILE", NULL);
    if (!s.prompt) die(2, "no prompt: give one as an argument, or with -p PROMPT", NULL);
    return s;
}

/* ---- From text to text ---- */

static void continue_prompt(settings *s) {
    fastgpt_model *model;
    fastgpt_generator *generator;
    fastgpt_error error;
    const char *prompt = s->no_prompt ? NULL : s->prompt;
    must(fastgpt_model_load(s->model, NULL, &model, &error), &error);
    s->generator.sampling = &s->sampling;
    s->generator.stop = s->stop;
    s->generator.kv_type = kv_types[s->kv_type];
    s->generator.max_new_tokens = s->max_new_tokens;
    must(fastgpt_generator_create(model, &s->generator, &generator, &error), &error);
    if (s->max_new_tokens > 0) /* which a generator would take for its default */
        must(fastgpt_generator_continue(generator, s->prompt, strlen(s->prompt), print_piece, &prompt, &error), &error);
    if (prompt) print_text(prompt, strlen(prompt));
    print_text("\n", 1);
    end_output();
    fastgpt_generator_free(generator);
    fastgpt_model_free(model);
}

int main(int argc, char **argv) {
    settings s = read_arguments(argc, argv);
    continue_prompt(&s);
    return 0;
}
