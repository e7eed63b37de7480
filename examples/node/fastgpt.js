// fastgpt.js - a JavaScript face of fastgpt.h: exceptions instead of statuses, typed arrays instead of pointers.
// Handles live until the process ends; a server that loads many models would call the _free functions too.
import koffi from "koffi";

const FASTGPT_OK = 0, ERR_CAPACITY = 14, ENCODE_LITERAL = 1;

for (const type of ["model", "tokenizer", "pool", "context", "kv_cache", "sampler"]) koffi.opaque(`fastgpt_${type}`);
koffi.struct("fastgpt_error", { text: koffi.array("char", 512) });
const Params = koffi.struct("fastgpt_sampler_params", {
    struct_size: "size_t",
    temperature: "float",
    top_k: "int32_t",
    top_p: "float",
    min_p: "float",
    repetition_penalty: "float",
    seed: "uint64_t",
});
koffi.proto("int32_t fastgpt_piece(void *user, int32_t token, const char *text, size_t n_bytes)");

const DECLARATIONS = {
    status_text: "const char *fastgpt_status_text(int status)",
    model_load: `int fastgpt_model_load(const char *path, const void *options, _Out_ fastgpt_model **out,
                                        _Out_ fastgpt_error *error)`,
    model_n_vocab: "int32_t fastgpt_model_n_vocab(const fastgpt_model *model)",
    tokenizer_create: `int fastgpt_tokenizer_create(const fastgpt_model *model, _Out_ fastgpt_tokenizer **out,
                                                    _Out_ fastgpt_error *error)`,
    encode: `int fastgpt_encode(const fastgpt_tokenizer *tokenizer, const uint8_t *text, size_t n_bytes, int32_t flags,
                                int32_t *tokens, int32_t capacity, _Out_ int32_t *n_tokens)`,
    detokenize: `int fastgpt_detokenize(const fastgpt_tokenizer *tokenizer, const int32_t *tokens, int32_t n_tokens,
                                        uint8_t *bytes, size_t capacity, _Out_ size_t *n_bytes)`,
    pool_create: "int fastgpt_pool_create(int32_t n_threads, _Out_ fastgpt_pool **out)",
    context_create: `int fastgpt_context_create(const fastgpt_model *model, fastgpt_pool *pool, int32_t n_batch,
                                                _Out_ fastgpt_context **out)`,
    kv_cache_create: `int fastgpt_kv_cache_create(const fastgpt_model *model, int32_t n_ctx,
                                                  _Out_ fastgpt_kv_cache **out)`,
    kv_cache_truncate: "int fastgpt_kv_cache_truncate(fastgpt_kv_cache *kv, int32_t n_past)",
    sampler_create: `int fastgpt_sampler_create(int32_t n_vocab, const fastgpt_sampler_params *params,
                                                _Out_ fastgpt_sampler **out)`,
    sampler_probabilities: `int fastgpt_sampler_probabilities(fastgpt_sampler *sampler, const float *logits,
                                                              float *probabilities)`,
    prefill: `int fastgpt_prefill(fastgpt_context *ctx, fastgpt_kv_cache *kv, const int32_t *tokens, int32_t n_tokens,
                                  float *logits)`,
    generate: `int fastgpt_generate(fastgpt_context *ctx, fastgpt_kv_cache *kv, fastgpt_sampler *sampler,
                                    const fastgpt_tokenizer *tokenizer, const int32_t *prompt, int32_t n_prompt,
                                    int32_t max_new_tokens, fastgpt_piece *callback, void *user,
                                    _Out_ int32_t *n_generated)`,
};

// Opens the library and returns load(path), which gives a model.
export function open(library) {
    const file = koffi.load(library);
    const c = Object.fromEntries(Object.entries(DECLARATIONS).map(([name, text]) => [name, file.func(text)]));

    function check(status, detail) {
        if (status !== FASTGPT_OK) throw new Error(detail?.text ?? c.status_text(status));
    }

    function create(f, ...inputs) {
        const out = [null];
        check(f(...inputs, out));
        return out[0];
    }

    // For functions that tell more about an error than its status.
    function createOrExplain(f, ...inputs) {
        const out = [null], error = {};
        check(f(...inputs, out, error), error);
        return out[0];
    }

    // Temperature 0 always takes the likeliest token, 1 leaves the model's distribution as it is.
    function newSampler(nVocab, temperature) {
        const off = { top_k: 0, top_p: 0, min_p: 0, repetition_penalty: 0, seed: 0 };
        return create(c.sampler_create, nVocab, { struct_size: koffi.sizeof(Params), temperature, ...off });
    }

    class Model {
        constructor(path) {
            this.model = createOrExplain(c.model_load, path, null);
            this.nVocab = c.model_n_vocab(this.model);
            this.tokenizer = createOrExplain(c.tokenizer_create, this.model);
            this.context = create(c.context_create, this.model, create(c.pool_create, 0), 0);
            this.kv = create(c.kv_cache_create, this.model, 0);
            this.asIs = newSampler(this.nVocab, 1);
            this.greedy = newSampler(this.nVocab, 0);
        }

        // Tokens of a text; that of a control token such as <|endoftext|> is text like any other.
        encode(text) {
            const bytes = new TextEncoder().encode(text), tokens = new Int32Array(bytes.length), n = [0];
            check(c.encode(this.tokenizer, bytes, bytes.length, ENCODE_LITERAL, tokens, tokens.length, n));
            return tokens.subarray(0, n[0]);
        }

        decode(tokens) {
            const from = Int32Array.from(tokens), n = [0];
            const status = c.detokenize(this.tokenizer, from, from.length, null, 0, n);
            if (status !== ERR_CAPACITY) return check(status) ?? "";
            const bytes = new Uint8Array(Number(n[0]));
            check(c.detokenize(this.tokenizer, from, from.length, bytes, bytes.length, n));
            return new TextDecoder().decode(bytes);
        }

        // Probabilities [nVocab] of what follows the tokens.
        next(tokens) {
            const logits = new Float32Array(this.nVocab), probabilities = new Float32Array(this.nVocab);
            check(c.kv_cache_truncate(this.kv, 0));
            check(c.prefill(this.context, this.kv, tokens, tokens.length, logits));
            check(c.sampler_probabilities(this.asIs, logits, probabilities));
            return probabilities;
        }

        // Continues the tokens greedily; onText receives text as it comes, and false ends it.
        generate(tokens, maxNewTokens, onText) {
            const piece = (user, token, text) => (onText(text) === false ? 1 : 0);
            const n = [0];
            check(c.kv_cache_truncate(this.kv, 0));
            check(c.generate(this.context, this.kv, this.greedy, this.tokenizer, tokens, tokens.length,
                             maxNewTokens, piece, null, n));
            return n[0];
        }
    }
    return (path) => new Model(path);
}
