"""Holding every engine to an instruction set, as if the CPU had no better one."""

from __future__ import annotations

import os

# Variables of fastgpt-c, oneDNN (in PyTorch, OpenVINO, vLLM and CTranslate2), CTranslate2, PyTorch and MKL.
VARIABLES = {
    "avx2": {
        "FASTGPT_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "CT2_FORCE_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "avx512": {
        "FASTGPT_ISA": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "CT2_FORCE_CPU_ISA": "AVX512",
        "ATEN_CPU_CAPABILITY": "avx512", "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
    "amx": {},
}  # fmt: skip

# llama.cpp chooses its instruction sets when it is built.
_AVX2 = ("SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2")
_AVX512 = (*_AVX2, "AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16")
LLAMA_SETS = {"avx2": _AVX2, "avx512": _AVX512, "amx": (*_AVX512, "AVX_VNNI")}


def hold_to(isa: str) -> None:
    """Sets the variables for this process and for all that it starts."""
    os.environ.update(VARIABLES[isa])


def llama_flags(isa: str) -> str:
    return " ".join(["-DGGML_NATIVE=OFF", *(f"-DGGML_{name}=ON" for name in LLAMA_SETS[isa])])
