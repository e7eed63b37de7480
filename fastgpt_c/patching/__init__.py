"""Experiments that change a model while it runs: activation and path patching, ablation, control vectors.

from fastgpt_c import patching

metric = patching.logit_difference(model, " Mary", " John")
values = patching.act_patch(model, clean, corrupted, metric, "z", by=("layer", "head"))
"""

from fastgpt_c.patching.ablation import ablate, mean_values
from fastgpt_c.patching.activation import act_patch
from fastgpt_c.patching.metrics import Metric, kl_divergence, log_probability, logit_difference, mean_loss
from fastgpt_c.patching.paths import path_patch
from fastgpt_c.patching.runs import Sweep

__all__ = [
    "Metric",
    "Sweep",
    "ablate",
    "act_patch",
    "kl_divergence",
    "log_probability",
    "logit_difference",
    "mean_loss",
    "mean_values",
    "path_patch",
]
