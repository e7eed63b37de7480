"""Laws of fastgpt-c verify: a file is what its checkpoint is, or the difference is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import CONFIG, edit_tensors, write_checkpoint, write_json

from fastgpt_c.cli.__main__ import main
from fastgpt_c.convert import convert

CHECKPOINT = {**CONFIG, "n_positions": 60, "activation_function": "gelu", "scale_attn_by_inverse_layer_idx": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("torch").set_num_threads(1)  # tiny models gain nothing from more, and a busy machine loses
    pytest.importorskip("transformers")
    return write_checkpoint(tmp_path / "hf", CHECKPOINT)


def test_a_conversion_is_verified(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At once or later; a rounded file is told apart, and judged when asked."""
    file = str(tmp_path / "x.gguf")
    assert main(["convert", str(folder), "-o", file, "--verify"]) == 0
    at_once = capsys.readouterr().out
    assert main(["verify", file, "--against", str(folder)]) == 0
    assert capsys.readouterr().out == at_once
    rows = dict(line.rsplit("  ", 1) for line in at_once.splitlines()[1:3])
    assert float(rows["largest difference"]) < 1e-5
    assert "greedy output parts nowhere" in at_once
    assert main(["convert", str(folder), "-o", file, "--type", "bf16", "--verify"]) == 0
    assert "not judged: weights are rounded to BF16" in capsys.readouterr().out
    assert main(["verify", file, "--against", str(folder), "--tolerance", "1e-5"]) == 1
    assert "more than 1e-05" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["scale_attn_by_inverse_layer_idx", "activation_function", "layer_norm_epsilon"])
def test_another_config_is_found(key: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same weights, and one key that no shape tells of."""
    edit_tensors(lambda tensors: [array.__imul__(8) for array in tensors.values() if array.ndim == 2])(folder)
    convert(folder, tmp_path / "x.gguf")
    other = {"activation_function": "relu", "layer_norm_epsilon": 0.5}.get(key, False)
    write_json(folder / "config.json", {**CHECKPOINT, key: other})
    assert main(["verify", str(tmp_path / "x.gguf"), "--against", str(folder)]) == 1
    shown = capsys.readouterr()
    assert "a logit differs by" in shown.err
    if key == "activation_function":  # the largest of the three changes
        assert "greedy output parts at prompt" in shown.out


def test_what_cannot_be_compared_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "x.gguf")
    convert(folder, Path(file))
    other = write_checkpoint(tmp_path / "other", {**CHECKPOINT, "n_layer": 3})
    for against, culprit in (
        (other, "(265, 60, 3), but"),
        (tmp_path, "has no config.json"),
        (tmp_path / "hf" / "x", "has no config.json"),
    ):
        assert main(["verify", file, "--against", str(against)]) == 1
        assert culprit in capsys.readouterr().err
    (folder / "model.safetensors").write_bytes(b"x")
    assert main(["verify", file, "--against", str(folder)]) == 1
    assert "transformers cannot load it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["verify", "x.gguf", "--against", "hf", "--tolerance", "-1"], "'-1' is not a number from 0 on"),
        (["verify", "x.gguf", "--against", "hf", "--tolerance", "nan"], "'nan' is not a number from 0 on"),
        (["convert", "hf", "-o", "x.gguf", "--tolerance", "1e-3"], "give --verify with it"),
    ],
)
def test_a_tolerance_that_judges_nothing_is_refused(
    arguments: list[str], culprit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(arguments)
    except SystemExit as error:  # of argparse
        status = int(error.code or 0)
    assert status == 2
    assert culprit in capsys.readouterr().err


def test_without_the_extra_the_error_has_the_command(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['transformers'] = None\n"
        "from pathlib import Path; import fastgpt_c; from fastgpt_c.analysis.verify import compare\n"
        "compare(fastgpt_c.load(), Path('.'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert "pip install 'fastgpt-c[verify]'" in done.stderr
