#!/usr/bin/env bash
# From a fresh clone to two pre-trained models on a CPU, with no download but the packages:
#
#   bash recipes/quickstart.sh
#
# Installs into .venv, gathers English prose that Python and its packages carry, prepares it, pre-trains a flat BERT and
# a hierarchy of the same size, compares them on held-out text and probes their layers. About five minutes on two cores
# after installation.
# What is trained is not trained again; a run that was interrupted goes on from its last save, of which there are five.
#
#   HMTL_UPDATES  updates of each model (default 760)
set -euo pipefail
[ $# -eq 0 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."

updates=${HMTL_UPDATES:-760}
text=data/quickstart/prose.txt # embedded.txt was that of earlier versions, which took less
data=data/quickstart/corpus
runs=runs/quickstart
flat='nsp@-1*0.25,mlm@-1'
hierarchy='bigram_shift@2*2,nsp@3*0.25,mlm@4'
transfer='nsp>mlm:concat'

case "$updates" in
    '' | *[!0-9]* | 0) echo "error: HMTL_UPDATES=$updates: give a whole number of 1 or more" >&2; exit 1 ;;
esac
step() { printf '\n== %s\n' "$*"; }

step "1/5 environment"
bash scripts/setup.sh
python=$(bash scripts/setup.sh --python)
bin=$(dirname "$python")

aside() { # PLACE: to PLACE.1, or the first number that is free
    local number=1
    [ -e "$1" ] || return 0
    while [ -e "$1.$number" ]; do number=$((number + 1)); done
    mv "$1" "$1.$number"
    echo "$1: of an earlier version of this recipe, which held out other documents; kept as $1.$number"
}

step "2/5 corpus"
if [ -f "$data/corpus.json" ] && [ ! -f "$data/held_out.txt" ]; then
    aside "$runs" # before the data, by which an interrupted one is known
    aside data/quickstart
fi
if [ -f "$runs/updates" ] && [ "$(<"$runs/updates")" != "$updates" ]; then
    begun=$(<"$runs/updates")
    echo "error: $runs was begun with HMTL_UPDATES=$begun, where its learning rate ends: give that, or move $runs away" >&2
    exit 1
fi
# 8 MB is about all there is. Half of the documents are held out, as 2,000 test rows of each probing task take so much
# text; the other 4 MB are read three times.
"$python" scripts/python_prose.py --out "$text" --max-megabytes 8
"$python" scripts/prepare_corpus.py "$text" --format paragraphs --vocab-size 6000 --valid-fraction 0.5 --write-valid \
    --out "$data"

# Both models train at once, on half of the processors each, whatever else runs here: so small a step gains little from
# more. An interrupt ends both.
threads=$("$python" -c 'from hmtl_plugin.commands.openmp_waiting import processors; print(max(1, len(processors()) // 2))')
threads=${OMP_NUM_THREADS:-$threads}
eval "$("$python" scripts/openmp_waiting.py)" # threads by what else runs here; your own setting stays
bar=simple
[ ! -t 2 ] || bar=tqdm
jobs=()
trap '[ ${#jobs[@]} -eq 0 ] || kill "${jobs[@]}" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

pretrain() { # NAME HIERARCHY TRANSFER LOG_FORMAT
    local run=$runs/$1
    mkdir -p "$run"
    echo "$run: '$2' '$3', $updates updates (log: $run/train.log)"
    local quoted options
    quoted=$("$python" scripts/recipe_options.py quickstart "$run" --max-update "$updates" --hierarchy "$2" \
        --transfer "$3" --cpu --num-workers 0 --disable-validation --save-interval-updates "$(((updates + 4) / 5))" \
        --keep-interval-updates 1 --no-epoch-checkpoints)
    eval "options=($quoted)"
    export OMP_NUM_THREADS=$threads
    exec "$bin/fairseq-train" "$data" --user-dir hmtl_plugin --save-dir "$run" --task hmtl_pretraining \
        --criterion hmtl --log-format "$4" --log-interval 50 "${options[@]}" >>"$run/train.log"
}

ended() { # JOB STATUS
    local run=$runs/hierarchical
    [ "$1" != "$flat_job" ] || run=$runs/flat
    echo "error: $run: training ended with status $2 (log: $run/train.log); run it again to go on from its last save" >&2
    exit 1
}

step "3/5 pre-training a flat BERT, both objectives at the last layer, and a hierarchy: word order below, next sentence
     handed on, masked words on top"
mkdir -p "$runs"
echo "$updates" >"$runs/updates"
pretrain flat "$flat" '' simple &
flat_job=$!
pretrain hierarchical "$hierarchy" "$transfer" "$bar" &
jobs=("$flat_job" $!)
while [ ${#jobs[@]} -gt 0 ]; do # the first that fails ends the other at once, which 'wait -n' of newer shells would see
    running=()
    for job in "${jobs[@]}"; do
        if kill -0 "$job" 2>/dev/null; then running+=("$job"); else wait "$job" || ended "$job" $?; fi
    done
    jobs=(${running[@]+"${running[@]}"})
    sleep 0.2
done

step "4/5 what they have learned, on held-out documents"
probing=data/quickstart/probing # of documents that no model here was trained on; made again when these change
# The questions, and the probing sets of the next step, on the processor that evaluating leaves.
"$python" scripts/try_checkpoint.py "$runs/hierarchical" >"$runs/questions.log" &
jobs=($!)
: >"$runs/make_probing.log"
if [ ! "$probing/probing.json" -nt "$data/held_out.txt" ]; then
    "$python" scripts/make_probing.py "$data/held_out.txt" --format sentences --train 3000 --valid 600 --test 2200 \
        --words 60 --shares 43,12,45 --overwrite --out "$probing" >"$runs/make_probing.log" &
    jobs+=($!)
fi
"$python" scripts/evaluate.py "$runs/flat" "$runs/hierarchical" --data "$data" --samples 2000 --autocast auto \
    --results "$runs/results.jsonl"
for job in "${jobs[@]}"; do wait "$job"; done
jobs=()
cat "$runs/questions.log"

step "5/5 what each layer knows, beside an encoder of the same shape that was never trained"
cat "$runs/make_probing.log"
"$python" scripts/probe.py "$runs/hierarchical" "$runs/flat" --tasks "$probing" --pooling mean --no-controls --autocast auto \
    --out "$runs/probing"
