"""OpenVINO GenAI's continuous batching, with its own sampler; its cache is of 8 bits unless it is told otherwise."""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino_genai as genai
from engines.openvino_config import config_of
from harness.engine import Engine, Rows, main
from harness.plan import TEMPERATURE, TOP_P

CACHE_GB = 4


class OpenVINOGenAI(Engine):
    def load(self, model: str, type: str, n_threads: int) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GB
        scheduler.max_num_batched_tokens = 2048
        self.pipeline = genai.ContinuousBatchingPipeline(model, scheduler, "CPU", config_of(type, n_threads))

    def continue_all(self, prompts: Rows, n_new: int, sampled: bool) -> Rows:
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = n_new, True
        if sampled:
            config.do_sample, config.temperature, config.top_p = True, TEMPERATURE, TOP_P
        inputs = [ov.Tensor(np.array([prompt], np.int64)) for prompt in prompts]
        found = self.pipeline.generate(inputs, [config] * len(prompts))
        return [list(one.m_generation_ids[0]) for one in found]


if __name__ == "__main__":
    main(OpenVINOGenAI())
