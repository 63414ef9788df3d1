#!/usr/bin/env bash
# A study on a cluster: a job array with a task for each run (a variant with a seed), then a job for the report.
#
#   bash recipes/study_slurm.sh --profile paper --data data --out study/paper
#   HMTL_GPUS=4 HMTL_SBATCH='--partition=gpu --time=48:00:00' bash recipes/study_slurm.sh --profile paper ...
#
#   HMTL_GPUS    GPUs of one node for each run (default 1; 0: the CPU); fairseq's distributed training shares the batches of an update among them
#   HMTL_SBATCH  more options of sbatch
#
# STUDY must be on a file system that all nodes see. Prepare here (it needs no GPU), run there. The same command again submits
# only what is not recorded; tasks that end before their time limit go on when they are submitted again.
set -euo pipefail
# in the array this is a copy in Slurm's own folder, and the repository is where it was submitted from
repo=${HMTL_REPOSITORY:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
python=$(bash "$repo/scripts/setup.sh" --python)
gpus=${HMTL_GPUS:-1}

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then # in the array: one run, on all the GPUs of this task
    run=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$HMTL_RUNS")
    devices=cpu
    [ "$gpus" -eq 0 ] || devices=$(seq -s + 0 $((gpus - 1)))
    exec "$python" "$repo/scripts/study.py" "$@" --only "$run" --devices "$devices"
fi

out=
arguments=("$@")
while [ $# -gt 0 ]; do
    case "$1" in
        --out) out=${2:-} ;;
        --out=*) out=${1#*=} ;;
    esac
    shift
done
[ -n "$out" ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
command -v sbatch >/dev/null 2>&1 || { echo "error: no sbatch here: run this where jobs are submitted, or use recipes/reproduce.sh" >&2; exit 1; }

mkdir -p "$out/slurm"
runs=$out/slurm/runs-$(date +%Y%m%d-%H%M%S).txt
"$python" "$repo/scripts/study.py" "${arguments[@]}" --list-open >"$runs"
count=$(wc -l <"$runs")
[ "$count" -gt 0 ] || { echo "$out: everything is recorded: python scripts/study_report.py $out"; exit 0; }
request=()
[ "$gpus" -eq 0 ] || request=(--gpus-per-node="$gpus")
# shellcheck disable=SC2086
job=$(HMTL_REPOSITORY=$repo HMTL_RUNS=$runs HMTL_GPUS=$gpus sbatch --parsable --export=ALL --array=0-$((count - 1)) --nodes=1 ${request[@]+"${request[@]}"} \
    --output="$out/slurm/%A_%a.log" ${HMTL_SBATCH:-} "$repo/recipes/study_slurm.sh" "${arguments[@]}")
# shellcheck disable=SC2086
sbatch --parsable --dependency=afterany:"${job%%;*}" --output="$out/slurm/report.log" ${HMTL_SBATCH:-} \
    --wrap "$(printf '%q ' "$python" "$repo/scripts/study_report.py" "$out")" >/dev/null
echo "$count runs submitted as job $job, logs in $out/slurm; then the report in $out/report"
