/* os_files.h - what the files of every system have in common, for os_posix_files.c and os_windows_files.c alone. */
#ifndef FASTGPT_OS_FILES_H
#define FASTGPT_OS_FILES_H

#include "common/os.h"

/* Reads the n bytes that come next of an open file.  OK or IO. */
typedef fastgpt_status (*os_reader)(void *open_file, uint8_t *data, size_t n, const char *path, fastgpt_error *error);

/* A copy of all file->n_bytes, which check has looked at the beginning of. */
fastgpt_status os_file_read(os_file *file, os_reader reader, void *open_file, const char *path,
                            const os_file_check *check, fastgpt_error *error);

#endif
