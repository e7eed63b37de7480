"""Laws of the tokenizer's two paths: the library does with any bytes what the `regex` package does, and each path is
there when it is needed."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
from paths import ROOT
from texts import EOS, N_STRINGS, PATTERNS, assigned_ranges, byte_sequences, gpt2_by, gpt2_files, random_text

from fastgpt_c.errors import UsageError
from fastgpt_c.native.lib import check, create, ffi, lib
from fastgpt_c.tokenizers.bpe import Tokenizer
from fastgpt_c.tokenizers.bpe_native import NativeBPE
from fastgpt_c.tokenizers.bpe_python import BYTE_TO_CHARACTER

# ---- Encoding ----------------------------------------------------------------------------------------


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
    """csrc/tokenizer/unicode_tables.h is what its tool writes, if regex has that Unicode."""
    committed = (ROOT / "csrc" / "tokenizer" / "unicode_tables.h").read_text("ascii")
    if f'"{regex_unicode()}"' not in committed:
        pytest.skip(f"regex follows Unicode {regex_unicode()}, the library {library_unicode()}")
    tool = [sys.executable, ROOT / "tools" / "make_unicode_tables.py"]
    assert subprocess.run(tool, capture_output=True, check=True, text=True).stdout == committed


# ---- Streams -----------------------------------------------------------------------------------------


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


def test_library_stream_replaces_what_is_no_utf8() -> None:
    """fastgpt_stream gives U+FFFD where bytes.decode does, for bytes at every edge of UTF-8's rules."""
    stream = LibraryStream()
    token_of = {stream.tokenizer.decode_bytes([token]): token for token in range(256)}
    for sequence in map(bytes, byte_sequences()):
        text = "".join(stream.push(token_of[bytes([byte])]) for byte in sequence) + stream.finish()
        assert text == sequence.decode(errors="replace"), sequence


def test_library_stream_equals_python_stream() -> None:
    """fastgpt_stream gives the same text at each token, whatever the tokens."""
    library, python = LibraryStream(), gpt2_by("library").stream()
    rng = random.Random(11)
    for _ in range(2000):
        for token in rng.choices(range(EOS + 1), k=rng.randint(1, 40)):
            assert library.push(token) == python.push(token)
        assert library.finish() == python.finish()


# ---- Which path, and when ----------------------------------------------------------------------------


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
        "import sys; from fastgpt_c.tokenizers.bpe import Tokenizer; t = Tokenizer(['a'], []); t.encode('a');"
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
