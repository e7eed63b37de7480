"""Each kernel alone against the ceilings of the machine, by instruction set.

    python bench/kernels.py                          builds bench/kernels.c, and runs every family of kernels
    python bench/kernels.py --isa avx512 --threads 2 --json

Columns: bytes of weights a second, from memory and from the cache, with the share of the read bandwidth; operations a
second from the cache, with the share of what the instruction set can do (f32, or int8 for weights in blocks, or bf16
for BF16 matrices).  Reading from memory more than 100% is noise.  Needs cmake and a C compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.report import as_table

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ("portable", "avx2", "avx512", "amx", "neon")
NOT_TO_BE_HAD = 2  # the program's exit status for a family that this machine lacks
BLOCKS = ("Q8_0", "Q4_0", "Q6_K")

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", nargs="+", choices=FAMILIES, default=FAMILIES, help="families (all that there are)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads, each with work of its own (1)")
    parser.add_argument("--build", type=Path, metavar="DIR", help="folder to build in (a temporary one)")
    parser.add_argument("--json", action="store_true", help="print the records, one JSON object a line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        program = build(args.build or Path(temporary))
        for family in args.isa:
            lines = run(program, family, args.threads)
            if args.json:
                print("\n".join(lines), flush=True)
            elif lines:
                print(table([json.loads(line) for line in lines]), flush=True)


def build(folder: Path, target: str = "bench_kernels") -> Path:
    """A program of bench/.  No BLAS: kernels use none."""
    options = ["-DFASTGPT_BENCH=ON", "-DFASTGPT_BLAS=Native"]
    for command in (
        ["cmake", "-S", str(ROOT / "csrc"), "-B", str(folder), *options],
        ["cmake", "--build", str(folder), "--target", target],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / target


def run(program: Path, family: str, n_threads: int) -> list[str]:
    """What it prints; nothing where the machine has no such kernels.  family "" = as the environment has it."""
    environment = {**os.environ, **({"FASTGPT_ISA": family} if family else {})}
    done = subprocess.run([program, str(n_threads)], env=environment, capture_output=True, text=True)
    if done.returncode == NOT_TO_BE_HAD:
        print(f"{family}: not on this machine", file=sys.stderr)
        return []
    done.check_returncode()
    return done.stdout.splitlines()


# ---- Tables ----


def table(records: list[Record]) -> str:
    """Markdown of one family: the ceilings first, then a row for each kernel, type and number of tokens."""
    ceiling, *rows = records
    title = (
        f"## {ceiling['family']}, {ceiling['n_threads']} threads: {ceiling['read'] / 1e9:.1f} GB/s, "
        f"{ceiling['f32'] / 1e9:.0f} f32, {ceiling['bf16'] / 1e9:.0f} bf16, {ceiling['int8'] / 1e9:.0f} int8 GFLOP/s"
    )
    head = ["kernels", "kernel", "type", "tokens", "GB/s from memory", "of bandwidth", "GB/s from cache",
            "GFLOP/s from cache", "of peak"]  # fmt: skip
    return f"{title}\n\n{as_table(head, body(rows, ceiling))}\n"


def body(rows: list[Record], ceiling: Record) -> Iterator[list[str]]:
    """A row from memory and the one from the cache stand in one line."""
    lines: dict[tuple[object, ...], dict[bool, Record]] = {}
    for row in rows:
        key = (row["kernels"], row["kernel"], row["type"], row["n_tokens"])
        lines.setdefault(key, {})[row["cached"]] = row
    for key, both in lines.items():
        memory, cache = both.get(False), both[True]
        rate, peak = cache["operations_per_second"], ceiling[kind_of(cache)]
        yield [
            *map(str, key),
            f"{memory['bytes_per_second'] / 1e9:.1f}" if memory else "",
            f"{memory['bytes_per_second'] / ceiling['read']:.0%}" if memory else "",
            f"{cache['bytes_per_second'] / 1e9:.1f}",
            f"{rate / 1e9:.1f}" if rate else "",
            f"{rate / peak:.0%}" if rate and peak else "",
        ]


def kind_of(row: Record) -> str:
    """The arithmetic that bounds it."""
    if row["kernel"] in ("gemm_bf16", "stream_bf16"):
        return "bf16"
    of_bytes = row["kernel"] == "gemm_q8" or (row["kernel"] == "dot_rows" and row["type"] in BLOCKS)
    return "int8" if of_bytes else "f32"


if __name__ == "__main__":
    main()
