#!/usr/bin/env bash
# The whole study in one command: variants x seeds, from the tasks' own text to a report with statistics.
#
#   bash recipes/reproduce.sh --profile smoke --out study/smoke                # minutes, made-up tasks, no download
#   bash recipes/reproduce.sh --profile cpu --data data --out study/cpu        # hours on two cores
#   bash recipes/reproduce.sh --profile gpu --data data --out study/gpu --time-limit 25m
#   bash recipes/reproduce.sh --profile paper --data data --out study/paper    # BERT-base, full official data
#
# DATA holds glue/ and squad/ as scripts/download_glue.sh and scripts/download_squad.sh fetch them, and probing/ with SentEval's tasks.
# The same command again does what is not done; what failed is tried again. --help lists the options.
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$(bash "$repo/scripts/setup.sh" --python)

out=
arguments=("$@")
while [ $# -gt 0 ]; do
    case "$1" in
        --out) out=${2:-} ;;
        --out=*) out=${1#*=} ;;
    esac
    shift
done

status=0
"$python" "$repo/scripts/study.py" ${arguments[@]+"${arguments[@]}"} || status=$?
# a report of what there is, also after a failure; not where there is no study, or it was told to stop
if [ -n "$out" ] && [ -f "$out/study.json" ] && [ "$status" -le 1 ]; then
    "$python" "$repo/scripts/study_report.py" "$out"
    [ "$status" -eq 0 ] || echo "error: not everything was done: the reason stands above the report" >&2
fi
exit "$status"
