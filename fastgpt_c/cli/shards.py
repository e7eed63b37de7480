"""fastgpt-c batch with a folder: plan, shards, merge."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgpt_c.cli import common
from fastgpt_c.cli.interrupt import INTERRUPTED, ending_at_once
from fastgpt_c.cli.progress import Progress
from fastgpt_c.errors import UsageError

if TYPE_CHECKING:
    from fastgpt_c.sharding.folder import Folder
    from fastgpt_c.sharding.plan import Plan
    from fastgpt_c.sharding.work import Settings

_SIZE = re.compile(r"(\d{1,15})([kMGT]?)i?B?", re.IGNORECASE)
_POWERS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SHARD = re.compile(r"(\d{1,12})(?:/(\d{1,12}))?", re.ASCII)

# Options that say what the text is, and so are those of the plan.
OF_PLAN = (
    "max_new_tokens", "stop", "on_overflow", "ignore_eos", "kv_type", "deterministic", "logit_bias", "seed",
    "model_defaults",
    "repetition_penalty", "frequency_penalty", "presence_penalty", "no_repeat_ngram_size", "min_new_tokens",
    "temperature", "top_n_sigma", "top_k", "top_p", "min_p", "typical_p", "mirostat_tau", "mirostat_eta",
)  # fmt: skip


def size(text: str) -> int:
    """Bytes: 32M is 32 * 2^20."""
    found = _SIZE.fullmatch(text.strip())
    n_bytes = int(found[1]) << _POWERS[found[2].lower()] if found else 0
    if n_bytes < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes such as 32M or 1G")
    return n_bytes


def shard(text: str) -> tuple[int, int | None]:
    """I or I/N."""
    found = _SHARD.fullmatch(text)
    if not found or (found[2] is not None and int(found[1]) >= int(found[2])):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a shard I, counted from 0, nor I/N with I below N")
    return int(found[1]), None if found[2] is None else int(found[2])


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("many machines", "OUT/ is a folder then, here or in a store (s3://, gs://).")
    group.add_argument(
        "--shard-bytes", type=size, metavar="SIZE", help="plan: cut IN into shards of at least SIZE, such as 32M (32M)"
    )
    group.add_argument(
        "--check-ids", action="store_true", help="plan: find each custom_id that lines of two shards have, too"
    )
    group.add_argument(
        "--shard", type=shard, metavar="I[/N]", help="run shard I of the plan in OUT/, or every N-th from I on"
    )
    group.add_argument(
        "--ray", metavar="ADDRESS", help="run all shards as tasks of a Ray cluster: HOST:PORT, or auto for the one here"
    )
    group.add_argument("--threads-per-task", type=int, metavar="T", help="CPUs of each task of --ray (1)")
    group.add_argument("--merge", metavar="FILE", help="all records of OUT/ into FILE, in the order of IN; - is stdout")
    group.add_argument("--json", action="store_true", help="say in JSON what was done")
    group.add_argument("--allow-errors", action="store_true", help="exit status 0 though there are error records")


def is_wanted(args: argparse.Namespace) -> bool:
    """Whether the arguments are about a folder of shards."""
    asked = args.shard_bytes is not None or args.check_ids or args.shard is not None or args.merge is not None
    asked = asked or args.ray is not None
    target = str(args.target or "")
    return asked or args.target is None or target.endswith("/") or "://" in target or "://" in str(args.source)


def run(args: argparse.Namespace) -> int:
    if args.control_vector:
        raise UsageError("--control-vector steers no shards: a plan holds no vectors; name a file OUT.jsonl, not OUT/")
    with ending_at_once():
        from fastgpt_c.sharding import work  # noqa: F401  # with all that is needed
    if args.ray is not None:
        return _run_on_ray(args)
    if args.shard is not None or args.merge is not None:
        return _run_in_folder(args)
    if args.target is None:
        if "://" not in args.source and Path(args.source).is_file():
            raise UsageError("OUT.jsonl is missing: the file of the records; see fastgpt-c batch --help")
        return _show(args)
    make_plan(args)
    return 0


def _run_in_folder(args: argparse.Namespace) -> int:
    from fastgpt_c.sharding.plan import opened

    given = [name for name in ("shard_bytes", "check_ids") if getattr(args, name)]
    option = "--shard" if args.shard is not None else "--merge"
    if args.target is not None or given:
        raise UsageError(f"{option} takes a folder with a plan and nothing else: fastgpt-c batch OUT/ {option} ...")
    refuse_options_of_plan(args, option)
    folder, plan = opened(args.source)
    return _merge(args, folder, plan) if args.merge is not None else _work(args, folder, plan)


def refuse_options_of_plan(args: argparse.Namespace, option: str) -> None:
    """What would have no effect is refused."""
    for name in OF_PLAN:
        if name in args.given:
            raise UsageError(f"--{name.replace('_', '-')} was decided by the plan: leave it out beside {option}")


# ---- Plan ---------------------------------------------------------------------------------------------------


def make_plan(args: argparse.Namespace) -> tuple[Folder, Plan]:
    """The plan of IN in OUT/, made or found, which it tells of."""
    from fastgpt_c.sharding import plan as plans
    from fastgpt_c.sharding.folder import open_folder
    from fastgpt_c.sharding.model_file import model_file
    from fastgpt_c.sharding.places import find_inputs

    if args.source == "-":
        raise UsageError("standard input cannot be cut into shards, which are read later: give a file")
    inputs = find_inputs(args.source)
    folder = open_folder(args.target, make=True)
    plans.check_empty(folder)
    model, path = model_file(args.model, progress=sys.stderr.isatty())
    options = _options(args, path)
    with closing(Progress(None, 0)):
        made = plans.make(
            folder, inputs, model, options,
            shard_bytes=args.shard_bytes or plans.SHARD_BYTES, check_ids=args.check_ids,
        )  # fmt: skip
    n_repeats = sum(made.n_repeats.values())
    if args.json:
        common.print_json({"plan": f"{folder.name}{plans.NAME}", "shards": len(made), "lines": made.cuts.n_lines,
                           "repeated_ids": n_repeats})  # fmt: skip
    else:
        repeats = f", {n_repeats:,} of which repeat a custom_id of an earlier shard" if n_repeats else ""
        print(f"{folder.name}{plans.NAME}: {len(made):,} shards, {made.cuts.n_lines:,} lines{repeats}")
    return folder, made


def _options(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    """As a plan keeps them; the model decides what is not given with --model-defaults, and whether they can be."""
    from fastgpt_c.model import Model
    from fastgpt_c.sharding.work import options_of

    with Model(path, use_mmap=not args.no_mmap, n_threads=args.threads) as model:
        common.settle_defaults(args, model)
        options = common.sampling_of(args) | {
            "deterministic": args.deterministic,
            "max_new_tokens": args.max_new_tokens,
            "stop": list(args.stop),
            "on_overflow": args.on_overflow,
            "ignore_eos": args.ignore_eos,
            "kv_type": args.kv_type,
            "logit_bias": sorted([token, bias] for token, bias in dict(args.logit_bias).items()),
        }
        options_of(options).sampler(model.n_vocab, model.eos_tokens)  # raises for what no prompt could use
    return options


# ---- Work ---------------------------------------------------------------------------------------------------


def settings_of(args: argparse.Namespace) -> Settings:
    from fastgpt_c.sharding.work import Settings

    return Settings(args.model, args.threads, not args.no_mmap, args.max_batch, args.max_tokens_in_flight)


def _indices(wanted: tuple[int, int | None], n_shards: int) -> Iterator[int]:
    first, step = wanted
    if step is None:
        if first >= n_shards:
            raise UsageError(f"--shard {first}: the plan has {n_shards} shards, counted from 0")
        return iter((first,))
    return iter(range(first, n_shards, step))


def _work(args: argparse.Namespace, folder: Folder, plan: Plan) -> int:
    from fastgpt_c.sharding.work import Worker

    indices = _indices(args.shard, len(plan))
    n_errors = n_failed = 0
    try:
        with Worker(folder, plan, settings_of(args), progress=sys.stderr.isatty()) as worker:
            for index in indices:
                with closing(Progress(None, 0)) as progress:
                    outcome = worker.run(index, progress.add)
                n_failed += outcome.done is None
                n_errors += outcome.done.errors if outcome.done else 0
                _tell(args, outcome)
    except KeyboardInterrupt:
        print("\nfastgpt-c: interrupted; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    if n_errors:
        print(f"fastgpt-c: {folder.name}: {n_errors} records are errors", file=sys.stderr)
    return 1 if n_failed or (n_errors and not args.allow_errors) else 0


def _tell(args: argparse.Namespace, outcome: Any) -> None:
    if args.json:
        common.print_json({"shard": outcome.index, "is_new": outcome.is_new, "reason": outcome.reason or None}
                          | (asdict(outcome.done) if outcome.done else {}))  # fmt: skip
    if outcome.done is None:
        print(f"fastgpt-c: shard {outcome.index} failed: {outcome.reason}", file=sys.stderr)


def _run_on_ray(args: argparse.Namespace) -> int:
    from fastgpt_c.cli.ray_progress import RayProgress
    from fastgpt_c.native.arguments import checked_n_threads
    from fastgpt_c.sharding import ray_driver
    from fastgpt_c.sharding.plan import opened

    threads = 1 if args.threads_per_task is None else checked_n_threads(args.threads_per_task) or 1
    ray_driver.import_ray()
    if args.target is None:
        refuse_options_of_plan(args, "--ray")
        folder, plan = opened(args.source)
    else:
        folder, plan = make_plan(args)
    ray = ray_driver.connect(args.ray, lambda text: print(f"fastgpt-c: warning: {text}", file=sys.stderr))
    progress = RayProgress(as_json=args.json)
    try:
        driver = ray_driver.Driver(
            ray, folder, plan, settings_of(args), threads_per_task=threads,
            on_look=progress.show, on_failure=progress.failed,
        )  # fmt: skip
        counts = driver.run()
    except KeyboardInterrupt:
        print("\nfastgpt-c: interrupted; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    finally:
        progress.close()
        ray.shutdown()
    if counts.n_errors:
        print(f"fastgpt-c: {folder.name}: {counts.n_errors} records are errors", file=sys.stderr)
    return 1 if counts.n_failed or (counts.n_errors and not args.allow_errors) else 0


def _merge(args: argparse.Namespace, folder: Folder, plan: Plan) -> int:
    from fastgpt_c.sharding.merge import merge

    merged = merge(folder, plan, args.merge)
    if args.json and args.merge != "-":
        common.print_json({"file": args.merge} | asdict(merged))
    if merged.errors:
        print(f"fastgpt-c: {args.merge}: {merged.errors} of {merged.lines} records are errors", file=sys.stderr)
    return 1 if merged.errors and not args.allow_errors else 0


def _show(args: argparse.Namespace) -> int:
    """How far a job is."""
    from fastgpt_c.sharding.commit import index_of
    from fastgpt_c.sharding.merge import done_shards
    from fastgpt_c.sharding.plan import opened

    folder, plan = opened(args.source)
    n_done = sum(done_shards(folder, plan))
    failed = sorted(index for name in folder.names() if (index := index_of(name, ".failed")) is not None)
    if args.json:
        common.print_json({"shards": len(plan), "lines": plan.cuts.n_lines, "done": n_done, "failed": failed})
    else:
        print(f"{folder.name}: {n_done:,} of {len(plan):,} shards are done, {len(failed)} failed")
    return 0
