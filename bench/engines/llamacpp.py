"""llama.cpp through llama-cpp-python's plain bindings; the type is that of the GGUF file."""

from __future__ import annotations

from typing import Any

import llama_cpp
import numpy as np
from harness.engine import Engine, Rows, main

PAGE = 256  # llama.cpp rounds the room of a sequence up to it


class LlamaCpp(Engine):
    def load(self, model: str, type: str, n_threads: int) -> None:
        llama_cpp.llama_backend_init()
        self.n_threads = n_threads
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {model}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.context, self.room = None, (0, 0)

    def _make_context(self, n_sequences: int, n_ctx: int) -> None:
        if self.context:
            llama_cpp.llama_free(self.context)
        params = llama_cpp.llama_context_default_params()
        params.n_seq_max = n_sequences
        params.n_ctx = params.n_batch = n_sequences * n_ctx
        params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = self.n_threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp makes no context")
        self.batch = llama_cpp.llama_batch_init(params.n_batch, 0, 1)

    def reset(self, n_sequences: int, n_ctx: int) -> None:
        room = n_sequences, -(-n_ctx // PAGE) * PAGE
        if self.room != room:
            self._make_context(*room)
            self.room = room
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)
        self.n_past = 0

    def feed(self, rows: Rows) -> Any:
        batch, last = self.batch, []
        batch.n_tokens = 0
        for sequence, row in enumerate(rows):
            for i, token in enumerate(row):
                self._add(token, self.n_past + i, sequence, wanted=i + 1 == len(row))
            last.append(batch.n_tokens - 1)
        self.n_past += len(rows[0])
        if llama_cpp.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        return [self._logits(i) for i in last]

    def _add(self, token: int, position: int, sequence: int, wanted: bool) -> None:
        batch, n = self.batch, self.batch.n_tokens
        batch.token[n], batch.pos[n] = token, position
        batch.n_seq_id[n], batch.seq_id[n][0] = 1, sequence
        batch.logits[n] = wanted
        batch.n_tokens = n + 1

    def _logits(self, i: int) -> Any:
        pointer = llama_cpp.llama_get_logits_ith(self.context, i)
        return np.ctypeslib.as_array(pointer, shape=(self.n_vocab,))

    def generate_text(self, model: str, prompt: str, n_new: int) -> list[int]:
        text = prompt.encode()
        tokens = (llama_cpp.llama_token * len(text))()
        n = llama_cpp.llama_tokenize(self.vocab, text, len(text), tokens, len(text), False, False)
        return self.time_generate(list(tokens[:n]), n_new, kv_cache=True)[1]


if __name__ == "__main__":
    main(LlamaCpp())
