"""The model files of each engine, made once from the same random checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness import venvs
from harness.plan import OURS, Entry
from harness.worker import BENCH, EngineError

N_CTX = 1024
N_EMBD = {"124M": 768, "355M": 1024, "774M": 1280, "1558M": 1600}
CONVERTED = ("f32", "f16", "bf16")
CHECKPOINT_ENGINES = ("PyTorch", "torch.compile", "vLLM")
OPENVINO_ENGINES = ("OpenVINO", "OpenVINO GenAI")

LLAMA_QUANTIZE = """\
import sys, llama_cpp
source, target, type = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}[type]
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), params))
"""

# Bytes that a step reads: all tensors but the embedding of positions, and of tokens where the output is not tied.
GGUF_FACTS = """\
import sys, json, gguf
tensors = {t.name: t for t in gguf.GGUFReader(sys.argv[1]).tensors}
output = tensors.get("output.weight", tensors["token_embd.weight"])
unread = {"position_embd.weight"} | ({"token_embd.weight"} if "output.weight" in tensors else set())
n = sum(int(t.n_bytes) for name, t in tensors.items() if name not in unread)
print(json.dumps({"bytes": n, "embedding": output.tensor_type.name.lower()}))
"""


class Files:
    """work/SIZE/...: what is there is used again; every file or folder appears under its name only when complete."""

    def __init__(self, work: Path, size: str) -> None:
        self.work, self.folder = work, work / size
        self.size = size

    def path(self, entry: Entry) -> Path:
        """What the entry's engine loads.  Raises EngineError where it cannot be made."""
        if entry.engine in CHECKPOINT_ENGINES:
            return self.checkpoint()
        if entry.engine == "CTranslate2":
            return self._made(f"ctranslate2/{entry.type}", lambda to: self._ctranslate2(entry.type, to))
        if entry.engine in OPENVINO_ENGINES:
            weights = "fp32" if entry.weights == "bf16" else entry.weights
            return self._made(f"openvino/{weights}", lambda to: self._openvino(weights, to))
        if entry.engine == OURS or entry.type in CONVERTED:
            return self.gguf(entry.weights)
        return self._made(f"llamacpp/{entry.type}.gguf", lambda to: self._llama_quantize(entry.type, to))

    def checkpoint(self) -> Path:
        tool = venvs.ROOT / "tools" / "make_random_model.py"
        return self._made("checkpoint", lambda to: self._run("ours", tool, self.size, "-o", to))

    def gguf(self, type: str) -> Path:
        """f32, f16 and bf16 by `fastgpt-c convert`, the others by `fastgpt-c quantize`."""
        if type in CONVERTED:
            arguments = ["convert", self.checkpoint(), "--type", type, "-o"]
            return self._made(f"gguf/{type}.gguf", lambda to: self._run("ours", "-m", "fastgpt_c", *arguments, to))
        source = self.gguf("f32")
        make = ["-m", "fastgpt_c", "quantize", source]
        return self._made(f"gguf/{type}.gguf", lambda to: self._run("ours", *make, to, "--type", type))

    def facts(self, entry: Entry) -> tuple[int, str]:
        """Bytes of weights that a step reads, and the type of the embedding."""
        path = self.path(entry)
        if path.suffix == ".gguf":
            facts = json.loads(self._run("ours", "-c", GGUF_FACTS, path))
            return facts["bytes"], facts["embedding"]
        names = {"CTranslate2": "model.bin"} | dict.fromkeys(OPENVINO_ENGINES, "openvino_model.bin")
        n = (path / names.get(entry.engine, "model.safetensors")).stat().st_size - 4 * N_CTX * N_EMBD[self.size]
        stored_as_f32 = entry.type == "bf16"
        return (n // 2 if stored_as_f32 else n), entry.embedding

    # ---- How each is made ----

    def _llama_quantize(self, type: str, to: Path) -> None:
        self._run("llamacpp", "-c", LLAMA_QUANTIZE, self.gguf("f32"), to, type)

    def _ctranslate2(self, type: str, to: Path) -> None:
        arguments = ["--model", self.checkpoint(), "--output_dir", to, "--force"]
        quantized = [] if type == "float32" else ["--quantization", type]
        self._run("ctranslate2", self._script("ctranslate2", "ct2-transformers-converter"), *arguments, *quantized)

    def _openvino(self, weights: str, to: Path) -> None:
        arguments = ["export", "openvino", "--model", self.checkpoint(), "--task", "text-generation-with-past"]
        self._run("openvino", self._script("openvino", "optimum-cli"), *arguments, "--weight-format", weights, to)

    def _script(self, environment: str, name: str) -> Path:
        return venvs.python_of(self.work, environment).with_name(name)

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        path = self.folder / name
        if path.exists():
            return path
        part = path.with_name(f"{path.stem}.part{path.suffix}")
        part.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        print(f"making {path}", file=sys.stderr, flush=True)
        make(part)
        part.rename(path)
        return path

    def _run(self, environment: str, *arguments: object) -> str:
        log = self.work / "log" / "files.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [str(venvs.python_of(self.work, environment)), *map(str, arguments)]
        with log.open("a") as errors:
            run = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=BENCH, env=os.environ)
        if run.returncode:
            raise EngineError(f"cannot make its file: {' '.join(command[1:6])} ... failed; see {log}")
        return run.stdout
