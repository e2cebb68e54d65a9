#!/usr/bin/env bash
# Build the wheel, install it into a fresh environment outside of the checkout, and run what it brings.
# KEEP_WHEEL=1 leaves dist/ as it is afterwards; else the wheel goes again.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d /tmp/lvwheel.XXXXXX)
trap 'rm -rf "$work"' EXIT
pip_flags=(--quiet --disable-pip-version-check)

echo "wheel: building"
.venv/bin/python -m pip wheel "${pip_flags[@]}" --no-deps --no-build-isolation --wheel-dir "$work/dist" .
[ -z "${KEEP_WHEEL:-}" ] || { mkdir -p dist && cp "$work"/dist/*.whl dist/; }

echo "wheel: installing $(basename "$work"/dist/*.whl) into a fresh environment"
"$(.venv/bin/python -c 'import sys; print(sys._base_executable)')" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install "${pip_flags[@]}" "$work"/dist/*.whl

echo "wheel: running it"
here=$PWD
cd "$work"
venv/bin/lvlip --version
for arguments in "lvlip --help" "python -m layers.link --help" "python -m layers.ip --help" \
    "python -m layers.tcp --help" "python -m layers.udp --help" "python -m gateway --help"; do
    # shellcheck disable=SC2086  # several words
    venv/bin/$arguments >help.txt || { cat help.txt; echo "wheel: $arguments failed" >&2; exit 1; }
    [ -s help.txt ] || { echo "wheel: $arguments says nothing" >&2; exit 1; }
done
for name in $(env | sed -n 's/^\(LEVELIP_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
venv/bin/python -P "$here/scripts/wire_transfer.py"
