#!/usr/bin/env bash
# Pre-trains on a prepared corpus: bash recipes/pretrain.sh DATA RUN [SIZE] [options of fairseq-train]
#
#   DATA  folder written by scripts/prepare_corpus.py or fairseq-preprocess (or a:b:c, shards that take turns)
#   RUN   folder for checkpoints; the same command again resumes there
#   SIZE  tiny, mini, small (default), medium, base or large, the sizes of Google's BERT miniatures, or quickstart
#
# The options are those of SIZE in recipes/defaults.toml; a run that was begun with others goes on with its own. Any
# option given replaces them (an --lr-scheduler of your own also warm-up and length), --no-NAME takes a flag back, as in
#   bash recipes/pretrain.sh data/books runs/books small --hierarchy 'bigram_shift@2*2,nsp@3*0.25,mlm@4' \
#       --transfer 'nsp>mlm:concat' --max-update 50000 --no-encoder-normalize-before
# --options-of OTHER begins with the options of another run.
# Two processes on a CPU: recipes/pretrain_two_processes.sh; several GPUs: recipes/pretrain_torchrun.sh.
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
[ $# -ge 2 ] || usage
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
data=$1 run=$2
shift 2
size=small
case "${1:-}" in
    "" | -*) ;;
    *) size=$1; shift ;;
esac

python=$(bash "$repo/scripts/setup.sh" --python)
bin=$(dirname "$python")
eval "$("$python" "$repo/scripts/openmp_waiting.py")" # threads by what else runs here; your own setting stays
# an assignment of its own, at which the script ends when this one fails
quoted=$("$python" "$repo/scripts/recipe_options.py" "$size" "$run" "$@")
eval "options=($quoted)"
board=()
if "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("tensorboard") is None)'; then
    board+=(--tensorboard-logdir "$run/tensorboard")
fi

# what the recipes for several processes put before the command, quoted for the shell
eval "launcher=(${HMTL_LAUNCHER:-})"
exec ${launcher[@]+"${launcher[@]}"} "$bin/fairseq-train" "$data" --user-dir "$repo/hmtl_plugin" --save-dir "$run" \
    --task hmtl_pretraining --criterion hmtl --num-workers 1 --log-interval 50 \
    --keep-interval-updates 1 --validate-interval 1000000 --save-interval 1000000 \
    ${board[@]+"${board[@]}"} "${options[@]}"
