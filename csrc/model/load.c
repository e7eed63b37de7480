/* load.c - a model file, from a path or in memory -> a fastgpt_model: its bytes, its options, what a caller is told of
 * a file that cannot be loaded. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/status.h"
#include "common/versioned_struct.h"
#include "kernels/kernels.h"
#include "model/model.h"

/* Puts the file's name in front of an error that speaks of its contents. */
static void name_file(fastgpt_error *error, const char *path) {
    if (!error) return;
    fastgpt_error detail = *error;
    fail(error, FASTGPT_OK, "%.255s: %.250s", path, detail.text);
}

/* m->file holds the bytes of a model file. */
static fastgpt_status read_contents(fastgpt_model *m, bool vocab_only, fastgpt_error *error) {
    fastgpt_status status = gguf_parse(&m->gguf, m->file.data, m->file.n_bytes, m->file.mapped, error);
    if (status) return status;
    if (vocab_only) return model_read_vocabulary(m, error);
    if (m->gguf.n_tensors == 0 && gguf_find_value(&m->gguf, "tokenizer.ggml.tokens"))
        return fail(error, FASTGPT_ERR_UNSUPPORTED,
                    "holds a vocabulary and no weights: encode and decode work with it, and nothing else");
    return model_read(m, error);
}

/* An os_file_check. */
static fastgpt_status check_first_bytes(const void *path, const uint8_t *first, size_t n_first, size_t n_bytes,
                                        fastgpt_error *error) {
    fastgpt_status status = gguf_check_header(first, n_first, n_bytes, error);
    if (status) name_file(error, path);
    return status;
}

static fastgpt_status load_path(fastgpt_model *m, const char *path, const fastgpt_load_options *o,
                                fastgpt_error *error) {
    const os_file_check copy = {check_first_bytes, path};
    fastgpt_status status = os_file_open(&m->file, path, o->no_mmap ? &copy : NULL, error);
    if (status) return status;
    status = read_contents(m, o->vocab_only != 0, error);
    if (status) name_file(error, path);
    return status;
}

/* The caller's options, and what must hold before anything is read. */
static fastgpt_status read_options(const fastgpt_load_options *given, fastgpt_load_options *o, fastgpt_error *error) {
    *o = (fastgpt_load_options){.struct_size = sizeof *o};
    if (given && !options_read(o, sizeof *o, given, FIRST_SIZE(fastgpt_load_options, no_mmap)))
        return fail(error, FASTGPT_ERR_ARGUMENT, "options->struct_size is %zu, not %zu", given->struct_size,
                    sizeof *given);
    if (o->vocab_only) return FASTGPT_OK;
    if (!os_is_little_endian())
        return fail(error, FASTGPT_ERR_UNSUPPORTED,
                    "this machine is big-endian: it cannot run the little-endian weights of GGUF files");
    if (!kernels_chosen())
        return fail(error, FASTGPT_ERR_UNSUPPORTED, "FASTGPT_ISA names no instruction set of this machine and build");
    return FASTGPT_OK;
}

static fastgpt_status create_model(const fastgpt_load_options *given, fastgpt_load_options *o, fastgpt_model **out,
                                   fastgpt_error *error) {
    static atomic_uint_fast64_t last_id;
    fastgpt_status status = read_options(given, o, error);
    if (status) return status;
    *out = calloc(1, sizeof **out);
    if (!*out) return fail(error, FASTGPT_ERR_MEMORY, "no memory for the model");
    (*out)->id = atomic_fetch_add(&last_id, 1) + 1;
    return FASTGPT_OK;
}

fastgpt_status fastgpt_model_load(const char *path, const fastgpt_load_options *options, fastgpt_model **out,
                                  fastgpt_error *error) {
    if (error) error->text[0] = 0;
    if (!out) return fail(error, FASTGPT_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!path) return fail(error, FASTGPT_ERR_ARGUMENT, "path is NULL");
    fastgpt_load_options o;
    fastgpt_model *m = NULL;
    fastgpt_status status = create_model(options, &o, &m, error);
    if (!status) status = load_path(m, path, &o, error);
    if (status) fastgpt_model_free(m);
    else *out = m;
    return status;
}

fastgpt_status fastgpt_model_load_memory(const void *bytes, size_t n_bytes, const fastgpt_load_options *options,
                                         fastgpt_model **out, fastgpt_error *error) {
    if (error) error->text[0] = 0;
    if (!out) return fail(error, FASTGPT_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!bytes || n_bytes == 0) return fail(error, FASTGPT_ERR_ARGUMENT, "bytes is NULL, or n_bytes is 0");
    fastgpt_load_options o;
    fastgpt_model *m = NULL;
    fastgpt_status status = create_model(options, &o, &m, error);
    if (!status && !o.no_mmap && (uintptr_t)bytes % sizeof(float) != 0)
        status = fail(error, FASTGPT_ERR_ARGUMENT, "bytes is not aligned to 4 bytes; set no_mmap for a copy that is");
    if (!status) status = os_file_of_bytes(&m->file, bytes, n_bytes, o.no_mmap != 0, error);
    if (!status) status = read_contents(m, o.vocab_only != 0, error);
    if (status) fastgpt_model_free(m);
    else *out = m;
    return status;
}

void fastgpt_model_free(fastgpt_model *m) {
    if (!m) return;
    gguf_free(&m->gguf);
    os_file_close(&m->file);
    os_free(m->widened);
    os_free(m->recoded);
    vocab_free(&m->vocab);
    free(m->layers);
    free(m->name);
    free(m);
}
