"""A model file that is loaded: its sizes, vocabulary and threads, and the sessions on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastgpt_c import tokenizers
from fastgpt_c.engine.session import Session
from fastgpt_c.errors import ModelFileError, UsageError
from fastgpt_c.io.c_strings import c_path, c_text
from fastgpt_c.native.arguments import Floats, checked_int, checked_n_threads
from fastgpt_c.native.dtypes import LINE_VALUES, TILE_ROWS, dequantize_rows, row_bytes, rows_of_tiles, type_name
from fastgpt_c.native.lib import check, create, error_text, ffi, lib
from fastgpt_c.tokenizers.bpe import Tokenizer

SPECIAL_TYPES = (3, 4)  # of tokenizer.ggml.token_type: control, user-defined

_Model = TypeVar("_Model", bound="LoadedModel")


class LoadedModel:
    """A model file that is loaded.  Threads may share it; each needs a session of its own.

    path, name, type ("F32", "F16", "BF16", "Q8_0" ...), activation ("gelu_tanh", "gelu_erf", "relu", "silu"), n_vocab,
    n_ctx, n_embd, n_head, n_layer, n_ff, n_params,
    eos_token (None when the file names none), eos_tokens (all tokens that end a text, that one first)
    """

    def __init__(
        self, path: Path, *, use_mmap: bool = True, n_threads: int | None = None, vocab_only: bool = False
    ) -> None:
        self.path = path
        self.n_threads = n_threads
        self._handle = _load_handle(path, use_mmap, vocab_only)
        self._pools: dict[int, Any] = {}
        self.n_vocab: int = lib.fastgpt_model_n_vocab(self._handle)
        self.n_ctx: int = lib.fastgpt_model_n_ctx(self._handle)
        self.n_embd: int = lib.fastgpt_model_n_embd(self._handle)
        self.n_head: int = lib.fastgpt_model_n_head(self._handle)
        self.n_layer: int = lib.fastgpt_model_n_layer(self._handle)
        self.n_ff: int = lib.fastgpt_model_n_ff(self._handle)
        self.n_params: int = lib.fastgpt_model_n_params(self._handle)
        self.layer_norm_epsilon: float = lib.fastgpt_model_layer_norm_epsilon(self._handle)
        self.name: str = ffi.string(lib.fastgpt_model_name(self._handle)).decode("utf-8", "replace")
        self.activation: str = ffi.string(lib.fastgpt_model_activation(self._handle)).decode()
        self.type: str = ffi.string(lib.fastgpt_model_type(self._handle)).decode()
        n_eos, eos_tokens = lib.fastgpt_model_n_eos_tokens(self._handle), lib.fastgpt_model_eos_tokens(self._handle)
        self.eos_tokens: tuple[int, ...] = tuple(ffi.unpack(eos_tokens, n_eos)) if n_eos else ()
        self.eos_token: int | None = self.eos_tokens[0] if self.eos_tokens else None

    def metadata(self, key: str) -> bytes | None:
        """The value of a key of the file such as "general.license": text in UTF-8, or bytes; None for an absent key."""
        n_bytes = ffi.new("size_t *")
        data = lib.fastgpt_model_metadata(self.handle, c_text(key), n_bytes)
        return None if data == ffi.NULL else ffi.buffer(data, n_bytes[0])[:]

    def tensor(self, name: str, rows: Sequence[int] | None = None) -> Floats:
        """A tensor of the file as float32, [n] or [n_rows][n_columns], by its name in GGUF: a copy, dequantized.

        rows  of a matrix, only these; None = all

        token_embd.weight [n_vocab][n_embd], position_embd.weight [n_ctx][n_embd]; of each layer, blk.0 and so on,
        attn_norm, ffn_norm, attn_qkv [3 n_embd][n_embd] (queries, keys, values), attn_output, ffn_up [n_ff][n_embd] and
        ffn_down [n_embd][n_ff]; output_norm; output.weight [n_vocab][n_embd], or token_embd.weight where the file ties
        the two.  y = x W^T + b.  All but the embeddings have a .weight and a .bias.  Raises UsageError.
        """
        type, n_rows, n_columns = ffi.new("fastgpt_type *"), ffi.new("int64_t *"), ffi.new("int64_t *")
        data = lib.fastgpt_model_tensor(self.handle, c_text(name), type, n_rows, n_columns)
        if data == ffi.NULL and name == "output.weight":
            return self.tensor("token_embd.weight", rows)
        if data == ffi.NULL:
            raise UsageError(f"the model has no tensor {name!r}; the names are GGUF's, such as blk.0.attn_qkv.weight")
        dtype, n = type_name(type[0]), n_rows[0]
        if dtype == "i8":
            return self._tiled_tensor(name, ffi.buffer(data, n * n_columns[0]), rows)
        stored = np.frombuffer(ffi.buffer(data, n * row_bytes(dtype, n_columns[0])), np.uint8).reshape(n, -1)
        if rows is not None:
            stored = stored[[checked_int("row", row, 0, n - 1) for row in rows]]
        found = dequantize_rows(stored, dtype, n_columns[0])
        return found[0] if name.endswith((".bias", ".scale")) or "norm." in name else found

    def _tiled_tensor(self, name: str, data: Any, rows: Sequence[int] | None) -> Floats:
        scales = self.tensor(name.removesuffix(".weight") + ".scale").reshape(-1)
        n_tiles = -(-len(scales) // TILE_ROWS)
        tiles = np.frombuffer(data, np.uint8).reshape(n_tiles, -1, TILE_ROWS * LINE_VALUES)
        wanted = None if rows is None else [checked_int("row", row, 0, len(scales) - 1) for row in rows]
        stored = rows_of_tiles(tiles, scales, wanted)
        return dequantize_rows(stored, "i8", stored.shape[1] - 4)

    # ---- Text ----

    @property
    def has_tokenizer(self) -> bool:
        """Whether the file has a tokenizer; without one, prompts and completions are token ids."""
        return bool(lib.fastgpt_model_tokens(self.handle).n) or tokenizers.kind_of(self.metadata) is not None

    @cached_property
    def tokenizer(self) -> Tokenizer | tokenizers.LibraryTokenizer:
        """The tokenizer of the file.  Raises ModelFileError when it has none, or MissingExtraError."""
        if kind := tokenizers.kind_of(self.metadata):
            return tokenizers.open_tokenizer(kind, self.metadata, self.n_vocab, self.eos_token)
        if not self.has_tokenizer:
            raise ModelFileError(f"{self.path}: has no tokenizer; work with token ids")
        return Tokenizer.of_model(self.handle, self.n_vocab, self.eos_token)

    @cached_property
    def special_tokens(self) -> dict[int, str]:
        """Texts such as "<|endoftext|>" that encode takes for one token, by its id."""
        if tokenizers.kind_of(self.metadata):
            return dict(self.tokenizer.special)  # type: ignore[union-attr]
        types = lib.fastgpt_model_token_types(self.handle)
        kinds = [] if types == ffi.NULL or not self.has_tokenizer else ffi.unpack(types, self.n_vocab)
        return {token: self._token_text(token) for token, kind in enumerate(kinds) if kind in SPECIAL_TYPES}

    def _token_text(self, token: int) -> str:
        n_bytes = ffi.new("size_t *")
        data = lib.fastgpt_model_token_bytes(self.handle, token, n_bytes)
        return bytes(ffi.buffer(data, n_bytes[0])).decode("utf-8", "replace")

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of text; special=False reads "<|endoftext|>" and other special tokens as literal text."""
        return self.tokenizer.encode(text, special=special)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text that tokens stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.tokenizer.decode(tokens)

    # ---- Sessions ----

    def session(
        self,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        kv_type: str = "auto",
        deterministic: bool = False,
    ) -> Session:
        """An empty session.

        n_ctx          capacity in positions, at most the model's own n_ctx; None = that
        n_threads      threads of its steps; None = the model's, 0 = the usable cores
        kv_type        type of keys and values in the cache: "f32", "f16", "bf16", "q8_0", or "auto": "f32" where all
                       matrices of the model are f32, else "f16"
        deterministic  see Session

        Raises UsageError, MemoryError.
        """
        return Session(self.handle, self.pool(n_threads), n_ctx, kv_type, deterministic)

    def load_session(
        self,
        path: str | Path,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        deterministic: bool = False,
    ) -> Session:
        """A session from a file of Session.save, with capacity for n_ctx positions; it continues with the same bits.

        deterministic  keeps only the leading positions that were computed deterministically

        Raises ModelFileError (unreadable, damaged, or of a later version), UsageError (saved with another model file),
        ContextFullError (more tokens than n_ctx), MemoryError.
        """
        return Session.load(self.handle, self.pool(n_threads), path, n_ctx, deterministic)

    # ---- Life ----

    @property
    def handle(self) -> Any:
        """The fastgpt_model *; whoever holds it keeps the weights alive."""
        if self._handle is None:
            raise UsageError("the model is closed")
        return self._handle

    def pool(self, n_threads: int | None = None) -> Any:
        """The fastgpt_pool * of that many threads, shared by the model's sessions."""
        wanted = self.n_threads if n_threads is None else n_threads
        count = checked_n_threads(wanted) or lib.fastgpt_usable_cores()
        if count not in self._pools:  # no lock, which an exception could leave locked: of two new pools, one is kept
            self._pools.setdefault(count, create(lib.fastgpt_pool_create, count, free=lib.fastgpt_pool_free))
        return self._pools[count]

    def close(self) -> None:
        """Refuses further work; the memory goes when the last session is closed.  Closing twice is harmless."""
        self._handle = None
        self._pools.clear()

    def __repr__(self) -> str:
        closed = ", closed" if self._handle is None else ""
        return (
            f"{type(self).__name__}({self.name!r}, {self.type}, {self.n_params:,} parameters, "
            f"n_layer={self.n_layer}, n_embd={self.n_embd}, n_ctx={self.n_ctx}{closed})"
        )

    def __enter__(self: _Model) -> _Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load_handle(path: Path, use_mmap: bool, vocab_only: bool) -> Any:
    options = ffi.new("fastgpt_load_options *", {"struct_size": ffi.sizeof("fastgpt_load_options")})
    options.no_mmap = not use_mmap
    options.vocab_only = vocab_only
    out, error = ffi.new("fastgpt_model **"), ffi.new("fastgpt_error *")
    status = lib.fastgpt_model_load(c_path(path), options, out, error)
    check(status, error_text(error))
    return ffi.gc(out[0], lib.fastgpt_model_free, size=lib.fastgpt_model_sizeof(out[0]))
