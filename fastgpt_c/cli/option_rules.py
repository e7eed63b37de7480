"""Which options need or exclude which: what would have no effect is refused by name, before any work.

What Python's interface has as well is checked there, by Options and the like.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

from fastgpt_c.cli.common import MAX_NEW_TOKENS
from fastgpt_c.cli.parser import Parser
from fastgpt_c.errors import UsageError

DRAWING = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "mirostat_tau", "mirostat_eta", "seed",
)  # fmt: skip
ONE_TEXT = (
    "stop", "on_overflow", "no_kv_cache", "kv_type", "deterministic", "prompt_cache", "regex", "json_schema", "grammar",
    "draft", "prompt_lookup", "ignore_eos", "control_vector",
)  # fmt: skip


class Needs(NamedTuple):
    """option has no effect unless the other one is given."""

    command: str
    option: str
    other: str
    reason: str


class Excludes(NamedTuple):
    """None of others has an effect beside option."""

    command: str
    option: str
    others: tuple[str, ...]
    reason: str


NEEDS = (
    Needs("generate", "length_penalty", "beams", "compares beams"),
    *(Needs(command, "mirostat_eta", "mirostat_tau", "says how fast mirostat learns, which is off")
      for command in ("generate", "chat")),
    Needs("convert", "tolerance", "verify", "judges what --verify compares"),
    Needs("info", "measure", "system", "measures the machine"),
    *(Needs(command, "control_vector_layer_range", "control_vector", "says which of its layers steer")
      for command in ("generate", "chat", "batch")),
    Needs("batch", "threads_per_task", "ray", "is for the tasks of a Ray cluster"),
)  # fmt: skip

EXCLUDES = (
    Excludes("generate", "beams", ("penalty_alpha",), "are two searches"),
    Excludes("generate", "beams", DRAWING, "do not go together, since beam search draws no tokens"),
    Excludes("generate", "beams", ONE_TEXT, "do not go together, since beam search has no such option"),
    Excludes("generate", "penalty_alpha", ("prompt_cache",),
             "do not go together, since contrastive search compares hidden states, which no prompt cache holds"),
    *(Excludes(command, "control_vector", ("prompt_cache",),
               "do not go together, since a prompt cache does not say how what it holds was steered")
      for command in ("generate", "chat")),
    Excludes("convert", "verify", ("lora",), "do not go together, since the checkpoint has no adapter in it"),
    Excludes("info", "system", ("model", "model_option", "check"),
             "do not go together, since --system shows the machine, not a model"),
    Excludes("profile", "compare",
             ("prompt", "n", "json", "trace", "html", "no_roofline", "kv_type", "model", "threads", "no_mmap"),
             "do not go together: --compare takes two files of --json, and runs no model; give it alone, so"),
)  # fmt: skip

# An option, and another one whose value it must not exceed.
LIMITS = (("generate", "min_new_tokens", "max_new_tokens"), ("chat", "min_new_tokens", "max_new_tokens"))


def check_rules(command: str, parser: Parser, args: argparse.Namespace) -> None:
    """Raises UsageError where an option is given that would have no effect."""
    for name, option, others, reason in EXCLUDES:
        beside = [other for other in others if _acts(args, other)] if name == command and _acts(args, option) else []
        if beside:
            ours, theirs = parser.option_of(option), parser.option_of(beside[0])
            raise UsageError(f"{ours} and {theirs} {reason}: leave {theirs} or {ours} out")
    for name, option, other, reason in NEEDS:
        if name == command and option in args.given and not getattr(args, other):
            ours, theirs = parser.option_of(option), parser.option_of(other)
            raise UsageError(f"{ours} {reason}: give {theirs} with it")
    for name, option, limit in LIMITS:
        if name != command or option not in args.given:
            continue
        at_most = getattr(args, limit)
        if at_most is None and not args.model_defaults:  # what the model's are is not known before it is loaded
            at_most = MAX_NEW_TOKENS
        if at_most is not None and getattr(args, option) > at_most:
            ours, theirs = parser.option_of(option), parser.option_of(limit)
            raise UsageError(f"{ours} is {getattr(args, option)}, more than {theirs}, which is {at_most}: give it more")


def without_effect(parser: Parser, args: argparse.Namespace) -> list[str]:
    """Options that were given and that temperature 0 makes idle."""
    given = [name for name in DRAWING if name in args.given and name != "temperature"]
    return [parser.option_of(name) for name in given] if args.temperature == 0 else []


def _acts(args: argparse.Namespace, name: str) -> bool:
    """Whether an option or argument is given, and not as off."""
    value = getattr(args, name)
    is_given = name in args.given or (value is not None and name in ("model", "prompt"))
    return is_given and (name == "seed" or value not in (None, False, 0, [], ""))
