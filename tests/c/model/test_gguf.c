/* test_gguf.c - the reader of the container: what is valid is found, and every way to be invalid is refused with the
 * right status and words.  Files stand in memory blocks of exactly their size, so that reading beyond shows. */
#include "support/check.h"
#include "model/gguf.h"
#include "support/model_file.h"

static bool may_change; /* each test runs with and without */

/* Parses a copy of its own; the copy lives on in *data. */
static fastgpt_status parse(const uint8_t *bytes, size_t n, gguf_file *gguf, uint8_t **data, fastgpt_error *error) {
    *data = malloc(n);
    if (n > 0 && !*data) abort();
    if (n > 0) memcpy(*data, bytes, n);
    error->text[0] = 0;
    return gguf_parse(gguf, *data, n, may_change, error);
}

static void check_refused(const buffer *file, size_t n, fastgpt_status expected, const char *culprit) {
    gguf_file gguf;
    uint8_t *data;
    fastgpt_error error;
    fastgpt_status status = parse(file->data, n, &gguf, &data, &error);
    bool right = status == expected && strstr(error.text, culprit) && !gguf.values && !gguf.tensors;
    CHECK_FOR(right, "\"%s\" expected with status %d; status %d, \"%s\"", culprit, expected, status, error.text);
    free(data);
}

/* Frees the draft. */
static void refused(draft *d, fastgpt_status expected, const char *culprit) {
    buffer file = draft_write(d, NULL);
    check_refused(&file, file.n, expected, culprit);
    free(file.data);
    draft_free(d);
}

static draft tiny(void) { return draft_of(tiny_shape); }

/* ---- What is valid ---- */

static void check_tensor(const gguf_file *gguf, const draft_tensor *t) {
    const gguf_tensor *found = gguf_find_tensor(gguf, t->name);
    if (!CHECK(found != NULL)) return;
    buffer expected = {0};
    put_weights(&expected, t);
    CHECK_FOR(found->rank == t->rank && dtype_infos[found->type].gguf_type == t->type && found->n_bytes == expected.n &&
                  memcmp(found->data, expected.data, expected.n) == 0,
              "%s", t->name);
    for (uint32_t i = 0; i < GGUF_MAX_RANK; i++)
        CHECK_FOR(found->shape[i] == (i < t->rank ? t->shape[i] : 1), "%s, dimension %u", t->name, i);
    free(expected.data);
}

/* Every tensor is found with its shape and its bytes, for every alignment. */
static void test_tensors_are_found(void) {
    static const uint32_t alignments[] = {4, 8, 32, 64, 65536};
    for (size_t a = 0; a < sizeof alignments / sizeof *alignments; a++) {
        draft d = tiny();
        draft_set_u32(&d, "general.alignment", d.alignment = alignments[a]);
        buffer file = draft_write(&d, NULL);
        gguf_file gguf;
        uint8_t *data;
        fastgpt_error error;
        CHECK_FOR(parse(file.data, file.n, &gguf, &data, &error) == FASTGPT_OK, "%s", error.text);
        CHECK(gguf.n_tensors == (uint64_t)d.n_tensors && gguf.n_values == (uint64_t)d.n_keys);
        for (int i = 0; i < d.n_tensors; i++) check_tensor(&gguf, &d.tensors[i]);
        CHECK(!gguf_find_tensor(&gguf, "blk.0.attn_norm") && !gguf_find_tensor(&gguf, ""));
        gguf_free(&gguf);
        free(data);
        free(file.data);
        draft_free(&d);
    }
}

static int bytes_of(uint32_t type) {
    static const int bytes[GGUF_N_VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[type];
}

static void put_element(buffer *b, uint32_t type, uint64_t i) {
    if (type == GGUF_STRING) put_string(b, i % 2 ? "odd" : "");
    else put_number(b, i * 37 + 1, bytes_of(type));
}

/* A file with one value of each type, or arrays of n of each. */
static void check_values(bool arrays, uint64_t n) {
    draft d = {.magic = "GGUF", .version = 3, .alignment = 32};
    char name[] = "key.?";
    for (uint32_t type = 0; type < GGUF_N_VALUE_TYPES; type++) {
        if (type == GGUF_ARRAY) continue;
        name[4] = (char)('a' + type);
        buffer *value = arrays ? draft_set_array(&d, name, type, n) : draft_set(&d, name, type);
        for (uint64_t i = 0; i < n; i++) put_element(value, type, i);
    }
    buffer file = draft_write(&d, NULL);
    gguf_file gguf;
    uint8_t *data;
    fastgpt_error error;
    CHECK_FOR(parse(file.data, file.n, &gguf, &data, &error) == FASTGPT_OK, "%s", error.text);
    for (int k = 0; k < d.n_keys; k++) {
        const draft_key *key = &d.keys[k];
        const gguf_value *value, *none;
        uint32_t type = (uint32_t)(key->name[4] - 'a');
        size_t skipped = arrays ? 4 + 8 : 0;
        CHECK((arrays ? gguf_get_array : gguf_get)(&gguf, key->name, type, &value, &error) == FASTGPT_OK);
        CHECK_FOR(value && value->n == n && memcmp(value->data, key->value.data + skipped, key->value.n - skipped) == 0,
                  "%s", key->name);
        CHECK((arrays ? gguf_get : gguf_get_array)(&gguf, key->name, type, &none, &error) == FASTGPT_ERR_FORMAT);
        CHECK(strstr(error.text, key->name) != NULL);
        CHECK((arrays ? gguf_get_array : gguf_get)(&gguf, key->name, (type + 1) % 8, &none, &error) ==
              FASTGPT_ERR_FORMAT);
    }
    gguf_free(&gguf);
    free(data);
    free(file.data);
    draft_free(&d);
}

/* ---- What is not ---- */

static void test_every_truncation(void) {
    draft d = tiny();
    buffer file = draft_write(&d, NULL);
    for (size_t n = 0; n < file.n; n++)
        check_refused(&file, n, FASTGPT_ERR_FORMAT, n < 4 ? "not a GGUF file" : n < 24 ? "the header" : "the ");
    free(file.data);
    draft_free(&d);
}

static void test_header(void) {
    static const uint32_t versions[] = {0, 1, 2, 4, UINT32_MAX};
    draft d = tiny();
    memcpy(d.magic, "GGML", 4);
    refused(&d, FASTGPT_ERR_FORMAT, "not a GGUF file");
    d = tiny();
    memcpy(d.magic, "lmgg", 4);
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "ggml from before GGUF");
    d = tiny();
    memcpy(d.magic, "\x97\x16\xA5\x0F", 4);
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "fastgpt-c convert");
    d = tiny();
    d.tensors[0].type = 26;
    snprintf(d.tensors[0].name, sizeof d.tensors[0].name, "header");
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "fastgpt-c convert");
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        char culprit[32];
        snprintf(culprit, sizeof culprit, "version %u;", (unsigned)versions[i]);
        d = tiny();
        d.version = versions[i];
        refused(&d, FASTGPT_ERR_UNSUPPORTED, culprit);
    }
    d = tiny();
    d.version = UINT32_C(0x03000000);
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "big-endian");
}

/* What people have under the name of a model that they did not get. */
static void test_files_of_other_kinds(void) {
    static const struct {
        const char *text, *culprit;
    } files[] = {{"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"},
                 {"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"},
                 {"\xEF\xBB\xBF \r\n<HTML lang=en>", "is a web page"},
                 {"<?xml version=\"1.0\"?><Error>NoSuchKey</Error>", "is a web page"},
                 {"<!doctype htm", "not a GGUF file"},
                 {"   ", "not a GGUF file"},
                 {"GGU", "not a GGUF file"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        buffer file = {0};
        put(&file, files[i].text, strlen(files[i].text));
        check_refused(&file, file.n, FASTGPT_ERR_FORMAT, files[i].culprit);
        free(file.data);
    }
}

static void test_counts(void) {
    static const int64_t errors[] = {1000, 1 << 20, INT64_C(1) << 40, INT64_C(1) << 62, -100};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        draft d = tiny();
        d.n_keys_error = errors[i];
        refused(&d, FASTGPT_ERR_FORMAT, "metadata keys, more than the file can hold");
        d = tiny();
        d.n_tensors_error = errors[i];
        refused(&d, FASTGPT_ERR_FORMAT, "tensors, more than the file can hold");
    }
}

/* A file large enough for more entries than are allowed. */
static void test_caps(void) {
    for (int keys = 0; keys <= 1; keys++) {
        buffer file = {0};
        put(&file, "GGUF", 4);
        put_u32(&file, 3);
        put_u64(&file, keys ? 0 : 65537);
        put_u64(&file, keys ? 65537 : 0);
        put_zeros(&file, 2 << 20);
        check_refused(&file, file.n, FASTGPT_ERR_FORMAT, keys ? "65537 metadata keys" : "65537 tensors");
        free(file.data);
    }
}

/* Names of no bytes, and of more than 65,535. */
static void test_names(void) {
    static const uint64_t lengths[] = {0, 65536};
    for (int keys = 0; keys <= 1; keys++) {
        for (int i = 0; i < 2; i++) {
            char culprit[64];
            snprintf(culprit, sizeof culprit, "%s has %d bytes", keys ? "key" : "name", (int)lengths[i]);
            buffer file = {0};
            put(&file, "GGUF", 4);
            put_u32(&file, 3);
            put_u64(&file, !keys);
            put_u64(&file, keys != 0);
            put_u64(&file, lengths[i]);
            put_zeros(&file, 65536 + 64);
            check_refused(&file, file.n, FASTGPT_ERR_FORMAT, culprit);
            free(file.data);
        }
    }
}

static void test_values(void) {
    static const uint32_t unknown[] = {GGUF_N_VALUE_TYPES, 77, UINT32_MAX};
    for (int i = 0; i < 3; i++) {
        draft d = tiny();
        put_u64(draft_set(&d, "odd.key", unknown[i]), 0);
        refused(&d, FASTGPT_ERR_FORMAT, "odd.key has the unknown type");
        d = tiny();
        put_u64(draft_set_array(&d, "odd.key", unknown[i], 1), 0);
        refused(&d, FASTGPT_ERR_FORMAT, "odd.key has the unknown type");
    }
    draft d = tiny();
    put_u64(draft_set_array(&d, "odd.key", GGUF_ARRAY, 1), 0);
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "odd.key is an array of arrays");
}

/* Lengths and counts that promise more than there is, also such that their product with a size wraps around. */
static void test_lengths(void) {
    static const uint64_t lengths[] = {1 << 20,           UINT64_C(1) << 61,       (UINT64_C(1) << 61) + 1,
                                       UINT64_C(1) << 62, (UINT64_C(1) << 63) + 1, UINT64_MAX - 7,
                                       UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        draft d = tiny();
        put_u64(draft_set(&d, "odd.key", GGUF_STRING), lengths[i]);
        refused(&d, FASTGPT_ERR_FORMAT, "the file ends inside the metadata");
        for (uint32_t type = 0; type < GGUF_N_VALUE_TYPES; type++) {
            if (type == GGUF_ARRAY) continue;
            d = tiny();
            draft_set_array(&d, "odd.key", type, lengths[i]);
            refused(&d, FASTGPT_ERR_FORMAT, "the file ends inside the metadata");
        }
    }
}

static void test_duplicates(void) {
    draft d = tiny();
    put_u32(&draft_append_key(&d, "gpt2.block_count", GGUF_U32)->value, 2);
    refused(&d, FASTGPT_ERR_FORMAT, "the name gpt2.block_count stands twice");
    d = tiny();
    draft_add_tensor(&d, "blk.1.ffn_up.bias", 0, 10, FILE_F32);
    refused(&d, FASTGPT_ERR_FORMAT, "the name blk.1.ffn_up.bias stands twice");
}

static void test_alignment(void) {
    static const uint32_t alignments[] = {0, 1, 2, 3, 33, 65535, 1 << 17, 1 << 20, UINT32_MAX};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        draft d = tiny();
        draft_set_u32(&d, "general.alignment", alignments[i]);
        refused(&d, FASTGPT_ERR_FORMAT, "general.alignment is ");
    }
    draft d = tiny();
    draft_set_string(&d, "general.alignment", "32");
    refused(&d, FASTGPT_ERR_FORMAT, "general.alignment has the wrong type");
}

static void refused_tensor(int64_t offset_error, const char *culprit) {
    static const char *const names[] = {"blk.1.attn_qkv.weight", "output_norm.bias"}; /* one inside, and the last */
    for (int i = 0; i < 2; i++) {
        draft d = tiny();
        draft_find_tensor(&d, names[i])->offset_error = offset_error;
        char text[128];
        snprintf(text, sizeof text, culprit, names[i]);
        refused(&d, FASTGPT_ERR_FORMAT, text);
    }
}

static void test_offsets(void) {
    refused_tensor(4, "tensor %s has offset");
    refused_tensor(-4, "tensor %s has offset");
    refused_tensor(-32, "tensor %s has offset");
    refused_tensor(1 << 20, "the file ends inside tensor %s");
    refused_tensor(INT64_C(1) << 62, "the file ends inside tensor %s");
    refused_tensor(INT64_MIN, "the file ends inside tensor %s");
    draft d = tiny();
    draft_find_tensor(&d, "output_norm.bias")->offset_error = 32;
    refused(&d, FASTGPT_ERR_FORMAT, "the file ends inside tensor output_norm.bias");
}

static void refused_shape(uint32_t rank, uint64_t a, uint64_t b, uint64_t c, uint64_t d4, const char *culprit) {
    draft d = tiny();
    draft_tensor *t = draft_find_tensor(&d, "blk.0.ffn_up.weight");
    t->rank = rank;
    memcpy(t->shape, (uint64_t[]){a, b, c, d4, 1}, sizeof t->shape);
    refused(&d, FASTGPT_ERR_FORMAT, culprit);
}

static void test_shapes(void) {
    const char *impossible = "tensor blk.0.ffn_up.weight has an impossible shape";
    const char *too_large = "the file ends inside tensor blk.0.ffn_up.weight";
    const uint64_t half = UINT64_C(1) << 32;
    refused_shape(5, 1, 1, 1, 1, "tensor blk.0.ffn_up.weight has rank 5");
    refused_shape(UINT32_MAX, 1, 1, 1, 1, "tensor blk.0.ffn_up.weight has rank 4294967295");
    refused_shape(1, 0, 1, 1, 1, impossible);
    refused_shape(2, 6, 0, 1, 1, impossible);
    refused_shape(4, 6, 10, 1, 0, impossible);
    refused_shape(2, half, half, 1, 1, impossible);
    refused_shape(2, 0, UINT64_MAX, 1, 1, impossible);
    refused_shape(3, UINT64_MAX, 1, UINT64_MAX, 1, impossible);
    refused_shape(4, 1 << 16, 1 << 16, 1 << 16, 1 << 16, impossible);
    refused_shape(1, UINT64_C(1) << 62, 1, 1, 1, impossible); /* 4 bytes an element wrap around */
    refused_shape(1, UINT64_C(1) << 60, 1, 1, 1, too_large);
    refused_shape(2, 1 << 21, 1, 1, 1, too_large);
}

static void test_tensor_types(void) {
    static const struct {
        uint32_t type;
        const char *name;
    } types[] = {{9, "is Q8_1"},
                 {10, "is Q2_K"},
                 {20, "is IQ4_NL"},
                 {28, "is F64"},
                 {31, "is Q4_0_4_4"},
                 {34, "is TQ1_0"},
                 {35, "is TQ2_0"},
                 {38, "is IQ4_NL_8_8"},
                 {39, "is MXFP4"},
                 {40, "is NVFP4"},
                 {41, "is Q1_0"},
                 {42, "has type number 42, which this version does not know"},
                 {UINT32_MAX, "has type number 4294967295, which this version does not know"}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        draft d = tiny();
        draft_find_tensor(&d, "blk.1.ffn_down.weight")->type = types[i].type;
        refused(&d, FASTGPT_ERR_UNSUPPORTED, "tensor blk.1.ffn_down.weight ");
        d = tiny();
        draft_find_tensor(&d, "blk.1.ffn_down.weight")->type = types[i].type;
        refused(&d, FASTGPT_ERR_UNSUPPORTED, types[i].name);
    }
}

/* n_embd of the draft is no multiple of a block. */
static void test_rows_are_whole_blocks(void) {
    static const uint32_t types[] = {FILE_Q8_0, FILE_Q4_0, FILE_Q4_1, FILE_Q5_0,
                                     FILE_Q5_1, FILE_Q4_K, FILE_Q5_K, FILE_Q6_K};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        draft d = tiny();
        draft_find_tensor(&d, "blk.1.ffn_down.weight")->type = types[i];
        refused(&d, FASTGPT_ERR_FORMAT, "tensor blk.1.ffn_down.weight has rows of 10 numbers, not whole blocks");
    }
}

static void test_all(void) {
    test_tensors_are_found();
    check_values(false, 1);
    for (uint64_t n = 0; n <= 3; n++) check_values(true, n);
    test_every_truncation();
    test_header();
    test_files_of_other_kinds();
    test_counts();
    test_caps();
    test_names();
    test_values();
    test_lengths();
    test_duplicates();
    test_alignment();
    test_offsets();
    test_shapes();
    test_tensor_types();
    test_rows_are_whole_blocks();
}

int main(void) {
    test_all();
    may_change = true;
    test_all();
    return check_report();
}
