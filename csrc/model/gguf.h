/* gguf.h - a bounds-checked reader of GGUF v3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
 * Everything points into the file's bytes.  Where another process may change those, all but the tensors' data is
 * copied before it is believed: each length and offset is read once, and what was checked stays so. */
#ifndef FASTGPT_GGUF_H
#define FASTGPT_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtypes/dtype.h"
#include "fastgpt.h"

typedef struct gguf_string {
    const char *text; /* UTF-8, not NUL-terminated */
    uint64_t n;
} gguf_string;

/* Types of metadata values, numbered as in the file. */
enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_N_VALUE_TYPES
};

typedef struct gguf_value {
    gguf_string name;
    uint32_t type;         /* of the value, or of the elements of an array */
    bool is_array;
    uint64_t n;            /* elements: 1 when not an array */
    const uint8_t *data;   /* as in the file, little-endian; a string is a u64 length, then its bytes */
} gguf_value;

enum { GGUF_MAX_RANK = 4 };

typedef struct gguf_tensor {
    gguf_string name;
    dtype type;
    uint32_t rank;
    uint64_t shape[GGUF_MAX_RANK]; /* as in the file: the fastest-running dimension first, 1 beyond rank */
    uint64_t n_elements;
    uint64_t n_bytes;
    uint64_t offset; /* of the data, from where those of all tensors begin */
    const uint8_t *data;
} gguf_tensor;

/* Both tables are sorted by name, and no name stands twice. */
typedef struct gguf_file {
    gguf_value *values;
    gguf_tensor *tensors;
    uint64_t n_values;
    uint64_t n_tensors;
    uint64_t n_copied;
    uint8_t *copy; /* [n_copied] of the file's beginning, up to the tensors' data; NULL = the file itself */
} gguf_file;

/* Whether the first bytes of a file of n_bytes are a header that such a file can have.  As gguf_parse. */
fastgpt_status gguf_check_header(const uint8_t *first, size_t n_first, size_t n_bytes, fastgpt_error *error);

/* may_change: the file is mapped, so that its bytes are anybody's.  Returns OK, MEMORY, FORMAT or UNSUPPORTED. */
fastgpt_status gguf_parse(gguf_file *gguf, const uint8_t *data, size_t n_bytes, bool may_change, fastgpt_error *error);
void gguf_free(gguf_file *gguf);
size_t gguf_sizeof(const gguf_file *gguf); /* of the tables and the copy */

const gguf_value *gguf_find_value(const gguf_file *gguf, const char *name);   /* NULL when absent */
const gguf_tensor *gguf_find_tensor(const gguf_file *gguf, const char *name); /* NULL when absent */

/* *value = the entry of that name, NULL when absent; FORMAT when it is not of the given type. */
fastgpt_status gguf_get(const gguf_file *gguf, const char *name, uint32_t type, const gguf_value **value,
                        fastgpt_error *error);
fastgpt_status gguf_get_array(const gguf_file *gguf, const char *name, uint32_t type, const gguf_value **value,
                              fastgpt_error *error);

/* Little-endian numbers, and the string at *data, which moves past it. */
uint32_t gguf_u32(const uint8_t *data);
uint64_t gguf_u64(const uint8_t *data);
gguf_string gguf_next_string(const uint8_t **data);

bool gguf_string_is(gguf_string string, const char *text);

/* For "%.*s" in an error text: the length, cut where it would flood the message. */
int gguf_shown(gguf_string string);

#endif
