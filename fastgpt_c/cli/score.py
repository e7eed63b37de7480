"""fastgpt-c score: log-probabilities of texts, and of choices after a context."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgpt_c.cli import common
from fastgpt_c.cli.interrupt import ending_at_once
from fastgpt_c.cli.jsonl import Record, records
from fastgpt_c.errors import FastGPTError, UsageError

if TYPE_CHECKING:
    from fastgpt_c.model import Model
    from fastgpt_c.scoring.multiple_choice import Continuation
    from fastgpt_c.scoring.token_scores import Scorer

EPILOG = """\
A line of IN.jsonl is one of

  {"context": "The wolf", "choices": [" said", " said he", " banana"]}   how likely is each choice after the context?
  {"text": "Once upon a time"}                                           how likely is each token of the text?

and gives a line of output with its number.  A line that is wrong gives {"line": N, "error": ...}, and the others go on;
the exit status is then 1.

Of choices, best is the likeliest; best_per_token and best_per_byte are, by the mean over tokens or bytes.  Context and
choice are tokenized together, and a space between them may stand in either, as in lm-evaluation-harness.
"""

FAILURE = 1
STDIN = 0


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "score",
        help="how likely texts and choices are",
        description="Log-probabilities, natural logarithms, of the texts and choices in a file of JSON lines.",
        epilog=EPILOG,
    )
    parser.add_argument("file", metavar="IN.jsonl", help="what to score; - is standard input")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.jsonl", help="write there, when all is done")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="texts: also the K likeliest tokens (0)")
    parser.add_argument("--bos", action="store_true", help="texts: score the first token, after the end-of-text token")
    parser.add_argument(
        "--stride", type=int, metavar="S", help="texts longer than n_ctx: tokens between windows (half of n_ctx)"
    )
    common.add_kv_type_option(parser, default="f32")
    common.add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    n_lines = n_wrong = 0
    with (
        common.binary_input(args.file) as source,
        common.load_model(args) as model,
        _Answers(args, model) as answers,
        _output(args.output, args.file, model) as write,
    ):
        for number, record in records(source):
            answer = answers.to(record)
            n_lines, n_wrong = n_lines + 1, n_wrong + ("error" in answer)
            write({"line": number} | answer)
    if n_wrong:
        print(f"fastgpt-c: {n_wrong} of {n_lines} lines could not be scored", file=sys.stderr)
    return FAILURE if n_wrong else 0


@contextmanager
def _output(path: Path | None, source: str, model: Model) -> Iterator[Callable[[object], None]]:
    """What writes a line: to path, which is there when all are, or to standard output."""
    if path is None:
        yield common.print_json
        return
    with ending_at_once():
        from fastgpt_c.io.atomic_files import atomically, check_output, naming

    def write(answer: object) -> None:
        with naming(path):
            common.print_json(answer, stream)

    check_output(path, STDIN if source == "-" else Path(source), model.path)
    with naming(path), atomically(path) as part, part.open("w", encoding="utf-8", errors="replace") as stream:
        try:
            yield write
        except OSError as error:  # of what is read
            raise FastGPTError(str(error)) from error


class _Answers:
    """One session for all lines."""

    def __init__(self, args: argparse.Namespace, model: Model) -> None:
        with ending_at_once():
            from fastgpt_c.native.arguments import checked_int
            from fastgpt_c.scoring.multiple_choice import score_choices
            from fastgpt_c.scoring.token_scores import Scorer, score, start_token

        self._score, self._score_choices = score, score_choices
        _ = model.tokenizer  # without one, no line can be scored
        self._model = model
        self._start = start_token(model) if args.bos else None
        self._top_k = checked_int("top_k", args.top_k, 0, model.n_vocab)
        self._stride = None if args.stride is None else checked_int("stride", args.stride, 1, model.n_ctx)
        self._scorer: Scorer = Scorer(model, kv_type=args.kv_type)

    def to(self, record: Record | UsageError) -> Record:
        try:
            if isinstance(record, UsageError):
                raise record
            return self._text(record["text"]) if "text" in record else self._choices(record)
        except FastGPTError as error:
            return {"error": str(error)}

    def _text(self, text: object) -> Record:
        if not isinstance(text, str):
            raise UsageError(f'"text" is {type(text).__name__}, not a string')
        tokens = self._model.encode(text)
        scores = self._score(self._scorer, tokens, top_k=self._top_k, start=self._start, stride=self._stride)
        answer: Record = {
            "loglikelihood": _rounded(scores.total),
            "tokens": tokens,
            "logprobs": [
                _rounded(logprob) if rank else None for logprob, rank in zip(scores.logprobs, scores.ranks, strict=True)
            ],
            "ranks": [int(rank) or None for rank in scores.ranks],
        }
        if self._top_k:
            answer["top"] = [
                [[int(token), _rounded(logprob)] for token, logprob in zip(*row, strict=True) if token >= 0]
                for row in zip(scores.top_tokens, scores.top_logprobs, strict=True)
            ]
        return answer

    def _choices(self, record: Record) -> Record:
        context, choices = record.get("context"), record.get("choices")
        if not isinstance(context, str) or not isinstance(choices, list) or not _are_strings(choices):
            raise UsageError('the line has neither "text" nor a "context" and a list of "choices", all of them strings')
        found = self._score_choices(self._model, self._scorer, context, choices)
        return {
            "best": _best([choice.loglikelihood for choice in found]),
            "best_per_token": _best([choice.per_token for choice in found]),
            "best_per_byte": _best([choice.per_byte for choice in found]),
            "choices": [_choice(choice) for choice in found],
        }

    def __enter__(self) -> _Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self._scorer.close()


def _are_strings(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(item, str) for item in items)


def _best(values: list[float]) -> int:
    return values.index(max(values))


def _choice(choice: Continuation) -> Record:
    answer = {
        "choice": choice.text,
        "loglikelihood": _rounded(choice.loglikelihood),
        "per_token": _rounded(choice.per_token),
        "per_byte": _rounded(choice.per_byte),
        "n_tokens": len(choice.scores),
        "greedy": choice.scores.greedy,
    }
    return answer | ({"n_dropped": choice.n_dropped} if choice.n_dropped else {})


def _rounded(logprob: float) -> float:
    """As many digits as F32 logits have to give."""
    return round(float(logprob), 6)
