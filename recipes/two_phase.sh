#!/usr/bin/env bash
# Pre-trains in two phases, as BERT was: nine tenths of the updates on sequences of 128 tokens, the rest on 512.
#
#   bash recipes/two_phase.sh DATA RUN [SIZE] [options of fairseq-train]
#
# Arguments as for recipes/pretrain.sh; --max-update counts both phases (default 20000). Phase 1 goes to RUN/phase1,
# phase 2, which starts from its last checkpoint with the same options and a fresh optimizer, to RUN/phase2.
# Between them a table of learned positions is resized; rotary positions have none. The same command again resumes where
# it stopped.
#
#   HMTL_PRETRAIN   the recipe that runs a phase (default recipes/pretrain.sh), for example recipes/pretrain_torchrun.sh
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 2 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
pretrain=${HMTL_PRETRAIN:-$repo/recipes/pretrain.sh}
data=$1 run=$2
shift 2

updates=20000
options=()
while [ $# -gt 0 ]; do
    case "$1" in
        --max-update=*) updates=${1#*=} ;;
        --max-update) updates=${2:?--max-update needs a number}; shift ;;
        *) options+=("$1") ;;
    esac
    shift
done
[[ "$updates" =~ ^[0-9]+$ ]] && [ "$updates" -ge 10 ] ||
    { echo "error: --max-update $updates: give a whole number of 10 or more" >&2; exit 1; }

begun=$(cat "$run/.updates" 2>/dev/null || true)
if [ "$begun" != "$updates" ]; then
    if [ -n "$begun" ] && { [ -f "$run/phase1/.done" ] || compgen -G "$run/phase1/checkpoint*.pt" >/dev/null; }; then
        echo "error: $run: was begun with --max-update $begun, not $updates: give that, or another RUN" >&2
        exit 1
    fi
    mkdir -p "$run"
    echo "$updates" >"$run/.updates.$$"
    mv "$run/.updates.$$" "$run/.updates"
fi

if [ ! -f "$run/phase1/.done" ]; then
    bash "$pretrain" "$data" "$run/phase1" ${options[@]+"${options[@]}"} \
        --max-update $((updates * 9 / 10)) --tokens-per-sample 128 --max-positions 128
    touch "$run/phase1/.done"
fi
if [ ! -f "$run/phase2/.done" ]; then
    bash "$pretrain" "$data" "$run/phase2" ${options[@]+"${options[@]}"} \
        --max-update $((updates - updates * 9 / 10)) --tokens-per-sample 512 --max-positions 512 \
        --options-of "$run/phase1" --finetune-from-model "$run/phase1/checkpoint_last.pt"
    touch "$run/phase2/.done"
fi
echo "done: $run/phase2"
