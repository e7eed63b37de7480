"""Three sweeps of activation patching beside TransformerLens, with a roofline of their own.

    python bench/patching.py --work ~/patching --peer-python ~/tl/bin/python

Random weights of the 124M shape in F32, two random texts of 15 tokens that differ from the first on, the difference of
two logits as metric, 2 threads.  --peer-python is a Python that has torch and transformer_lens; without it only our own
sweeps run.  TransformerLens runs a sample of each sweep, spread over layers and positions, and its time is scaled up by
the number of runs; both boots, TransformerBridge with and without compatibility mode, and the faster counts.

The roofline is the tokens that had to be computed, in the layers that had to be, at the speed of a step of 512 tokens
of such texts, and a row of logits for each run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

N_TOKENS, N_LAYER, N_HEAD, N_VOCAB = 15, 12, 12, 50257
PAIR = (1757, 5335)
N_SAMPLES = 12  # runs of a sweep that TransformerLens times
SWEEPS = {
    "z by layer, position, head": ("z", ("layer", "position", "head"), "attn_head_out_by_pos"),
    "resid_pre by layer, position": ("resid_pre", ("layer", "position"), "resid_pre"),
    "z by layer, head": ("z", ("layer", "head"), "attn_head_out_all_pos"),
}
SIZES = {"layer": N_LAYER, "position": N_TOKENS, "head": N_HEAD}


def texts() -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(5)
    one, other = (rng.integers(0, N_VOCAB, N_TOKENS).tolist() for _ in range(2))
    assert one[0] != other[0]
    return one, other


def timed(function: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


# ---- Ours ----


def ours(path: Path, n_threads: int) -> dict[str, dict[str, float]]:
    import fastgpt_c
    from fastgpt_c import patching

    clean, corrupted = texts()
    found = {}
    with fastgpt_c.load(path, n_threads=n_threads) as model:
        metric = patching.logit_difference(model, *PAIR)
        token_layer, row = speeds(model)
        for name, (site, by, _) in SWEEPS.items():
            shape = [SIZES[axis] for axis in by]
            seconds = min(
                timed(lambda: patching.act_patch(model, clean, corrupted, metric, site, by, progress=False))  # noqa: B023
                for _ in range(2)
            )
            n_runs = int(np.prod(shape))
            found[name] = {"runs": n_runs, "ours": seconds, "roofline": work(by) * token_layer + n_runs * row}
    return found


def work(by: tuple[str, ...]) -> int:
    """Tokens of all runs, each times the layers that it goes through."""
    lengths = [N_TOKENS - first for first in range(N_TOKENS)] if "position" in by else [N_TOKENS]
    return sum((N_LAYER - layer) * n for layer in range(N_LAYER) for n in lengths) * (N_HEAD if "head" in by else 1)


def speeds(model: Any) -> tuple[float, float]:
    """Seconds of a token in a layer, of 512 in one step, and of a row of logits, of 64 at once."""
    import fastgpt_c

    n_texts = 512 // N_TOKENS
    hidden = np.random.default_rng(0).standard_normal((64, model.n_embd), np.float32)
    sessions = [model.session(N_TOKENS) for _ in range(n_texts)]

    def read() -> None:
        for session in sessions:
            session.truncate(0)
        fastgpt_c.step([(session, texts()[0]) for session in sessions])

    read()
    row = min(timed(lambda: sessions[0].unembed(hidden)) for _ in range(3)) / 64
    return (min(timed(read) for _ in range(3)) - n_texts * row) / (n_texts * N_TOKENS) / N_LAYER, row


# ---- TransformerLens, in its own Python ----


def make_checkpoint(folder: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)


def theirs(folder: Path, n_threads: int, compatible: bool) -> dict[str, float]:
    """Seconds of each whole sweep, and of a plain run."""
    import torch
    from tokenizers import Tokenizer, models
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.set_num_threads(n_threads)
    torch.set_grad_enabled(False)
    words = Tokenizer(models.WordLevel({"t": 0}, unk_token="t"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="t", add_bos_token=True)
    hf_model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
    model = TransformerBridge.boot_transformers(str(folder), hf_model=hf_model, tokenizer=tokenizer, device="cpu")
    if compatible:
        model.enable_compatibility_mode(disable_warnings=True)
    clean, corrupted = (torch.tensor([tokens]) for tokens in texts())
    _, cache = model.run_with_cache(clean)
    model(corrupted)
    found = {"plain run": min(timed(lambda: model(corrupted)) for _ in range(5))}
    setters = {
        "attn_head_out_by_pos": (patching.layer_pos_head_vector_patch_setter, "z", ("layer", "pos", "head")),
        "resid_pre": (patching.layer_pos_patch_setter, "resid_pre", ("layer", "pos")),
        "attn_head_out_all_pos": (patching.layer_head_vector_patch_setter, "z", ("layer", "head")),
    }
    for name, (_, by, function) in SWEEPS.items():
        setter, site, axes = setters[function]
        every = patching.make_df_from_ranges([SIZES[axis] for axis in by], axes)
        sample = every.iloc[np.linspace(0, len(every) - 1, N_SAMPLES).astype(int)].reset_index(drop=True)

        def sweep(setter: Any = setter, site: str = site, sample: Any = sample) -> None:
            patching.generic_activation_patch(
                model, corrupted, cache, lambda logits: logits[0, -1, PAIR[0]] - logits[0, -1, PAIR[1]],
                setter, site, index_df=sample,
            )  # fmt: skip

        found[name] = timed(sweep) / N_SAMPLES * len(every)
    return found


# ---- Together ----


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", choices=("make", "ours", "raw", "compatible"), help="only this, as JSON")
    args = parser.parse_args()
    folder, gguf = args.work / "checkpoint", args.work / "random-124M-f32.gguf"
    if args.part == "make":
        make_checkpoint(folder)
    elif args.part in ("raw", "compatible"):
        print(json.dumps(theirs(folder, args.threads, args.part == "compatible")))
    elif args.part == "ours":
        if not gguf.exists():
            from fastgpt_c.convert import convert

            convert(folder, gguf)
        print(json.dumps(ours(gguf, args.threads)))
    else:
        together(args, folder)


def together(args: argparse.Namespace, folder: Path) -> None:
    def part(name: str, python: Path | str) -> Any:
        command = [str(python), __file__, "--work", str(args.work), "--threads", str(args.threads), "--part", name]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout or "null")

    if not folder.exists():
        part("make", args.peer_python or sys.executable)
    mine = part("ours", sys.executable)
    peers = {name: part(name, args.peer_python) for name in ("raw", "compatible")} if args.peer_python else {}
    print_table(mine, peers)


def print_table(mine: dict[str, dict[str, float]], peers: dict[str, dict[str, float]]) -> None:
    print(
        "| sweep | runs | ours, s | of the roofline | TransformerLens, s | times as fast |\n|---|---|---|---|---|---|"
    )
    for name, found in mine.items():
        best = min((peer[name] for peer in peers.values()), default=float("nan"))
        share = f"{100 * found['roofline'] / found['ours']:.0f}%"
        print(
            f"| {name} | {found['runs']:,} | {found['ours']:.2f} | {share} | {best:.0f} | {best / found['ours']:.0f} |"
        )
    for name, peer in peers.items():
        sweeps = ", ".join(f"{sweep} {peer[sweep]:.0f} s" for sweep in mine)
        plain = f"a plain run {1000 * peer['plain run']:.0f} ms"
        print(f"\nTransformerLens, {name}: {plain}; scaled up from {N_SAMPLES} runs: {sweeps}")


if __name__ == "__main__":
    main()
