"""The machine: what the library uses of it, and its ceilings: memory bandwidth and arithmetic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastgpt_c.errors import FastGPTError
from fastgpt_c.io.atomic_files import write_text
from fastgpt_c.io.cache_dir import cache_dir
from fastgpt_c.native.arguments import checked_n_threads
from fastgpt_c.native.lib import check, create, ffi, lib

# As Linux spells them in /proc/cpuinfo: features that kernels of this engine or others use.
CPU_FEATURES = (
    "sse4_2", "fma", "f16c", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


@dataclass(frozen=True)
class Roofline:
    """The ceilings of a machine with n_threads (roofline model: Williams, Waterman and Patterson 2009).

    A multiply-add counts as two operations; 0 where the instruction set in use has no such arithmetic.
    """

    n_threads: int
    read_bytes_per_second: float
    f32_operations_per_second: float
    bf16_operations_per_second: float
    int8_operations_per_second: float


def roofline(n_threads: int | None = None) -> Roofline:
    """Measures for some tenths of a second, with n_threads (None or 0 = the usable cores).

    Raises UsageError, MemoryError, and FastGPTError where the system refuses a thread.
    """
    pool = create(lib.fastgpt_pool_create, checked_n_threads(n_threads), free=lib.fastgpt_pool_free)
    out = ffi.new("fastgpt_roofline *")
    check(lib.fastgpt_measure_roofline(pool, out))
    return Roofline(**{name: getattr(out, name) for name in Roofline.__dataclass_fields__})


def best_roofline(n_threads: int | None = None) -> Roofline:
    """Measures as roofline does, and returns the best of each rate that was measured on this machine so far.

    Other programs can only make a measurement worse, so the best of several is closest to the machine's ceiling.  It is
    stored in io.cache_dir, by CPU name, number of threads, kernels and version of the library; where nothing can be
    stored, the result is the new measurement.  Raises as roofline does.
    """
    now = roofline(n_threads)
    known = facts()
    key = {name: known[name] for name in ("cpu", "kernels", "version")} | {"n_threads": now.n_threads}
    name = re.sub(r"[^\w.]+", "-", "-".join(map(str, key.values())))
    try:
        path = cache_dir() / "roofline" / f"{name}.json"
    except FastGPTError:  # no home
        return now
    kept = _kept_roofline(path, now.n_threads) or now
    best = Roofline(**{rate: max(value, getattr(kept, rate)) for rate, value in asdict(now).items()})
    with suppress(OSError, FastGPTError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(key | asdict(best), indent=1) + "\n")
    return best


def _kept_roofline(path: Path, n_threads: int) -> Roofline | None:
    """The rates in the file, or None where they are absent or implausible."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        rates = {name: float(kept[name]) for name in Roofline.__dataclass_fields__ if name != "n_threads"}
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    sensible = all(0 <= rate < 1e18 for rate in rates.values()) and rates["read_bytes_per_second"] >= 1
    return Roofline(n_threads, **rates) if sensible and rates["f32_operations_per_second"] >= 1 else None


def facts() -> dict[str, Any]:
    """Version, BLAS, kernels, CPU and cores, by name; for JSON."""
    cores = lib.fastgpt_core_counts()
    model, features = cpu()
    return {
        "version": version("fastgpt-c"),
        "blas": ffi.string(lib.fastgpt_blas_name()).decode(),
        "kernels": ffi.string(lib.fastgpt_kernels_name()).decode(),
        "kernels_available": list(_kernels_available()),
        "cpu": model,
        "cpu_features": features,
        "usable_cores": cores.usable,
        "online_cores": cores.online,
        "affinity_cores": cores.affinity or None,
        "cgroup_quota_cores": cores.quota or None,
    }


def cpu(path: Path = Path("/proc/cpuinfo")) -> tuple[str | None, list[str]]:
    """The CPU's name and which of CPU_FEATURES it has; (None, []) where the system has no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None, []
    rows = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    present = set((rows.get("flags") or rows.get("Features") or "").split())
    return rows.get("model name"), [name for name in CPU_FEATURES if name in present]


def _kernels_available() -> Iterable[str]:
    i = 0
    while (name := lib.fastgpt_kernels_available(i)) != ffi.NULL:
        yield ffi.string(name).decode()
        i += 1
