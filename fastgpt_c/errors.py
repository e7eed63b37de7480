"""Every exception that fastgpt_c raises on purpose."""

from __future__ import annotations

from collections.abc import Sequence


class FastGPTError(Exception):
    """Base of the errors below."""


class ModelFileError(FastGPTError):
    """A model file, checkpoint or saved session cannot be read or written, is damaged, or asks for something not
    implemented."""


class ContextFullError(FastGPTError):
    """The prompt and what is to follow do not fit into n_ctx positions."""


class UsageError(FastGPTError, ValueError):
    """An argument is outside its range."""


class Cancelled(FastGPTError):
    """A step was cancelled; its session is as it was before."""


class BatchError(FastGPTError):
    """Some prompts of a batch failed; the others did not.

    results  a Completion or a FastGPTError for each prompt, in their order
    """

    def __init__(self, results: Sequence[object]) -> None:
        failed = [i for i, result in enumerate(results) if isinstance(result, FastGPTError)]
        super().__init__(
            f"{len(failed)} of {len(results)} prompts failed; .results has what came of each.  "
            f"The first was prompt {failed[0]}: {results[failed[0]]}"
        )
        self.results = results

    def __reduce__(self) -> tuple[type[BatchError], tuple[Sequence[object]]]:
        """For pickle and copy: made of the results again."""
        return type(self), (self.results,)


class NotBuiltError(FastGPTError, ImportError):
    """The package has no compiled part, as in the folder of its sources."""


def not_built() -> NotBuiltError:
    """The error for this installation."""
    return NotBuiltError(
        f"{__file__.rpartition('/')[0]}: this fastgpt_c has no compiled part, as in the folder of its sources.  "
        "If fastgpt-c is installed, start Python in another folder, or with the option -P (from 3.11 on), so that "
        "it finds the installed one; if not, install it with:  pip install ."
    )


class MissingExtraError(FastGPTError, ImportError):
    """An optional package is needed; the text has the command that installs it."""


def missing_extra(extra: str, purpose: str) -> MissingExtraError:
    """The error for a purpose ("reading checkpoints") that needs pip's fastgpt-c[extra]."""
    return MissingExtraError(
        f"{purpose} needs optional packages.  Install them with:  pip install 'fastgpt-c[{extra}]'"
    )
