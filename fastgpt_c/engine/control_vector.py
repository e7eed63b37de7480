"""Control vectors: directions that are added to the residual stream while a text is generated (Turner et al. 2023,
"Activation Addition", arXiv 2308.10248; Rimsky et al. 2023, arXiv 2312.06681; Zou et al. 2023, arXiv 2310.01405)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.edits import Edit
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, checked_int, float_array, shown

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel


@dataclass(frozen=True, eq=False)
class ControlVector:
    """directions  {layer: [n_embd]}: what is added to resid_post of each layer, at every position; layers count from 0
    strength    what they are multiplied by; negative = the other way

    One object may be shared by texts and threads.  Raises UsageError for what is no such vector.
    """

    directions: Mapping[int, npt.ArrayLike]
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.directions, Mapping) or not self.directions:
            raise UsageError(f"directions is {shown(self.directions)}, not a dict such as {{3: vector}}")
        vectors: dict[int, Floats] = {}
        for layer, direction in self.directions.items():
            vector = float_array(f"the direction of layer {shown(layer)}", direction)
            if vector.ndim != 1 or not np.isfinite(vector).all():
                raise UsageError(f"the direction of layer {shown(layer)} is not one row of finite numbers")
            vectors[checked_int("layer", layer, 0)] = vector
        if len({len(vector) for vector in vectors.values()}) > 1:
            raise UsageError("the directions have different lengths")
        if isinstance(self.strength, bool) or not isinstance(self.strength, int | float):
            raise UsageError(f"strength is {shown(self.strength)}, not a number")
        if not np.isfinite(self.strength):
            raise UsageError(f"strength is {self.strength}, not a finite number")
        object.__setattr__(self, "directions", dict(sorted(vectors.items())))

    @property
    def n_embd(self) -> int:
        """Numbers of each direction."""
        return len(np.asarray(next(iter(self.directions.values()))))

    def times(self, factor: float) -> ControlVector:
        """The same with its strength multiplied."""
        return ControlVector(self.directions, self.strength * factor)

    def plus(self, other: ControlVector) -> ControlVector:
        """The sum of both, strengths multiplied in.  Raises UsageError where their lengths differ."""
        if self.n_embd != other.n_embd:
            raise UsageError(f"one control vector has {self.n_embd} numbers a layer, the other one {other.n_embd}")
        directions: dict[int, Floats] = {}
        for vector in (self, other):
            for layer, direction in vector.directions.items():
                added = np.asarray(direction) * np.float32(vector.strength)
                directions[layer] = directions[layer] + added if layer in directions else added
        return ControlVector(directions)

    def within(self, first: int, last: int) -> ControlVector:
        """The directions of layers first to last, both included.  Raises UsageError where it has none there."""
        directions = {layer: vector for layer, vector in self.directions.items() if first <= layer <= last}
        if not directions:
            there = f"{min(self.directions)} to {max(self.directions)}"
            raise UsageError(f"the control vector has no layer from {first} to {last}; its own are {there}")
        return ControlVector(directions, self.strength)

    def edits(self) -> list[Edit]:
        """The edits that add it, at every position of a step."""
        return [
            Edit(layer, "resid_post", "add", np.asarray(direction) * np.float32(self.strength))
            for layer, direction in self.directions.items()
        ]

    def check(self, model: LoadedModel) -> None:
        """Raises UsageError unless it fits a model."""
        if self.n_embd != model.n_embd:
            raise UsageError(
                f"the control vector has {self.n_embd} numbers a layer, the model's n_embd is {model.n_embd}"
            )
        if (last := max(self.directions)) >= model.n_layer:
            raise UsageError(f"the control vector has layer {last}; the model's are 0 to {model.n_layer - 1}")


def steer(model: LoadedModel, vector: npt.ArrayLike, layer: int, strength: float = 1.0) -> ControlVector:
    """A control vector of one direction, for the option control_vector of a generation: vector [n_embd] times strength
    is added to resid_post of the layer.  Raises UsageError where it does not fit the model."""
    made = ControlVector({layer: vector}, strength)
    made.check(model)
    return made
