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
