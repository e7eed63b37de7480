// fastgpt.hpp - fastgpt.h for C++17: handles that free themselves, exceptions instead of statuses, and containers.
//
//     fastgpt::model model("model.gguf");
//     fastgpt::tokenizer tokenizer(model);
//     fastgpt::context context(model);
//     fastgpt::kv_cache kv(model);
//     fastgpt::sampler greedy(model.n_vocab());
//     fastgpt::generate(context, kv, greedy, tokenizer, tokenizer.encode("Once upon a time"), 100,
//                       [](std::string_view text) { std::cout << text; return true; });
//
// Shapes, units, errors and threading are those of fastgpt.h.  Any function of it that has no method here takes
// handle.get().  A model and a pool must outlive what was created from them, except tokenizers and caches.
#ifndef FASTGPT_HPP
#define FASTGPT_HPP

#include <fastgpt.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace fastgpt {

class error : public std::runtime_error {
  public:
    error(fastgpt_status status, const std::string &text) : std::runtime_error(text), status_(status) {}
    fastgpt_status status() const noexcept { return status_; }

  private:
    fastgpt_status status_;
};

// Throws what a status other than OK means; detail replaces the general text.
inline void check(fastgpt_status status, const char *detail = nullptr) {
    if (status != FASTGPT_OK) throw error(status, detail ? detail : fastgpt_status_text(status));
}

using tokens = std::vector<std::int32_t>;
using floats = std::vector<float>;

// Owns one C handle; moved, never copied.
template <class T, void (*Free)(T *)>
class handle {
  public:
    T *get() const noexcept { return owned_.get(); }

  protected:
    T **out() noexcept { return &created_; }

    // Throws, or owns what a _create function has put into out().
    void own(fastgpt_status status, const char *detail = nullptr) {
        check(status, detail);
        owned_.reset(created_);
    }

  private:
    struct deleter {
        void operator()(T *pointer) const noexcept { Free(pointer); }
    };
    T *created_ = nullptr;
    std::unique_ptr<T, deleter> owned_;
};

class model : public handle<fastgpt_model, fastgpt_model_free> {
  public:
    explicit model(const std::string &path, bool use_mmap = true) {
        fastgpt_load_options options = {};
        options.struct_size = sizeof options;
        options.no_mmap = use_mmap ? 0 : 1;
        fastgpt_error why;
        own(fastgpt_model_load(path.c_str(), &options, out(), &why), why.text);
    }
    // Of a file in memory: a copy of it, or the bytes where they lie, which must then outlive the model.
    model(const void *bytes, std::size_t n_bytes, bool copy = true) {
        fastgpt_load_options options = {};
        options.struct_size = sizeof options;
        options.no_mmap = copy ? 1 : 0;
        fastgpt_error why;
        own(fastgpt_model_load_memory(bytes, n_bytes, &options, out(), &why), why.text);
    }
    std::int32_t n_vocab() const noexcept { return fastgpt_model_n_vocab(get()); }
    std::int32_t n_ctx() const noexcept { return fastgpt_model_n_ctx(get()); }
    std::int32_t eos_token() const noexcept { return fastgpt_model_eos_token(get()); }
    tokens eos_tokens() const {
        const std::int32_t *first = fastgpt_model_eos_tokens(get());
        return tokens(first, first + fastgpt_model_n_eos_tokens(get()));
    }
    std::string name() const { return fastgpt_model_name(get()); }
};

class pool : public handle<fastgpt_pool, fastgpt_pool_free> {
  public:
    explicit pool(std::int32_t n_threads = 0) { own(fastgpt_pool_create(n_threads, out())); }
    std::int32_t n_threads() const noexcept { return fastgpt_pool_n_threads(get()); }
};

class kv_cache : public handle<fastgpt_kv_cache, fastgpt_kv_cache_free> {
  public:
    explicit kv_cache(const model &of, std::int32_t n_ctx = 0, fastgpt_type type = FASTGPT_TYPE_F32) {
        fastgpt_error why;
        own(fastgpt_kv_cache_create_checked(of.get(), n_ctx, type, out(), &why), why.text);
    }
    std::int32_t n_ctx() const noexcept { return fastgpt_kv_cache_n_ctx(get()); }
    std::int32_t n_past() const noexcept { return fastgpt_kv_cache_n_past(get()); }
    void truncate(std::int32_t n_past) { check(fastgpt_kv_cache_truncate(get(), n_past)); }
};

class context : public handle<fastgpt_context, fastgpt_context_free> {
  public:
    // In the calling thread alone.
    explicit context(const model &of, std::int32_t n_batch = 0) : n_vocab_(std::size_t(of.n_vocab())) {
        own(fastgpt_context_create(of.get(), nullptr, n_batch, out()));
    }
    context(const model &of, const pool &threads, std::int32_t n_batch = 0) : n_vocab_(std::size_t(of.n_vocab())) {
        own(fastgpt_context_create(of.get(), threads.get(), n_batch, out()));
    }
    // Logits [n_vocab] after the last token.
    floats prefill(kv_cache &kv, const tokens &prompt) {
        floats logits(n_vocab_);
        check(fastgpt_prefill(get(), kv.get(), prompt.data(), std::int32_t(prompt.size()), logits.data()));
        return logits;
    }
    floats decode(kv_cache &kv, std::int32_t token) { return prefill(kv, {token}); }
    void cancel() noexcept { fastgpt_cancel(get()); }

  private:
    std::size_t n_vocab_;
};

// The defaults of the Python package: temperature 0.8, top_p 0.95.
inline fastgpt_sampler_params default_sampling() {
    fastgpt_sampler_params params = {};
    params.struct_size = sizeof params;
    check(fastgpt_sampler_params_default(&params));
    return params;
}

class sampler : public handle<fastgpt_sampler, fastgpt_sampler_free> {
  public:
    // Without parameters: greedy.  struct_size is filled in here.
    explicit sampler(std::int32_t n_vocab, fastgpt_sampler_params params = {}) : n_vocab_(std::size_t(n_vocab)) {
        params.struct_size = sizeof params;
        fastgpt_error why;
        own(fastgpt_sampler_create_checked(n_vocab, &params, out(), &why), why.text);
    }
    void set_bias(std::int32_t token, float bias) { check(fastgpt_sampler_set_bias(get(), token, bias)); }
    // [(n_vocab + 31) / 32] bits; empty = all tokens.
    void set_allowed(const std::vector<std::uint32_t> &mask) {
        if (!mask.empty() && mask.size() != (n_vocab_ + 31) / 32) check(FASTGPT_ERR_ARGUMENT, "a mask of another size");
        check(fastgpt_sampler_set_allowed(get(), mask.empty() ? nullptr : mask.data()));
    }
    void accept(const tokens &history) {
        check(fastgpt_sampler_accept(get(), history.data(), std::int32_t(history.size())));
    }
    void accept_prompt(const tokens &prompt) {
        check(fastgpt_sampler_accept_prompt(get(), prompt.data(), std::int32_t(prompt.size())));
    }
    void reset() { check(fastgpt_sampler_reset(get())); }
    std::int32_t sample(const floats &logits) {
        std::int32_t token;
        check(fastgpt_sampler_sample(get(), of_model(logits), &token));
        return token;
    }
    // [n_vocab], summing to 1.
    floats probabilities(const floats &logits) {
        floats result(n_vocab_);
        check(fastgpt_sampler_probabilities(get(), of_model(logits), result.data()));
        return result;
    }

  private:
    const float *of_model(const floats &logits) const {
        check(logits.size() == n_vocab_ ? FASTGPT_OK : FASTGPT_ERR_ARGUMENT);
        return logits.data();
    }
    std::size_t n_vocab_;
};

class tokenizer : public handle<fastgpt_tokenizer, fastgpt_tokenizer_free> {
  public:
    explicit tokenizer(const model &of) {
        fastgpt_error why;
        own(fastgpt_tokenizer_create(of.get(), out(), &why), why.text);
    }
    tokens encode(std::string_view text, fastgpt_encode_flags flags = FASTGPT_ENCODE_SPECIAL) const {
        tokens result(text.size());
        std::int32_t n = 0;
        check(fastgpt_encode(get(), text.data(), text.size(), flags, result.data(), std::int32_t(text.size()), &n));
        result.resize(std::size_t(n));
        return result;
    }
    // Bytes, which need not be whole characters.
    std::string decode(const tokens &of) const {
        const auto n = std::int32_t(of.size());
        std::size_t n_bytes = 0;
        const fastgpt_status status = fastgpt_detokenize(get(), of.data(), n, nullptr, 0, &n_bytes);
        if (status != FASTGPT_ERR_CAPACITY) check(status);
        std::string bytes(n_bytes, '\0');
        if (n_bytes > 0) check(fastgpt_detokenize(get(), of.data(), n, bytes.data(), n_bytes, &n_bytes));
        return bytes;
    }
};

// Appends prompt and new tokens to kv, and calls  bool on_text(std::string_view)  with whole characters as they come;
// false ends the text, and so does an exception, which goes on to the caller.  Returns the number of new tokens.
template <class F>
std::int32_t generate(context &ctx, kv_cache &kv, sampler &from, const tokenizer &words, const tokens &prompt,
                      std::int32_t max_new_tokens, F &&on_text) {
    struct call {
        F &on_text;
        std::exception_ptr thrown;
    } state{on_text, nullptr};
    const fastgpt_piece_callback callback = [](void *user, std::int32_t, const char *text, std::size_t n) noexcept {
        call &c = *static_cast<call *>(user);
        try {
            return std::int32_t(c.on_text(std::string_view(text, n)) ? 0 : 1);
        } catch (...) {
            c.thrown = std::current_exception();
            return std::int32_t(1);
        }
    };
    std::int32_t n_generated = 0;
    const fastgpt_status status =
        fastgpt_generate(ctx.get(), kv.get(), from.get(), words.get(), prompt.data(), std::int32_t(prompt.size()),
                         max_new_tokens, callback, &state, &n_generated);
    if (state.thrown) std::rethrow_exception(state.thrown);
    check(status);
    return n_generated;
}

// A model and all that it takes to continue a text, which remembers what was said.  struct_size of options is filled in
// here; what its pointers name is copied.
class generator : public handle<fastgpt_generator, fastgpt_generator_free> {
  public:
    explicit generator(const std::string &path, fastgpt_generator_options options = {}) {
        options.struct_size = sizeof options;
        fastgpt_error why;
        own(fastgpt_generator_open(path.c_str(), &options, out(), &why), why.text);
    }
    explicit generator(const model &of, fastgpt_generator_options options = {}) {
        options.struct_size = sizeof options;
        fastgpt_error why;
        own(fastgpt_generator_create(of.get(), &options, out(), &why), why.text);
    }
    // Says text, and calls  bool on_piece(const fastgpt_piece &)  as the answer comes; false ends it, and so does an
    // exception, which goes on to the caller.
    template <class F>
    fastgpt_finish_reason say(std::string_view text, F &&on_piece) {
        struct call {
            F &on_piece;
            std::exception_ptr thrown;
        } state{on_piece, nullptr};
        const fastgpt_generator_callback callback = [](void *user, const fastgpt_piece *piece) noexcept {
            call &c = *static_cast<call *>(user);
            try {
                return std::int32_t(c.on_piece(*piece) ? 0 : 1);
            } catch (...) {
                c.thrown = std::current_exception();
                return std::int32_t(1);
            }
        };
        fastgpt_error why;
        const fastgpt_status status =
            fastgpt_generator_continue(get(), text.data(), text.size(), callback, &state, &why);
        if (state.thrown) std::rethrow_exception(state.thrown);
        check(status, why.text);
        return fastgpt_generator_finish_reason(get());
    }
    void reset() { check(fastgpt_generator_reset(get())); }
    void cancel() noexcept { fastgpt_generator_cancel(get()); }
    std::int32_t n_generated() const noexcept { return fastgpt_generator_n_generated(get()); }
    // What was said, from the oldest token that is not forgotten.
    tokens said() const {
        std::int32_t n = 0;
        const std::int32_t *ids = fastgpt_generator_tokens(get(), &n);
        return tokens(ids, ids + n);
    }
};

} // namespace fastgpt

#endif
