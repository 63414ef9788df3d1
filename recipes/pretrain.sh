#!/usr/bin/env bash
# Pre-trains on a prepared corpus: bash recipes/pretrain.sh DATA RUN [SIZE] [options of fairseq-train]
#
#   DATA  folder written by scripts/prepare_corpus.py or fairseq-preprocess (or a:b:c, shards that take turns)
#   RUN   folder for checkpoints; the same command again resumes there
#   SIZE  tiny, mini, small (default), medium, base or large, the sizes of Google's BERT miniatures
#
# Any option given replaces the default below (an --lr-scheduler of your own also its warm-up and length), for example
#   bash recipes/pretrain.sh data/books runs/books small --hierarchy 'bigram_shift@2,nsp@3,mlm@4' \
#       --transfer 'nsp>mlm:concat' --max-update 50000
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

# peak learning rate, updates, tokens of a batch and batches of an update, for one device
case "$size" in
    tiny) lr=1e-3 updates=20000 tokens=16384 batches=1 ;;
    mini) lr=1e-3 updates=20000 tokens=16384 batches=1 ;;
    small) lr=5e-4 updates=20000 tokens=16384 batches=1 ;;
    medium) lr=4e-4 updates=50000 tokens=16384 batches=2 ;;
    base) lr=2e-4 updates=100000 tokens=16384 batches=4 ;;
    large) lr=1e-4 updates=100000 tokens=8192 batches=16 ;;
    *) echo "error: SIZE $size: use tiny, mini, small, medium, base or large" >&2; exit 1 ;;
esac
# warm up over a tenth of what is asked for, then down to zero, unless there is a schedule of one's own
previous= schedule=(--lr-scheduler polynomial_decay)
for argument in "$@"; do
    case "$argument" in
        --max-update=*) updates=${argument#*=} ;;
        --lr-scheduler | --lr-scheduler=*) schedule=() ;;
    esac
    [ "$previous" != --max-update ] || updates=$argument
    previous=$argument
done
[[ "$updates" =~ ^[0-9]+$ ]] || { echo "error: --max-update $updates: give a whole number" >&2; exit 1; }
[ ${#schedule[@]} -eq 0 ] || schedule+=(--warmup-updates $((updates / 10)) --total-num-update "$updates")
# validate and save by updates, not by epochs, of which a small corpus has hundreds
interval=$((updates > 20000 ? 1000 : updates > 20 ? updates / 20 : 1))

python=$(bash "$repo/scripts/setup.sh" --python)
bin=$(dirname "$python")
eval "$("$python" "$repo/scripts/openmp_waiting.py")" # how threads wait, by what else runs here; your own setting stays
options=()
if "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("tensorboard") is None)'; then
    options+=(--tensorboard-logdir "$run/tensorboard")
fi

# HMTL_LAUNCHER: what the recipes for several processes put before the command
# shellcheck disable=SC2086
exec ${HMTL_LAUNCHER:-} "$bin/fairseq-train" "$data" --user-dir "$repo/hmtl_plugin" --save-dir "$run" \
    --task hmtl_pretraining --tokens-per-sample 128 --autocast auto \
    --arch "hmtl_bert_$size" --criterion hmtl \
    --optimizer hmtl_adamw --weight-decay 0.01 --clip-norm 1.0 \
    --lr "$lr" --max-update "$updates" ${schedule[@]+"${schedule[@]}"} \
    --max-tokens "$tokens" --update-freq "$batches" --num-workers 1 \
    --validate-interval-updates "$interval" --save-interval-updates "$interval" --keep-interval-updates 1 \
    --validate-interval 1000000 --save-interval 1000000 \
    --log-interval 50 ${options[@]+"${options[@]}"} "$@"
