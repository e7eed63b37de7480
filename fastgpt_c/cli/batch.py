"""fastgpt-c batch: a file of prompts -> a file of completions."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from fastgpt_c.cli import common, control_vectors, shards
from fastgpt_c.cli.interrupt import INTERRUPTED
from fastgpt_c.errors import FastGPTError, UsageError

if TYPE_CHECKING:
    from fastgpt_c.batching.file_runner import Records
    from fastgpt_c.engine.control_vector import ControlVector
    from fastgpt_c.model import Model

EPILOG = """\
A line of IN is a request in OpenAI's batch format, or in short:
  {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Once", "max_tokens": 20}}
  {"prompt": "Once", "max_tokens": 20, "temperature": 0.7}

The options below hold for lines that do not say it themselves.  A line without a seed gets one that is made of --seed
(here 0 if not given) and its custom_id, so it draws the same text whenever it is run.

OUT gets a record for each, as they end: a response with the text, or an error with the number of the line.  Run the
same command again after Ctrl-C, a crash or a loss of power, and it goes on with the lines that have no record yet.

On many machines, OUT/ is a folder that all see, or a place in a store:
  fastgpt-c batch IN OUT/ --shard-bytes 32M
      cuts IN (a file, a folder, a pattern) into shards, and says how many; options and model are decided here
  fastgpt-c batch OUT/ --shard 17
      runs one of them, anywhere, as often as you like: it comes into being once
  fastgpt-c batch OUT/ --ray ADDRESS
      runs all that are not done as tasks of a Ray cluster
  fastgpt-c batch OUT/
      says how many are done
  fastgpt-c batch OUT/ --merge out.jsonl
      one file, in the order of IN

exit status: 1 when OUT has error records
"""


STDIN = 0


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "batch",
        help="continue all prompts of a file",
        description="Continues the prompts of a JSON Lines file, many at once.",
        epilog=EPILOG,
    )
    parser.add_argument("source", metavar="IN.jsonl", help="the requests; - is standard input")
    parser.add_argument(
        "target", nargs="?", metavar="OUT.jsonl", help="the records; what is in it already is kept.  OUT/ is a folder"
    )
    group = parser.add_argument_group("batch")
    common.add_batching_options(group)
    group.add_argument(
        "--deterministic", action="store_true",
        help="the same text for a line whatever its neighbours, the order and --threads; slower",
    )  # fmt: skip
    parser.add_argument("-n", "--max-new-tokens", type=int, metavar="N", help="tokens to generate (100)")
    parser.add_argument(
        "--ignore-eos", action="store_true", help="go on after an end-of-text token, as after any other"
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text appears; repeatable"
    )
    parser.add_argument(
        "--on-overflow", choices=("error", "truncate", "slide"), default="error",
        help="when prompt and N do not fit into the model's n_ctx: as in generate",
    )  # fmt: skip
    control_vectors.add_options(parser)
    shards.add_options(parser)
    common.add_kv_type_option(parser)
    common.add_model_options(parser)
    common.add_sampling_options(parser)
    parser.set_defaults(run=run, seed=0)


def run(args: argparse.Namespace) -> int:
    if shards.is_wanted(args):
        return shards.run(args)
    args.source, args.target = Path(args.source), Path(args.target)
    _check_files(args.source, args.target)
    vector = control_vectors.control_vector_of(args)
    with common.load_model(args) as model:
        common.settle_defaults(args, model)
        from fastgpt_c.batching.file_runner import Records

        with Records(args.target) as records:
            try:
                _run(args, model, records, vector)
            except KeyboardInterrupt:
                done = f"{records.count()} records are done; the same command goes on from there"
                print(f"\nfastgpt-c: {args.target}: {done}", file=sys.stderr)
                return INTERRUPTED
            if records.n_errors:
                print(
                    f"fastgpt-c: {args.target}: {records.n_errors} of {records.n_done} records are errors",
                    file=sys.stderr,
                )
            return 1 if records.n_errors else 0


def _check_files(source: Path, target: Path) -> None:
    from fastgpt_c.io.atomic_files import same_file

    if str(source) != "-" and not source.exists():
        raise FastGPTError(f"{source}: no such file")
    if source.is_dir():
        raise FastGPTError(f"{source}: is a folder, not a file of requests")
    if same_file(target, STDIN if str(source) == "-" else source):
        raise UsageError(f"{target}: is the file of requests; name another one")


def _run(args: argparse.Namespace, model: Model, records: Records, vector: ControlVector | None) -> None:
    from fastgpt_c.batching.file_runner import BatchFile, nonblank_lines
    from fastgpt_c.batching.requests import Batch
    from fastgpt_c.cli.progress import Progress
    from fastgpt_c.generation.options import Options

    sampling = common.sampling_of(args)
    seed = sampling.pop("seed")
    options = Options(
        deterministic=args.deterministic,
        max_new_tokens=args.max_new_tokens,
        stop=args.stop,
        ignore_eos=args.ignore_eos,
        on_overflow=args.on_overflow,
        kv_type=args.kv_type,
        control_vector=vector,
        **sampling,
    )
    batch = Batch(
        model,
        options,
        max_batch=args.max_batch,
        max_tokens_in_flight=args.max_tokens_in_flight,
        prefill_chunk=args.prefill_chunk,
        prefix_cache=args.prefix_cache,
    )
    can_count = sys.stderr.isatty() and args.source.is_file()  # a pipe is read once
    n_lines = sum(1 for _ in nonblank_lines(args.source)) if can_count else None
    with closing(Progress(n_lines, records.n_done)) as progress:
        BatchFile(model, batch, records, seed=seed, on_progress=progress.add).run(nonblank_lines(args.source))
