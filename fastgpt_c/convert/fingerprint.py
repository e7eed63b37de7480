"""A model's fingerprint: SHA-256 over its hyper-parameters and tensors, as they stand in the file.

Hashed is, in UTF-8, a line "KEY VALUE" for each key of the architecture ("gpt2.block_count 12"), sorted, floats as
Python's float.hex(); then for each tensor in the order of the file a line "NAME TYPE N_ROWS N_COLUMNS" (a vector has
one number) and its bytes.  Name, licence and tokenizer do not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastgpt_c.convert.gguf_arrays import ArrayReader

KEY = "fastgpt.fingerprint.sha256"


class Fingerprint:
    """Takes the tensors one by one."""

    def __init__(self, architecture: str, keys: Mapping[str, Any]) -> None:
        self._hash = hashlib.sha256()
        for key in sorted(key for key in keys if key.startswith(f"{architecture}.")):
            value = keys[key]
            value = value.decode() if isinstance(value, bytes) else value  # as texts are where they are copied
            self._line(key, float(value).hex() if isinstance(value, float) else value)

    def add(self, name: str, type: str, shape: tuple[int, ...], data: Any) -> None:
        """data is contiguous."""
        self._line(name, type, *shape)
        self._hash.update(data)

    def text(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()

    def _line(self, *words: object) -> None:
        self._hash.update((" ".join(map(str, words)) + "\n").encode())


def fingerprint_of(path: Path) -> str:
    """The fingerprint of what is in a sound GGUF file, whatever the file says that it is."""
    reader = ArrayReader(path)
    architecture = reader.fields["general.architecture"].contents()
    own = {key: field for key, field in reader.fields.items() if key.startswith(f"{architecture}.")}
    fingerprint = Fingerprint(architecture, {key: field.contents() for key, field in own.items()})
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.data_offset):
        shape = tuple(int(n) for n in reversed(tensor.shape))
        fingerprint.add(tensor.name, tensor.tensor_type.name, shape, tensor.data)
    return fingerprint.text()
