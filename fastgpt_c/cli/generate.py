"""fastgpt-c generate: continue a prompt."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgpt_c.cli import common, control_vectors
from fastgpt_c.cli.option_rules import without_effect
from fastgpt_c.cli.parser import row

if TYPE_CHECKING:
    from fastgpt_c.generation.completion import Completion
    from fastgpt_c.generation.text_generation import TextGeneration
    from fastgpt_c.model import Model

EPILOG = """\
examples:
  fastgpt-c generate "Once upon a time"
  fastgpt-c generate Once -n 50 --temperature 0 -v
  fastgpt-c generate --file prompt.txt --stop "The end"
  echo "The wolf said" | fastgpt-c generate --no-prompt
  fastgpt-c generate Once --penalty-alpha 0.6 --top-k 4
  fastgpt-c generate "Her name was" --regex " [A-Z][a-z]+"
  fastgpt-c generate "A dog:" --json-schema dog.json
  fastgpt-c generate "The boy was" --control-vector sad.gguf=4

Standard output gets the prompt and its continuation, everything else goes to standard error.
"""


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "generate",
        help="continue a prompt",
        description="Continues a prompt until N tokens, a stop string or the model's end-of-text token.",
        epilog=EPILOG,
    )
    common.add_text_options(parser, "PROMPT", "text to continue")
    parser.add_argument("-n", "--max-new-tokens", type=int, metavar="N", help="tokens to generate (100)")
    parser.add_argument(
        "--ignore-eos", action="store_true", help="go on after an end-of-text token, as after any other"
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text appears; repeatable"
    )
    parser.add_argument(
        "--on-overflow", choices=("error", "truncate", "slide"), default="error",
        help="when prompt and N do not fit into the model's n_ctx: refuse (default), drop the oldest tokens of the "
        "prompt, or forget the older half whenever the context is full",
    )  # fmt: skip
    parser.add_argument(
        "--no-kv-cache", action="store_true", help="compute everything anew for each token, to see what the cache saves"
    )
    common.add_kv_type_option(parser)
    common.add_deterministic_option(parser)
    common.add_prompt_cache_option(parser)
    _add_constraint_options(parser)
    _add_beam_options(parser)
    _add_contrastive_option(parser)
    _add_speculative_options(parser)
    control_vectors.add_options(parser)
    parser.add_argument("--no-prompt", action="store_true", help="print the continuation alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead of text")
    parser.add_argument("-v", "--verbose", action="store_true", help="show sizes, times and the seed on standard error")
    common.add_model_options(parser)
    common.add_sampling_options(parser)
    parser.set_defaults(run=run, parser=parser)


def _add_constraint_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "constraints", "The new text matches and ends there, if N tokens are enough.  Needs fastgpt-c[constraints]."
    )
    one = group.add_mutually_exclusive_group()
    one.add_argument("--regex", metavar="REGEX", help="a regular expression, of the whole new text")
    one.add_argument("--json-schema", metavar="SCHEMA", help="a JSON schema: a file, or the schema itself")
    one.add_argument("--grammar", metavar="FILE", type=Path, help="a file with a grammar in llguidance's Lark")


def _add_beam_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "beam search",
        "Without drawing: of the options of sampling only penalties, logit bias and bans go with it, and none of "
        "constraints or speculative decoding.",
    )
    group.add_argument(
        "--beams", type=int, default=0, metavar="N", help="grow N continuations and print the likeliest; -v shows all"
    )
    group.add_argument(
        "--length-penalty", type=float, default=1.0, metavar="X", help="above 0, long ones are preferred (1)"
    )


def _add_contrastive_option(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "contrastive search",
        "Without drawing: of the K likeliest tokens the one that is likely and yet unlike the text so far, which keeps "
        "long texts from going in circles.  A token takes the time of K sequences.",
    )
    group.add_argument(
        "--penalty-alpha", type=float, metavar="A",
        help="how much being unlike counts, from 0 (greedy) to 1; needs --top-k.  Try 0.6 with --top-k 4",
    )  # fmt: skip


def _add_speculative_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "speculative decoding", "The same text, often sooner.  -v tells how many guesses were right."
    )
    one = group.add_mutually_exclusive_group()
    one.add_argument("--draft", metavar="MODEL", help="a smaller model of the same vocabulary that guesses tokens")
    one.add_argument(
        "--prompt-lookup", type=int, default=0, metavar="N",
        help="guess N tokens as they followed the same words before; try 8 where text repeats itself",
    )  # fmt: skip


def constraints_of(args: argparse.Namespace) -> dict[str, Any]:
    """The constraint options as fields of Options."""
    schema = args.json_schema
    if schema is not None and not schema.lstrip().startswith("{"):
        schema = common.read_text(schema, f"--json-schema {schema}")
    elif schema is not None:
        schema = common.argument_text(schema, "--json-schema")
    grammar = None if args.grammar is None else common.read_text(args.grammar, f"--grammar {args.grammar}")
    regex = None if args.regex is None else common.argument_text(args.regex, "--regex")
    return {"regex": regex, "json_schema": schema, "grammar": grammar}


def run(args: argparse.Namespace) -> int:
    common.check_stdin(*stdin_of(args))
    prompt = common.text_of(args, "PROMPT")
    vector = control_vectors.control_vector_of(args)
    begin = time.perf_counter()
    with common.load_model(args) as model, _draft_of(args) as draft:
        load_seconds = time.perf_counter() - begin
        common.settle_defaults(args, model)
        if args.beams:
            return _run_beams(args, model, prompt)
        with common.reader_of(args, model) as reader:
            generation = model.stream(
                prompt,
                max_new_tokens=args.max_new_tokens,
                stop=args.stop,
                on_overflow=args.on_overflow,
                ignore_eos=args.ignore_eos,
                kv_cache=not args.no_kv_cache,
                kv_type=args.kv_type,
                deterministic=args.deterministic,
                reader=reader,
                prompt_lookup=args.prompt_lookup,
                draft=draft,
                penalty_alpha=args.penalty_alpha,
                control_vector=vector,
                **constraints_of(args),
                **common.sampling_of(args),
            )
            shown = "" if args.no_prompt else prompt
            completion = generation.finish() if args.json else _print_stream(generation, shown)
        if args.json:
            common.print_json(_report(prompt, model, completion, load_seconds))
        if completion.finish_reason == "length" and any((args.regex, args.json_schema, args.grammar)):
            print(
                f"fastgpt-c: {args.max_new_tokens} tokens were too few for a match; give more with -n", file=sys.stderr
            )
        if args.verbose:
            print(_summary(args, model, completion, load_seconds), file=sys.stderr)
    return 0


def stdin_of(args: argparse.Namespace) -> tuple[object, ...]:
    """What may be read from standard input; "-" where it is."""
    from_pipe = args.text is None and args.text_option is None and args.file is None
    return (args.text, args.text_option, "-" if from_pipe else args.file, args.json_schema, args.grammar)


def _run_beams(args: argparse.Namespace, model: Model, prompt: str) -> int:
    beams = model.beam_search(
        prompt,
        num_beams=args.beams,
        max_new_tokens=args.max_new_tokens,
        length_penalty=args.length_penalty,
        **common.adjustments_of(args),
    )
    from dataclasses import asdict

    if args.json:
        common.print_json({"prompt": prompt, "beams": [asdict(beam) for beam in beams]})
    else:
        print(("" if args.no_prompt else prompt) + beams[0].text)
    if args.verbose:
        for beam in beams:
            print(f"{beam.score:9.4f}  {beam.finish_reason:6}  {beam.text!r}", file=sys.stderr)
    return 0


def _draft_of(args: argparse.Namespace) -> AbstractContextManager[Model | None]:
    if args.draft is None:
        return nullcontext()
    return common.load_file(args.draft, args, args.threads)


def _print_stream(generation: TextGeneration, prompt: str) -> Completion:
    try:
        print(prompt, end="", flush=True)
        for piece in generation:
            print(piece, end="", flush=True)
    finally:
        print(flush=True)  # also after Ctrl-C: the shell's prompt wants a line of its own
    return generation.finish()


def _report(prompt: str, model: Model, completion: Completion, load_seconds: float) -> dict[str, Any]:
    return {
        "model": model.name or str(model.path),
        "prompt": prompt,
        "text": completion.text,
        "tokens": completion.tokens,
        "finish_reason": completion.finish_reason,
        "n_prompt": completion.n_prompt,
        "n_reused": completion.n_reused,
        "seed": completion.seed,
        "load_seconds": load_seconds,
        "prefill_seconds": completion.prefill_seconds,
        "decode_seconds": completion.decode_seconds,
    }


def _summary(args: argparse.Namespace, model: Model, completion: Completion, load_seconds: float) -> str:
    n_new = len(completion.tokens) + (completion.finish_reason == "eos")
    reused = f", {completion.n_reused} of them from the prompt cache" if completion.n_reused else ""
    idle = without_effect(args.parser, args)
    how = f"seed {completion.seed}" if draws(args) else "none drawn, so no seed"
    rows = [
        ("model", f"{common.title(model)}, {model.n_params:,} parameters, {model.type}"),
        ("", f"n_layer {model.n_layer}, n_head {model.n_head}, n_embd {model.n_embd}, n_ctx {model.n_ctx}"),
        ("input", f"{completion.n_prompt} tokens{reused}"),
        ("output", f"{len(completion.tokens)} tokens, ended by {completion.finish_reason}, {how}"),
        ("load", _time(load_seconds)),
        ("prefill", _time(completion.prefill_seconds, completion.n_prompt - completion.n_reused)),
        ("decode", _time(completion.decode_seconds, max(n_new - 1, 0))),
    ]
    if idle:
        rows.append(("note", f"without effect, since temperature 0 draws no tokens: {', '.join(idle)}"))
    if completion.n_guessed:
        rows.append(("guesses", f"{completion.n_right} of {completion.n_guessed} were right"))
    return "\n".join(row(f"{name:8}", text) for name, text in rows)


def draws(args: argparse.Namespace) -> bool:
    """Whether a seed matters: neither greedy nor contrastive search draws."""
    return args.temperature != 0 and args.penalty_alpha is None


def _time(seconds: float, n_tokens: int = 0) -> str:
    rate = f"  {n_tokens / seconds:8.1f} tokens/s" if n_tokens and seconds > 0 else ""
    return f"{seconds * 1e3:8.1f} ms{rate}"
