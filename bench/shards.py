"""What shards cost, and how they grow: planning, memory, workers side by side, Ray's tasks.

    python bench/shards.py                   all but Ray
    python bench/shards.py --ray             Ray's part, too (starts small clusters on this machine)

Prints one table; every figure is measured here, in one run.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LINE = json.dumps({"prompt": "Once upon a time there was " + "a very " * 25}).encode() + b"\n"
SPARSE_BYTES = 20 << 30
PLAN_BYTES = 2 << 30
N_LINES = 400
SHARD_COUNTS = (1000, 100_000)
N_RAY_LINES = 4000
N_RAY_SHARDS = 80


def measured(*arguments: str | Path, **environment: str) -> tuple[float, float]:
    """Runs fastgpt-c -> seconds, and MB that it had in memory at most."""
    command = [sys.executable, "-P", "-c", MEASURE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
    seconds, kilobytes = done.stdout.split()[-2:]
    return float(seconds), float(kilobytes) / 1024


MEASURE = """
import resource, sys, time
from fastgpt_c.cli.__main__ import main
begin = time.perf_counter()
status = main(["batch", *sys.argv[1:]])
print(f"\\n{time.perf_counter() - begin} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
sys.exit(status)
"""


def show(what: str, value: str) -> None:
    print(f"| {what} | {value} |", flush=True)


def write_lines(path: Path, n: int) -> Path:
    with path.open("wb") as file:
        for i in range(n):
            file.write(json.dumps({"prompt": f"Once upon a time {i}", "max_tokens": 50}).encode() + b"\n")
    return path


def plan_speed(folder: Path) -> None:
    source = folder / "large.jsonl"
    block = LINE * ((8 << 20) // len(LINE))
    with source.open("wb") as file:
        while file.tell() < PLAN_BYTES:
            file.write(block)
    seconds, memory = measured(source, f"{folder / 'speed'}/", "--shard-bytes", "32M")
    show(f"planning {source.stat().st_size / 1e9:.1f} GB of lines of {len(LINE)} bytes",
         f"{source.stat().st_size / seconds / 1e6:,.0f} MB/s, {memory:.0f} MB of memory")  # fmt: skip
    source.unlink()


def sparse_input(folder: Path) -> None:
    """Holes between line ends: each line is longer than 64 MiB, and so an error record."""
    source = folder / "sparse.jsonl"
    with source.open("wb") as file:
        for end in range(256 << 20, SPARSE_BYTES + 1, 256 << 20):
            file.seek(end - 1)
            file.write(b"\n")
    n_gb = source.stat().st_size / (1 << 30)
    seconds, memory = measured(source, f"{folder / 'sparse'}/", "--shard-bytes", "1G")
    show(f"planning a sparse file of {n_gb:.0f} GB", f"{n_gb * 1074 / seconds:,.0f} MB/s, {memory:.0f} MB of memory")
    seconds, memory = measured(folder / "sparse", "--shard", "0/1", "--allow-errors")
    show("its shards, by one process", f"{seconds:.0f} s, {memory:.0f} MB of memory")
    seconds, memory = measured(folder / "sparse", "--merge", folder / "merged", "--allow-errors")
    show("merged", f"{seconds:.1f} s, {memory:.0f} MB of memory")
    source.unlink()


def workers_side_by_side(folder: Path, rounds: int) -> None:
    """2 processes of 1 thread and 1 process of 2 threads do the same shards, by turns."""
    source = write_lines(folder / "in.jsonl", N_LINES)
    size = str(source.stat().st_size // 8)
    rates: dict[str, list[float]] = {
        "1 worker x 2 threads": [],
        "2 workers x 1 thread": [],
        "local engine, 2 threads": [],
    }
    for round in range(rounds):
        for name, rate in rates.items():
            out = folder / f"{name[:2].strip()}-{round}"
            commands = [[source, folder / f"local-{round}", "--threads", "2"]]
            if not name.startswith("local"):
                measured(source, f"{out}/", "--shard-bytes", size)
                n = int(name[0])
                commands = [[out, "--shard", f"{i}/{n}", "--threads", str(2 // n)] for i in range(n)]
            begin = time.perf_counter()
            processes = [subprocess.Popen(["fastgpt-c", "batch", *map(str, command)]) for command in commands]
            assert [process.wait() for process in processes] == [0] * len(commands)
            rate.append(50 * N_LINES / (time.perf_counter() - begin))
    best = {name: max(rate) for name, rate in rates.items()}
    for name, rate in best.items():
        show(name, f"{rate:,.0f} tokens/s")
    ratio = best["2 workers x 1 thread"] / best["1 worker x 2 threads"]
    show("2 workers x 1 thread, of 1 worker x 2 threads", f"{ratio:.2f}")


# ---- Ray ----------------------------------------------------------------------------------------------------


@contextmanager
def cluster() -> Iterator[Any]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from ray_cluster import ray_cluster

    with ray_cluster(2) as cluster:
        yield cluster


def ray_cost(folder: Path, rounds: int) -> None:
    """Seconds a thousand lines beside the local engine by turns, in shards of 50 lines; texts of one token, so that
    what is around them counts.  Then how a large job grows with what a task cost here."""
    source = folder / "ray.jsonl"
    source.write_bytes(b"".join(b'{"prompt": "Once %d", "max_tokens": 1}\n' % i for i in range(N_RAY_LINES)))
    ray, local = [], []
    with cluster() as running:
        for round in range(rounds):
            out = folder / f"ray-{round}"
            measured(source, f"{out}/", "--shard-bytes", str(source.stat().st_size // N_RAY_SHARDS))
            ray.append(measured(out, "--ray", running.address))
            local.append(measured(source, folder / f"ray-local-{round}", "--threads", "2"))
    (seconds, memory), (beside, _) = min(ray), min(local)
    thousands = N_RAY_LINES / 1000
    show(f"Ray: {N_RAY_LINES:,} lines of one token, {N_RAY_SHARDS} shards",
         f"{seconds / thousands:.2f} s a 1,000 lines, {memory:.0f} MB of memory")  # fmt: skip
    show("the local engine", f"{beside / thousands:.2f} s a 1,000 lines")
    growth(folder, max(seconds - beside, 0.0) / N_RAY_SHARDS)


def growth(folder: Path, between: float) -> None:
    """Simulates 10^8 prompts of 50 tokens on 1 to 1,000 workers of one thread.

    A shard's seconds are its tokens times the seconds a token of a shard measured here, with a thread of its own: each
    of the measured ones in its turn, so that the spread between shards is in it.
    """
    source, out = write_lines(folder / "growth.jsonl", N_LINES), folder / "growth"
    measured(source, f"{out}/", "--shard-bytes", str(source.stat().st_size // 16))
    measured(out, "--shard", "0/1", "--threads", "1")
    done = [json.loads(path.read_bytes()) for path in sorted(out.glob("*.done"))]
    costs = [shard["seconds"] / shard["tokens"] for shard in done]
    show("a task: seconds a 1,000 tokens, least to most", f"{min(costs) * 1000:.2f} to {max(costs) * 1000:.2f}")
    show("a task: what the driver takes between two", f"{between * 1000:.0f} ms at most")
    for n_shards in (1000, 10_000):
        n_tokens = 100_000_000 * 50 / n_shards
        shards = [n_tokens * costs[i % len(costs)] for i in range(n_shards)]
        one = simulated(shards, 1, between)
        times = ((n, simulated(shards, n, between)) for n in (1, 2, 10, 100, 1000))
        cells = (f"{n:,}: {seconds / 3600:,.1f} h ({one / seconds / n:.0%})" for n, seconds in times)
        show(f"simulated: {n_shards:,} shards on n workers (share of n times as fast)", ", ".join(cells))


def simulated(shards: list[float], n_workers: int, between: float) -> float:
    """Seconds until all shards are done: in order, each goes to the worker that is free first, and one driver hands out
    a shard every `between` seconds at most."""
    free = [0.0] * n_workers
    handed = 0.0
    for seconds in shards:
        handed = max(handed + between, free[0])
        heapq.heapreplace(free, handed + seconds)
    return max(free)


def driver_memory(folder: Path) -> None:
    """A driver whose shards are done but for 100: it plans, lists, and runs the rest."""
    with cluster() as running:
        for n in SHARD_COUNTS:
            source, out = folder / f"{n}.jsonl", folder / f"{n}"
            source.write_bytes(b'{"prompt": "Once", "max_tokens": 1}\n' * n)
            planning, plan_memory = measured(source, f"{out}/", "--shard-bytes", "1")
            for i in range(100, n):
                (out / f"part-{i:05d}.done").touch()
            seconds, memory = measured(out, "--ray", running.address)
            show(f"Ray: {n:,} shards planned in {planning:.1f} s ({plan_memory:.0f} MB); driver, 100 left",
                 f"{seconds:.1f} s, {memory:.0f} MB of memory")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="Ray's part, too")
    parser.add_argument("--only", nargs="*", default=[], help="plan, sparse, workers, cost, driver")
    args = parser.parse_args()
    parts: dict[str, Callable[[Path], None]] = {
        "plan": plan_speed,
        "sparse": sparse_input,
        "workers": lambda folder: workers_side_by_side(folder, args.rounds),
    }
    if args.ray or args.only:
        parts |= {"cost": lambda folder: ray_cost(folder, args.rounds), "driver": driver_memory}
    print("| | |\n|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for part, measure in parts.items():
            if not args.only or part in args.only:
                measure(Path(name))


if __name__ == "__main__":
    main()
