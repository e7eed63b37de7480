"""Validation of arguments: each is checked once, with an error that names what is wrong.

One table, OPTIONS, has the valid values of every option; dataclasses of options are checked by it when they are made.

Integers and numbers may be NumPy's; a bool is neither, since True for a count is a mistake.
"""

from __future__ import annotations

import difflib
import math
import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from fastgpt_c.errors import UsageError

Made = TypeVar("Made")

Tokens = Sequence[int] | npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

KV_TYPES = ("auto", "f32", "f16", "bf16", "q8_0")
OVERFLOW_MODES = ("error", "truncate", "slide")
MOST_THREADS = 1024


class Refused(Exception):
    """A value is not of its kind; the message, if there is one, is more precise than Kind.says."""


@dataclass(frozen=True)
class Kind:
    """says completes "name is value, not ...";  read returns the value as it is stored, or raises Refused;  schema is
    what JSON Schema can say of it."""

    says: str
    read: Callable[[Any], Any]
    schema: Mapping[str, Any] = field(default_factory=dict)


def shown(value: object) -> str:
    """repr(value), cut to one line of moderate length."""
    return reprlib.repr(value).replace("\n", " ")


def as_integer(value: object) -> int:
    """The int; raises Refused for anything but an integer."""
    if isinstance(value, bool | np.bool_):
        raise Refused
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise Refused from None


def integer(least: int, most: int) -> Kind:
    """In [least, most]."""

    def read(value: object) -> int:
        number = as_integer(value)
        if not least <= number <= most:
            raise Refused
        return number

    n_bits = most.bit_length()
    end = f"2^{n_bits})" if n_bits > 30 and most == 2**n_bits - 1 else f"{most}]"
    return Kind(f"an integer in [{least}, {end}", read, {"type": "integer", "minimum": least, "maximum": most})


def number(least: float, most: float) -> Kind:
    """In [least, most], and so finite."""

    def read(value: object) -> float:
        if isinstance(value, np.integer | np.floating):
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise Refused
        return value

    says = f"a number in [{least:g}, {most:g}]".replace("+0", "")
    return Kind(says, read, {"type": "number", "minimum": least, "maximum": most})


def _read_flag(value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise Refused
    return bool(value)


def one_of(*names: str) -> Kind:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise Refused
        return value

    return Kind(f"one of {', '.join(names)}", read, {"type": "string", "enum": list(names)})


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise Refused
    return value


def _read_strings(value: object) -> tuple[str, ...]:
    """Consumes an iterator once; None means no strings."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = (value,)
    if isinstance(value, bytes | bytearray | Mapping):
        raise Refused
    try:
        strings: tuple[Any, ...] = tuple(value)  # type: ignore[arg-type]
    except TypeError:
        raise Refused from None
    for string in strings:
        if not isinstance(string, str):
            raise Refused(f"a stop string is {shown(string)}, not text")
        if not string:
            raise Refused("a stop string is empty")
    return strings


def _read_bias(value: object) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise Refused
    bias = {}
    for token, added in value.items():
        try:
            bias[BIASED_TOKEN.read(token)] = float(BIAS.read(added))
        except Refused:
            raise Refused(
                f"logit_bias {shown(added)} of token {shown(token)}: a token is {BIASED_TOKEN.says}, and a bias is a "
                "number below infinity"
            ) from None
    return bias


def _read_schema(value: object) -> str | Mapping[str, Any]:
    if not isinstance(value, str | Mapping):
        raise Refused
    return value


def _read_callable(value: object) -> object:
    if not callable(value):
        raise Refused
    return value


def _read_model(value: object) -> object:
    """Checks the attributes that a draft needs: this module may not import the class."""
    if not all(hasattr(value, name) for name in ("session", "n_vocab", "eos_token")):
        raise Refused
    return value


def _read_control_vector(value: object) -> object:
    """Checks what a generation needs of one: this module may not import the class."""
    if not all(hasattr(value, name) for name in ("directions", "strength", "edits")):
        raise Refused
    return value


def _read_early_stopping(value: object) -> bool | str:
    if isinstance(value, str) and value == "never":
        return value
    return _read_flag(value)


def optional(kind: Kind) -> Kind:
    return Kind(f"{kind.says}, or None", lambda value: None if value is None else kind.read(value), kind.schema)


COUNT = integer(0, 2**31 - 1)
BIASED_TOKEN = COUNT
BIAS = number(-math.inf, float(np.finfo(np.float32).max))
FLAG = Kind("True or False", _read_flag, {"type": "boolean"})
TEXT = Kind("text", _read_text, {"type": "string"})

OPTIONS = {
    # Adjustments
    "repetition_penalty": number(0, 1e6),
    "frequency_penalty": number(-1e6, 1e6),
    "presence_penalty": number(-1e6, 1e6),
    "no_repeat_ngram_size": COUNT,
    "min_new_tokens": COUNT,
    "logit_bias": optional(Kind("a dict such as {50256: -100}", _read_bias)),
    # Sampling
    "temperature": number(0, 1e6),
    "top_k": COUNT,
    "top_p": number(0, 1),
    "min_p": number(0, 1),
    "typical_p": number(0, 1),
    "top_n_sigma": number(0, 1e6),
    "mirostat_tau": number(0, 1e6),
    "mirostat_eta": number(0, 1),
    "seed": optional(integer(0, 2**64 - 1)),
    # Options
    "max_new_tokens": COUNT,
    "stop": Kind("text, or a list of texts", _read_strings),
    "on_overflow": one_of(*OVERFLOW_MODES),
    "logprobs": optional(COUNT),
    "ignore_eos": FLAG,
    "kv_cache": FLAG,
    "kv_type": one_of(*KV_TYPES),
    "deterministic": FLAG,
    "n_threads": optional(integer(0, MOST_THREADS)),
    "regex": optional(TEXT),
    "json_schema": optional(Kind("a JSON schema, as text or as a dict", _read_schema)),
    "grammar": optional(TEXT),
    "logits_processor": optional(Kind("one function", _read_callable)),
    "prompt_lookup": COUNT,
    "draft": optional(Kind("a Model", _read_model)),
    "control_vector": optional(Kind("a ControlVector", _read_control_vector)),
    "penalty_alpha": optional(number(0, 1)),
    # Beams
    "num_beams": integer(1, 2**31 - 1),
    "length_penalty": number(-50, 50),
    "early_stopping": Kind('True, False or "never"', _read_early_stopping),
}


def checked(name: str, value: object) -> Any:
    """The value of an option as it is stored; raises UsageError for a value that the table does not allow."""
    kind = OPTIONS[name]
    try:
        return kind.read(value)
    except Refused as refused:
        raise UsageError(str(refused) or f"{name} is {shown(value)}, not {kind.says}") from None


class Checked:
    """A frozen dataclass of options, whose names and values are checked when it is made."""

    def __new__(cls, *args: object, **given: object) -> Any:
        if args:
            raise UsageError(f"{cls.__name__} takes its options by name, such as {_names(cls)[0]}=...")
        check_names(given, _names(cls), f"option of {cls.__name__}")
        return super().__new__(cls)

    def __repr__(self) -> str:
        """With the options that are not at their defaults."""
        values = {field.name: getattr(self, field.name) for field in fields(cast(Any, self))}
        changed = [f"{name}={shown(value)}" for name, value in values.items() if value != getattr(type(self), name)]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __post_init__(self) -> None:
        for name in _names(type(self)):
            object.__setattr__(self, name, checked(name, getattr(self, name)))


def _names(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls)) if is_dataclass(cls) else ()


def check_names(given: Iterable[str], known: Sequence[str], what: str) -> None:
    """Raises UsageError for the first of given that is not known, with the nearest that is."""
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known)}"
            raise UsageError(f"{name} is no {what}: {hint}")


def merge_options(cls: type[Made], name: str, given: object, changes: Mapping[str, Any]) -> Made:
    """An object of cls: given, which is one already, a dict of its fields or None, with changes made to it.

    name  of the argument, for the UsageError
    """
    if given is None:
        return cls(**changes)
    if isinstance(given, cls):
        values = {field: getattr(given, field) for field in _names(cls)} if changes else {}
        return cls(**{**values, **changes}) if changes else given
    if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
        return cls(**{**given, **changes})
    raise UsageError(
        f"{name} is {shown(given)}, not {cls.__name__} or a dict of its fields; single ones are given by name, such as "
        f"{next(iter(cls.__annotations__))}=..."
    )


def token_list(tokens: object) -> list[int]:
    """Token ids of any iterable; UsageError for anything else."""
    try:
        if isinstance(tokens, bytes):
            raise TypeError
        return list(map(operator.index, tokens))  # type: ignore[call-overload]
    except TypeError:
        raise UsageError(f"tokens are {shown(tokens)}, not a row of token ids") from None


def as_path(name: str, value: object) -> Path:
    """A path, given as text or as one; UsageError for anything else."""
    try:
        return Path(value)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"{name} is {shown(value)}, not a path") from None


# ---- Numbers and arrays ----


def checked_int(name: str, value: int, least: int = -(2**31), most: int = 2**31 - 1) -> int:
    """value as a C int32_t; raises UsageError for anything but an integer in [least, most]."""
    try:
        number = as_integer(value)
    except Refused:
        raise UsageError(f"{name} is {shown(value)}, not an integer") from None
    if not least <= number <= most:
        raise UsageError(f"{name} is {number}, not in [{least}, {most}]")
    return number


def room_of(n_ctx: int | None) -> int:
    """n_ctx for fastgpt_kv_cache_create, where 0 is the model's own."""
    return checked_int("n_ctx", 0 if n_ctx is None else n_ctx)


def checked_n_threads(n_threads: int | None) -> int:
    """n_threads for fastgpt_pool_create, where 0 is the usable cores."""
    return checked("n_threads", n_threads) or 0


def float_array(name: str, values: npt.ArrayLike) -> Floats:
    """values as a contiguous float32 array, not copied if it is one; raises UsageError for anything but numbers."""
    try:
        return np.ascontiguousarray(values, np.float32)
    except (ValueError, TypeError, OverflowError):
        raise UsageError(f"{name} is {shown(values)}, not an array of numbers") from None


def token_array(tokens: Tokens) -> npt.NDArray[np.int32]:
    """Tokens as a contiguous int32 array [n_tokens]; raises UsageError for anything but a row of integers."""
    try:
        array = np.asarray(tokens)
    except (ValueError, TypeError, OverflowError):  # rows of different lengths, and the like
        raise UsageError(f"tokens are {shown(tokens)}, not a row of integers") from None
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UsageError(f"tokens must be a row of integers, not {array.dtype} of shape {array.shape}")
    limits = np.iinfo(np.int32)
    if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
        raise UsageError("a token is outside [0, n_vocab)")
    return np.ascontiguousarray(array, np.int32)
