/* test_byte_order.c - a machine whose numbers stand the other way round than a file's: weights are refused when they
 * are loaded, since they would give NaN; a vocabulary is read byte by byte, and works. */
#include "support/check.h"
#include "support/load.h"
#include "common/os.h"

static bool little_endian;

bool __wrap_os_is_little_endian(void);

bool __wrap_os_is_little_endian(void) { return little_endian; }

static fastgpt_status load_on(bool little, int32_t vocab_only, fastgpt_model **model, fastgpt_error *error) {
    fastgpt_load_options options = {.struct_size = sizeof options, .no_mmap = 1, .vocab_only = vocab_only};
    draft d = draft_of(tiny_shape);
    buffer file = draft_write(&d, NULL);
    little_endian = little;
    fastgpt_status status = fastgpt_model_load_memory(file.data, file.n, &options, model, error);
    free(file.data);
    draft_free(&d);
    return status;
}

int main(void) {
    fastgpt_model *model;
    fastgpt_error error;
    CHECK(load_on(true, 0, &model, &error) == FASTGPT_OK);
    fastgpt_model_free(model);
    CHECK(load_on(false, 0, &model, &error) == FASTGPT_ERR_UNSUPPORTED && !model && strstr(error.text, "big-endian"));
    CHECK(load_on(false, 1, &model, &error) == FASTGPT_OK);
    fastgpt_model_free(model);
    return check_report();
}
