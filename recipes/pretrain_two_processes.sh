#!/usr/bin/env bash
# Pre-trains with two processes on one CPU, over gloo: bash recipes/pretrain_two_processes.sh DATA RUN [SIZE] [options]
#
# Arguments as for recipes/pretrain.sh. Each process takes a batch of its own, so an update sees twice the tokens; with
# '--update-freq 1' against 2 in one process, and without dropout, the weights come out the same.
#
#   HMTL_PROCESSES   how many processes (default 2); the cores are shared between them
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 2 ] || exec bash "$repo/recipes/pretrain.sh"
processes=${HMTL_PROCESSES:-2}
[[ "$processes" =~ ^[1-9][0-9]*$ ]] || { echo "error: HMTL_PROCESSES=$processes: give a whole number from 1" >&2; exit 1; }
python=$(bash "$repo/scripts/setup.sh" --python)
cores=$("$python" -c 'import os; print(os.cpu_count() or 1)')
# torchrun would give each process one thread
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > processes ? cores / processes : 1))}
HMTL_LAUNCHER=$(printf '%q ' "$python" -P "$repo/hmtl_plugin/fairseq_hooks/torchrun.py" --standalone --nproc_per_node "$processes" --no-python)
export HMTL_LAUNCHER
# The launch check of the plugin (hmtl_plugin/fairseq_hooks/launch.py) sets the rest: world size, rank, gloo, legacy_ddp.
exec bash "$repo/recipes/pretrain.sh" "$@" --cpu
