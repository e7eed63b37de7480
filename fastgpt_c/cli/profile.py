"""fastgpt-c profile: where the time goes, by phase, layer and op."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from fastgpt_c.cli import common
from fastgpt_c.cli.parser import WIDEST, terminal_width
from fastgpt_c.errors import ContextFullError, UsageError

if TYPE_CHECKING:
    from fastgpt_c.model import Model
    from fastgpt_c.profiling.profile import Profile

EPILOG = """\
examples:
  fastgpt-c profile
  fastgpt-c profile Once -n 64 --html profile.html
  fastgpt-c profile --trace trace.json
      then open it at https://ui.perfetto.dev
  fastgpt-c profile --threads 1 --json >one.json
  fastgpt-c profile --threads 2 --json >two.json
  fastgpt-c profile --compare one.json two.json

"of roofline" is the least time that an op's bytes and operations could take here, as a part of its time; "at best",
of the time of its fastest calls.  The machine's ceiling is measured each time, and the highest that was ever seen is
kept in ~/.cache/fastgpt-c/roofline.
"""

N_EVENTS_AT_MOST = 2_000_000


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "profile",
        help="show where the time goes, by layer and op",
        description="Reads a prompt and decodes N tokens, after a warm-up, and shows how long each op took.",
        epilog=EPILOG,
    )
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="text to begin with (Once upon a time)")
    parser.add_argument(
        "-n", "--max-new-tokens", dest="n", type=int, default=32, metavar="N", help="tokens to decode after it (32)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write a trace that Perfetto and Chrome open")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with charts, which needs no network")
    parser.add_argument("--no-roofline", action="store_true", help="do not measure this machine's ceiling")
    parser.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A", "B"), help="what changed between two files of --json"
    )
    common.add_kv_type_option(parser)
    common.add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return _compare(args) if args.compare else _profile(args)


def _compare(args: argparse.Namespace) -> int:
    from fastgpt_c.profiling import report, tables

    common.check_stdin(*args.compare)
    print(tables.comparison(*map(report.read, args.compare)))
    return 0


def _profile(args: argparse.Namespace) -> int:
    with common.load_model(args) as model:
        common.check_output(args.trace, model)
        common.check_output(args.html, model, args.trace)
        prompt = "Once upon a time" if args.prompt is None else args.prompt
        profile = measure(model, prompt, args.n, args.kv_type)
    from fastgpt_c.profiling import machine

    ceiling = None if args.no_roofline else machine.best_roofline(profile.n_threads)
    if args.trace:
        profile.write_trace(args.trace)
    if args.html:
        profile.write_html(args.html, ceiling, prompt)
    columns = terminal_width(WIDEST)
    print(json.dumps(profile.report(ceiling)) if args.json else profile.table(ceiling, columns))
    return 0


def measure(model: Model, prompt: str, n: int, kv_type: str) -> Profile:
    """A profile of reading prompt and decoding n tokens, drawn as generate does by default."""
    from fastgpt_c.engine.sampler import Sampler
    from fastgpt_c.generation.token_selector import explained

    tokens = model.encode(prompt)
    if not tokens or n < 0:
        raise UsageError("the prompt is empty" if not tokens else f"-n is {n}; it must not be negative")
    if len(tokens) + n > model.n_ctx:
        raise ContextFullError(
            f"{len(tokens)} prompt tokens and {n} new ones exceed the model's n_ctx of {model.n_ctx}"
        )
    sampler = Sampler(model.n_vocab, seed=1)
    with model.session(kv_type=kv_type) as session:
        session.prefill(tokens)  # reads the file into memory, and starts the threads
        session.truncate(0)
        with session.profile(_n_events(model, session.n_threads, len(tokens) + n)) as profile:
            logits = session.prefill(tokens)
            for _ in range(n):
                with explained(logits):
                    token = session.sample(sampler, logits)
                logits = session.decode(token)
    return profile


def _n_events(model: Model, n_threads: int, n_steps: int) -> int:
    """Room for all of them, within reason."""
    return min(N_EVENTS_AT_MOST, n_steps * (model.n_layer * (8 * n_threads + 1) + 4 * n_threads + 4))
