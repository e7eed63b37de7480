"""Every exception that fastgpt_c raises on purpose."""

from __future__ import annotations


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


class MissingExtraError(FastGPTError, ImportError):
    """An optional package is needed; the text has the command that installs it."""


def missing_extra(extra: str, purpose: str) -> MissingExtraError:
    """The error for a purpose ("reading checkpoints") that needs pip's fastgpt-c[extra]."""
    return MissingExtraError(
        f"{purpose} needs optional packages.  Install them with:  pip install 'fastgpt-c[{extra}]'"
    )
