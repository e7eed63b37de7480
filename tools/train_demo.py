"""Train the demo model that ships in fastgpt_c/models: a 6M-parameter GPT-2 of children's stories.

    python tools/train_demo.py --corpus TEXTS --out RUN --minutes 90

RUN is resumable: a checkpoint is written every few minutes, and the same command goes on from it.
At the end RUN/model is an ordinary Hugging Face checkpoint (config.json, model.safetensors,
vocab.json, merges.txt, tokenizer.json) and RUN/log.jsonl has the losses.  Then

    fastgpt-c convert RUN/model -o fastgpt_c/models/demo.gguf --type f16

Needs torch, transformers, tokenizers and numpy.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel

END = "<|endoftext|>"
N_VOCAB, N_CTX, N_BATCH = 4096, 512, 8

# Share of drawn tokens, and the files that supply it (in proportion to their own size).
MIX = [
    (0.70, ["tinystories.txt", "tinystories_recased.txt"]),
    (0.18, ["fairy_tales.txt"]),
    (0.12, ["storybooks_ccby.txt"]),
]
HELD_OUT = ["tinystories_valid.txt", "fairy_tales_heldout.txt"]

WHERE_THE_TEXTS_COME_FROM = f"""\
The corpus folder must hold these files, plain or xz-compressed (NAME.txt.xz); in each, a record is one
story, one paragraph a line, followed by a line "{END}":

  tinystories.txt            TinyStories (Eldan & Li 2023, arXiv 2305.07759; CDLA-Sharing-1.0).  About 9,000
                             stories of roneneldan/TinyStories and karpathy/tinystories-gpt4-clean on the hub.
  tinystories_recased.txt    2,664 more of them, which a statistical truecaser gave their capitals back.
  tinystories_valid.txt      The beginning of the validation split of the same.
  fairy_tales.txt            Public domain: Grimm (tr. Hunt), Aesop (tr. Vernon Jones), Potter and The Wonderful
                             Wizard of Oz from Standard Ebooks; Lang's Yellow, Red, Violet, Crimson and Brown
                             Fairy Books from GITenberg; the stories of FairytaleQA (uci-soe/FairytaleQAData).
  fairy_tales_heldout.txt    Tales of the same sources that are never trained on.
  storybooks_ccby.txt        African Storybook (global-asp/asp-source) and Pratham Books (global-asp/pb-source),
                             the stories marked CC BY or Public Domain; credits in fastgpt_c/models/demo_credits.tsv.
"""


def read_stories(corpus: Path, name: str) -> list[str]:
    plain, packed = corpus / name, corpus / (name + ".xz")
    if plain.exists():
        text = plain.read_text(encoding="utf-8")
    elif packed.exists():
        text = lzma.decompress(packed.read_bytes()).decode("utf-8")
    else:
        sys.exit(f"{corpus} has no {name} or {name}.xz\n\n{WHERE_THE_TEXTS_COME_FROM}")
    return [story.strip("\n") for story in text.split(END) if story.strip()]


def train_tokenizer(corpus: Path, folder: Path) -> ByteLevelBPETokenizer:
    """A byte-level BPE of N_VOCAB tokens, learnt from the training files alone."""
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = ByteLevelBPETokenizer()
        stories = (s for _, names in MIX for name in names for s in read_stories(corpus, name))
        tokenizer.train_from_iterator(stories, vocab_size=N_VOCAB, special_tokens=[END])
        tokenizer.save_model(str(folder))
        tokenizer.save(str(folder / "tokenizer.json"))
    return ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


@dataclass
class Stream:
    """Stories laid end to end, each followed by END, and where each begins."""

    tokens: np.ndarray  # uint16 [n_tokens]
    starts: np.ndarray  # int64 [n_stories]

    def window(self, rng: np.random.Generator) -> np.ndarray:
        """N_CTX + 1 tokens; three windows in ten begin a story, as a user's prompt does."""
        last = len(self.tokens) - N_CTX - 1
        start = rng.choice(self.starts) if rng.random() < 0.3 else rng.integers(last)
        start = min(int(start), last)
        return self.tokens[start : start + N_CTX + 1]


def encode(tokenizer: ByteLevelBPETokenizer, stories: list[str]) -> Stream:
    end = tokenizer.token_to_id(END)
    rows = [np.array([*e.ids, end], np.uint16) for e in tokenizer.encode_batch(stories)]
    starts = np.cumsum([0] + [len(r) for r in rows[:-1]])
    return Stream(np.concatenate(rows), starts)


def draw_batches(streams: list[tuple[float, Stream]], seed: int) -> Iterator[torch.Tensor]:
    rng = np.random.default_rng(seed)
    shares = np.array([share for share, _ in streams])
    while True:
        picks = rng.choice(len(streams), N_BATCH, p=shares / shares.sum())
        rows = np.stack([streams[i][1].window(rng) for i in picks])
        yield torch.from_numpy(rows.astype(np.int64))


def loss_of(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


def held_out_loss(model: torch.nn.Module, stream: Stream, n_rows: int) -> float:
    """Mean nats a token over the first n_rows windows that do not overlap."""
    model.eval()
    n_rows = min(n_rows, (len(stream.tokens) - 1) // N_CTX)
    losses = []
    for i in range(0, n_rows, N_BATCH):
        rows = [stream.tokens[r * N_CTX : (r + 1) * N_CTX + 1] for r in range(i, min(i + N_BATCH, n_rows))]
        batch = torch.from_numpy(np.stack(rows).astype(np.int64))
        with torch.no_grad():
            losses += [loss_of(model, batch).item()] * len(rows)
    model.train()
    return float(np.mean(losses))


def learning_rate(progress: float, step: int, peak: float) -> float:
    """Linear warm-up over 200 steps, then a cosine from peak to 5% of it as progress goes from 0 to 1."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return peak * min(1.0, (step + 1) / 200) * (0.05 + 0.95 * cosine)


def make_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=True)


def save_atomically(state: object, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    run: Path = args.out
    tokenizer = train_tokenizer(args.corpus, run / "model")
    end = tokenizer.token_to_id(END)
    streams = [
        (share, encode(tokenizer, [s for n in names for s in read_stories(args.corpus, n)])) for share, names in MIX
    ]
    held_out = {name: encode(tokenizer, read_stories(args.corpus, name)) for name in HELD_OUT}
    print({n: len(s.tokens) for n, s in held_out.items()}, [len(s.tokens) for _, s in streams], flush=True)

    config = GPT2Config(
        vocab_size=N_VOCAB, n_positions=N_CTX, n_embd=256, n_layer=6, n_head=8,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    optimizer = make_optimizer(model)
    step, seconds = 0, 0.0
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
        print(f"resumed at step {step}, {seconds / 60:.1f} minutes", flush=True)
    batches = draw_batches(streams, args.seed + step)
    fast = torch.compile(model) if args.compile else model
    budget = args.minutes * 60

    log = (run / "log.jsonl").open("a")
    recent: list[float] = []
    model.train()
    clock = time.monotonic()
    while seconds < budget:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(seconds / budget, step, args.lr)
        loss = loss_of(fast, next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(loss.item())
        step += 1
        now = time.monotonic()
        seconds, clock = seconds + now - clock, now
        last = seconds >= budget
        if step % 50 == 0 or last:
            record: dict[str, Any] = {"step": step, "tokens": step * N_BATCH * N_CTX, "minutes": round(seconds / 60, 2)}
            record["train_loss"] = round(float(np.mean(recent)), 4)
            recent.clear()
            if step % 500 == 0 or last:
                n_rows = 10**9 if last else 64
                record["held_out"] = {n: round(held_out_loss(model, s, n_rows), 4) for n, s in held_out.items()}
            log.write(json.dumps(record) + "\n")
            log.flush()
            print(record, flush=True)
        if step % 500 == 0 or last:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            save_atomically({**state, "seconds": seconds}, checkpoint)
            clock = time.monotonic()
    model.save_pretrained(run / "model")
    print("saved", run / "model")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=WHERE_THE_TEXTS_COME_FROM, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the texts listed below")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run; an unfinished one is resumed")
    parser.add_argument("--minutes", type=float, default=90, help="compute budget; the cosine ends with it (90)")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (2e-3)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile the step (needs a C++ compiler)")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
