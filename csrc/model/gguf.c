/* gguf.c - see gguf.h.  A file is hostile until proven otherwise: every read goes through take_bytes(), every
 * count is capped before it is used, every product is checked. */
#include "model/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "common/status.h"

enum {
    MAX_VALUES = 65536,
    MAX_TENSORS = 65536,
    MAX_NAME = 65535,
    MAX_ALIGNMENT = 65536,
    HEADER_BYTES = 4 + 4 + 8 + 8,     /* magic, version, two counts */
    MIN_VALUE_BYTES = 8 + 4 + 1,      /* name length, type, the smallest value */
    MIN_TENSOR_BYTES = 8 + 4 + 4 + 8, /* name length, rank, type, offset */
    TENSOR_I32 = 26
};

/* What is left to read. */
typedef struct reader {
    const uint8_t *at;
    const uint8_t *end;
    fastgpt_error *error;
} reader;

static uint64_t left(const reader *r) { return (uint64_t)(r->end - r->at); }

static const uint8_t *take_bytes(reader *r, uint64_t n) {
    if (n > left(r)) return NULL;
    const uint8_t *data = r->at;
    r->at += n;
    return data;
}

static uint64_t little_endian(const uint8_t *data, int n) {
    uint64_t value = 0;
    for (int i = n - 1; i >= 0; i--) value = value << 8 | data[i];
    return value;
}

uint32_t gguf_u32(const uint8_t *data) { return (uint32_t)little_endian(data, 4); }

uint64_t gguf_u64(const uint8_t *data) { return little_endian(data, 8); }

static bool take_u32(reader *r, uint32_t *value) {
    const uint8_t *data = take_bytes(r, 4);
    if (data) *value = gguf_u32(data);
    return data != NULL;
}

static bool take_u64(reader *r, uint64_t *value) {
    const uint8_t *data = take_bytes(r, 8);
    if (data) *value = gguf_u64(data);
    return data != NULL;
}

static bool take_string(reader *r, gguf_string *string) {
    if (!take_u64(r, &string->n)) return false;
    string->text = (const char *)take_bytes(r, string->n);
    return string->text != NULL;
}

static fastgpt_status ends_early(const reader *r, const char *what) {
    return fail(r->error, FASTGPT_ERR_FORMAT, "the file ends inside %s", what);
}

gguf_string gguf_next_string(const uint8_t **data) {
    gguf_string string = {(const char *)*data + 8, gguf_u64(*data)};
    *data += 8 + string.n;
    return string;
}

bool gguf_string_is(gguf_string string, const char *text) {
    return string.n == strlen(text) && memcmp(string.text, text, string.n) == 0;
}

int gguf_shown(gguf_string string) { return string.n < 80 ? (int)string.n : 80; }

/* ---- Metadata ---- */

static uint64_t value_bytes(uint32_t type) {
    static const uint8_t bytes[GGUF_N_VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[type];
}

static bool skip_elements(reader *r, uint32_t type, uint64_t n) {
    if (type != GGUF_STRING) return n <= left(r) / value_bytes(type) && take_bytes(r, n * value_bytes(type));
    if (n > left(r) / 8) return false;
    gguf_string string;
    for (uint64_t i = 0; i < n; i++)
        if (!take_string(r, &string)) return false;
    return true;
}

static fastgpt_status read_value(reader *r, gguf_value *value) {
    if (!take_string(r, &value->name) || !take_u32(r, &value->type)) return ends_early(r, "the metadata");
    gguf_string name = value->name;
    if (name.n == 0 || name.n > MAX_NAME)
        return fail(r->error, FASTGPT_ERR_FORMAT, "a metadata key has %llu bytes", (unsigned long long)name.n);
    value->n = 1;
    value->is_array = value->type == GGUF_ARRAY;
    if (value->is_array && (!take_u32(r, &value->type) || !take_u64(r, &value->n)))
        return ends_early(r, "the metadata");
    if (value->type >= GGUF_N_VALUE_TYPES)
        return fail(r->error, FASTGPT_ERR_FORMAT, "key %.*s has the unknown type %u", gguf_shown(name), name.text,
                    value->type);
    if (value->type == GGUF_ARRAY)
        return fail(r->error, FASTGPT_ERR_UNSUPPORTED, "key %.*s is an array of arrays", gguf_shown(name), name.text);
    value->data = r->at;
    return skip_elements(r, value->type, value->n) ? FASTGPT_OK : ends_early(r, "the metadata");
}

/* ---- Tensors ---- */

/* The types of ggml by their numbers in a file; ggml has given up some of them, but files that have them are left. */
static const char *const ggml_type_names[] = {
    [0] = "F32",         [1] = "F16",         [2] = "Q4_0",        [3] = "Q4_1",      [4] = "Q4_2",     [5] = "Q4_3",
    [6] = "Q5_0",        [7] = "Q5_1",        [8] = "Q8_0",        [9] = "Q8_1",      [10] = "Q2_K",    [11] = "Q3_K",
    [12] = "Q4_K",       [13] = "Q5_K",       [14] = "Q6_K",       [15] = "Q8_K",     [16] = "IQ2_XXS", [17] = "IQ2_XS",
    [18] = "IQ3_XXS",    [19] = "IQ1_S",      [20] = "IQ4_NL",     [21] = "IQ3_S",    [22] = "IQ2_S",   [23] = "IQ4_XS",
    [24] = "I8",         [25] = "I16",        [26] = "I32",        [27] = "I64",      [28] = "F64",     [29] = "IQ1_M",
    [30] = "BF16",       [31] = "Q4_0_4_4",   [32] = "Q4_0_4_8",   [33] = "Q4_0_8_8", [34] = "TQ1_0",   [35] = "TQ2_0",
    [36] = "IQ4_NL_4_4", [37] = "IQ4_NL_4_8", [38] = "IQ4_NL_8_8", [39] = "MXFP4",    [40] = "NVFP4",   [41] = "Q1_0"};

static fastgpt_status refuse_type(const reader *r, gguf_string tensor, uint32_t type) {
    static const char implemented[] = "F32, F16, BF16, Q4_0 to Q5_1, Q8_0, Q4_K to Q6_K and I8 are implemented";
    if (type < sizeof ggml_type_names / sizeof *ggml_type_names)
        return fail(r->error, FASTGPT_ERR_UNSUPPORTED, "tensor %.*s is %s; %s", gguf_shown(tensor), tensor.text,
                    ggml_type_names[type], implemented);
    return fail(r->error, FASTGPT_ERR_UNSUPPORTED,
                "tensor %.*s has type number %u, which this version does not know; %s", gguf_shown(tensor), tensor.text,
                type, implemented);
}

/* Sizes of a tensor from its shape, rows of whole blocks; false when they overflow, or a dimension is zero. */
static bool measure(gguf_tensor *tensor) {
    const dtype_info *format = &dtype_infos[tensor->type];
    tensor->n_elements = 1;
    for (uint32_t i = 0; i < tensor->rank; i++) {
        uint64_t n = tensor->shape[i];
        if (n == 0 || tensor->n_elements > UINT64_MAX / 8 / n) return false;
        tensor->n_elements *= n;
    }
    tensor->n_bytes = tensor->n_elements / (uint64_t)format->block_values * (uint64_t)format->block_bytes;
    return true;
}

/* Its layout is not llama.cpp's. */
static fastgpt_status of_fastgpt(const reader *r) {
    return fail(r->error, FASTGPT_ERR_UNSUPPORTED,
                "a model file of fastGPT; this makes one that runs:  fastgpt-c convert THIS_FILE -o OTHER.gguf");
}

/* Reads one entry of the table, without its data. */
static fastgpt_status read_tensor(reader *r, gguf_tensor *tensor) {
    if (!take_string(r, &tensor->name) || !take_u32(r, &tensor->rank)) return ends_early(r, "the tensor table");
    gguf_string name = tensor->name;
    if (name.n == 0 || name.n > MAX_NAME)
        return fail(r->error, FASTGPT_ERR_FORMAT, "a tensor's name has %llu bytes", (unsigned long long)name.n);
    if (tensor->rank > GGUF_MAX_RANK)
        return fail(r->error, FASTGPT_ERR_FORMAT, "tensor %.*s has rank %u, at most %d is allowed", gguf_shown(name),
                    name.text, tensor->rank, GGUF_MAX_RANK);
    for (uint32_t i = 0; i < GGUF_MAX_RANK; i++) {
        tensor->shape[i] = 1;
        if (i < tensor->rank && !take_u64(r, &tensor->shape[i])) return ends_early(r, "the tensor table");
    }
    uint32_t type;
    if (!take_u32(r, &type) || !take_u64(r, &tensor->offset)) return ends_early(r, "the tensor table");
    if (type == TENSOR_I32 && gguf_string_is(name, "header")) return of_fastgpt(r);
    if (!dtype_of_gguf(type, &tensor->type)) return refuse_type(r, name, type);
    const dtype_info *format = &dtype_infos[tensor->type];
    if (tensor->shape[0] % (uint64_t)format->block_values != 0)
        return fail(r->error, FASTGPT_ERR_FORMAT, "tensor %.*s has rows of %llu numbers, not whole blocks of %d (%s)",
                    gguf_shown(name), name.text, (unsigned long long)tensor->shape[0], format->block_values,
                    format->name);
    if (!measure(tensor))
        return fail(r->error, FASTGPT_ERR_FORMAT, "tensor %.*s has an impossible shape", gguf_shown(name), name.text);
    return FASTGPT_OK;
}

/* Offsets must rise in the order of the table, so that no tensor overlaps another. */
static fastgpt_status place_tensor(const reader *data, gguf_tensor *tensor, uint64_t alignment, uint64_t *end_of_last) {
    gguf_string name = tensor->name;
    uint64_t offset = tensor->offset;
    if (offset % alignment != 0 || offset < *end_of_last)
        return fail(data->error, FASTGPT_ERR_FORMAT,
                    "tensor %.*s has offset %llu: misaligned, or inside another tensor", gguf_shown(name), name.text,
                    (unsigned long long)offset);
    if (offset > left(data) || tensor->n_bytes > left(data) - offset)
        return fail(data->error, FASTGPT_ERR_FORMAT, "the file ends inside tensor %.*s", gguf_shown(name), name.text);
    tensor->data = data->at + offset;
    *end_of_last = offset + tensor->n_bytes;
    return FASTGPT_OK;
}

/* ---- Tables sorted by name ---- */

static int compare_strings(gguf_string a, gguf_string b) {
    int order = memcmp(a.text, b.text, a.n < b.n ? a.n : b.n);
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

/* Both kinds of entry begin with their name. */
static int compare_names(const void *a, const void *b) {
    return compare_strings(*(const gguf_string *)a, *(const gguf_string *)b);
}

static fastgpt_status sort_by_name(void *table, uint64_t n, size_t entry_bytes, fastgpt_error *error) {
    if (n == 0) return FASTGPT_OK;
    qsort(table, n, entry_bytes, compare_names);
    for (uint64_t i = 1; i < n; i++) {
        const char *entry = (const char *)table + i * entry_bytes;
        const gguf_string *name = (const void *)entry;
        if (compare_names(entry - entry_bytes, entry) == 0)
            return fail(error, FASTGPT_ERR_FORMAT, "the name %.*s stands twice", gguf_shown(*name), name->text);
    }
    return FASTGPT_OK;
}

static void *find_entry(const void *table, uint64_t n, size_t entry_bytes, const char *name) {
    gguf_string key = {name, strlen(name)};
    return n ? bsearch(&key, table, n, entry_bytes, compare_names) : NULL;
}

const gguf_value *gguf_find_value(const gguf_file *gguf, const char *name) {
    return find_entry(gguf->values, gguf->n_values, sizeof *gguf->values, name);
}

static fastgpt_status get_value(const gguf_file *gguf, const char *name, uint32_t type, bool is_array,
                                const gguf_value **value, fastgpt_error *error) {
    *value = gguf_find_value(gguf, name);
    if (*value && ((*value)->type != type || (*value)->is_array != is_array))
        return fail(error, FASTGPT_ERR_FORMAT, "key %s has the wrong type", name);
    return FASTGPT_OK;
}

fastgpt_status gguf_get(const gguf_file *gguf, const char *name, uint32_t type, const gguf_value **value,
                        fastgpt_error *error) {
    return get_value(gguf, name, type, false, value, error);
}

fastgpt_status gguf_get_array(const gguf_file *gguf, const char *name, uint32_t type, const gguf_value **value,
                              fastgpt_error *error) {
    return get_value(gguf, name, type, true, value, error);
}

const gguf_tensor *gguf_find_tensor(const gguf_file *gguf, const char *name) {
    return find_entry(gguf->tensors, gguf->n_tensors, sizeof *gguf->tensors, name);
}

/* ---- The file ---- */

static bool begins_with(const reader *r, const char *text) {
    size_t n = strlen(text);
    return n <= left(r) && memcmp(r->at, text, n) == 0;
}

/* Markup, behind a byte order mark and spaces. */
static bool begins_as_page(const reader *r) {
    static const char *const tags[] = {"<!doctype html", "<html", "<head", "<?xml"};
    reader at = *r;
    if (begins_with(&at, "\xEF\xBB\xBF")) at.at += 3;
    while (at.at < at.end && strchr(" \t\r\n", *at.at) && *at.at) at.at++;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        size_t n = strlen(tags[i]), same = 0;
        while (same < n && same < left(&at) && (at.at[same] | 0x20) == (tags[i][same] | 0x20)) same++;
        if (same == n) return true;
    }
    return false;
}

/* A file that does not begin with "GGUF": what it is, where that can be told. */
static fastgpt_status refuse_magic(const reader *r) {
    if (begins_with(r, "lmgg"))
        return fail(r->error, FASTGPT_ERR_UNSUPPORTED,
                    "a model file of ggml from before GGUF; convert the checkpoint that it was made of");
    if (begins_with(r, "\x97\x16\xA5\x0F")) return of_fastgpt(r);
    if (begins_with(r, "version https://git-lfs.github.com/spec/"))
        return fail(r->error, FASTGPT_ERR_FORMAT,
                    "is only the pointer that Git LFS keeps of the file; fetch it:  git lfs pull");
    if (begins_as_page(r))
        return fail(r->error, FASTGPT_ERR_FORMAT,
                    "is a web page, not a model; download the file itself, not the page about it");
    return fail(r->error, FASTGPT_ERR_FORMAT, "not a GGUF file");
}

/* The file has n_bytes, of which no more than the header need be there. */
static fastgpt_status read_header(reader *r, uint64_t n_bytes, gguf_file *gguf) {
    if (!begins_with(r, "GGUF")) return refuse_magic(r);
    take_bytes(r, 4);
    uint32_t version;
    if (!take_u32(r, &version)) return ends_early(r, "the header");
    if (version == UINT32_C(0x03000000)) return fail(r->error, FASTGPT_ERR_UNSUPPORTED, "the GGUF file is big-endian");
    if (version != 3)
        return fail(r->error, FASTGPT_ERR_UNSUPPORTED, "GGUF version %u; version 3 is implemented", version);
    if (!take_u64(r, &gguf->n_tensors) || !take_u64(r, &gguf->n_values)) return ends_early(r, "the header");
    uint64_t n_left = n_bytes - HEADER_BYTES;
    if (gguf->n_values > MAX_VALUES || gguf->n_values > n_left / MIN_VALUE_BYTES)
        return fail(r->error, FASTGPT_ERR_FORMAT, "the header counts %llu metadata keys, more than the file can hold",
                    (unsigned long long)gguf->n_values);
    if (gguf->n_tensors > MAX_TENSORS || gguf->n_tensors > n_left / MIN_TENSOR_BYTES)
        return fail(r->error, FASTGPT_ERR_FORMAT, "the header counts %llu tensors, more than the file can hold",
                    (unsigned long long)gguf->n_tensors);
    return FASTGPT_OK;
}

static fastgpt_status read_alignment(const gguf_file *gguf, uint64_t *alignment, fastgpt_error *error) {
    const gguf_value *value;
    fastgpt_status status = gguf_get(gguf, "general.alignment", GGUF_U32, &value, error);
    *alignment = 32;
    if (status || !value) return status;
    *alignment = gguf_u32(value->data);
    if (*alignment < 4 || *alignment > MAX_ALIGNMENT || (*alignment & (*alignment - 1)) != 0)
        return fail(error, FASTGPT_ERR_FORMAT, "general.alignment is %llu, not a power of two in [4, %d]",
                    (unsigned long long)*alignment, MAX_ALIGNMENT);
    return FASTGPT_OK;
}

fastgpt_status gguf_check_header(const uint8_t *first, size_t n_first, size_t n_bytes, fastgpt_error *error) {
    reader r = {first, first + n_first, error};
    gguf_file gguf;
    return read_header(&r, n_bytes, &gguf);
}

/* Both tables in the order of the file. */
static fastgpt_status read_tables(reader *r, gguf_file *gguf) {
    memset(gguf, 0, sizeof *gguf);
    fastgpt_status status = read_header(r, left(r), gguf);
    if (status) return status;
    gguf->values = calloc(gguf->n_values + 1, sizeof *gguf->values);
    gguf->tensors = calloc(gguf->n_tensors + 1, sizeof *gguf->tensors);
    if (!gguf->values || !gguf->tensors) status = fail(r->error, FASTGPT_ERR_MEMORY, "no memory for the file's tables");
    for (uint64_t i = 0; i < gguf->n_values && !status; i++) status = read_value(r, &gguf->values[i]);
    for (uint64_t i = 0; i < gguf->n_tensors && !status; i++) status = read_tensor(r, &gguf->tensors[i]);
    return status;
}

/* The tables of a file that was read to the end of them once, n_bytes, from a copy of so much of it. */
static fastgpt_status read_copied_tables(const uint8_t *data, uint64_t n_bytes, gguf_file *gguf, fastgpt_error *error) {
    uint8_t *copy = malloc(n_bytes);
    if (!copy) return fail(error, FASTGPT_ERR_MEMORY, "no memory for the file's tables");
    memcpy(copy, data, n_bytes);
    gguf_free(gguf);
    reader r = {copy, copy + n_bytes, error};
    fastgpt_status status = read_tables(&r, gguf);
    gguf->copy = copy;
    gguf->n_copied = n_bytes;
    return status;
}

/* r: what follows the tables, which end n_before bytes from the file's beginning. */
static fastgpt_status place_tensors(reader *r, gguf_file *gguf, uint64_t n_before) {
    uint64_t alignment, end_of_last = 0;
    fastgpt_status status = read_alignment(gguf, &alignment, r->error);
    uint64_t padding = status ? 0 : (alignment - n_before % alignment) % alignment;
    if (!status && gguf->n_tensors > 0 && !take_bytes(r, padding)) status = ends_early(r, "the tensor table");
    for (uint64_t i = 0; i < gguf->n_tensors && !status; i++)
        status = place_tensor(r, &gguf->tensors[i], alignment, &end_of_last);
    return status;
}

fastgpt_status gguf_parse(gguf_file *gguf, const uint8_t *data, size_t n_bytes, bool may_change, fastgpt_error *error) {
    reader r = {data, data + n_bytes, error};
    fastgpt_status status = read_tables(&r, gguf);
    uint64_t n_before = (uint64_t)(r.at - data);
    if (!status && may_change) status = read_copied_tables(data, n_before, gguf, error);
    if (!status) status = sort_by_name(gguf->values, gguf->n_values, sizeof *gguf->values, error);
    if (!status) status = place_tensors(&r, gguf, n_before);
    if (!status) status = sort_by_name(gguf->tensors, gguf->n_tensors, sizeof *gguf->tensors, error);
    if (status) gguf_free(gguf);
    return status;
}

void gguf_free(gguf_file *gguf) {
    free(gguf->values);
    free(gguf->tensors);
    free(gguf->copy);
    memset(gguf, 0, sizeof *gguf);
}

size_t gguf_sizeof(const gguf_file *gguf) {
    return gguf->n_values * sizeof *gguf->values + gguf->n_tensors * sizeof *gguf->tensors + gguf->n_copied;
}
