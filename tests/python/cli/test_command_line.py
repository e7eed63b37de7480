"""The command line as people type it: mistakes are answered in one line, and names of other programs are known."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from command import SCRIPT, WRONG_USAGE, output_here, output_of, run

import fastgpt_c
from fastgpt_c.cli import config
from fastgpt_c.cli.__main__ import main
from fastgpt_c.cli.commands import MODULES, make_parser, parser_of
from fastgpt_c.cli.foreign_names import OPTIONS, VALUES
from fastgpt_c.cli.option_rules import EXCLUDES, LIMITS, NEEDS, check_rules
from fastgpt_c.cli.parser import Parser, fold
from fastgpt_c.convert import TYPES
from fastgpt_c.errors import UsageError


def complaint(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line about a command line that is wrong."""
    assert main(arguments) == WRONG_USAGE
    stdout, stderr = capfd.readouterr()
    assert (stdout, stderr.count("\n")) == ("", 1), stderr
    assert stderr.startswith("fastgpt-c: ")
    return stderr


# ---- Mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND", "see fastgpt-c --help"]),
        (["sing"], ["'sing'", "see fastgpt-c --help"]),
        (["genrate", "Once"], ["'genrate'", "did you mean generate?"]),
        (["-p", "Once"], ["COMMAND", "before -p", "fastgpt-c generate -p"]),
        (["help", "chatt"], ["'chatt'", "did you mean chat?"]),
        (["generate", "-n", "many"], ["--max-new-tokens: 'many' is not a whole number", "fastgpt-c generate --help"]),
        (["generate", "--temperature", "hot"], ["'hot' is not a number"]),
        (["generate", "-n"], ["a value is missing"]),
        (["generate", "--logit-bias", "50256"], ["ID=BIAS"]),
        (["generate", "--on-overflow", "wrap"], ["'wrap' is none of error, truncate, slide"]),
        (["generate", "--colour"], ["there is no option --colour here"]),
        (["generate", "--repetition-penality", "2"], ["did you mean --repetition-penalty?"]),
        (["generate", "Once", "upon", "a", "time"], ['quote it, as in fastgpt-c generate "Once upon a time"']),
        (["generate", "Once", "-p", "upon"], ["as an argument or with -p, not both"]),
        (["generate", "-", "--grammar", "-"], ["read only once"]),
        (["generate", "x", "-m", "-"], ["cannot come through standard input"]),
        (["info", "a.gguf", "b.gguf"], ["one argument too many: 'b.gguf'"]),
        (["info", "a.gguf", "-m", "b.gguf"], ["not both"]),
        (["convert", "folder"], ["missing: -o/--output", "see fastgpt-c convert --help"]),
        (["download"], ["missing: NAME"]),
    ],
    ids=repr,
)  # fmt: skip
def test_mistakes_are_answered_in_one_line(
    capfd: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    """What is wrong, what is nearest, and which help to read: that of the command itself."""
    said = complaint(capfd, *arguments)
    assert all(word in said for word in words), said


def test_no_error_of_the_system_is_raw(capfd: pytest.CaptureFixture[str], alphabet: Path, tmp_path: Path) -> None:
    """A file that is not there, is a folder or lies in a file: a sentence without Python's numbers."""
    for name in (tmp_path / "none", tmp_path, alphabet / "x"):
        for command in (["generate", "-m", alphabet, "-f", name], ["score", name], ["eval", name]):
            assert main([str(word) for word in command]) == 1
            stderr = capfd.readouterr().err
            assert stderr.startswith(f"fastgpt-c: {name}: ") and stderr.count("\n") == 1
            assert "Errno" not in stderr


# ---- Names -------------------------------------------------------------------------------------------------


def parsers() -> dict[str, Parser]:
    return {name: parser_of(name) for name in MODULES}


def test_underscores_are_as_good_as_dashes() -> None:
    """For every option of every command, with the value behind a space or "="."""
    for parser in parsers().values():
        for option in parser._option_string_actions:
            theirs = option[:2] + option[2:].replace("-", "_")
            assert list(parser._understood([theirs, f"{theirs}=1"])) == [option, f"{option}=1"]


def test_every_foreign_name_has_an_answer() -> None:
    """An option of some command, or a sentence; none of them hides an option of ours but where that is the answer."""
    options = {option for parser in parsers().values() for option in parser._option_string_actions}
    for theirs, answer in OPTIONS.items():
        if answer.startswith("-"):
            assert set(answer.split()) <= options, theirs
        else:
            with pytest.raises(UsageError, match="see fastgpt-c download --help"):
                parser_of("download").parse(["gpt2", theirs])
    assert set(VALUES.values()) <= set(TYPES)


@pytest.mark.parametrize(
    ("command", "theirs", "ours"),
    [
        ("generate", "-t 2 -s 7 --temp 0.5 --repeat-penalty 1.2 --n-predict 9", "threads seed temperature "
         "repetition_penalty max_new_tokens"),
        ("generate", "-p Once -n 3 --max_tokens 9", "text_option max_new_tokens"),
        ("generate", "-f a.txt --num_beams=3", "file beams"),
        ("generate", "--kv-type BF16", "kv_type"),
        ("convert", "x -o y --outtype Q8_0", "type"),
        ("quantize", "x y --type Q8_0", "type"),
    ],
)  # fmt: skip
def test_names_of_other_programs_are_understood(command: str, theirs: str, ours: str) -> None:
    """As if the option here had been given."""
    args = parser_of(command).parse(theirs.split())
    assert set(ours.split()) <= args.given
    assert getattr(args, "type", None) in (None, "q8_0") and getattr(args, "kv_type", "auto") in ("auto", "bf16")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("-c", "n_ctx"), ("--num_return_sequences", "fastgpt-c batch"), ("--do_sample", "--temperature 0"),
        ("-ngl", "CPU"), ("--max_length", "-n"),
    ],
)  # fmt: skip
def test_names_without_a_counterpart_are_answered(capfd: pytest.CaptureFixture[str], option: str, words: str) -> None:
    said = complaint(capfd, "generate", "Once", option, "9")
    assert option in said and words in said


def test_117m_is_openais_first_name_of_the_smallest_model() -> None:
    from fastgpt_c.checkpoints.resolve import SIZES

    assert SIZES["117M"] == SIZES["124M"]


def test_what_follows_two_dashes_is_text(alphabet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert output_here(capfd, "generate", "-m", alphabet, "-n", "0", "--", "--temp") == "--temp\n"


# ---- Options that need or exclude each other ---------------------------------------------------------------


def words_of(parser: Parser, name: str, value: str = "1") -> list[str]:
    """A command line that gives an option, or an argument."""
    action = next(action for action in parser._actions if action.dest == name)
    if action.nargs == 0:
        return [action.option_strings[0]]
    value = str(next(iter(action.choices))) if action.choices else "1=1" if name == "logit_bias" else value
    values = [value] * action.nargs if isinstance(action.nargs, int) else [value]
    return [*action.option_strings[:1], *values]


def needed(command: str) -> list[str]:
    return {"convert": ["x", "-o", "y"], "batch": ["x.jsonl", "y.jsonl"]}.get(command, [])


def refusal(command: str, words: list[str]) -> str:
    parser = parser_of(command)
    with pytest.raises(UsageError) as info:
        check_rules(command, parser, parser.parse([*needed(command), *words]))
    return str(info.value)


@pytest.mark.parametrize("rule", NEEDS, ids=lambda rule: f"{rule.command} {rule.option}")
def test_an_option_that_needs_another(rule: Any) -> None:
    """Alone it is refused, with both names; with the other one it is not."""
    parser = parser_of(rule.command)
    words = words_of(parser, rule.option)
    said = refusal(rule.command, words)
    assert said.startswith(parser.option_of(rule.option)) and f"give {parser.option_of(rule.other)}" in said
    again = parser_of(rule.command)
    check_rules(rule.command, again, again.parse([*needed(rule.command), *words, *words_of(again, rule.other)]))


@pytest.mark.parametrize(
    ("rule", "other"),
    [(rule, other) for rule in EXCLUDES for other in rule.others],
    ids=lambda value: value if isinstance(value, str) else f"{value.command} {value.option}",
)
def test_options_that_exclude_each_other(rule: Any, other: str) -> None:
    """Refused with both names."""
    parser = parser_of(rule.command)
    said = refusal(rule.command, [*words_of(parser, other), *words_of(parser, rule.option)])
    assert parser.option_of(rule.option) in said and parser.option_of(other) in said


@pytest.mark.parametrize(("command", "option", "limit"), LIMITS)
def test_a_minimum_above_its_maximum(command: str, option: str, limit: str) -> None:
    parser = parser_of(command)
    said = refusal(command, [*words_of(parser, option, "5"), *words_of(parser, limit, "4")])
    assert all(word in said for word in (parser.option_of(option), parser.option_of(limit), "5", "4"))


def test_verbose_shows_no_seed_where_none_is_drawn(alphabet: Path) -> None:
    """And names what was given in vain."""
    said = run("generate", "-m", alphabet, "a", "-n", "2", "-v", "--temperature", "0", "--seed", "7").stderr.decode()
    assert "no seed" in said and "seed 7" not in said and "without effect" in said and "--seed" in said


# ---- help, version, - --------------------------------------------------------------------------------------


def test_help_and_version_are_commands(capfd: pytest.CaptureFixture[str]) -> None:
    """What --help and --version print."""
    assert output_here(capfd, "version") == output_here(capfd, "--version")
    assert output_here(capfd, "version") == f"fastgpt-c {metadata.version('fastgpt-c')}\n"
    assert output_here(capfd, "help") == output_here(capfd, "--help") == make_parser().format_help()
    for name in MODULES:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert capfd.readouterr().out == output_here(capfd, "help", name) == parser_of(name).format_help()


@pytest.fixture(params=[60, 80, 200])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    width: int = request.param
    monkeypatch.setenv("COLUMNS", str(width))
    return width


def test_help_is_as_wide_as_the_terminal(columns: int) -> None:
    """No line of any help is longer, and no document is named that an installation does not have."""
    for name, parser in {"": make_parser(), **parsers()}.items():
        text = parser.format_help()
        assert max(map(len, text.splitlines())) <= columns, name
        assert ".md" not in text


def test_tables_are_as_wide_as_the_terminal(columns: int, alphabet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bench = ["bench", "--prefill", "4", "--decode", "", "--batch", "", "--rounds", "1"]
    for command in (["lens", "a b c"], bench, ["profile", "a", "-n", "2", "--no-roofline"]):
        shown = output_here(capfd, *command, "-m", alphabet)
        assert max(map(len, shown.splitlines())) <= columns


def test_folding_keeps_paragraphs_and_rows() -> None:
    text = "one two\nthree\n\nrows:\n  a    first row\n       goes on\n  bb   second\n"
    assert fold(text, 40) == "one two three\n\nrows:\n  a    first row goes on\n  bb   second"
    assert fold(text, 16).splitlines()[2:] == ["rows:", "  a    first row", "       goes on", "  bb   second"]


def test_a_dash_is_standard_input(alphabet: Path) -> None:
    """For texts, files of texts, ids and requests."""
    assert output_of("generate", "-", "-m", alphabet, "-n", "2", stdin=b"a\n") == b"abc\n"
    assert output_of("encode", "-", "-m", alphabet, stdin=b"a") == output_of("encode", "a", "-m", alphabet)
    assert output_of("decode", "-", "-m", alphabet, stdin=b"64 65") == b"ab"
    assert output_of("lens", "-", "-m", alphabet, stdin=b"a") == output_of("lens", "a", "-m", alphabet)
    schema = ["--json-schema", "-", "-n", "9"]
    assert run("generate", "a", "-m", alphabet, *schema, stdin=b'{"const": 1}').stdout in (b"a1\n", b"a")


@pytest.mark.parametrize("way", ["-", "a pipe of the shell"])
def test_requests_through_a_pipe(alphabet: Path, tmp_path: Path, way: str) -> None:
    """batch reads them once, and goes on where it was; its output is no input of its own."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a", "max_tokens": 2}\n{"prompt": "b", "max_tokens": 2}\n')
    shell = {"-": '"$0" batch - "$2" -m "$3" <"$1"', "a pipe of the shell": '"$0" batch <(cat "$1") "$2" -m "$3"'}[way]
    for _ in range(2):
        result = subprocess.run(
            ["bash", "-c", shell, *SCRIPT, source, target, alphabet], capture_output=True, check=False, cwd="/"
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
        texts = [json.loads(line)["response"]["body"]["choices"][0]["text"] for line in target.open()]
        assert texts == ["bc", "cd"]


def test_the_model_of_info(alphabet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert output_here(capfd, "info", "-m", alphabet) == output_here(capfd, "info", alphabet)


# ---- Where it is installed ---------------------------------------------------------------------------------


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Path]:
    """A folder with the package as in a clone: without its compiled part."""
    package = Path(fastgpt_c.__file__).parent
    leave = shutil.ignore_patterns("*.so*", "*.dylib", "models", "lib", "include", "__pycache__")
    shutil.copytree(package, tmp_path / "clone" / "fastgpt_c", ignore=leave)
    return tmp_path / "clone"


@pytest.mark.parametrize("program", [["-c", "import fastgpt_c; fastgpt_c.load()"], ["-m", "fastgpt_c", "info"]])
def test_python_started_in_the_clone(sources: Path, program: list[str]) -> None:
    """It finds the sources before the installed package: a sentence says so, and how to go on."""
    result = subprocess.run(
        [sys.executable, *program], cwd=sources, capture_output=True, check=False, env={"PATH": "/usr/bin:/bin"}
    )
    said = result.stderr.decode().splitlines()[-1]
    assert result.returncode == 1
    assert all(word in said for word in (str(sources / "fastgpt_c"), "another folder", "-P", "pip install ."))


def test_flags_of_an_installation_whose_path_has_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are quoted, as the line with eval that is then shown wants them; other paths bring no words."""
    for name, notes in (("plain", 0), ("a folder's", 1)):
        package = tmp_path / name
        (package / "lib").mkdir(parents=True)
        (package / "lib" / "libfastgpt.so.0").touch()
        monkeypatch.setattr(config, "_package", lambda package=package: package)
        assert main(["config", "--cflags", "--libs"]) == 0
        flags, said = capfd.readouterr()
        assert said.count("eval ") == said.count("\n") == notes
        shell = ["sh", "-c", "eval \"printf '%s\\n' $(cat)\""]
        words = subprocess.run(shell, input=flags, capture_output=True, check=True, text=True).stdout.splitlines()
        assert words[:2] == [f"-I{package}/include", f"-L{package}/lib"]


def test_help_of_a_command_imports_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    """So that it answers at once; nor the modules that cost most."""
    code = (
        "import sys; from fastgpt_c.cli.__main__ import main\n"
        "try: main(['generate', '--help'])\nexcept SystemExit: pass\n"
        "print(*(name for name in sys.modules if name in ('dataclasses', 'inspect', 'difflib') or 'cli.' in name))"
    )
    names = run("-c", code, program=[sys.executable]).stdout.decode().splitlines()[-1].split()
    assert {"fastgpt_c.cli.generate"} == {f"fastgpt_c.cli.{name}" for name in MODULES.values()} & set(names)
    assert not {"dataclasses", "inspect", "difflib"} & set(names)
