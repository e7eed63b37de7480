#!/bin/sh
# Guards the binary interface: the library's functions and types against csrc/abi/fastgpt.xml, which is committed.
# What is new passes; what changed or is gone fails.  Needs cmake, gcc and Debian's abigail-tools.
#
#     tools/abi.sh check
#     tools/abi.sh update    after an addition, or after a change with a new FASTGPT_ABI_VERSION; commit the result
set -eu
cd "$(dirname "$0")/.."
committed=csrc/abi/fastgpt.xml
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

# Describes the library in file $1.  Nothing of the machine is told: no paths, no lines of the source.
describe() {
    cmake -S csrc -B "$build" -DFASTGPT_BLAS=Native -DCMAKE_BUILD_TYPE=Debug >"$build/log" 2>&1 &&
        cmake --build "$build" -j 2 --target fastgpt >>"$build/log" 2>&1 || { cat "$build/log"; return 1; }
    abidw --exported-interfaces-only --headers-dir csrc/include --drop-private-types --no-corpus-path \
        --no-comp-dir-path --no-show-locs --no-architecture --no-elf-needed --type-id-style hash --out-file "$1" \
        "$build"/libfastgpt.so.*
    sed -i "s|path='$PWD/|path='|" "$1"
}

case "${1:-}" in
update)
    mkdir -p "$(dirname "$committed")"
    describe "$committed"
    ;;
check)
    describe "$build/now.xml"
    abidiff --suppressions csrc/abi/additions.ini --no-added-syms "$committed" "$build/now.xml" || {
        echo "The binary interface changed.  Take the change back, or add 1 to FASTGPT_ABI_VERSION in fastgpt.h," >&2
        echo "then type  tools/abi.sh update  and commit csrc/abi." >&2
        exit 1
    }
    echo "the binary interface is that of $committed, or more"
    ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
