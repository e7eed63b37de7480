/* log_probs.h - log-probabilities of tokens, from logits. */
#ifndef FASTGPT_LOG_PROBS_H
#define FASTGPT_LOG_PROBS_H

#include <stdint.h>

/* ln of the sum of exp(logits [n]): a token's log-probability is its logit less this. */
double log_sum_exp(const float *logits, int32_t n);

/* The k largest of logits [n], best first, the lower token first among equals; k <= n.
 *   tokens [k] */
void find_likeliest(const float *logits, int32_t n, int32_t *tokens, int32_t k);

#endif
