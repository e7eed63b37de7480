"""Runs each example as its README tells, in a copy outside of this repository, and compares what it prints.

    python tools/run_examples.py [LANGUAGE ...]

Uses the fastgpt-c that is installed.  A language whose tools are missing is left out with a line that says so; with
--require the ones named must run.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[1] / "examples"
NEEDS = {
    "c": ["cc"],
    "cpp": ["c++"],
    "fortran": ["gfortran"],
    "go": ["go", "cc"],
    "java": ["javac", "java", "/usr/share/java/jna.jar"],
    "lua": ["luajit"],
    "node": ["node", "npm"],
    "rust": ["cargo", "cc"],
}
PROMPT, N_LIKELIEST, N_NEW = "Once upon a time", 5, 40


def expected_output() -> str:
    """What every example prints after its first line: the likeliest tokens, then the command's greedy text."""
    import fastgpt_c

    with fastgpt_c.load() as model, model.session() as session:
        logits = session.prefill(model.encode(PROMPT)).astype(np.float64)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        likeliest = np.argsort(-p)[:N_LIKELIEST]
        table = "".join(f"{100 * p[token]:5.1f}%  {model.decode([int(token)])}\n" for token in likeliest)
    command = ["fastgpt-c", "generate", PROMPT, "--temperature", "0", "-n", str(N_NEW)]
    return table + subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd="/").stdout


def build_lines(language: str) -> str:
    """The README's one block of shell commands."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", (EXAMPLES / language / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    if len(blocks) != 1:
        raise SystemExit(f"examples/{language}/README.md has {len(blocks)} blocks of shell commands instead of one")
    return str(blocks[0])


def run_example(language: str, expected: str) -> bool:
    """Whether the example prints what it should."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / language
        shutil.copytree(EXAMPLES / language, copy)
        command = ["bash", "-euc", build_lines(language)]
        done = subprocess.run(command, cwd=copy, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    error, _, rest = done.stdout.partition("\n")
    right = done.returncode == 0 and error.startswith("no story: missing.gguf: ") and rest == expected
    print(f"{language}: {'the same' if right else f'WRONG (exit status {done.returncode}):'}", flush=True)
    if not right:
        print(done.stdout, "instead of\n\n", expected, sep="")
    return right


def missing(language: str) -> list[str]:
    return [tool for tool in NEEDS[language] if not (shutil.which(tool) or Path(tool).is_file())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help=", ".join(NEEDS))
    parser.add_argument("--require", action="store_true", help="fail where a tool is missing")
    args = parser.parse_args()
    expected = expected_output()
    wrong = []
    for language in args.languages or NEEDS:
        if lacking := missing(language):
            print(f"{language}: left out, since {' and '.join(lacking)} is not installed")
            wrong += [language] * args.require
        elif not run_example(language, expected):
            wrong.append(language)
    print(f"{len(wrong)} examples failed: {' '.join(wrong)}" if wrong else "all of them print the same")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
