/* always_inline.h - for functions that have constants among their arguments wherever they are called. */
#ifndef FASTGPT_ALWAYS_INLINE_H
#define FASTGPT_ALWAYS_INLINE_H

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#endif
