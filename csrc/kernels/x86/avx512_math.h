/* avx512_math.h - math.inl.h in registers of 16 floats, for all sets of AVX-512.  Their row-wise products use registers
 * of 8, which is enough where memory is the limit. */
#ifndef FASTGPT_AVX512_MATH_H
#define FASTGPT_AVX512_MATH_H

float avx512_exponentials(float *x, int n, float scale, float *x_max);
void avx512_softmax(float *x, int n, float scale);
void avx512_gelu_tanh(float *x, int n);
void avx512_gelu_erf(float *x, int n);
void avx512_relu(float *x, int n);
void avx512_silu(float *x, int n);
void avx512_layer_norm(float *out, const float *x, const float *w, const float *b, int n, float epsilon);

#define MATH(function) avx512_##function

#endif
