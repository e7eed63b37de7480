/* site_embed.c - the sites embed and pos_embed, which are added up as soon as they are read. */
#include "common/arithmetic.h"
#include "matmul/packing.h"
#include "transformer/site_done.h"

static void embed_rows(const fastgpt_context *ctx, const slice *s, float *tokens, float *positions) {
    const fastgpt_model *m = ctx->model;
    const kernels *k = ctx->engine.kernels;
    int64_t row = 0;
    for (int32_t i = 0; i < s->n_spans; i++)
        for (int32_t t = 0; t < s->counts[i]; t++, row += m->n_embd) {
            weight_row_as_f32(k, &m->wte, slice_tokens(s, i)[t], tokens + row);
            weight_row_as_f32(k, &m->wpe, slice_position(s, i) + t, positions + row);
        }
}

void site_embed(fastgpt_context *ctx, const slice *s) {
    const int64_t n_embd = ctx->model->n_embd, n = s->n_tokens * n_embd;
    float *tokens = ctx->x, *positions = ctx->normed;
    embed_rows(ctx, s, tokens, positions);
    ctx->sites.slice = s;
    site_visit(ctx, FASTGPT_SITE_EMBED, 0, tokens, n_embd);
    site_visit(ctx, FASTGPT_SITE_POS_EMBED, 0, positions, n_embd);
    for (int64_t i = 0; i < n; i++) ctx->x[i] = tokens[i] + positions[i];
}
