#!/usr/bin/env bash
# Makes what a release would publish, and publishes nothing: builds the sdist and, from it, the wheel; checks both;
# installs the wheel into a fresh environment, and runs README's first command from there.
#
#     tools/release_dry_run.sh             throws the files away
#     tools/release_dry_run.sh FOLDER      leaves them in FOLDER, which must not exist
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dist=${1:-$work/dist}

fail() { echo "$*" >&2; exit 1; }

[ ! -e "$dist" ] || fail "$dist is there already"

# The one place where the version is written.
version=$(sed -n 's/^project(fastgpt VERSION \([0-9.]*\) .*/\1/p' csrc/CMakeLists.txt)
[ -n "$version" ] || fail "csrc/CMakeLists.txt has no line project(fastgpt VERSION ...)"
grep -qF "## [$version]" CHANGELOG.md || fail "CHANGELOG.md has no section [$version]"

python3 -m venv "$work/tools"
"$work/tools/bin/pip" install -q build twine
"$work/tools/bin/python" -m build --outdir "$dist" . >"$work/log" 2>&1 || { tail -50 "$work/log"; fail "no sdist and wheel"; }
sdist=$dist/fastgpt_c-$version.tar.gz
wheel=$(echo "$dist/fastgpt_c-$version"-*.whl)
[ -f "$sdist" ] && [ -f "$wheel" ] || fail "$dist should have an sdist and a wheel of $version, but has: $(ls "$dist")"
"$work/tools/bin/twine" check --strict "$sdist" "$wheel"

python3 -m venv "$work/user"
"$work/user/bin/pip" install -q "$wheel"
installed=$("$work/user/bin/fastgpt-c" config --version)
[ "$installed" = "$version" ] || fail "the wheel of $version says that it is $installed"
command=$(sed -n 's/^pip install \. && \(fastgpt-c generate\)/\1/p' README.md)
[ -n "$command" ] || fail "README.md has no line  pip install . && fastgpt-c generate"
echo "\$ $command"
(cd "$work" && PATH=$work/user/bin:$PATH bash -c "$command") | tee "$work/story"
[ "$(wc -w <"$work/story")" -gt 40 ] || fail "that is no story"
du -h "$sdist" "$wheel" | sed "s|$dist/||"
