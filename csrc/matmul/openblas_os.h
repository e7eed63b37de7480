/* openblas_os.h - the operating system as the private copy of OpenBLAS sees it (cmake/private_openblas.cmake).
 *
 * OpenBLAS starts threads when it is loaded, maps a buffer of 32 MB in the middle of a product, and prints and ends the
 * process where it gets none.  So the copy calls these functions instead of the C library's: they ask it for one
 * thread, and map its buffers before a product needs them.  They are a shared library of their own, because a process
 * has one copy of OpenBLAS, which is loaded with them. */
#ifndef FASTGPT_OPENBLAS_OS_H
#define FASTGPT_OPENBLAS_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* ---- For blas_cblas.c ---- */

/* Lets n_threads more threads multiply, until they are released.  Afterwards there are at least n_threads buffers, or
 * max_buffers; products that find none free wait.  False when there is no memory for them; then nothing has changed. */
bool fastgpt_openblas_reserve(int n_threads, int max_buffers);
void fastgpt_openblas_release(int n_threads);

/* Around each product: begin waits while all buffers are in use. */
void fastgpt_openblas_begin(void);
void fastgpt_openblas_end(void);

/* ---- For the copy, instead of the functions of the same names ---- */

char *fastgpt_openblas_getenv(const char *name);
void *fastgpt_openblas_mmap(void *at, size_t n_bytes, int protection, int flags, int fd, off_t offset);
int fastgpt_openblas_munmap(void *at, size_t n_bytes);

#endif
