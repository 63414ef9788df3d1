#!/usr/bin/env bash
# Every benchmark that wants a GPU, one after the other, on a machine without network: bash benchmarks/gpu.sh
#
# That machine needs Python, a CUDA build of torch, numpy, scipy, scikit-learn, sentencepiece, tqdm, regex, sacrebleu,
# transformers, tokenizers and a C++ compiler. Nothing is installed there: what else is needed travels with the repository in
# benchmarks/packed (about 14 MB), and is unpacked and built in a temporary folder.
#
#   --pack             on a machine with network and the project installed: fill benchmarks/packed
#   --out FOLDER       where the records (JSON) go (default: benchmarks/gpu-results)
#   --seconds LIMIT    for everything together (default: 530)
#   --quick            on the CPU, small and short: does everything run that needs no GPU?
#
#   PYTHON             which Python runs the benchmarks (default: python3)
#   HMTL_PACK_PYTHON   --pack: for which Python (default: 3.12)
#   HMTL_COMMIT        commit for the records, where git's folder did not come along
#
# The status is 1 if any benchmark failed or ran out of time; the others run all the same, and one that is stopped leaves the
# rows it had. Copy records that are worth keeping to docs/benchmarks, then: python benchmarks/report.py
set -euo pipefail

# name | seconds at most | command | command with --quick. Each gets --json FOLDER/gpu_NAME.json besides. What has targets comes
# first; the rows below it may be cut short or skipped when time runs out.
table='
same_step     |  40 | same_step.py --device cuda                            | same_step.py
pairs_128     | 230 | train_pairs.py --device cuda --sizes base --lengths 128 | train_pairs.py --sizes tiny --rounds 1 --steps 2 --peer-steps 2 --sentences 5000
pairs_512     | 200 | train_pairs.py --device cuda --sizes base --lengths 512 | train_pairs.py --sizes tiny --lengths 512 --rounds 1 --steps 2 --peer-steps 2 --sentences 5000 --peers fairseq
train_step    |  45 | train_step.py --device cuda --sizes base --precisions bf16 --rows 256 | train_step.py --sizes tiny --precisions fp32 --rounds 1
step_profile  |  40 | step_profile.py --device cuda --sizes base --precisions bf16 --rows 256 --rounds 2 | step_profile.py --sizes tiny --precisions fp32 --rounds 1
trainer_parts |  40 | trainer_parts.py --device cuda --updates 50           | trainer_parts.py --size tiny --updates 3
part_costs    |  60 | part_costs.py --device cuda --rounds 10                | part_costs.py --quick
same_compiled | 120 | same_step.py --device cuda --compiled                 | same_step.py --updates 1
loader        |  50 | loader.py --seconds 1.5                               | loader.py --seconds 0.5 --repeats 1 --sentences 20000
'

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname "$here")
packed=$here/packed
archive=fairseq_fixed-0.12.3.1.tar.gz
archive_sha256=c607577a54ab30e2ee0f0b0a754ea5cdbc6ad0a9f99a1726638a2201445bc1cc

say() { echo "gpu: $*" >&2; }
fail() { echo "error: $*" >&2; exit 1; }
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

check_archive() { # FOLDER: is fairseq's archive in it, and the one we know?
    sha256sum --check --status 2>/dev/null <<<"$archive_sha256  $1/$archive"
}

# 1. Packing. Versions are those of constraints.txt; only --no-deps keeps torch out.
pack() {
    local python version=${HMTL_PACK_PYTHON:-3.12} machine part=$packed.part platforms=()
    python=$(bash "$repo/scripts/setup.sh" --python)
    machine=$(uname -m)
    for glibc in 2_28 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${glibc}_$machine"); done
    platforms+=(--platform "manylinux2014_$machine" --platform "manylinux2010_$machine" --platform "manylinux1_$machine")
    rm -rf "$part"
    mkdir "$part"
    download() { # what pip says is shown only when it fails
        "$python" -m pip --disable-pip-version-check download --quiet --no-deps --constraint "$repo/constraints.txt" \
            --dest "$part" "$@" >"$part/pip.log" 2>&1 || { tail -n 5 "$part/pip.log" >&2; rm -rf "$part"; fail "downloading failed"; }
    }
    say "sources of fairseq and antlr4"
    # without isolation pip asks the archives for their names with the torch that is here, instead of fetching one
    download --no-binary :all: --no-build-isolation fairseq-fixed antlr4-python3-runtime==4.9.3
    check_archive "$part" || { rm -rf "$part"; fail "$archive is not the archive this script knows (sha256)"; }
    say "wheels for Python $version on $machine"
    # sentencex and bitarray are compiled; the plugin and fairseq import them. Cython's pure wheel runs anywhere.
    download --only-binary :all: --python-version "$version" --implementation cp --abi "cp${version/./}" --abi none \
        "${platforms[@]}" hydra-core omegaconf sentencex bitarray
    download --only-binary :all: --platform any --abi none Cython
    rm "$part/pip.log"
    echo "$version" >"$part/python"
    rm -rf "$packed"
    mv "$part" "$packed"
    say "packed $(du -sh "$packed" | cut -f1) for Python $version in ${packed#"$repo"/}"
}

# 2. Unpacking: a folder to import fairseq and the rest from, with fairseq's two Cython modules built in place.
unpack() { # SITE
    local site=$1 wheel headers module modules=(data_utils_fast token_block_utils_fast) job jobs=()
    mkdir -p "$site"
    tar -xzf "$packed/$archive" -C "$site" --strip-components=1 --exclude='*/examples' --exclude='*/tests' # 5 of 20 MB
    for wheel in "$packed"/*.whl; do
        "$python" -m zipfile -e "$wheel" "$site"
    done
    tar -xzf "$packed"/antlr4-python3-runtime-*.tar.gz -C "$site" --strip-components=2 --wildcards '*/src/antlr4'
    compiler=${CXX:-g++}
    command -v "${compiler%% *}" >/dev/null 2>&1 || fail "$compiler is needed to build fairseq's modules, and not there (or name another: CXX)"
    headers=$("$python" -c 'import numpy, sysconfig; print(sysconfig.get_path("include"), numpy.get_include(), sep="\n")')
    [ -f "${headers%%$'\n'*}/Python.h" ] || fail "building fairseq's modules needs Python's headers, and ${headers%%$'\n'*}/Python.h is missing"
    for module in "${modules[@]}"; do
        (
            cd "$site/fairseq/data"
            PYTHONPATH=$site "$python" -m cython --cplus "$module.pyx"
            # shellcheck disable=SC2086 # CXX may hold options
            $compiler -O3 -shared -fPIC -w -I"${headers%%$'\n'*}" -I"${headers#*$'\n'}" "$module.cpp" -o "$module.so"
        ) &
        jobs+=($!)
    done
    # compiled once instead of at every start; fairseq's sources are old enough for warnings
    "$python" -W ignore -m compileall -q -j 0 "$site/fairseq" "$site/hydra" "$site/omegaconf" "$site/antlr4" || true
    for job in "${jobs[@]}"; do
        wait "$job" || fail "building fairseq's modules failed (above)"
    done
}

# 3. One benchmark after the other.
run_all() { # OUT DEADLINE (in $SECONDS)
    local out=$1 deadline=$2 name limit command quick_command left status words record
    failed=
    while IFS='|' read -r name limit command quick_command; do
        name=${name// /} limit=${limit// /}
        [ -n "$name" ] || continue
        [ -z "$quick" ] || command=$quick_command
        left=$((deadline - SECONDS))
        if [ "$left" -lt 10 ]; then
            say "$name: skipped, no time left"
            failed="$failed $name"
            continue
        fi
        [ "$limit" -le "$left" ] || limit=$left
        read -r -a words <<<"$command"
        say "$name: at most $limit s ($SECONDS s gone)"
        record=$out/gpu_$name.json
        rm -f "$record" # an older record would pass for this run's
        status=0
        # terminated first, so that it can finish its record; in the background, so that Ctrl-C ends it too (see the trap)
        timeout --kill-after=5 "$limit" "$python" "$here/${words[0]}" "${words[@]:1}" --json "$record" </dev/null &
        running=$!
        wait "$running" || status=$?
        running=
        if [ "$status" != 0 ]; then
            say "$name: $([ "$status" = 124 ] && echo "stopped at its limit" || echo "failed (status $status)")"
            failed="$failed $name"
        fi
    done <<<"$table"
}

out=$here/gpu-results limit=530 quick=
while [ $# -gt 0 ]; do
    case "$1" in
        --pack) [ $# = 1 ] || usage; pack; exit ;;
        --out) out=${2:?--out wants a folder}; shift ;;
        --seconds) limit=${2:?--seconds wants a number}; shift ;;
        --quick) quick=1 ;;
        *) usage ;;
    esac
    shift
done
[[ $limit =~ ^[0-9]+$ ]] || fail "--seconds $limit: give whole seconds"
[ -f "$packed/python" ] || fail "benchmarks/packed is missing: run 'bash benchmarks/gpu.sh --pack' where there is network, and bring it along"
check_archive "$packed" || fail "benchmarks/packed/$archive is damaged: run 'bash benchmarks/gpu.sh --pack' again"
python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || fail "no $python here: name one with PYTHON=/path/to/python3"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$version" = "$(cat "$packed/python")" ] ||
    fail "packed for Python $(cat "$packed/python"), and $python is $version: pack again with HMTL_PACK_PYTHON=$version"
[ -n "$quick" ] || "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
    fail "torch sees no GPU here (--quick runs what needs none)"

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
running=
trap '[ -z "$running" ] || kill "$running" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
say "unpacking, and building fairseq's modules"
unpack "$work/site"
# everything that a library caches goes into the temporary folder too
export PYTHONPATH=$work/site:$repo PYTHONUNBUFFERED=1 TMPDIR=$work HF_HUB_OFFLINE=1
export TRITON_CACHE_DIR=$work/triton TORCHINDUCTOR_CACHE_DIR=$work/inductor
(cd "$repo" && "$python" -W ignore -c 'import hmtl_plugin.tasks') || fail "importing the plugin fails (above)"
say "ready after $SECONDS s"
cd "$repo"
run_all "$out" "$limit"
say "done in $SECONDS s; records in $out"
[ -z "$failed" ] || fail "failed:$failed"
