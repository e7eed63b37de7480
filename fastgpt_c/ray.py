"""Prompts that are rows of a Ray dataset: map_prompts.  Needs the extra fastgpt-c[ray].

For files, `fastgpt-c batch --ray` does without data in Ray's object store; see docs/many_machines.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgpt_c.errors import FastGPTError, UsageError, missing_extra
from fastgpt_c.generation.options import BatchKeywords, Options
from fastgpt_c.native.arguments import checked_int, merge_options
from fastgpt_c.native.typing_unpack import Unpack

if TYPE_CHECKING:
    from ray.data import Dataset


def map_prompts(
    dataset: Dataset,
    column: str,
    *,
    model: str | None = None,
    text_column: str = "text",
    error_column: str = "error",
    actors: int | tuple[int, int] = 1,
    threads_per_actor: int = 1,
    batch_size: int = 256,
    max_batch: int = 32,
    **changes: Unpack[BatchKeywords],
) -> Dataset:
    """The dataset with the completion of each row's prompt, by Ray Data's map_batches over a pool of actors.

    column        of the prompts: texts
    model         as for load; a file that all nodes see, or a name
    text_column   of the new texts, null where a prompt failed
    error_column  why it failed, null where it did not
    actors        how many, or the least and the most, between which Ray chooses
    threads_per_actor
                  CPUs of each
    batch_size    rows that an actor takes at once
    max_batch     sequences that it computes together
    changes       fields of Options, as for Model.stream_batch; deterministic=True makes a text independent of its
                  neighbours and of the number of actors.  With a seed, all rows draw from the same one

    Nothing runs before the dataset is consumed; a row is computed again where its actor dies, see Ray Data.  Raises
    UsageError for options that no prompt could use, MissingExtraError without Ray.
    """
    try:
        import ray.data  # noqa: F401  # so that its absence has a name here, not in an actor
    except ImportError as error:
        raise missing_extra("ray", "map_prompts") from error
    options = merge_options(Options, "options", None, changes)
    checked_int("threads_per_actor", threads_per_actor, 1, 1024)
    if len({column, text_column, error_column}) < 3:
        raise UsageError(f"column, text_column and error_column are {column!r}, {text_column!r}, {error_column!r}: "
                         "give three different names")  # fmt: skip
    settings = {
        "column": column, "text_column": text_column, "error_column": error_column, "model": model,
        "n_threads": threads_per_actor, "max_batch": max_batch, "options": options,
    }  # fmt: skip
    return dataset.map_batches(
        Completer,
        fn_constructor_kwargs=settings,
        batch_size=batch_size,
        batch_format="pyarrow",
        num_cpus=threads_per_actor,
        concurrency=actors,
    )


class Completer:
    """An actor of map_prompts: holds a model, and adds two columns to each Arrow table."""

    def __init__(
        self,
        *,
        column: str,
        text_column: str,
        error_column: str,
        model: str | None,
        n_threads: int,
        max_batch: int,
        options: Options,
    ) -> None:
        from fastgpt_c.model import load

        self._column, self._columns = column, (text_column, error_column)
        self._model = load(model, n_threads=n_threads)
        self._options, self._max_batch = options, max_batch

    def __call__(self, table: Any) -> Any:
        """pyarrow.Table -> the same with two columns more."""
        import pyarrow

        prompts = table.column(self._column).to_pylist()
        results: list[tuple[str | None, str | None]] = [(None, "the prompt is null")] * len(prompts)
        rows = [row for row, prompt in enumerate(prompts) if prompt is not None]
        given = [prompts[row] for row in rows]
        for i, result in self._model.stream_batch(given, self._options, max_batch=self._max_batch):
            results[rows[i]] = (None, str(result)) if isinstance(result, FastGPTError) else (result.text, None)
        for i, name in enumerate(self._columns):
            table = table.append_column(name, pyarrow.array([result[i] for result in results], pyarrow.string()))
        return table
