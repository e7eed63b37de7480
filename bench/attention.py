"""How fast decode attention reads KV caches, and what draws cost, beside the read bandwidth of the same run.

    python bench/attention.py                      builds bench/attention.c, and runs it with 1 and 2 threads
    python bench/attention.py --isa avx2 --threads 2 --json

A row is one new token of each sequence, in 12 layers of 12 heads of 64 values.  "of bandwidth" is the time of a plain
sum over the same bytes by the same threads, which took turns with attention, beside that of attention.  Caches together
are far larger than those of the CPU.  Draws are of 32 rows of 50,257 logits that fall off as those of a trained model.
Needs cmake and a C compiler.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.report import as_table
from kernels import FAMILIES, build, run

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", nargs="+", choices=FAMILIES, help="families of kernels (the best of this machine)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="threads (1 2)")
    parser.add_argument("--build", type=Path, metavar="DIR", help="folder to build in (a temporary one)")
    parser.add_argument("--json", action="store_true", help="print the records, one JSON object a line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        program = build(args.build or Path(temporary), "bench_attention")
        for family in args.isa or [""]:
            for n_threads in args.threads:
                lines = run(program, family, n_threads)
                print("\n".join(lines) if args.json else table([json.loads(line) for line in lines]), flush=True)


def table(records: list[Record]) -> str:
    """Markdown of one family and number of threads: attention, then draws."""
    if not records:
        return ""
    reads = [r for r in records if "bytes" in r]
    draws = [r for r in records if "draw" in r]
    title = f"## {records[0]['kernels']}, {records[0]['n_threads']} threads"
    head = ["cache", "sequences", "positions", "MB", "ms", "GB/s", "plain read GB/s", "of bandwidth"]
    body = [
        [
            r["type"],
            str(r["n_sequences"]),
            str(r["n_past"]),
            f"{r['bytes'] / 1e6:.1f}",
            f"{r['seconds'] * 1e3:.2f}",
            f"{r['bytes'] / r['seconds'] / 1e9:.1f}",
            f"{r['bytes'] / r['read_seconds'] / 1e9:.1f}",
            f"{r['read_seconds'] / r['seconds']:.0%}",
        ]
        for r in reads
    ]
    drawn = [[r["draw"], str(r["n_rows"]), f"{r['seconds'] * 1e3:.2f}"] for r in draws]
    return f"{title}\n\n{as_table(head, body)}\n\n{as_table(['draw', 'rows', 'ms'], drawn)}\n"


if __name__ == "__main__":
    main()
