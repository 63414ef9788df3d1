#!/usr/bin/env bash
# Checks the project: bash scripts/test.sh [--all] [arguments for pytest]
#
# Installs first if needed (scripts/setup.sh), then runs ruff, mypy and pytest. --all adds the tests marked slow.
#
#   HMTL_TEST_WORKERS  processes that run tests side by side (default: the cores, 4 at most; 0: none, good for --pdb)
#   HMTL_DATA_DIR      folder with real text and tasks; tests that want it are skipped without (see tests/conftest.py)
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

selection=()
if [ "${1:-}" = --all ]; then
    selection=(-m "slow or not slow") # replaces the 'not slow' of pyproject.toml
    shift
fi

python=$(bash scripts/setup.sh --python)
cores=$("$python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
workers=${HMTL_TEST_WORKERS:-$((cores < 4 ? cores : 4))}
# Each test process gets its share of the cores: more threads than cores make torch many times slower.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((workers > 1 ? (cores + workers - 1) / workers : cores))}
export TOKENIZERS_PARALLELISM=false
parallel=()
if [ "$workers" -gt 1 ] && "$python" -c 'import xdist' 2>/dev/null; then
    parallel=(-n "$workers" --dist loadfile) # a file stays in one process, so that its fixtures are made once
fi

failed=
echo "== ruff"
"$python" -m ruff check . || failed="$failed ruff"
echo "== mypy"
sources=(hmtl_plugin)
for folder in scripts benchmarks; do
    if compgen -G "$folder/*.py" >/dev/null; then sources+=("$folder"); fi
done
"$python" -m mypy "${sources[@]}" || failed="$failed mypy"
echo "== pytest"
"$python" -m pytest --durations=15 ${parallel[@]+"${parallel[@]}"} ${selection[@]+"${selection[@]}"} "$@" || failed="$failed pytest"

[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
