"""Compresses a file by what a language model expects of it; any bytes come back as they were.

    python compress.py IN OUT                 compress
    python compress.py -d IN OUT              and back

Each token is arithmetic-coded with the probabilities that the model gives it after the tokens before.  Both sides must
see the same probabilities to the bit, so sessions are deterministic: this one reads windows of a block at once, the way
back goes token by token with all blocks in one batch, by any number of threads.  It needs the same model file and the
same kind of CPU (fastgpt-c info --system: kernels); a checksum tells when they are not.
"""

from __future__ import annotations

import argparse
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
from coder import Decoder, Encoder

import fastgpt_c

MAGIC = b"FGTZ\x01"
HEADER = struct.Struct("<III")  # CRC-32 of the file, its bytes, its tokens
BLOCK = 1024  # tokens, each block on its own

# 2^(24 + i / 256), rounded down: with these, the powers of 2 below need no function that machines compute differently.
STEPS = 256
POWERS = np.array([int(Decimal(2) ** (24 + Decimal(i) / STEPS)) for i in range(STEPS)], np.int64)
STEPS_PER_NAT = 369.3299304675746  # 256 / ln 2


def frequencies(logits: np.ndarray) -> np.ndarray:
    """float32 [n_vocab] -> int64 [n_vocab], proportional to the probabilities, the largest about 2^24, the least 1."""
    steps = np.floor((logits - logits.max()).astype(np.float64) * STEPS_PER_NAT)
    steps = np.maximum(steps, -24 * STEPS).astype(np.int64)
    return (POWERS[steps % STEPS] >> -(steps // STEPS)) + 1


# ---- Windows: what the model sees before a token of a block ----


def half_of(model: fastgpt_c.Model) -> int:
    """A window has so many tokens to predict, and before them as many that are known."""
    return model.n_ctx // 2


def known_before(model: fastgpt_c.Model, tokens: Sequence[int], first: int) -> list[int]:
    """What a window begins with whose first token to predict is tokens[first]: never empty."""
    return [model.eos_token or 0, *tokens[max(first - half_of(model), 0) : first]]


# ---- Compress ----


def block_logits(model: fastgpt_c.Model, session: fastgpt_c.Session, tokens: Sequence[int]) -> Iterator[np.ndarray]:
    """float32 [n_vocab] for each token of a block: logits before it."""
    for first in range(0, len(tokens), half_of(model)):
        known = known_before(model, tokens, first)
        new = tokens[first : first + half_of(model)]
        session.truncate(0)
        yield from session.prefill(known + list(new[:-1]), all_logits=True)[len(known) - 1 :]


def compress(model: fastgpt_c.Model, data: bytes) -> bytes:
    tokens = model.tokenizer.encode(data, special=False)
    out = [MAGIC, HEADER.pack(zlib.crc32(data), len(data), len(tokens))]
    with model.session(deterministic=True) as session:
        for at in range(0, len(tokens), BLOCK):
            block, encoder = tokens[at : at + BLOCK], Encoder()
            for token, logits in zip(block, block_logits(model, session, block), strict=True):
                sizes = frequencies(logits)
                encoder.encode(int(sizes[:token].sum()), int(sizes[token]), int(sizes.sum()))
            coded = encoder.finish()
            out += [struct.pack("<I", len(coded)), coded]
    return b"".join(out)


# ---- And back ----


class Block:
    """A block whose first tokens are known."""

    def __init__(self, model: fastgpt_c.Model, coded: bytes, n_tokens: int) -> None:
        self.tokens: list[int] = []
        self.session = model.session(deterministic=True)
        self.n_tokens = n_tokens
        self._model, self._decoder = model, Decoder(coded)

    def to_read(self) -> list[int]:
        """What the session reads next, so that its logits are those of the next token."""
        if len(self.tokens) % half_of(self._model):
            return self.tokens[-1:]
        self.session.truncate(0)
        return known_before(self._model, self.tokens, len(self.tokens))

    def append(self, logits: np.ndarray) -> None:
        ends = np.cumsum(frequencies(logits))
        total = int(ends[-1])
        token = int(np.searchsorted(ends, self._decoder.target(total), side="right"))
        first = int(ends[token - 1]) if token else 0
        self._decoder.skip(first, int(ends[token]) - first, total)
        self.tokens.append(token)


def decompress(model: fastgpt_c.Model, data: bytes, n_batch: int) -> bytes:
    crc, n_bytes, coded = read_blocks(data)
    blocks = [Block(model, part, n_tokens) for part, n_tokens in coded]
    for first in range(0, len(blocks), n_batch):
        batch = blocks[first : first + n_batch]
        while batch := [block for block in batch if len(block.tokens) < block.n_tokens]:
            rows = fastgpt_c.step([(block.session, block.to_read()) for block in batch])
            for block, logits in zip(batch, rows, strict=True):
                block.append(logits)
    text = model.tokenizer.decode_bytes([token for block in blocks for token in block.tokens])
    if len(text) != n_bytes or zlib.crc32(text) != crc:
        raise SystemExit("compress.py: the checksum does not fit: damaged, another model file or another kind of CPU")
    return text


def read_blocks(data: bytes) -> tuple[int, int, list[tuple[bytes, int]]]:
    """CRC-32, bytes, and of each block what was coded and how many tokens that is."""
    try:
        if data[: len(MAGIC)] != MAGIC:
            raise ValueError
        crc, n_bytes, n_tokens = HEADER.unpack_from(data, len(MAGIC))
        at, blocks = len(MAGIC) + HEADER.size, []
        for first in range(0, n_tokens, BLOCK):
            (n_coded,) = struct.unpack_from("<I", data, at)
            blocks.append((data[at + 4 : at + 4 + n_coded], min(BLOCK, n_tokens - first)))
            at += 4 + n_coded
        if at != len(data):
            raise ValueError
    except (ValueError, struct.error):
        raise SystemExit("compress.py: this is not a file that compress.py has made, or it is damaged") from None
    return crc, n_bytes, blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--decompress", action="store_true")
    parser.add_argument("-m", "--model", help="as fastgpt-c takes it; the demo model if not given")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int, default=16, help="blocks that are decompressed together (16)")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    data = args.input.read_bytes()
    with fastgpt_c.load(args.model, n_threads=args.threads) as model:
        out = decompress(model, data, args.batch) if args.decompress else compress(model, data)
    args.output.write_bytes(out)
    large, small = (out, data) if args.decompress else (data, out)
    per_byte = f", {8 * len(small) / len(large):.3f} bits per byte" if large else ""
    print(f"{len(data)} -> {len(out)} bytes{per_byte}", file=sys.stderr)


if __name__ == "__main__":
    main()
