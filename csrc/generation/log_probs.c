/* log_probs.c - see log_probs.h. */
#include "generation/log_probs.h"

#include <math.h>

double log_sum_exp(const float *logits, int32_t n) {
    float largest = logits[0];
    double sum = 0;
    for (int32_t i = 1; i < n; i++) largest = logits[i] > largest ? logits[i] : largest; /* fmax: gcc 12 fails on Arm */
    for (int32_t i = 0; i < n; i++) sum += exp((double)logits[i] - (double)largest);
    return (double)largest + log(sum);
}

/* Insertion into a short list that is sorted: most tokens are compared with its last one alone. */
void find_likeliest(const float *logits, int32_t n, int32_t *tokens, int32_t k) {
    int32_t n_found = 0;
    for (int32_t token = 0; token < n && k > 0; token++) {
        if (n_found == k && !(logits[token] > logits[tokens[k - 1]])) continue;
        int32_t place = n_found < k ? n_found++ : k - 1;
        for (; place > 0 && logits[token] > logits[tokens[place - 1]]; place--) tokens[place] = tokens[place - 1];
        tokens[place] = token;
    }
}
