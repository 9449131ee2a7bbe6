// Log-probabilities by llama.cpp, for scripts/peers/compare_logprobs, which builds and runs this.
//
//     llama_logprobs MODEL.gguf TOKENS PROMPT f16|f32 THREADS
//
// Reads token numbers from the file TOKENS. The first PROMPT of them are computed as one batch, the others
// one at a time. Prints for each but the last what comes next: the following token's log-probability and the
// most probable token.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "llama.h"

static void print_next(const float * logits, int vocabulary, llama_token following) {
    int best = 0;
    for (int token = 1; token < vocabulary; token++) {
        best = logits[token] > logits[best] ? token : best;
    }
    double sum = 0;
    for (int token = 0; token < vocabulary; token++) {
        sum += std::exp(double(logits[token]) - double(logits[best]));
    }
    std::printf("%.9f %d\n", double(logits[following]) - double(logits[best]) - std::log(sum), best);
}

static void require(bool holds, const char * what) {
    if (!holds) {
        std::fprintf(stderr, "%s\n", what);
        std::exit(1);
    }
}

int main(int count, char ** arguments) {
    require(count == 6, "usage: llama_logprobs MODEL TOKENS PROMPT f16|f32 THREADS");
    std::ifstream file(arguments[2]);
    std::vector<llama_token> tokens{std::istream_iterator<llama_token>(file), {}};
    const int total = int(tokens.size()), prompt = std::atoi(arguments[3]);
    require(prompt > 0 && prompt <= total, "PROMPT must be between 1 and the number of tokens");

    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    llama_model * model = llama_model_load_from_file(arguments[1], llama_model_default_params());
    require(model != nullptr, "the model cannot be loaded");

    llama_context_params parameters = llama_context_default_params();
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = total;
    parameters.type_k = parameters.type_v = std::strcmp(arguments[4], "f32") == 0 ? GGML_TYPE_F32 : GGML_TYPE_F16;
    parameters.n_threads = parameters.n_threads_batch = std::atoi(arguments[5]);
    llama_context * context = llama_init_from_model(model, parameters);
    require(context != nullptr, "the context cannot be made");
    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));

    llama_batch batch = llama_batch_init(total, 0, 1);
    for (int begin = 0; begin < total - 1;) {
        const int end = begin == 0 ? prompt : begin + 1;
        batch.n_tokens = end - begin;
        for (int row = 0; row < batch.n_tokens; row++) {
            batch.token[row] = tokens[begin + row];
            batch.pos[row] = begin + row;
            batch.n_seq_id[row] = 1;
            batch.seq_id[row][0] = 0;
            batch.logits[row] = true;
        }
        require(llama_decode(context, batch) == 0, "llama_decode failed");
        for (int row = 0; row < batch.n_tokens && begin + row + 1 < total; row++) {
            print_next(llama_get_logits_ith(context, row), vocabulary, tokens[begin + row + 1]);
        }
        begin = end;
    }
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
}
