#!/usr/bin/env bash
# Fine-tunes a checkpoint on GLUE: bash recipes/finetune_glue.sh RUN TASK... --glue-dir DIR [options]
#
#   RUN   a checkpoint file, or the folder of a pre-training run
#   TASK  CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE WNLI SNLI, or all
#   DIR   the official files, as scripts/download_glue.sh lays them out
#
# For example
#   bash recipes/finetune_glue.sh runs/books RTE STS-B --glue-dir glue --seeds 1,2,3 --grid lr=1e-4,3e-4 batch-size=16,32
# The architecture and the tokenizer are those of the checkpoint. RUN/glue gets a folder for each task with the best model
# and the leaderboard's files, and submission.zip. The same command again trains only what is not finished. --help says more.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 2 ] || [ "${1:-}" = --help ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
python=$(bash "$repo/scripts/setup.sh" --python)
exec "$python" "$repo/scripts/finetune_glue.py" "$@"
