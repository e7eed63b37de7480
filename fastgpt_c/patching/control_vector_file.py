"""llama.cpp's files of control vectors: GGUF with a tensor direction.N for each layer N, from 1 on, which is added to
the output of that layer (--control-vector FILE there)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fastgpt_c.engine.control_vector import ControlVector
from fastgpt_c.errors import ModelFileError, UsageError
from fastgpt_c.io.atomic_files import is_model
from fastgpt_c.io.gguf_vectors import read_vectors, write_vectors
from fastgpt_c.native.arguments import Floats, as_path

ARCHITECTURE, HINT, COUNT = "controlvector", "controlvector.model_hint", "controlvector.layer_count"
DIRECTION = re.compile(r"direction\.([0-9]{1,4})")


def load_control_vector(path: str | Path, strength: float = 1.0) -> ControlVector:
    """Reads a file of llama.cpp, its cvector-generator, or repeng.  Raises ModelFileError, which names the file and
    what is wrong in it, and UsageError for a strength that is no number."""
    path = as_path("path", path)
    values, vectors = read_vectors(path)
    if values.get("general.architecture") != ARCHITECTURE:
        raise ModelFileError(
            f"{path}: is not a control vector: its architecture is {values.get('general.architecture')!r}"
        )
    directions: dict[int, Floats] = {}
    for name, vector in vectors.items():
        match = DIRECTION.fullmatch(name)
        if not match or int(match[1]) == 0 or str(int(match[1])) != match[1]:
            raise ModelFileError(f"{path}: tensor {name!r} is no direction of a layer from 1 on")
        directions[int(match[1])] = vector
    if not directions:
        raise ModelFileError(f"{path}: has no tensor direction.N")
    if len({len(vector) for vector in directions.values()}) > 1:
        raise ModelFileError(f"{path}: its tensors have different lengths")
    return ControlVector(directions, strength)


def save_control_vector(path: str | Path, vector: ControlVector) -> None:
    """Writes a file that llama.cpp reads, strength multiplied in; complete or not at all.  Raises UsageError for a
    direction of layer 0, which such files do not have, and FastGPTError where path cannot be written."""
    if 0 in vector.directions:
        raise UsageError("llama.cpp's files have directions from layer 1 on: leave layer 0 out")
    directions = {
        f"direction.{layer}": (np.asarray(direction, np.float32) * np.float32(vector.strength)).astype(np.float32)
        for layer, direction in vector.directions.items()
    }
    values: dict[str, str | int] = {"general.architecture": ARCHITECTURE, HINT: "gpt2", COUNT: len(directions)}
    target = as_path("path", path)
    if is_model(target):
        _check_is_control_vector(target)
    write_vectors(target, values, directions)


def _check_is_control_vector(target: Path) -> None:
    """A GGUF file is replaced only by one of its kind."""
    try:
        load_control_vector(target)
    except ModelFileError as error:
        raise UsageError(f"{target}: exists and is no control vector; delete it or give another name") from error
