/* status.h - the text of an error. */
#ifndef FASTGPT_STATUS_H
#define FASTGPT_STATUS_H

#include "fastgpt.h"

/* Writes the formatted text to error, if there is one, and returns status, so that a failing function can
 * say `return fail(error, FASTGPT_ERR_FORMAT, "tensor %s ...", name);`. */
#if defined(__MINGW32__)
__attribute__((format(gnu_printf, 3, 4))) /* C's own, which __USE_MINGW_ANSI_STDIO chooses */
#elif defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
fastgpt_status fail(fastgpt_error *error, fastgpt_status status, const char *format, ...);

#endif
