"""What a model would say next without one of its heads: each is switched off in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.edits import Edit
from fastgpt_c.engine.log_probs import likeliest, log_softmax
from fastgpt_c.native.arguments import Floats, Tokens
from fastgpt_c.patching.metrics import Metric
from fastgpt_c.patching.runs import Doubles, Sweep

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

N_BEST = 5


@dataclass(frozen=True)
class SwitchedOff:
    """best         int32 [n_layer][n_head][5]: the likeliest next tokens without that head, the likeliest first
    probability  float64, the same shape: theirs
    answer       float64 [n_layer][n_head]: the probability of the token that is the likeliest with all heads
    """

    best: npt.NDArray[np.int32]
    probability: Doubles
    answer: Doubles


def without_heads(model: LoadedModel, tokens: Tokens, *, progress: bool | None = None) -> SwitchedOff:
    """Reads a text once for each head, whose output is 0 at every position.  Raises as act_patch does."""
    rows: list[tuple[npt.NDArray[np.int32], Doubles, float]] = []
    with model.session(len(tokens)) as session:
        answer = int(session.prefill(tokens).argmax())

    def note(logits: Floats) -> float:
        p = np.exp(log_softmax(logits))
        best = likeliest(p, min(N_BEST, model.n_vocab)).astype(np.int32)
        rows.append((best, p[best], float(p[answer])))
        return len(rows) - 1

    heads = [(layer, head) for layer in range(model.n_layer) for head in range(model.n_head)]
    with Sweep(model, tokens, Metric(note), progress=progress) as sweep:
        order = sweep.run([[Edit(layer, "z", "zero", head=head)] for layer, head in heads]).astype(int)
    shape = (model.n_layer, model.n_head)
    best, probability = (np.array([rows[i][part] for i in order]).reshape(*shape, -1) for part in (0, 1))
    return SwitchedOff(best, probability, np.array([rows[i][2] for i in order]).reshape(shape))


def report(found: SwitchedOff) -> dict[str, Any]:
    """{"best": [n_layer][n_head][5], "probability": the same shape, "answer": [n_layer][n_head]}, 4 digits."""
    return {
        "best": found.best.tolist(),
        "probability": np.round(found.probability, 5).tolist(),
        "answer": np.round(found.answer, 5).tolist(),
    }
