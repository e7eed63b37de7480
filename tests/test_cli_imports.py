"""The command brings in no more packages than its job needs, and says what to install for the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from command import FAILURE, assert_complains, output_of, run

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


REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.parametrize(
    ("missing", "arguments", "command"),
    [
        ("safetensors", ["convert", "{folder}", "-o", "{folder}/x.gguf"], "pip install 'fastgpt-c[convert]'"),
        ("gguf", ["generate", "a", "-m", "{folder}"], "pip install 'fastgpt-c[convert]'"),
        ("tqdm", ["convert", "{folder}", "-o", "{folder}/x.gguf"], "pip install 'fastgpt-c[convert]'"),
        ("huggingface_hub", ["generate", "a", "-m", "gpt2"], "pip install 'fastgpt-c[hub,convert]'"),
        ("huggingface_hub", ["download", "124M"], "pip install 'fastgpt-c[hub,convert]'"),
    ],
)
def test_missing_extra(tmp_path: Path, missing: str, arguments: list[str], command: str) -> None:
    """Without a package that is optional, the line says what to type to get it."""
    folder = write_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "sitecustomize.py").write_text(REFUSE.format(names=[missing]))
    result = run(
        *(word.format(folder=folder) for word in arguments),
        PYTHONPATH=str(tmp_path),
        FASTGPT_CACHE=str(tmp_path / "cache"),
    )
    assert_complains(result, FAILURE, command)


def test_without_extras_the_main_job_works(alphabet: Path, tmp_path: Path) -> None:
    """A GGUF file needs none of them."""
    (tmp_path / "sitecustomize.py").write_text(REFUSE.format(names=sorted(HEAVY)))
    assert output_of("generate", "-m", alphabet, "a", "-n", "2", PYTHONPATH=str(tmp_path)) == b"abc\n"
