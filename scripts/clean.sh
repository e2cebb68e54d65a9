#!/usr/bin/env bash
# Remove everything that building, testing and running wrote into the checkout, except .venv.
set -eu
cd "$(dirname "$0")/.."

pidfile=run/supervisord.pid
if [ -f "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null; then
    echo "clean: the stack of this checkout runs; stop it first: .venv/bin/supervisorctl shutdown" >&2
    exit 1
fi
find run -mindepth 1 -maxdepth 1 ! -name .gitignore -exec rm -rf {} + 2>/dev/null || true
rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
find . -path ./.venv -prune -o -path ./.git -prune -o \( -name __pycache__ -o -name '*.egg-info' \) -print0 | xargs -0 rm -rf
