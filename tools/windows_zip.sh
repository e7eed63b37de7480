#!/bin/sh
# Cross-builds the command for Windows and packs what a user needs into fastgpt-windows-x86_64.zip.
#
#     tools/windows_zip.sh FOLDER [CMAKE OPTION ...]    builds in FOLDER, and leaves the zip there
#
# Needs mingw-w64's GCC (Debian: gcc-mingw-w64-x86-64-win32), CMake and Python.
set -eu
folder=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
cmake -S "$root/csrc" -B "$folder/build" -DCMAKE_TOOLCHAIN_FILE="$root/csrc/cmake/windows.cmake" \
    -DFASTGPT_BLAS=Native -DFASTGPT_WERROR=ON "$@"
cmake --build "$folder/build" --parallel
python3 - "$root" "$folder" <<'PYTHON'
import sys, zipfile
from pathlib import Path

root, folder = map(Path, sys.argv[1:])
models = root / "fastgpt_c" / "models"
readme = """fastgpt - continues a text with a GPT-2 model, on the CPU.\r
\r
  fastgpt.exe -m demo.gguf "Once upon a time"\r
\r
fastgpt.exe --help lists the options.  demo.gguf writes children's stories; demo.md says how it was made.\r
Other models: any GGUF file of GPT-2, such as fastgpt-c convert (pip install fastgpt-c) makes.\r
"""
with zipfile.ZipFile(folder / "fastgpt-windows-x86_64.zip", "w", zipfile.ZIP_DEFLATED) as zip:
    zip.write(folder / "build" / "fastgpt.exe", "fastgpt/fastgpt.exe")
    for name in ("demo.gguf", "demo.md", "demo_credits.tsv"):
        zip.write(models / name, f"fastgpt/{name}")
    zip.write(root / "LICENSE", "fastgpt/LICENSE.txt")
    zip.writestr("fastgpt/README.txt", readme)
PYTHON
echo "$folder/fastgpt-windows-x86_64.zip"
