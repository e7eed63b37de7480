/* test_model.c - loading: a valid file gives the model that it describes, and a file that is wrong in one thing is
 * refused with the status that the header promises and words that name the thing. */
#include "support/check.h"
#include "support/load.h"

#include <math.h>
#include <sys/stat.h>

static draft tiny(void) { return draft_of(tiny_shape); }

/* Frees the draft. */
static void refused(draft *d, fastgpt_status expected, const char *culprit) {
    buffer file = draft_write(d, NULL);
    for (int copy = 0; copy <= 1; copy++) {
        fastgpt_model *model = (fastgpt_model *)&file;
        fastgpt_error error;
        fastgpt_status status = load_bytes(file.data, file.n, copy, &model, &error);
        CHECK_FOR(status == expected && strstr(error.text, culprit) && !model,
                  "\"%s\" expected with status %d; status %d, \"%s\"", culprit, expected, status, error.text);
        CHECK_FOR(strstr(error.text, "fastgpt-test-"), "\"%s\" does not name the file", error.text);
        if (status == FASTGPT_OK) fastgpt_model_free(model);
    }
    free(file.data);
    draft_free(d);
}

/* ---- Files ---- */

static void refused_path(const char *path, fastgpt_status expected, const char *culprit) {
    for (int copy = 0; copy <= 1; copy++) {
        fastgpt_load_options options = {.struct_size = sizeof options, .no_mmap = copy};
        fastgpt_model *model;
        fastgpt_error error;
        fastgpt_status status = fastgpt_model_load(path, &options, &model, &error);
        CHECK_FOR(status == expected && !model, "%s: status %d", path, status);
        CHECK_FOR(strstr(error.text, path) && strstr(error.text, culprit), "\"%s\"", error.text);
        CHECK(fastgpt_model_load(path, &options, &model, NULL) == expected);
    }
}

static void test_files(void) {
    temporary_file file = write_temporary("", 0);
    refused_path(file.path, FASTGPT_ERR_FORMAT, "is empty");
    unlink(file.path);
    refused_path(file.path, FASTGPT_ERR_IO, "No such file");
    CHECK(mkdir(file.path, 0700) == 0);
    refused_path(file.path, FASTGPT_ERR_IO, "is a directory");
    rmdir(file.path);
    CHECK(mkfifo(file.path, 0600) == 0);
    refused_path(file.path, FASTGPT_ERR_IO, "is not a regular file");
    unlink(file.path);
}

/* The file is refused when cut at any byte: also through the whole of loading. */
static void test_every_truncation(void) {
    draft d = tiny();
    buffer file = draft_write(&d, NULL);
    temporary_file temporary = write_temporary(file.data, file.n);
    fastgpt_load_options copied = {.struct_size = sizeof copied, .no_mmap = 1};
    for (size_t n = file.n; n-- > 0;) {
        fastgpt_model *model;
        fastgpt_error error;
        CHECK(truncate(temporary.path, (off_t)n) == 0);
        fastgpt_status status = fastgpt_model_load(temporary.path, n % 2 ? NULL : &copied, &model, &error);
        CHECK_FOR(status == FASTGPT_ERR_FORMAT && !model && error.text[0], "%zu of %zu bytes: status %d", n, file.n,
                  status);
    }
    unlink(temporary.path);
    free(file.data);
    draft_free(&d);
}

/* ---- A valid model ---- */

static int64_t n_params_of(const draft *d) {
    int64_t n = 0;
    for (int i = 0; i < d->n_tensors; i++) n += (int64_t)draft_n_elements(&d->tensors[i]);
    return n;
}

static void check_model(model_shape s, const char *type, bool copy) {
    draft d = draft_of(s);
    fastgpt_model *m = load_shape(s, copy);
    CHECK(fastgpt_model_n_vocab(m) == (int32_t)s.n_vocab && fastgpt_model_n_ctx(m) == (int32_t)s.n_ctx);
    CHECK(fastgpt_model_n_embd(m) == (int32_t)s.n_embd && fastgpt_model_n_head(m) == (int32_t)s.n_head);
    CHECK(fastgpt_model_n_layer(m) == (int32_t)s.n_layer && fastgpt_model_n_ff(m) == (int32_t)s.n_ff);
    CHECK(fastgpt_model_n_params(m) == n_params_of(&d));
    CHECK_FOR(strcmp(fastgpt_model_type(m), type) == 0, "%s, not %s", fastgpt_model_type(m), type);
    CHECK(strcmp(fastgpt_model_name(m), "a tiny model") == 0);
    CHECK(fastgpt_model_eos_token(m) == DRAFT_EOS);
    fastgpt_model_free(m);
    draft_free(&d);
}

static void test_valid(void) {
    static const struct {
        uint32_t type;
        const char *name;
        const model_shape *shape;
    } types[] = {
        {FILE_F32, "F32", &tiny_shape},    {FILE_F16, "F16", &tiny_shape},    {FILE_BF16, "BF16", &tiny_shape},
        {FILE_Q4_1, "Q4_1", &block_shape}, {FILE_Q5_0, "Q5_0", &block_shape}, {FILE_Q5_1, "Q5_1", &block_shape},
        {FILE_Q4_K, "Q4_K", &wide_shape},  {FILE_Q5_K, "Q5_K", &wide_shape},  {FILE_Q6_K, "Q6_K", &wide_shape}};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int untied = 0; untied <= 1; untied++)
            for (int copy = 0; copy <= 1; copy++) {
                model_shape shape = *types[t].shape;
                shape.type = types[t].type;
                shape.untied = untied;
                check_model(shape, types[t].name, copy);
            }
}

/* From memory, used where it lies or copied: the same model as from the file. */
static void test_memory(void) {
    draft d = draft_of(small_shape);
    buffer file = draft_write(&d, NULL);
    for (int copy = 0; copy <= 1; copy++) {
        fastgpt_load_options options = {.struct_size = sizeof options, .no_mmap = copy};
        uint8_t *bytes = malloc(file.n + 1);
        if (!bytes) abort();
        memcpy(bytes, file.data, file.n);
        fastgpt_model *m, *of_file = load_shape(small_shape, copy);
        fastgpt_error error;
        CHECK(fastgpt_model_load_memory(bytes, file.n, &options, &m, &error) == FASTGPT_OK);
        if (copy) memset(bytes, 0xFF, file.n);
        size_t tables = copy ? 0 : fastgpt_model_sizeof(of_file) - fastgpt_model_sizeof(m);
        CHECK(fastgpt_model_n_params(m) == fastgpt_model_n_params(of_file) && tables < file.n);
        CHECK(strcmp(fastgpt_model_name(m), "a tiny model") == 0);
        fastgpt_model_free(m);
        memmove(bytes + 1, file.data, file.n);
        fastgpt_status status = fastgpt_model_load_memory(bytes + 1, file.n, &options, &m, &error);
        CHECK(status == (copy ? FASTGPT_OK : FASTGPT_ERR_ARGUMENT) && (copy || strstr(error.text, "aligned")));
        fastgpt_model_free(m);
        CHECK(fastgpt_model_load_memory(file.data, file.n - 1, &options, &m, &error) == FASTGPT_ERR_FORMAT && !m);
        fastgpt_model_free(of_file);
        free(bytes);
    }
    free(file.data);
    draft_free(&d);
}

/* A copied file counts as memory, and of a mapped one what stands before the tensors' data; matrices of any type stay
 * as they are. */
static void test_sizeof(void) {
    model_shape half = small_shape;
    half.type = FILE_F16;
    fastgpt_model *mapped = load_shape(small_shape, false), *copied = load_shape(small_shape, true);
    fastgpt_model *of_halves = load_shape(half, false);
    draft d = draft_of(small_shape);
    size_t data_at, n_copied;
    buffer file = draft_write(&d, &data_at);
    n_copied = fastgpt_model_sizeof(mapped) + file.n - fastgpt_model_sizeof(copied);
    CHECK_FOR(n_copied <= data_at && n_copied + d.alignment > data_at, "%zu bytes of %zu", n_copied, data_at);
    CHECK(fastgpt_model_sizeof(of_halves) == fastgpt_model_sizeof(mapped));
    free(file.data);
    draft_free(&d);
    fastgpt_model_free(mapped);
    fastgpt_model_free(copied);
    fastgpt_model_free(of_halves);
}

/* Matrices of a type that no kernel computes with become Q8_0: 34 bytes for 32 numbers, and so a step reads them. */
static void test_requantized(void) {
    model_shape five_bits = block_shape, eight_bits = block_shape;
    five_bits.type = FILE_Q5_0;
    eight_bits.type = FILE_Q8_0;
    fastgpt_model *requantized = load_shape(five_bits, false), *plain = load_shape(eight_bits, false);
    size_t n_matrix = 0;
    draft d = draft_of(five_bits);
    for (int i = 0; i < d.n_tensors; i++) n_matrix += d.tensors[i].rank == 2 ? draft_n_elements(&d.tensors[i]) : 0;
    CHECK(fastgpt_model_sizeof(requantized) == fastgpt_model_sizeof(plain) + n_matrix / 32 * 34);
    CHECK(fastgpt_model_step_bytes(requantized) == fastgpt_model_step_bytes(plain));
    draft_free(&d);
    fastgpt_model_free(requantized);
    fastgpt_model_free(plain);
}

/* ---- Tiles of I8 ---- */

/* The model of the same shape in F32, but for the bytes that a step reads: one for a weight, four for the scale of a
 * row. */
static void test_tiles(void) {
    model_shape floats = tiled_shape;
    floats.type = FILE_F32;
    for (int untied = 0; untied <= 1; untied++) {
        model_shape shape = tiled_shape;
        shape.untied = floats.untied = untied;
        fastgpt_model *m = load_shape(shape, untied), *plain = load_shape(floats, false);
        CHECK(strcmp(fastgpt_model_type(m), "I8") == 0 && fastgpt_model_n_vocab(m) == (int32_t)shape.n_vocab);
        CHECK(fastgpt_model_n_params(m) == fastgpt_model_n_params(plain));
        const int64_t rows = 3 * 64 + 64 + 128 + 64 + 19, weights = 64 * (3 * 64 + 64 + 128 + 19) + 64 * 128;
        CHECK(fastgpt_model_step_bytes(plain) - fastgpt_model_step_bytes(m) == 3 * weights - 4 * rows);
        fastgpt_type type;
        int64_t n_rows, n_columns;
        CHECK(fastgpt_model_tensor(m, "token_embd.weight", &type, &n_rows, &n_columns) && type == FASTGPT_TYPE_I8);
        CHECK(n_rows == 2 * 16 && n_columns == 64);
        fastgpt_model_free(m);
        fastgpt_model_free(plain);
    }
}

static void refused_in_tiles(const char *name, draft_tensor wrong, fastgpt_status expected, const char *culprit) {
    draft d = draft_of(tiled_shape);
    draft_tensor *t = draft_find_tensor(&d, name);
    memcpy(wrong.name, t->name, sizeof wrong.name);
    *t = wrong;
    refused(&d, expected, culprit);
}

static void refused_scale(float last) {
    draft d = draft_of(tiled_shape);
    buffer file = draft_write(&d, NULL);
    memcpy(file.data + file.n - sizeof last, &last, sizeof last);
    fastgpt_model *m;
    fastgpt_error error;
    CHECK(load_bytes(file.data, file.n, false, &m, &error) == FASTGPT_ERR_FORMAT);
    CHECK_FOR(strstr(error.text, "tensor output.scale: scale 18 is negative or not finite"), "%s", error.text);
    free(file.data);
    draft_free(&d);
}

static void refused_without(const char *name, const char *culprit) {
    draft d = draft_of(tiled_shape);
    draft_drop_tensor(&d, name);
    refused(&d, FASTGPT_ERR_FORMAT, culprit);
}

static void test_wrong_tiles(void) {
    const fastgpt_status format = FASTGPT_ERR_FORMAT, unsupported = FASTGPT_ERR_UNSUPPORTED;
    const char *shape = "tensor blk.0.ffn_up.weight has rank";
    refused_in_tiles("blk.0.ffn_up.weight", (draft_tensor){.rank = 2, .type = FILE_I8, .shape = {64, 128}}, format,
                     shape);
    refused_in_tiles("blk.0.ffn_up.weight", (draft_tensor){.rank = 3, .type = FILE_I8, .shape = {64, 16, 7}}, format,
                     shape);
    refused_in_tiles("blk.0.ffn_up.weight", (draft_tensor){.rank = 3, .type = FILE_I8, .shape = {64, 15, 8}}, format,
                     shape);
    refused_in_tiles("blk.0.ffn_up.weight", (draft_tensor){.rank = 3, .type = FILE_I8, .shape = {128, 8, 8}}, format,
                     shape);
    refused_in_tiles("blk.0.ffn_up.scale", (draft_tensor){.rank = 1, .type = FILE_F32, .shape = {127}}, format,
                     "tensor blk.0.ffn_up.scale has rank 1");
    refused_in_tiles("blk.0.ffn_up.scale", (draft_tensor){.rank = 1, .type = FILE_F16, .shape = {128}}, format,
                     "tensor blk.0.ffn_up.scale is not F32");
    refused_in_tiles("token_embd.scale", (draft_tensor){.rank = 1, .type = FILE_F32, .shape = {20}}, format,
                     "tensor output.scale has rank 1");
    refused_in_tiles("blk.0.ffn_up.bias", (draft_tensor){.rank = 1, .type = FILE_I8, .shape = {128}}, unsupported,
                     "tensor blk.0.ffn_up.bias is I8, which it cannot be");
    refused_in_tiles("position_embd.weight", (draft_tensor){.rank = 2, .type = FILE_I8, .shape = {64, 8}}, unsupported,
                     "tensor position_embd.weight is I8, which it cannot be");
    refused_without("blk.0.attn_qkv.scale", "tensor blk.0.attn_qkv.scale is missing");
    refused_without("token_embd.scale", "tensor token_embd.scale is missing");
    refused_scale(-1e-20f);
    refused_scale(INFINITY);
    refused_scale(NAN);
}

/* Of another architecture, or with rows that are not whole blocks. */
static void test_tiles_elsewhere(void) {
    model_shape shape = tiled_shape;
    shape.type = FILE_F32;
    draft d = draft_of(shape);
    draft_drop_tensor(&d, "blk.0.ffn_up.weight");
    draft_add_tiles(&d, "blk.0.ffn_up.weight", shape.n_ff, shape.n_embd);
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "tensor blk.0.ffn_up.weight is I8, which only architecture fastgpt-gpt2 has");
    shape = tiled_shape;
    shape.n_ff = 96;
    d = draft_of(shape);
    refused(&d, FASTGPT_ERR_FORMAT, "tensor blk.0.ffn_down.weight is I8, but its rows have 96 numbers");
    d = draft_of(tiled_shape);
    draft_append_tensor(&d, "blk.0.attn_norm.scale")->rank = 1;
    d.tensors[d.n_tensors - 1].shape[0] = 64;
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "tensor blk.0.attn_norm.scale is not part");
}

/* A step reads every matrix, but only a row of each embedding; a tied output reads the whole one. */
static void test_step_bytes(void) {
    model_shape untied = small_shape;
    untied.untied = true;
    fastgpt_model *tied = load_shape(small_shape, false), *with_output = load_shape(untied, false);
    int64_t floats = (int64_t)fastgpt_model_n_ctx(tied) * fastgpt_model_n_embd(tied);
    CHECK(fastgpt_model_step_bytes(tied) == 4 * (fastgpt_model_n_params(tied) - floats));
    CHECK(fastgpt_model_step_bytes(with_output) == fastgpt_model_step_bytes(tied));
    fastgpt_model_free(tied);
    fastgpt_model_free(with_output);
}

/* tiny(), under the name of our own architecture. */
static draft our_architecture(void) {
    draft d = tiny();
    for (int i = 0; i < d.n_keys; i++) {
        char name[sizeof d.keys[i].name];
        if (strncmp(d.keys[i].name, "gpt2.", 5) != 0) continue;
        snprintf(name, sizeof name, "fastgpt-%.50s", d.keys[i].name);
        memcpy(d.keys[i].name, name, sizeof name);
    }
    draft_set_string(&d, "general.architecture", "fastgpt-gpt2");
    return d;
}

/* ---- Keys ---- */

static const char *const required[] = {"general.architecture",
                                       "gpt2.block_count",
                                       "gpt2.context_length",
                                       "gpt2.embedding_length",
                                       "gpt2.feed_forward_length",
                                       "gpt2.attention.head_count",
                                       "gpt2.attention.layer_norm_epsilon"};
enum { N_REQUIRED = sizeof required / sizeof *required };

/* Every key that is missing, or holds another type or an array of its own type, is named. */
static void test_keys(void) {
    for (int i = 0; i < N_REQUIRED; i++) {
        draft d = tiny();
        draft_drop_key(&d, required[i]);
        refused(&d, FASTGPT_ERR_FORMAT, required[i]);
        d = tiny();
        put_u64(draft_set(&d, required[i], GGUF_U64), 2);
        refused(&d, FASTGPT_ERR_FORMAT, required[i]);
        d = tiny();
        put_u32(draft_set_array(&d, required[i], GGUF_U32, 1), 2);
        refused(&d, FASTGPT_ERR_FORMAT, required[i]);
    }
    draft d = tiny();
    draft_set_u32(&d, "general.name", 1);
    refused(&d, FASTGPT_ERR_FORMAT, "general.name");
}

static void refused_size(const char *key, uint32_t value, const char *culprit) {
    draft d = tiny();
    draft_set_u32(&d, key, value);
    refused(&d, FASTGPT_ERR_FORMAT, culprit);
}

static void test_sizes(void) {
    static const uint32_t bad[] = {0, (1u << 26) + 1, 1u << 31, UINT32_MAX};
    for (int i = 1; i < N_REQUIRED - 1; i++)
        for (int b = 0; b < 4; b++) refused_size(required[i], bad[b], required[i]);
    refused_size("gpt2.attention.head_count", 4, "n_embd 6 is not a multiple of n_head 4");
    refused_size("gpt2.attention.head_count", 12, "n_embd 6 is not a multiple of n_head 12");
    refused_size("gpt2.block_count", 3, "tensor blk.2.attn_norm.weight is missing");
    refused_size("gpt2.block_count", 4096, "4096 layers");
    refused_size("gpt2.context_length", 9, "position_embd.weight");
    refused_size("gpt2.embedding_length", 9, "token_embd.weight");
    refused_size("gpt2.feed_forward_length", 9, "blk.0.ffn_up.weight");
    draft d = tiny();
    draft_set_u32(&d, "gpt2.block_count", 1);
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "tensor blk.1.");
}

static void test_epsilon(void) {
    static const float bad[] = {NAN, INFINITY, -INFINITY, -1e-5f, 1.5f};
    for (int i = 0; i < 5; i++) {
        draft d = tiny();
        draft_set_f32(&d, "gpt2.attention.layer_norm_epsilon", bad[i]);
        refused(&d, FASTGPT_ERR_FORMAT, "gpt2.attention.layer_norm_epsilon");
    }
}

/* Each name of an activation is told again; the key belongs to our own architecture only. */
static void test_activation(void) {
    static const char *const names[] = {"gelu_tanh", "gelu_erf", "relu", "silu"};
    for (int i = 0; i < 4; i++) {
        draft d = our_architecture();
        draft_set_string(&d, "fastgpt-gpt2.activation", names[i]);
        fastgpt_model *m = load_valid(&d, i % 2);
        CHECK_FOR(strcmp(fastgpt_model_activation(m), names[i]) == 0, "%s", names[i]);
        fastgpt_model_free(m);
    }
    draft d = our_architecture();
    draft_set_string(&d, "fastgpt-gpt2.activation", "gelu");
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "fastgpt-gpt2.activation is gelu; gelu_tanh, gelu_erf");
    d = our_architecture();
    draft_set_u32(&d, "fastgpt-gpt2.activation", 1);
    refused(&d, FASTGPT_ERR_FORMAT, "fastgpt-gpt2.activation");
    d = our_architecture();
    draft_drop_key(&d, "fastgpt-gpt2.block_count");
    refused(&d, FASTGPT_ERR_FORMAT, "fastgpt-gpt2.block_count");
    d = our_architecture();
    draft_set_f32(&d, "fastgpt-gpt2.rope.freq_base", 1);
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "fastgpt-gpt2.rope.freq_base");
    d = tiny();
    draft_set_string(&d, "gpt2.activation", "relu");
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "gpt2.activation");
}

/* Strings and bytes are found by their key; what is absent or of another type is not. */
static void test_metadata(void) {
    draft d = tiny();
    draft_set_string(&d, "general.license", "mit");
    put(draft_set_array(&d, "fastgpt.bytes", GGUF_U8, 3), "a\0b", 3);
    put_string(draft_set_array(&d, "fastgpt.list", GGUF_STRING, 1), "a");
    fastgpt_model *m = load_valid(&d, false);
    size_t n;
    const char *text = fastgpt_model_metadata(m, "general.license", &n);
    CHECK(n == 3 && memcmp(text, "mit", 3) == 0);
    text = fastgpt_model_metadata(m, "fastgpt.bytes", &n);
    CHECK(n == 3 && memcmp(text, "a\0b", 3) == 0);
    static const char *const none[] = {"general.licens", "gpt2.block_count", "fastgpt.list", ""};
    for (int i = 0; i < 4; i++) CHECK_FOR(!fastgpt_model_metadata(m, none[i], &n) && n == 0, "%s", none[i]);
    fastgpt_model_free(m);
}

/* Tensors are found by their name, with the shape that the hyper-parameters give; others are not. */
static void test_tensor_by_name(void) {
    draft d = tiny();
    fastgpt_model *m = load_valid(&d, false);
    fastgpt_type type = FASTGPT_TYPE_F16;
    int64_t n_rows, n_columns;
    CHECK(fastgpt_model_tensor(m, "blk.0.attn_qkv.weight", &type, &n_rows, &n_columns));
    CHECK(type == FASTGPT_TYPE_F32 && n_rows == 3 * fastgpt_model_n_embd(m) && n_columns == fastgpt_model_n_embd(m));
    const void *bias = fastgpt_model_tensor(m, "output_norm.bias", &type, &n_rows, &n_columns);
    CHECK(bias && n_rows == 1 && n_columns == fastgpt_model_n_embd(m));
    CHECK(!fastgpt_model_tensor(m, "output_norm", &type, &n_rows, &n_columns) && n_rows == 0 && n_columns == 0);
    CHECK(fastgpt_model_layer_norm_epsilon(m) > 0);
    fastgpt_model_free(m);
}

static void test_unsupported(void) {
    draft d = tiny();
    draft_set_string(&d, "general.architecture", "llama");
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "architecture llama");
    d = tiny();
    draft_set_string(&d, "general.architecture", "gpt2\n");
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "architecture gpt2");
    d = tiny();
    draft_set_f32(&d, "gpt2.rope.freq_base", 1);
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "gpt2.rope.freq_base");
    d = tiny();
    draft_set_f32(&d, "gpt2.", 1);
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "key gpt2. is not");
    d = tiny();
    draft_add_tensor(&d, "blk.0.attn_q_norm.weight", 0, 6, FILE_F32);
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "tensor blk.0.attn_q_norm.weight");
}

/* ---- Tensors ---- */

static void refused_tensor(const char *name, uint32_t rank, uint64_t n_columns, uint64_t n_rows, const char *culprit) {
    model_shape shape = tiny_shape;
    shape.untied = true;
    draft d = draft_of(shape);
    draft_tensor *t = draft_find_tensor(&d, name);
    t->rank = rank;
    t->shape[0] = n_columns;
    t->shape[1] = n_rows;
    refused(&d, FASTGPT_ERR_FORMAT, culprit);
}

/* Every tensor that is missing or has a wrong rank or dimension is named.  Another number of embedding rows is
 * another n_vocab, which then differs from that of the tokenizer. */
static void test_tensors(void) {
    model_shape shape = tiny_shape;
    shape.untied = true;
    draft all = draft_of(shape);
    for (int i = 0; i < all.n_tensors; i++) {
        const draft_tensor *t = &all.tensors[i];
        bool matrix = t->rank == 2, embedding = strcmp(t->name, "token_embd.weight") == 0;
        refused_tensor(t->name, t->rank, t->shape[0] + 1, t->shape[1], t->name);
        if (t->shape[0] > 1) refused_tensor(t->name, t->rank, t->shape[0] - 1, t->shape[1], t->name);
        if (matrix) refused_tensor(t->name, 2, t->shape[0], t->shape[1] + 1, embedding ? "output.weight" : t->name);
        if (t->shape[0] != t->shape[1]) refused_tensor(t->name, 2, matrix ? t->shape[1] : 1, t->shape[0], t->name);
        refused_tensor(t->name, matrix ? 1 : 2, matrix ? t->shape[0] * t->shape[1] : t->shape[0], 1, t->name);
        refused_tensor(t->name, 3, t->shape[0], matrix ? t->shape[1] : 1, t->name);
        draft d = tiny();
        if (strcmp(t->name, "output.weight") == 0) { /* may be missing */
            draft_free(&d);
            continue;
        }
        draft_drop_tensor(&d, t->name);
        refused(&d, FASTGPT_ERR_FORMAT, t->name);
    }
    draft_free(&all);
    draft d = tiny();
    draft_find_tensor(&d, "token_embd.weight")->shape[1]++;
    refused(&d, FASTGPT_ERR_FORMAT, "tokenizer.ggml.tokens has 11 tokens, token_embd.weight has 12 rows");
}

int main(void) {
    test_files();
    test_every_truncation();
    test_valid();
    test_memory();
    test_sizeof();
    test_requantized();
    test_step_bytes();
    test_keys();
    test_sizes();
    test_epsilon();
    test_activation();
    test_metadata();
    test_tensor_by_name();
    test_tiles();
    test_wrong_tiles();
    test_tiles_elsewhere();
    test_unsupported();
    test_tensors();
    return check_report();
}
