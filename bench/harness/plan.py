"""What is compared: engines and the types of their weights, by precision, and the work that they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OURS = "fastgpt-c"


@dataclass(frozen=True)
class Entry:
    """An engine with weights of a type.

    embedding  the type of the token embedding, which is the output matrix too; of a GGUF file, the file tells
    """

    engine: str
    type: str
    embedding: str = ""

    @property
    def weights(self) -> str:
        """The type of the weights alone: "int8 bf16" are weights of 8 bits, computed with in BF16."""
        return self.type.split()[0]

    @property
    def name(self) -> str:
        return f"{self.engine} {self.type}"


# engine -> the module in bench/engines, and the environment that it runs in
ENGINES = {
    OURS: ("ours", "ours"),
    "PyTorch": ("pytorch", "pytorch"),
    "torch.compile": ("pytorch_compiled", "pytorch"),
    "llama.cpp": ("llamacpp", "llamacpp"),
    "CTranslate2": ("ctranslate", "ctranslate2"),
    "OpenVINO": ("openvino_optimum", "openvino"),
    "OpenVINO GenAI": ("openvino_batches", "openvino"),
    "vLLM": ("vllm_batches", "vllm"),
}

# Engines of batches: they are asked for jobs alone, since they have no step to call.
BATCH_ENGINES = ("OpenVINO GenAI", "vLLM")

# The first entry of a precision is the one of ours that the others are compared with.
PRECISIONS = {
    "f32": [
        Entry(OURS, "f32"),
        Entry("PyTorch", "f32", "f32"),
        Entry("torch.compile", "f32", "f32"),
        Entry("llama.cpp", "f32"),
        Entry("CTranslate2", "float32", "f32"),
        Entry("OpenVINO", "fp32", "f32"),
    ],
    "16-bit": [
        Entry(OURS, "bf16"),
        Entry(OURS, "f16"),
        Entry("PyTorch", "bf16", "bf16"),
        Entry("torch.compile", "bf16", "bf16"),
        Entry("llama.cpp", "bf16"),
        Entry("llama.cpp", "f16"),
        Entry("OpenVINO", "bf16", "bf16"),
        Entry("OpenVINO GenAI", "bf16", "bf16"),
        Entry("vLLM", "bf16", "bf16"),
    ],
    "8-bit": [
        Entry(OURS, "q8_0"),
        Entry("llama.cpp", "q8_0"),
        Entry("CTranslate2", "int8", "int8"),
        Entry("OpenVINO", "int8 bf16", "int8"),
        Entry("OpenVINO", "int8 f32", "int8"),
        Entry("OpenVINO GenAI", "int8 bf16", "int8"),
        Entry("OpenVINO GenAI", "int8 f32", "int8"),
    ],
    "4-bit": [
        Entry(OURS, "q4_0"),
        Entry("llama.cpp", "q4_0"),
        Entry("OpenVINO", "int4", "int8"),
    ],
}

N_PROMPT, N_NEW = 19, 20  # of the whole run, as fastGPT's own table
PROMPT = "Alan Turing theorized that computers would one day become very powerful, but even he could not imagine"


@dataclass(frozen=True)
class Work:
    """What is timed.

    prefill  a prompt of n_past tokens
    step     one token of each of n sequences, after n_past tokens
    job      n prompts of n_past tokens, and n_new tokens after each of them, as a user of the engine would ask for
             them; the likeliest ones, or drawn at TEMPERATURE and TOP_P if sampled
    whole    a process from start to exit

    dear  takes long: fewer rounds, and without --works only with the most threads
    """

    kind: str
    n: int
    n_past: int
    n_new: int = 0
    sampled: bool = False
    dear: bool = True

    @property
    def name(self) -> str:
        if self.kind == "step":
            return f"step of {self.n} after {self.n_past}"
        job = f"job of {self.n} x ({self.n_past} + {self.n_new})" + (", sampled" if self.sampled else "")
        return {"prefill": f"prefill {self.n_past}", "job": job, "whole": "whole run"}[self.kind]

    def rounds(self, wanted: int) -> int:
        return (wanted + 1) // 2 if self.dear else wanted


TEMPERATURE, TOP_P = 0.8, 0.95
N_JOB = 64  # new tokens of each sequence
WORKS = (
    *(Work("step", 1, n_past, dear=n_past > 32) for n_past in (32, 400, 1000)),
    Work("prefill", 1, 512, dear=False),
    *(Work("step", n, n_past) for n in (8, 32, 64) for n_past in (32, 400, 1000)),
    *(
        Work("job", n, n_past, N_JOB, sampled)
        for sampled in (False, True)
        for n_past in (19, 400)
        for n in (1, 8, 32, 64)
    ),
    Work("whole", 1, N_PROMPT, N_NEW),
)
FULL_CONTEXT = WORKS[2]


def works_of(entry: Entry, works: Sequence[Work]) -> list[Work]:
    """Those that the entry's engine can be asked for."""
    return [work for work in works if work.kind == "job" or entry.engine not in BATCH_ENGINES]


def n_steps(work: Work) -> int:
    """Steps of a round: enough for the clock, few where each takes long."""
    return max(3, 20 // work.n)


def tokens(n: int, begin: int = 0) -> list[int]:
    """n tokens, spread over GPT-2's vocabulary; the same for every engine."""
    return [(7919 * (begin + i) + 12345) % 50000 for i in range(n)]


def prompts(work: Work) -> list[list[int]]:
    """Of a job: no two begin alike, so that nobody can share what it read."""
    return [tokens(work.n_past, begin=1031 * i) for i in range(work.n)]


def request(work: Work) -> dict[str, object]:
    """What a worker is asked for."""
    if work.kind == "prefill":
        return {"do": "prefill", "tokens": tokens(work.n_past)}
    if work.kind == "job":
        return {"do": "job", "prompts": prompts(work), "n_new": work.n_new, "sampled": work.sampled}
    steps = tokens(1 + n_steps(work))
    return {"do": "step", "prompt": tokens(work.n_past), "tokens": steps, "n_sequences": work.n}
