"""Laws of the tokenizer: ids and text equal those of Hugging Face `tokenizers` with GPT-2's own vocabulary, on both
paths: the library's, and that of the `regex` package."""

from __future__ import annotations

import heapq
import itertools
import random
import unicodedata
from collections.abc import Callable, Sequence

import pytest
import regex
import tokenizers
from texts import EOS, N_STRINGS, PATTERNS, TEXTS, assigned_ranges, byte_sequences, gpt2_by, gpt2_files, random_texts
from tokenizers import decoders, models, pre_tokenizers

from fastgpt_c.errors import ModelFileError, UsageError
from fastgpt_c.tokenizers import bpe_python
from fastgpt_c.tokenizers.bpe import GPT2_PATTERN, Tokenizer
from fastgpt_c.tokenizers.bpe_python import BYTE_TO_CHARACTER, PatternBPE, merge_symbols


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


@pytest.fixture(scope="module")
def hf_gpt2() -> tokenizers.Tokenizer:
    return hugging_face(*gpt2_files(), ["<|endoftext|>"])


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
    """Of control tokens that overlap, the leftmost wins, then the longest, as in Hugging Face."""
    specials = ["<s>", "<s>>", "<s", " x", "é<", "s>>x "]
    ours = Tokenizer([*BYTE_TO_CHARACTER, *specials], [], [1] * 256 + [3] * 6, pattern=pattern)
    hf = hugging_face(BYTE_TO_CHARACTER, [], specials)
    rng = random.Random(5)
    texts = ["".join(rng.choices("<s>xé ", k=rng.randint(1, 12))) for _ in range(2000)]
    for text, expected in zip(texts, hf_ids(hf, texts, special=True), strict=True):
        assert ours.encode(text) == expected, repr(text)
        assert ours.decode(expected) == text


# ---- Decoding ----------------------------------------------------------------------------------------


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
    monkeypatch.setattr(bpe_python, "heappop", lambda heap: (next(pops), heapq.heappop(heap))[1])
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
    monkeypatch.setattr(bpe_python, "N_CACHED_PIECES", 3)
    tokens, merges = gpt2_files()
    forgetful, gpt2 = PatternBPE(tokens, merges, None, GPT2_PATTERN), gpt2_by("library")
    for text in [*random_texts(seed=9, n=200), "x" * 1000]:
        assert forgetful.encode(text.encode(), special=True) == gpt2.encode(text, special=False)
        assert len(forgetful._cached_ids) <= 3
        assert max(map(len, forgetful._cached_ids), default=0) <= bpe_python.MAX_CACHED_LENGTH


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
