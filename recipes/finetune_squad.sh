#!/usr/bin/env bash
# Fine-tunes a checkpoint on SQuAD: bash recipes/finetune_squad.sh RUN --train FILE --dev FILE [--version-2] [options]
#
#   RUN   a checkpoint file, or the folder of a pre-training run
#   FILE  the official files, as scripts/download_squad.sh fetches them, or others of their kind
#
# For example
#   bash recipes/finetune_squad.sh runs/books --train squad/train-v1.1.json --dev squad/dev-v1.1.json --seeds 1,2,3
# The architecture and the tokenizer are those of the checkpoint. RUN/squad (RUN/squad2 for 2.0) gets the best model and its
# predictions.json, nbest.json and null_odds.json. The same command again trains only what is not finished. --help says more.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 3 ] || [ "${1:-}" = --help ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
python=$(bash "$repo/scripts/setup.sh" --python)
exec "$python" "$repo/scripts/finetune_squad.py" "$@"
