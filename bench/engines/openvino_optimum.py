"""OpenVINO, a model that optimum-intel exported: the runtime is called directly, without optimum's Python loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from engines.openvino_config import config_of
from harness.engine import Engine, Rows, main


class OpenVINO(Engine):
    def load(self, model: str, type: str, n_threads: int) -> None:
        core = ov.Core()
        graph = core.read_model(Path(model, "openvino_model.xml"))
        keep_last_logits(graph)
        config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, **config_of(type, n_threads)}
        self.request = core.compile_model(graph, "CPU", config).create_infer_request()
        self.names = {name for port in graph.inputs for name in port.names}

    def reset(self, n_sequences: int, n_ctx: int) -> None:
        self.request.reset_state()
        self.n_past = 0

    def feed(self, rows: Rows) -> Any:
        tokens = np.array(rows, np.int64)
        n, n_new = tokens.shape
        end = self.n_past + n_new
        inputs = {
            "input_ids": tokens,
            "attention_mask": np.ones((n, end), np.int64),
            "position_ids": np.tile(np.arange(self.n_past, end), (n, 1)),
            "beam_idx": np.arange(n, dtype=np.int32),
        }
        self.request.infer({name: value for name, value in inputs.items() if name in self.names}, share_inputs=True)
        self.n_past = end
        return self.request.get_tensor("logits").data[:, -1]

    def generate_text(self, model: str, prompt: str, n_new: int) -> list[int]:
        from tokenizers import Tokenizer

        tokens = Tokenizer.from_file(str(Path(model, "tokenizer.json"))).encode(prompt).ids
        return self.time_generate(tokens, n_new, kv_cache=True)[1]


def keep_last_logits(graph: ov.Model) -> None:
    """The exported model computes logits of every token; as OpenVINO GenAI does, cut all but the last of them."""
    from openvino import opset13 as ops

    product = graph.output("logits").get_node().input_value(0).get_node()
    while product.get_type_name() != "MatMul":
        product = product.input_value(0).get_node()
    hidden = product.input_value(0)  # [n][n_tokens][n_embd]
    last = ops.slice(hidden, ops.constant([-1]), ops.constant([2**31 - 1]), ops.constant([1]), ops.constant([1]))
    product.input(0).replace_source_output(last.output(0))
    graph.validate_nodes_and_infer_types()


if __name__ == "__main__":
    main(OpenVINO())
