"""The command brings in no more packages than its job needs, and says what to install for the rest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from command import FAILURE, INTERRUPTED, MODULE, SCRIPT, assert_complains, output_of, run

IMPORTED = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
HEAVY = {"torch", "safetensors", "gguf", "huggingface_hub", "tqdm", "ml_dtypes", "tokenizers", "transformers"}


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import fastgpt_c", HEAVY | {"numpy"}),
        ("import fastgpt_c; fastgpt_c.load", HEAVY | {"regex"}),
        ("from fastgpt_c.cli.__main__ import main\ntry: main(['generate', '--help'])\nexcept SystemExit: pass",
         HEAVY | {"numpy", "cffi", "_cffi_backend", "regex"}),
    ],
    ids=["import", "load", "help"],
)  # fmt: skip
def test_what_is_imported(code: str, unwanted: set[str]) -> None:
    """The package brings in nothing of its extras, and --help nothing of the engine either."""
    result = run("-c", f"{code}\n{IMPORTED}", program=[sys.executable])
    assert (result.returncode, result.stderr) == (0, b"")
    names = set(result.stdout.decode().splitlines()[-1].split())
    assert "fastgpt_c" in names
    assert not names & unwanted


AT_IMPORT = """
import contextlib, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)

class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name in {names} or name.partition(".")[0] in {names}:
            {action}

sys.meta_path.insert(0, AtImport())
"""


def at_import(folder: Path, names: list[str], action: str) -> dict[str, str]:
    """The environment of a Python that does this wherever one of the modules is to be imported."""
    (folder / "sitecustomize.py").write_text(AT_IMPORT.format(names=names, action=action))
    return {"PYTHONPATH": str(folder)}


def refuse(folder: Path, names: list[str]) -> dict[str, str]:
    """The environment of a Python that does not have these packages."""
    return at_import(folder, names, 'raise ModuleNotFoundError(f"No module named {name!r}", name=name)')


@pytest.mark.parametrize(
    ("missing", "arguments", "command"),
    [
        ("safetensors", ["convert", "{folder}", "-o", "{folder}/x.gguf"], "pip install 'fastgpt-c[convert]'"),
        ("gguf", ["generate", "a", "-m", "{folder}"], "pip install 'fastgpt-c[convert]'"),
        ("tqdm", ["convert", "{folder}", "-o", "{folder}/x.gguf"], "pip install 'fastgpt-c[convert]'"),
        ("gguf", ["quantize", "{file}", "{folder}/x.gguf", "--type", "q8_0"], "pip install 'fastgpt-c[convert]'"),
        ("huggingface_hub", ["generate", "a", "-m", "gpt2"], "pip install 'fastgpt-c[hub,convert]'"),
        ("huggingface_hub", ["download", "124M"], "pip install 'fastgpt-c[hub,convert]'"),
    ],
)
def test_missing_extra(alphabet: Path, tmp_path: Path, missing: str, arguments: list[str], command: str) -> None:
    """Without a package that is optional, the line says what to type to get it."""
    folder = write_checkpoint(tmp_path / "checkpoint")
    result = run(
        *(word.format(folder=folder, file=alphabet) for word in arguments),
        **refuse(tmp_path, [missing]),
        FASTGPT_CACHE=str(tmp_path / "cache"),
    )
    assert_complains(result, FAILURE, command)


def test_missing_harness(tmp_path: Path) -> None:
    """The same for the adapter that lm-evaluation-harness loads."""
    result = run("-c", "import fastgpt_c.lm_eval_adapter", program=[sys.executable], **refuse(tmp_path, ["lm_eval"]))
    assert result.returncode != 0
    assert "pip install 'fastgpt-c[eval]'" in result.stderr.decode().splitlines()[-1]


def test_without_extras_the_main_job_works(alphabet: Path, tmp_path: Path) -> None:
    """A GGUF file needs none of them."""
    assert output_of("generate", "-m", alphabet, "a", "-n", "2", **refuse(tmp_path, sorted(HEAVY))) == b"abc\n"


CTRL_C = "signal.raise_signal(signal.SIGINT)"
LOST_CTRL_C = "with contextlib.suppress(KeyboardInterrupt): signal.raise_signal(signal.SIGINT)"


@pytest.mark.parametrize("program", [SCRIPT, MODULE], ids=["fastgpt-c", "python -m fastgpt_c"])
@pytest.mark.parametrize(
    ("module", "action"),
    [
        ("fastgpt_c.cli", CTRL_C),
        ("argparse", LOST_CTRL_C),
        ("fastgpt_c.cli.generate", LOST_CTRL_C),
        ("numpy", LOST_CTRL_C),
    ],
)
def test_ctrl_c_during_imports(
    alphabet: Path, tmp_path: Path, program: Sequence[str], module: str, action: str
) -> None:
    """From the first import of the command on it ends with status 130 and not a word, let alone a traceback; also where
    Python, or the module, makes something else of KeyboardInterrupt."""
    result = run("generate", "-m", alphabet, "a", program=program, **at_import(tmp_path, [module], action))
    assert (result.returncode, result.stdout, result.stderr.strip()) == (INTERRUPTED, b"", b"")
