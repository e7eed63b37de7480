"""What OpenVINO is told, by its runtime and by GenAI alike."""

from __future__ import annotations

# The last word of a type says in what is computed: "bf16" is the fp32 model computed in BF16, "int8 f32" are weights of
# 8 bits computed with in F32.  Of two that it has, which is faster differs by job and by CPU.  int4 chooses by itself.
PRECISIONS = {"fp32": "f32", "f32": "f32", "bf16": "bf16"}


def config_of(type: str, n_threads: int) -> dict[str, object]:
    """The properties of a compiled model, for a type of harness.plan."""
    precision = PRECISIONS.get(type.split()[-1])
    hint = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    return {"INFERENCE_NUM_THREADS": n_threads, **hint}
