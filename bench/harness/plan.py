"""What is compared: engines and the types of their weights, by precision, and the work that they do."""

from __future__ import annotations

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
    def name(self) -> str:
        return f"{self.engine} {self.type}"


# engine -> the module in bench/engines, and the environment that it runs in
ENGINES = {
    OURS: ("ours", "ours"),
    "PyTorch": ("pytorch", "pytorch"),
    "llama.cpp": ("llamacpp", "llamacpp"),
    "CTranslate2": ("ctranslate", "ctranslate2"),
    "OpenVINO": ("openvino_optimum", "openvino"),
}

# The first entry of a precision is the one of ours that the others are compared with.
PRECISIONS = {
    "f32": [
        Entry(OURS, "f32"),
        Entry("PyTorch", "f32", "f32"),
        Entry("llama.cpp", "f32"),
        Entry("CTranslate2", "float32", "f32"),
        Entry("OpenVINO", "fp32", "f32"),
    ],
    "16-bit": [
        Entry(OURS, "bf16"),
        Entry(OURS, "f16"),
        Entry("PyTorch", "bf16", "bf16"),
        Entry("llama.cpp", "bf16"),
        Entry("llama.cpp", "f16"),
        Entry("OpenVINO", "bf16", "bf16"),
    ],
    "8-bit": [
        Entry(OURS, "q8_0"),
        Entry("llama.cpp", "q8_0"),
        Entry("CTranslate2", "int8", "int8"),
        Entry("OpenVINO", "int8", "int8"),
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
    """kind prefill: n tokens of one sequence.  decode: one token after n.  batch: one token of each of n sequences.
    whole: a process from start to exit.

    dear  takes long: fewer rounds, and without --works only with the most threads
    """

    kind: str
    n: int
    dear: bool = True

    @property
    def name(self) -> str:
        return {
            "prefill": f"prefill {self.n}",
            "decode": f"decode after {self.n}",
            "batch": f"{self.n} sequences",
            "whole": "whole run",
        }[self.kind]

    def rounds(self, wanted: int) -> int:
        return (wanted + 1) // 2 if self.dear else wanted


BATCH_N_PAST = 8
WORKS = (
    Work("decode", 32, dear=False),
    Work("decode", 1000),
    Work("prefill", 512, dear=False),
    *(Work("batch", n, dear=n not in (1, 8, 32)) for n in (1, 2, 4, 8, 16, 32, 64)),
    Work("whole", N_PROMPT + N_NEW),
)


def n_decoded(work: Work) -> int:
    """Steps of a round: enough for the clock, few where each takes long."""
    return {"decode": 20, "batch": max(3, 16 // work.n)}[work.kind]


def tokens(n: int) -> list[int]:
    """n tokens, spread over GPT-2's vocabulary; the same for every engine."""
    return [(7919 * i + 12345) % 50000 for i in range(n)]


def request(work: Work) -> dict[str, object]:
    """What a worker is asked for."""
    if work.kind == "prefill":
        return {"do": "prefill", "tokens": tokens(work.n)}
    n_sequences, n_past = (work.n, BATCH_N_PAST) if work.kind == "batch" else (1, work.n)
    steps = tokens(1 + n_decoded(work))
    return {"do": "decode", "prompt": tokens(n_past), "tokens": steps, "n_sequences": n_sequences}
