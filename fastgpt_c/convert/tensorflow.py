"""Read a GPT-2 checkpoint as OpenAI published it: TensorFlow's files, hparams.json, encoder.json and vocab.bpe.

Needs the extra [tf]: the numbers are read by TensorFlow's own reader, which checks their checksums.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from fastgpt_c.convert import huggingface
from fastgpt_c.convert.config import Config, read_hparams
from fastgpt_c.convert.gguf_file import Array, Contents, Shape
from fastgpt_c.convert.huggingface_tokenizer import DEFAULT_SPECIAL, read_openai_vocabulary
from fastgpt_c.convert.weights import Weights
from fastgpt_c.errors import ModelFileError, missing_extra
from fastgpt_c.io.checked_json import read_json

# The last part of a variable's name, and of transformers'.
KINDS = {"w": "weight", "g": "weight", "b": "bias"}
VARIABLE = re.compile(r"model/(?:h(\d+)/(attn/c_attn|attn/c_proj|mlp/c_fc|mlp/c_proj|ln_1|ln_2)|(ln_f))/([wgb])")


def is_checkpoint(folder: Path) -> bool:
    return (folder / "hparams.json").exists() and (folder / "model.ckpt.index").exists()


def read(folder: Path) -> Contents:
    """The checkpoint in folder, everything checked but the tensors' numbers, which are read as data is drawn."""
    path = folder / "hparams.json"
    end = read_json(folder / "encoder.json").get(DEFAULT_SPECIAL)
    config: Config = read_hparams(path, end if isinstance(end, int) else None)
    weights = Weights(folder, [(folder / "model.ckpt", TensorFlowFile(folder / "model.ckpt"), None)])
    shapes = huggingface.checked_shapes(config, weights)
    vocabulary = read_openai_vocabulary(folder, config.hparams.n_vocab)
    return huggingface.contents_of(config, weights, shapes, vocabulary)


class TensorFlowFile:
    """A checkpoint, with transformers' names for its variables.  See weights.TensorFile."""

    def __init__(self, path: Path) -> None:
        self._path, self._reader = path, _open(path)
        self.info: dict[str, tuple[Shape, str]] = {}
        self._variables: dict[str, str] = {}
        types = self._reader.get_variable_to_dtype_map()
        for variable, shape in self._reader.get_variable_to_shape_map().items():
            name = _name_of(variable)
            self._variables[name] = variable
            kernel = len(shape) == 3 and shape[0] == 1  # of a convolution one wide
            type_name = "F32" if types[variable].name == "float32" else types[variable].name
            self.info[name] = tuple(shape[1:] if kernel else shape), type_name

    def read(self, name: str, rows: slice) -> Array:
        try:
            array: Array = self._reader.get_tensor(self._variables[name])
        except Exception as error:  # of TensorFlow's own classes
            raise ModelFileError(f"{self._path}: {self._variables[name]}: {str(error)[:200]}") from error
        return array.reshape(self.info[name][0])[rows]


def _open(path: Path) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # it greets on stderr
    try:
        import tensorflow
    except ImportError as error:
        raise missing_extra("tf", "Converting a TensorFlow checkpoint") from error
    try:
        return tensorflow.train.load_checkpoint(str(path))
    except Exception as error:  # of TensorFlow's own classes
        raise ModelFileError(f"{path}: TensorFlow cannot read it: {str(error)[:200]}") from error


def _name_of(variable: str) -> str:
    """model/h3/attn/c_attn/w -> h.3.attn.c_attn.weight; what is no part of a GPT-2 keeps its name, and is refused."""
    if variable in ("model/wte", "model/wpe"):
        return f"{variable[6:]}.weight"
    match = VARIABLE.fullmatch(variable)
    if match is None:
        return variable
    layer, part, last, kind = match.groups()
    return ".".join([*(["h", layer] if layer else []), (part or last).replace("/", "."), KINDS[kind]])
