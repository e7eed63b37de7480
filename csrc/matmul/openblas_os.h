/* openblas_os.h - the operating system as the private copy of OpenBLAS sees it (cmake/private_openblas.cmake).
 *
 * OpenBLAS starts threads when it is loaded, maps a buffer of 32 MB in the middle of a product, and prints and ends the
 * process where it gets none.  So the copy asks these functions instead of the C library's: its environment asks for
 * one thread, and its buffers are mapped before a product needs them.  They are a shared library of their own, because
 * all of a process has one copy, and the copy is loaded with them. */
#ifndef FASTGPT_OPENBLAS_OS_H
#define FASTGPT_OPENBLAS_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* ---- For blas_cblas.c ---- */

/* n_threads more may multiply from now on, until they are released.  There is a buffer for each of them, or as many as
 * all others together have; but there are never more than `most`.  Threads without one wait for each other.  False when
 * there is no memory for that; then nothing has changed. */
bool fastgpt_openblas_reserve(int n_threads, int most);
void fastgpt_openblas_release(int n_threads);

/* Around each product: begin waits while all buffers are in use. */
void fastgpt_openblas_begin(void);
void fastgpt_openblas_end(void);

/* ---- For the copy, instead of the functions of the same names ---- */

char *fastgpt_openblas_getenv(const char *name);
void *fastgpt_openblas_mmap(void *at, size_t n_bytes, int protection, int flags, int fd, off_t offset);
int fastgpt_openblas_munmap(void *at, size_t n_bytes);

#endif
