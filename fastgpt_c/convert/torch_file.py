"""pytorch_model.bin, a pickle: read by torch.load with weights_only, which runs no code of the file, or not at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from fastgpt_c.convert.gguf_file import Array, Shape
from fastgpt_c.errors import ModelFileError
from fastgpt_c.io.checked_json import show

NAMES = {"torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16"}


class TorchFile:
    """A state dict.  See weights.TensorFile."""

    def __init__(self, path: Path) -> None:
        self._tensors = _load(path)
        self.info: dict[str, tuple[Shape, str]] = {
            name: (tuple(tensor.shape), NAMES.get(str(tensor.dtype), str(tensor.dtype)))
            for name, tensor in self._tensors.items()
        }

    def read(self, name: str, rows: slice) -> Array:
        tensor = self._tensors[name].detach()[rows].contiguous()
        if self.info[name][1] != "BF16":
            array: Array = tensor.numpy()
            return array
        import torch

        return np.asarray(tensor.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)


def _load(path: Path) -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise ModelFileError(
            f"{path}: is a pickle, which can run code; only PyTorch itself reads it safely:  pip install torch"
        ) from error
    try:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files of PyTorch before 1.6 cannot be mapped
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a pickle can provoke
        raise ModelFileError(f"{path}: PyTorch does not read it as plain weights: {_why(error)}") from error
    if not isinstance(tensors, dict) or not tensors:
        raise ModelFileError(f"{path}: holds no state dict")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
            raise ModelFileError(f"{path}: {show(name)} is not a named, dense tensor")
    return tensors


def _why(error: Exception) -> str:
    """PyTorch's own text, of many lines, advises to let the file run its code."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    return f"it wants to run {code[1]}" if code else "it is damaged, or no file of PyTorch"
