// story.cpp - what may follow a prompt, and a story that goes on from there.  README.md has the build line.
#include <algorithm>
#include <cstdio>
#include <fastgpt.hpp>
#include <iostream>
#include <numeric>

static void print_likeliest(const fastgpt::tokenizer &tokenizer, const fastgpt::floats &probabilities) {
    fastgpt::tokens ranked(probabilities.size());
    std::iota(ranked.begin(), ranked.end(), 0);
    std::partial_sort(ranked.begin(), ranked.begin() + 5, ranked.end(), [&](std::int32_t a, std::int32_t b) {
        return probabilities[std::size_t(a)] > probabilities[std::size_t(b)];
    });
    for (int i = 0; i < 5; i++) {
        const std::int32_t token = ranked[std::size_t(i)];
        std::printf("%5.1f%%  %s\n", 100 * probabilities[std::size_t(token)], tokenizer.decode({token}).c_str());
    }
}

static void tell(const fastgpt::model &model, const std::string &prompt) {
    const fastgpt::tokenizer tokenizer(model);
    const fastgpt::pool pool; // one thread a core
    fastgpt::context context(model, pool);
    fastgpt::kv_cache kv(model);

    fastgpt_sampler_params as_is = {};
    as_is.temperature = 1;
    const fastgpt::tokens tokens = tokenizer.encode(prompt, FASTGPT_ENCODE_LITERAL);
    print_likeliest(tokenizer, fastgpt::sampler(model.n_vocab(), as_is).probabilities(context.prefill(kv, tokens)));
    std::fflush(stdout);

    kv.truncate(0);
    fastgpt::sampler greedy(model.n_vocab());
    std::cout << prompt;
    fastgpt::generate(context, kv, greedy, tokenizer, tokens, 40, [](std::string_view text) {
        std::cout << text << std::flush;
        return true; // go on
    });
    std::cout << std::endl;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        std::cerr << "usage: story MODEL.gguf PROMPT\n";
        return 2;
    }
    try {
        fastgpt::model("missing.gguf");
    } catch (const fastgpt::error &error) {
        std::cout << "no story: " << error.what() << std::endl;
    }
    try {
        tell(fastgpt::model(argv[1]), argv[2]);
    } catch (const std::exception &error) {
        std::cerr << "story: " << error.what() << '\n';
        return 1;
    }
}
