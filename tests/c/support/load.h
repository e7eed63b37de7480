/* load.h - from bytes or a draft to a model, by way of a temporary file. */
#ifndef FASTGPT_LOAD_H
#define FASTGPT_LOAD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fastgpt.h"
#include "support/model_file.h"

typedef struct temporary_file {
    char path[512];
} temporary_file;

/* In TMPDIR or else /tmp.  The caller unlinks it, and may do so while it is mapped. */
static inline temporary_file write_temporary(const void *data, size_t n) {
    temporary_file file;
    const char *folder = getenv("TMPDIR");
    snprintf(file.path, sizeof file.path, "%s/fastgpt-test-XXXXXX", folder && *folder ? folder : "/tmp");
    int fd = mkstemp(file.path);
    if (fd < 0 || (n > 0 && write(fd, data, n) != (ssize_t)n) || close(fd) != 0) {
        perror(file.path);
        abort();
    }
    return file;
}

static inline fastgpt_status load_bytes(const void *data, size_t n, bool copy, fastgpt_model **model,
                                        fastgpt_error *error) {
    fastgpt_load_options options = {.struct_size = sizeof options, .no_mmap = copy};
    temporary_file file = write_temporary(data, n);
    fastgpt_status status = fastgpt_model_load(file.path, &options, model, error);
    unlink(file.path);
    return status;
}

static inline fastgpt_status load_draft(const draft *d, bool copy, fastgpt_model **model, fastgpt_error *error) {
    buffer file = draft_write(d, NULL);
    fastgpt_status status = load_bytes(file.data, file.n, copy, model, error);
    free(file.data);
    return status;
}

/* The model of a draft, which is freed; ends the test where it cannot be had. */
static inline fastgpt_model *load_valid(draft *d, bool copy) {
    fastgpt_model *model;
    fastgpt_error error;
    if (load_draft(d, copy, &model, &error) != FASTGPT_OK) {
        fprintf(stderr, "%s\n", error.text);
        abort();
    }
    draft_free(d);
    return model;
}

static inline fastgpt_model *load_shape(model_shape shape, bool copy) {
    draft d = draft_of(shape);
    return load_valid(&d, copy);
}

/* Large enough for every path of a step: several blocks of queries, products of few and of many tokens. */
static const model_shape small_shape = {
    .n_vocab = 41, .n_ctx = 80, .n_embd = 36, .n_head = 3, .n_layer = 2, .n_ff = 100};

#endif
