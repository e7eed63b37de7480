"""Makes tests/data/openai_tiny: a GPT-2 checkpoint in OpenAI's layout, written by TensorFlow itself.

    python tools/make_tensorflow_checkpoint.py

Seven files as OpenAI published them for each size, and expected.npz with what the variables hold.  Needs tensorflow.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow.compat.v1 as tf

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
FOLDER = ROOT / "tests" / "data" / "openai_tiny"
HPARAMS = {"n_vocab": 260, "n_ctx": 9, "n_embd": 12, "n_head": 3, "n_layer": 2}


def variables() -> dict[str, npt.NDArray[np.float32]]:
    """Name -> numbers.  A Conv1D's kernel is [1][n_in][n_out], as OpenAI's model.py makes it."""
    rng, n = np.random.default_rng(0), HPARAMS["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {"wte": (HPARAMS["n_vocab"], n), "wpe": (HPARAMS["n_ctx"], n)}
    shapes |= {"ln_f/g": (n,), "ln_f/b": (n,)}
    for i in range(HPARAMS["n_layer"]):
        for name, n_in, n_out in (
            ("attn/c_attn", n, 3 * n),
            ("attn/c_proj", n, n),
            ("mlp/c_fc", n, 4 * n),
            ("mlp/c_proj", 4 * n, n),
        ):
            shapes |= {f"h{i}/{name}/w": (1, n_in, n_out), f"h{i}/{name}/b": (n_out,)}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h{i}/{name}/g": (n,), f"h{i}/{name}/b": (n,)}
    return {f"model/{name}": rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}


def main() -> None:
    """Writes all files."""
    from checkpoints import MERGES, vocabulary  # type: ignore[import-not-found]

    FOLDER.mkdir(exist_ok=True)
    values = variables()
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in values.items():
            tf.Variable(value, name=name)
        session.run(tf.global_variables_initializer())
        os.chdir(FOLDER)  # so that the file "checkpoint" names no folder of this machine
        tf.train.Saver().save(session, "model.ckpt")
    (FOLDER / "hparams.json").write_text(json.dumps(HPARAMS))
    (FOLDER / "encoder.json").write_text(json.dumps(vocabulary()))
    (FOLDER / "vocab.bpe").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    arrays: dict[str, Any] = {name.replace("/", "."): value for name, value in values.items()}
    np.savez(FOLDER / "expected.npz", **arrays)


if __name__ == "__main__":
    main()
