/* os_files.c - see os_files.h. */
#include "common/os_files.h"

#include <string.h>

#include "common/status.h"

fastgpt_status os_file_read(os_file *file, os_reader reader, void *open_file, const char *path,
                            const os_file_check *check, fastgpt_error *error) {
    uint8_t first[OS_FIRST_BYTES];
    size_t n = file->n_bytes, n_first = n < sizeof first ? n : sizeof first;
    fastgpt_status status = reader(open_file, first, n_first, path, error);
    if (!status) status = check->begins_well(check->user, first, n_first, n, error);
    if (status) return status;
    uint8_t *data = os_alloc_large(n);
    if (!data) return fail(error, FASTGPT_ERR_MEMORY, "%s: no memory for its %zu bytes", path, n);
    memcpy(data, first, n_first);
    status = reader(open_file, data + n_first, n - n_first, path, error);
    file->owned = status == FASTGPT_OK;
    if (status) os_free(data);
    else file->data = data;
    return status;
}

fastgpt_status os_file_of_bytes(os_file *file, const void *bytes, size_t n_bytes, bool copy, fastgpt_error *error) {
    *file = (os_file){.data = bytes, .n_bytes = n_bytes, .owned = copy};
    if (!copy) return FASTGPT_OK;
    uint8_t *data = os_alloc_large(n_bytes);
    file->data = data;
    if (!data) return fail(error, FASTGPT_ERR_MEMORY, "no memory for the %zu bytes of the model", n_bytes);
    memcpy(data, bytes, n_bytes);
    return FASTGPT_OK;
}
