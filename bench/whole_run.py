"""From process start to exit: fastgpt-c against transformers + PyTorch, on the same checkpoint, prompt and tokens.

    python tools/make_random_model.py 124M -o /tmp/random-124M
    python bench/whole_run.py /tmp/random-124M
    python bench/whole_run.py /tmp/random-124M --fastgpt "./gpt2"      fastGPT's own program as well

Runs alternate, after one of each that is not counted, so that all see the same noise; figures are medians, ratios are
medians of the ratios of neighbouring runs.  Peak memory is the largest resident set that the system saw.  Also compares
the logits of the whole prompt.  Needs torch, transformers and fastgpt-c[convert].
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROMPT = "Alan Turing theorized that computers would one day become very powerful, but even he could not imagine"

TRANSFORMERS = """\
import sys, torch
from transformers import GPT2LMHeadModel, GPT2Tokenizer
folder, prompt, n_new, n_threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(n_threads)
tokenizer = GPT2Tokenizer.from_pretrained(folder)
model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
tokens = tokenizer(prompt, return_tensors="pt")
out = model.generate(**tokens, max_new_tokens=n_new, do_sample=False, pad_token_id=model.config.eos_token_id)
print(out[0, tokens["input_ids"].shape[1]:].tolist())
"""

COMPARE_LOGITS = """\
import sys, numpy as np, torch, fastgpt_c
from transformers import GPT2LMHeadModel
folder, gguf, prompt = sys.argv[1:]
with fastgpt_c.load(gguf) as model, model.session() as session:
    tokens = model.encode(prompt)
    ours = session.prefill(tokens, all_logits=True)
reference = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
with torch.no_grad():
    theirs = reference(torch.tensor([tokens])).logits[0].numpy()
print(f"logits of {len(tokens)} positions: largest difference {np.abs(ours - theirs).max():.2e}, "
      f"spread {theirs.std():.2f}, same best token at {(ours.argmax(1) == theirs.argmax(1)).mean():.0%}")
"""


def timed(command: list[str]) -> tuple[float, float, str]:
    """Seconds from start to exit, peak resident MB, and what it printed."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"failed: {shlex.join(command)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_maxrss * unit / 1e6, output


def tokens_of(output: str) -> list[int]:
    data = json.loads(output)
    return list(data["tokens"] if isinstance(data, dict) else data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder of a Hugging Face GPT-2 with a tokenizer")
    parser.add_argument("-n", type=int, default=20, help="new tokens (20)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--fastgpt", metavar="COMMAND", help="fastGPT's own program, in the folder of its model and input"
    )
    args = parser.parse_args()

    from fastgpt_c.checkpoints import resolve

    gguf = resolve.resolve(args.checkpoint)
    python = sys.executable
    common = ["--threads", str(args.threads), "-n", str(args.n), "--temperature", "0", "--json", PROMPT]
    commands = {
        "fastgpt-c": [python, "-m", "fastgpt_c", "generate", "-m", str(gguf), *common],
        "transformers": [python, "-c", TRANSFORMERS, str(args.checkpoint), PROMPT, str(args.n), str(args.threads)],
    }
    if args.fastgpt:
        commands["fastGPT"] = shlex.split(args.fastgpt)
    runs: dict[str, list[tuple[float, float, str]]] = {name: [] for name in commands}
    for _ in range(args.rounds + 1):
        for name, command in commands.items():
            runs[name].append(timed(command))
    print(subprocess.check_output([python, "-c", COMPARE_LOGITS, args.checkpoint, gguf, PROMPT], text=True), end="")
    same = tokens_of(runs["fastgpt-c"][0][2]) == tokens_of(runs["transformers"][0][2])
    print(f"{args.n} greedy tokens: {'the same' if same else 'DIFFERENT'}")
    print(f"model file: {gguf.stat().st_size / 1e6:.0f} MB; {args.threads} threads, {args.rounds} rounds")
    ours = [seconds for seconds, _, _ in runs["fastgpt-c"][1:]]
    for name, rows in runs.items():
        seconds = [row[0] for row in rows[1:]]
        ratio = statistics.median(theirs / our for theirs, our in zip(seconds, ours, strict=True))
        peak = max(row[1] for row in rows)
        print(f"{name:14}{statistics.median(seconds):7.3f} s   {ratio:6.2f} x ours   peak {peak:6.0f} MB")


if __name__ == "__main__":
    main()
