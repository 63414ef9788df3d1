#!/usr/bin/env bash
# Pre-trains on several GPUs with torchrun: bash recipes/pretrain_torchrun.sh DATA RUN [SIZE] [options]
#
# Arguments as for recipes/pretrain.sh. Each GPU takes a batch of its own: with 8 GPUs an update sees 8 times the tokens.
#
#   HMTL_PROCESSES   GPUs to use on this machine (default: all)
#   HMTL_NODES       machines (default 1). On each of them run this command with
#   HMTL_NODE_RANK     its number, from 0, and
#   HMTL_MASTER        host:port of machine 0, for example node0:29500
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 2 ] || exec bash "$repo/recipes/pretrain.sh"
python=$(bash "$repo/scripts/setup.sh" --python)
gpus=$("$python" -W ignore -c 'import torch; print(torch.cuda.device_count())')
[ "$gpus" -gt 0 ] || { echo "error: torch sees no GPU here: use recipes/pretrain_two_processes.sh" >&2; exit 1; }
processes=${HMTL_PROCESSES:-$gpus} nodes=${HMTL_NODES:-1}
[[ "$processes" =~ ^[1-9][0-9]*$ ]] || { echo "error: HMTL_PROCESSES=$processes: give a whole number from 1" >&2; exit 1; }
[[ "$nodes" =~ ^[1-9][0-9]*$ ]] || { echo "error: HMTL_NODES=$nodes: give a whole number from 1" >&2; exit 1; }
launcher=("$python" -P "$repo/hmtl_plugin/fairseq_hooks/torchrun.py" --nproc_per_node "$processes" --no-python)
if [ "$nodes" -gt 1 ]; then
    master=${HMTL_MASTER:?give host:port of machine 0}
    [[ "$master" =~ :[0-9]+$ ]] || { echo "error: HMTL_MASTER=$master: give host:port, as in node0:29500" >&2; exit 1; }
    launcher+=(--nnodes "$nodes" --node_rank "${HMTL_NODE_RANK:?give the number of this machine, from 0}")
    launcher+=(--master_addr "${master%:*}" --master_port "${master##*:}")
else
    launcher+=(--standalone)
fi
HMTL_LAUNCHER=$(printf '%q ' "${launcher[@]}")
export HMTL_LAUNCHER
exec bash "$repo/recipes/pretrain.sh" "$@"
