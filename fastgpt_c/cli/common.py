"""What several subcommands share: the model argument, sampling options, text from argument, file or pipe."""

from __future__ import annotations

import argparse
import codecs
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from fastgpt_c.cli.interrupt import ending_at_once
from fastgpt_c.engine.defaults import MIROSTAT_ETA, TEMPERATURE, TOP_P
from fastgpt_c.errors import UsageError

if TYPE_CHECKING:
    from fastgpt_c.engine.reader import Reader
    from fastgpt_c.model import Model

Subparsers = Any  # argparse keeps the type of add_subparsers() to itself

MODEL_HELP = (
    "GGUF file, folder with a Hugging Face checkpoint, short name (124M, 355M, 774M, 1558M) or id on Hugging "
    "Face such as gpt2; the bundled demo model if not given"
)


MAX_NEW_TOKENS = 100  # where nobody says


def add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("-m", "--model", metavar="MODEL", help=MODEL_HELP)
    group.add_argument("--threads", type=int, metavar="N", help="threads to compute with (all usable cores)")
    help_of_copy = "copy the model file instead of mapping it: loads slower, may run faster"
    group.add_argument("--no-mmap", action="store_true", help=help_of_copy)


def add_kv_type_option(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    parser.add_argument(
        "--kv-type", choices=("auto", "f32", "f16", "bf16", "q8_0"), default=default,
        help="numbers of the KV cache: the 16-bit types halve its memory and the time that a long past takes, at no "
        "measurable cost in perplexity; q8_0 takes a quarter, at 0.01%% of perplexity; auto is f32 for weights of f32, "
        f"else f16 ({default})",
    )  # fmt: skip


def add_deterministic_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deterministic", action="store_true",
        help="the same text to the bit with or without caches, alone or in a batch, by any number of threads",
    )  # fmt: skip


def add_batching_options(group: argparse._ArgumentGroup) -> None:
    """What a scheduler is told: how much at a time, and what is kept for later."""
    group.add_argument("--max-batch", type=int, default=32, metavar="N", help="sequences computed together (32)")
    group.add_argument(
        "--max-tokens-in-flight", type=int, metavar="N",
        help="room in all KV caches together (half of what N sequences of the model's n_ctx would take)",
    )  # fmt: skip
    group.add_argument(
        "--prefill-chunk", type=int, metavar="N",
        help="tokens of prompts that a step reads at most while texts grow (512)",
    )  # fmt: skip
    group.add_argument(
        "--prefix-cache", type=int, metavar="N",
        help="tokens that KV caches keep for later prompts that begin alike (all that no text needs); 0 = none",
    )  # fmt: skip


def add_prompt_cache_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prompt-cache", type=Path, metavar="FILE",
        help="keep what was read and written in FILE, and do not read the same beginning again the next time",
    )  # fmt: skip


@contextmanager
def reader_of(args: argparse.Namespace, model: Model) -> Iterator[Reader]:
    """The session that --prompt-cache, --kv-type and --deterministic ask for."""
    from fastgpt_c.generation.prompt_cache import prompt_cache

    with prompt_cache(model, args.prompt_cache, kv_type=args.kv_type, deterministic=args.deterministic) as reader:
        yield reader


def check_output(target: Path | None, model: Model, *inputs: Path | None) -> None:
    """As atomic_files.check_output, for options that may not be given."""
    if target is not None:
        from fastgpt_c.io import atomic_files

        atomic_files.check_output(target, model.path, *filter(None, inputs))


def one_line(text: str) -> str:
    """text for a terminal: a file's texts are a stranger's, and none of them may steer it."""
    return text.translate(dict.fromkeys([*range(32), *range(127, 160)], " "))


def title(model: Model) -> str:
    """A model's name, or else its file's."""
    return one_line(model.name or model.path.name)


def load_model(args: argparse.Namespace, vocab_only: bool = False) -> Model:
    return load_file(args.model, args, args.threads, vocab_only)


def load_file(model: str | None, args: argparse.Namespace, n_threads: int | None, vocab_only: bool = False) -> Model:
    """A model as --no-mmap says, with so many threads; or its tokenizer alone."""
    if model == "-":
        raise UsageError("-m - : a model cannot come through standard input, since it is mapped; give its file")
    with ending_at_once():
        from fastgpt_c.model import load

    return load(
        model,
        use_mmap=not args.no_mmap,
        n_threads=n_threads,
        progress=sys.stderr.isatty(),
        vocab_only=vocab_only,
    )


# Number options of sampling, in the order in which they apply: name, type, default, metavar, help.
_SAMPLING: tuple[tuple[str, type, float, str, str], ...] = (
    ("repetition_penalty", float, 1.0, "X", "above 1, tokens of the prompt and the text are less likely"),
    ("frequency_penalty", float, 0.0, "X", "take X from a token's logit for each time that the new text has it"),
    ("presence_penalty", float, 0.0, "X", "take X from the logit of each token that the new text has"),
    ("no_repeat_ngram_size", int, 0, "N", "no N tokens in a row come twice"),
    ("min_new_tokens", int, 0, "N", "no end of text before so many tokens"),
    ("temperature", float, TEMPERATURE, "T", f"0 = always the likeliest ({TEMPERATURE})"),
    ("top_n_sigma", float, 0.0, "N", "only logits at most N standard deviations below the largest; try 1"),
    ("top_k", int, 0, "K", "only the K likeliest tokens"),
    ("top_p", float, TOP_P, "P", f"only the likeliest tokens that sum to P ({TOP_P})"),
    ("min_p", float, 0.0, "P", "only tokens P times as likely as the likeliest"),
    ("typical_p", float, 0.0, "P", "only tokens about as surprising as expected that sum to P; try 0.2 with --top-p 1"),
    ("mirostat_tau", float, 0.0, "BITS", "keep the surprise of a token near BITS; try 3 with --top-p 1"),
    ("mirostat_eta", float, MIROSTAT_ETA, "X", f"how fast mirostat learns ({MIROSTAT_ETA})"),
)


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling", "They apply in this order; what is not given is off.")
    group.add_argument(
        "--logit-bias", action="append", type=_bias, default=[], metavar="ID=BIAS",
        help="add BIAS to the logit of token ID; -inf bans it; repeatable",
    )  # fmt: skip
    for name, kind, _, metavar, text in _SAMPLING:
        option = "--" + name.replace("_", "-")
        group.add_argument(option, type=kind, metavar=metavar, help=text)
    group.add_argument("--seed", type=int, metavar="N", help="the same seed draws the same text (fresh; -v shows it)")
    group.add_argument(
        "--model-defaults", action="store_true",
        help="what is not given, -n too, is as the model's own generation_config.json has it",
    )  # fmt: skip


def settle_defaults(args: argparse.Namespace, model: Model) -> None:
    """Gives the options of sampling and -n values where the user gave none: the model's own with --model-defaults, else
    ours."""
    defaults = {"max_new_tokens": MAX_NEW_TOKENS} | {name: default for name, _, default, *_ in _SAMPLING}
    if args.model_defaults:
        from fastgpt_c.generation.model_defaults import model_defaults

        own = model_defaults(model)
        if not own:
            raise UsageError(f"{title(model)} has no defaults of its own: leave --model-defaults out")
        defaults |= own
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def sampling_of(args: argparse.Namespace) -> dict[str, Any]:
    """The sampling options as fields of sampler.Sampling."""
    names = [name for name, *_ in _SAMPLING]
    return {name: getattr(args, name) for name in names} | {"seed": args.seed, "logit_bias": dict(args.logit_bias)}


def adjustments_of(args: argparse.Namespace) -> dict[str, Any]:
    """Those of them that are fields of sampler.Adjustments."""
    from dataclasses import fields  # here, since it costs a tenth of what --help takes

    from fastgpt_c.engine.sampler import Adjustments

    given = sampling_of(args)
    return {field.name: given[field.name] for field in fields(Adjustments)}


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=BIAS, such as 50256=-inf") from None


def add_text_options(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    parser.add_argument(
        "text", nargs="?", metavar=name, help=f"{what}; else from --file or standard input, which - is, too"
    )
    parser.add_argument("-p", "--prompt", dest="text_option", metavar=name, help=f"the same as {name} alone")
    parser.add_argument(
        "-f", "--file", type=Path, metavar="FILE", help=f"read the {name.lower()} from FILE; - is standard input"
    )


def text_of(args: argparse.Namespace, name: str) -> str:
    """The text that the user gave.  One line break at the end of a file or pipe is not part of it."""
    if args.text is not None and args.text_option is not None:
        raise UsageError(f"give the {name.lower()} as an argument or with -p, not both")
    text = args.text_option if args.text is None else args.text
    if text is not None and args.file is not None:
        raise UsageError(f"give the {name.lower()} or --file, not both")
    if text is None and args.file is None and sys.stdin.isatty():
        raise UsageError(f"no {name.lower()}: give it as an argument, with --file, or through a pipe")
    what = f"the {name.lower()}"
    if text not in (None, "-"):
        return argument_text(text, what)
    return read_text("-" if args.file is None else args.file, what).removesuffix("\n").removesuffix("\r")


def check_stdin(*names: object) -> None:
    """Standard input can be read once: UsageError where more than one of names is "-"."""
    if sum(str(name) == "-" for name in names) > 1:
        raise UsageError("- is standard input, which can be read only once: give a file for the others")


def argument_text(text: str, what: str) -> str:
    """An argument of the command line; Python smuggles bytes that are not UTF-8 in as lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeError as error:
        raise UsageError(f"{what} is not UTF-8: {error}") from error
    return text


def read_text(path: Path | str, what: str) -> str:
    """The text of a file, "-" of standard input: UTF-8, a byte order mark read over.  UsageError for other bytes."""
    with binary_input(str(path)) as stream:
        return _decoded(stream.read(), what)


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeError as error:
        raise UsageError(f"{what} is not UTF-8: {error}") from error


def print_json(value: object, stream: TextIO | None = None) -> None:
    """A line of JSON on the stream (standard output): in UTF-8 as it is, in other encodings with escapes."""
    stream = stream or sys.stdout
    is_utf8 = codecs.lookup(stream.encoding or "ascii").name == "utf-8"
    text = json.dumps(value, ensure_ascii=not is_utf8)
    print(text.encode("utf-8", "backslashreplace").decode(), file=stream, flush=True)


@contextmanager
def binary_input(name: str) -> Iterator[BinaryIO]:
    """The bytes of a file; "-" is standard input."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as stream:
        yield stream
