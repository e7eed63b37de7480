# common.sh - what .ci/run and .ci/full share.  Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A test must not find the cache or the settings of whoever runs it.
export FASTGPT_CACHE=$work/cache HF_HOME=$work/hf
unset FASTGPT_ISA

step() { printf '\n=== %s (%s)\n' "$*" "$(date +%T)"; }

# Installs Debian packages that are missing, where there is an apt-get to do it.
need() {
    local missing=()
    for package in "$@"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# need_program PROGRAM PACKAGE: the same, unless the program is there from elsewhere.
need_program() { command -v "$1" >/dev/null || need "$2"; }

# The one line of a README that begins with the given words.
readme_line() {
    local lines
    lines=$(grep -E "^$1" README.md)
    [ "$(wc -l <<<"$lines")" -eq 1 ] || { echo "README.md has not one line that begins with $1" >&2; return 1; }
    printf '%s\n' "$lines"
}

new_venv() { python3 -m venv "$1" && . "$1/bin/activate"; }

# c_tests NAME [CMAKE OPTION ...]: builds the library with warnings as errors, and runs the C tests.
c_tests() {
    local build=$work/build-$1
    shift
    cmake -S csrc -B "$build" -DFASTGPT_WERROR=ON -DFASTGPT_TESTS=ON "$@" >"$build.log" 2>&1 || { cat "$build.log"; return 1; }
    cmake --build "$build" -j "$(nproc)" >"$build.log" 2>&1 || { cat "$build.log"; return 1; }
    ctest --test-dir "$build" --output-on-failure -j "$(nproc)"
}

# arm_tests [CTEST OPTION ...]: the C tests for 64-bit Arm, run by QEMU.
arm_tests() {
    local build=$work/build-arm
    [ -d "$build" ] || { cmake -S csrc -B "$build" -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake -DFASTGPT_BLAS=Native \
        -DFASTGPT_WERROR=ON -DFASTGPT_TESTS=ON >"$build.log" 2>&1 || { cat "$build.log"; return 1; }; }
    cmake --build "$build" -j "$(nproc)" >"$build.log" 2>&1 || { cat "$build.log"; return 1; }
    ctest --test-dir "$build" --output-on-failure -j "$(nproc)" "$@"
}

# watched_examples NAME RUNNER [COMPILER OPTION ... -- CMAKE OPTION ...]: installs the library by cmake in $work/NAME,
# and runs the C and C++ examples on it, each by RUNNER.
watched_examples() {
    local tree=$work/$1 runner=$2 options=() flags
    shift 2
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    cmake -S csrc -B "$tree-build" -DFASTGPT_BLAS=Native "${@:2}" >"$tree.log" 2>&1 || { cat "$tree.log"; return 1; }
    cmake --build "$tree-build" -j "$(nproc)" >"$tree.log" 2>&1 || { cat "$tree.log"; return 1; }
    cmake --install "$tree-build" --prefix "$tree" >"$tree.log"
    flags=$(PKG_CONFIG_PATH=$tree/lib/pkgconfig pkg-config --cflags --libs fastgpt)
    options+=(-g -O1 -Wall -Wextra -Wpedantic -Werror $flags "-Wl,-rpath,$tree/lib")
    gcc -std=c11 examples/c/story.c "${options[@]}" -o "$tree/story-c"
    g++ -std=c++17 examples/cpp/story.cpp "${options[@]}" -o "$tree/story-cpp"
    gcc -std=c11 examples/c/two_ways.c "${options[@]}" -o "$tree/two_ways"
    $runner "$tree/story-c" fastgpt_c/models/demo.gguf "Once upon a time"
    $runner "$tree/story-cpp" fastgpt_c/models/demo.gguf "Once upon a time"
    $runner "$tree/two_ways" fastgpt_c/models/demo.gguf
}

# A fresh environment with the wheel of a fresh build and nothing else on PATH than sh: no compiler.
wheel_tests() {
    pip install -q auditwheel
    pip wheel -q --no-deps -w "$work/wheel" .
    auditwheel show "$work"/wheel/*.whl | tee "$work/tags"
    grep -q '"manylinux_2_' "$work/tags"
    python3 -m venv "$work/venv-wheel"
    "$work/venv-wheel/bin/pip" install -q "$(echo "$work"/wheel/*.whl)[test]"
    mkdir "$work/bin" && ln -s /bin/sh "$work/bin/sh"
    PATH="$work/venv-wheel/bin:$work/bin" pytest -q "$@"
}

# python_tests NAME [PIP OPTION ...] [-- PYTEST OPTION ...]: installs the package so built, and runs the tests.
python_tests() {
    local name=$1 pip_options=() && shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do pip_options+=("$1"); shift; done
    [ $# -gt 0 ] && shift
    (
        new_venv "$work/venv-$name"
        pip install -q "${pip_options[@]}" "$root[test]"
        fastgpt-c info | grep blas
        pytest -q "$@"
    )
}
