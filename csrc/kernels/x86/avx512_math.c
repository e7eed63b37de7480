/* avx512_math.c - see avx512_math.h. */
#define WIDTH 16
#include "kernels/x86/avx512_math.h"
#include "kernels/generic/math.inl.h"

float avx512_exponentials(float *x, int n, float scale, float *x_max) { return exponentials(x, n, scale, x_max); }
void avx512_softmax(float *x, int n, float scale) { softmax(x, n, scale); }
void avx512_gelu_tanh(float *x, int n) { gelu_tanh(x, n); }
void avx512_gelu_erf(float *x, int n) { gelu_erf(x, n); }
void avx512_relu(float *x, int n) { relu(x, n); }
void avx512_silu(float *x, int n) { silu(x, n); }
void avx512_layer_norm(float *out, const float *x, const float *w, const float *b, int n, float epsilon) {
    layer_norm(out, x, w, b, n, epsilon);
}
