"""Laws of files that llama.cpp shares: ours run there, and what its quantiser writes runs here.

Skipped without llama_cpp:  pip install llama-cpp-python
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from checkpoints import CONFIG, write_checkpoint
from paths import DATA

import fastgpt_c
from fastgpt_c.checkpoints import resolve
from fastgpt_c.convert import convert, quantize

llama_cpp = pytest.importorskip("llama_cpp")

STORIES = DATA / "fairy_tales_heldout.txt"
N_PROMPTS, N_NEW = 20, 20
FTYPES = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M")

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in F32."""
    path = tmp_path_factory.mktemp("llama") / "demo-f32.gguf"
    quantize(resolve.demo_model(), path, type="f32")
    return path


def open_there(path: Path) -> Any:
    """With a KV cache of F32, as ours."""
    return llama_cpp.Llama(
        str(path), n_ctx=0, n_batch=512, n_threads=1, logits_all=True, verbose=False, type_k=0, type_v=0
    )


def logits_there(path: Path, tokens: list[int]) -> Floats:
    model = open_there(path)
    model.eval(tokens)
    logits = np.array(model.scores[: len(tokens)], np.float32)
    model.close()
    return logits


def logits_here(path: Path, tokens: list[int]) -> Floats:
    with fastgpt_c.load(path) as model, model.session() as session:
        return session.prefill(tokens, all_logits=True)


def test_greedy_tokens_are_the_same(file: Path) -> None:
    """For 20 prompts, 20 tokens each."""
    lines = [line for line in STORIES.read_text(encoding="utf-8").split("\n") if len(line) > 60][:N_PROMPTS]
    assert len(lines) == N_PROMPTS
    there = open_there(file)
    with fastgpt_c.load(file) as model:
        for line in lines:
            prompt = model.encode(line[:60])
            assert there.tokenize(line[:60].encode(), add_bos=False) == prompt
            there.reset()
            there.eval(prompt)
            expected = []
            for _ in range(N_NEW):
                expected.append(int(np.argmax(there.scores[there.n_tokens - 1])))
                there.eval(expected[-1:])
            completion = model.generate(prompt, max_new_tokens=N_NEW, temperature=0, logit_bias=never_end(model))
            assert completion.tokens == expected
    there.close()


def test_i8_is_refused(file: Path, tmp_path: Path) -> None:
    """Tiles with scales of their own are none of its types, and the architecture says so."""
    quantize(file, tmp_path / "i8.gguf", type="i8")
    with pytest.raises(ValueError, match="Failed to load"):
        open_there(tmp_path / "i8.gguf")


def never_end(model: fastgpt_c.Model) -> dict[int, float]:
    return {} if model.eos_token is None else {model.eos_token: float("-inf")}


@pytest.mark.parametrize("ftype", FTYPES)
def test_quantised_files_run_within_the_error_of_their_type(ftype: str, file: Path, tmp_path: Path) -> None:
    """Ours is nearer to llama.cpp's of the same file than that is to llama.cpp's of the F32 file (root mean square),

    but for what the two differ by in F32: llama.cpp takes GELU from a table of halves.
    """
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{ftype}")
    rounded = tmp_path / "rounded.gguf"
    assert llama_cpp.llama_model_quantize(bytes(file), bytes(rounded), ctypes.byref(params)) == 0
    with fastgpt_c.load(file) as model:
        tokens = model.encode(STORIES.read_text(encoding="utf-8")[:400])
    expected, in_f32 = logits_there(rounded, tokens), logits_there(file, tokens)
    error_of_type = rms(expected - in_f32)
    difference = rms(logits_here(rounded, tokens) - expected)
    print(f"{ftype}: ours - llama.cpp's {difference:.2e}, llama.cpp's - its F32 {error_of_type:.2e}")
    assert difference < error_of_type + rms(logits_here(file, tokens) - in_f32)


def test_another_activation_is_refused_there(tmp_path: Path) -> None:
    """Plain gpt2 of the same sizes is not."""
    for activation, architecture in (("gelu_new", "gpt2"), ("relu", "fastgpt-gpt2")):
        folder = write_checkpoint(tmp_path / activation, {**CONFIG, "activation_function": activation})
        convert(folder, tmp_path / "x.gguf")
        if architecture == "gpt2":
            assert logits_there(tmp_path / "x.gguf", [1, 2]).shape == (2, CONFIG["vocab_size"])
        else:
            with pytest.raises(ValueError, match="Failed to load model"):
                open_there(tmp_path / "x.gguf")


def rms(x: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
