"""Experiments that change a model while it runs: activation and path patching, ablation, control vectors.

from fastgpt_c import patching

metric = patching.logit_difference(model, " Mary", " John")
values = patching.act_patch(model, clean, corrupted, metric, "z", by=("layer", "head"))
"""

from fastgpt_c.patching.ablation import ablate, mean_values
from fastgpt_c.patching.activation import act_patch
from fastgpt_c.patching.contrast import control_vector
from fastgpt_c.patching.control_vector_file import load_control_vector, save_control_vector
from fastgpt_c.patching.metrics import Metric, kl_divergence, log_probability, logit_difference, mean_loss
from fastgpt_c.patching.paths import path_patch
from fastgpt_c.patching.runs import Sweep
from fastgpt_c.patching.switched_off import without_heads

__all__ = [
    "Metric",
    "Sweep",
    "ablate",
    "act_patch",
    "control_vector",
    "kl_divergence",
    "load_control_vector",
    "log_probability",
    "logit_difference",
    "mean_loss",
    "mean_values",
    "path_patch",
    "save_control_vector",
    "without_heads",
]
