#!/usr/bin/env bash
# Installs the project: bash scripts/setup.sh
#
# Into the virtual or conda environment that is active, else into .venv beside this folder (made when missing, with the
# first of python3.11, 3.12, 3.13 found, or with $PYTHON). Run it as often as you like: it does nothing when nothing changed.
#
#   --python           print only the path of the environment's Python on standard output (for other scripts)
#   --wheel DIR        keep the fairseq that was compiled (three minutes) as a wheel in DIR, in a folder for its torch, and
#                      install that wherever DIR has it: a second environment, or a machine alike, takes seconds
#                      (or HMTL_WHEELS=DIR, for recipes and continuous integration)
#   HMTL_TORCH_INDEX   where to get torch when there is none, for example https://download.pytorch.org/whl/cpu:
#                      a CPU build of 200 MB in place of pip's usual one, which brings 3 GB of CUDA libraries on Linux
#   HMTL_EXTRAS        what to install beside the package, for example dev,hf (default: what was installed before, or dev)
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
constraints=$repo/constraints.txt
print_python= wheels=${HMTL_WHEELS:-}
case "${1:-}" in
    --python) print_python=1 ;;
    --wheel)
        [ $# = 2 ] || { echo "error: --wheel: give the folder to keep the wheel in" >&2; exit 1; }
        wheels=$2
        ;;
    "") ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

say() { echo "setup: $*" >&2; }
fail() { echo "error: $*" >&2; exit 1; }

supported() { # PYTHON: can it run the project?
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() { # prints the first Python that will do
    local name found=
    for name in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3 python; do
        command -v "$name" >/dev/null 2>&1 || continue
        if supported "$name"; then
            "$name" -c 'import ensurepip, venv' 2>/dev/null ||
                fail "$name cannot make virtual environments: install its venv package (Debian: apt install python3-venv)"
            echo "$name"
            return
        fi
        found="$found${found:+, }$name $("$name" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo 'does not run')"
    done
    fail "Python 3.11, 3.12 or 3.13 is needed; found: ${found:-none}. Install one, or name it: PYTHON=/path/to/python3.11"
}

# 1. The environment. Conda's base environment does not count as a choice: it is active in every shell of its users.
if [ -n "${VIRTUAL_ENV:-}" ]; then
    python=$VIRTUAL_ENV/bin/python
elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then
    python=$CONDA_PREFIX/bin/python
else
    python=$repo/.venv/bin/python
    if ! "$python" -c 'import pip' >/dev/null 2>&1; then # also repairs an environment that was left half made
        base=$(find_python)
        say "making .venv with $(command -v "$base")"
        "$base" -m venv "$repo/.venv" >&2
    fi
fi
[ -x "$python" ] || fail "the active environment has no Python at $python: activate another one, or none (then .venv is used)"
supported "$python" || fail "$python is $("$python" -V 2>&1), and 3.11 to 3.13 is needed: activate another environment, or none"
prefix=$("$python" -c 'import sys; print(sys.prefix)')

# 2. Nothing to do? The stamp tells what was installed: extras, Python, folder, hash of the files that decide.
stamp=$prefix/.hmtl-setup
[ ! -f "$stamp" ] || read -r installed_extras _ <"$stamp"
extras=${HMTL_EXTRAS:-${installed_extras:-dev}}
key=$("$python" -I - "$repo/setup.py" "$constraints" "${BASH_SOURCE[0]}" <<'PY'
import hashlib
import sys

content = b"".join(open(name, "rb").read() for name in sys.argv[1:])
print(sys.version.split()[0], hashlib.sha256(content).hexdigest())
PY
)
wanted="$extras $repo $key"
installed() { # is everything still there, and hmtl_plugin that of this folder?
    "$python" -I - "$repo" <<'PY'
import importlib.util
import os
import sys

specs = [importlib.util.find_spec(name) for name in ("hmtl_plugin", "torch", "fairseq", "sentencepiece")]
places = [place for spec in specs[:1] if spec for place in spec.submodule_search_locations or []]
sys.exit(not (all(specs) and os.path.join(sys.argv[1], "hmtl_plugin") in places))
PY
}
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && installed; then
    [ -n "$print_python" ] && echo "$python" || say "up to date ($prefix)"
    exit 0
fi

other=
[ ! -f "$stamp" ] || other=$(sed -e 's/^[^ ]* //' -e 's/ [^ ]* [^ ]*$//' "$stamp")
[ -z "$other" ] || [ "$other" = "$repo" ] || say "$prefix had hmtl_plugin of $other: from now on it has that of $repo"

# 3. What building fairseq needs; said now rather than after minutes.
compiler=${CXX:-}
for name in g++ c++ clang++; do
    [ -n "$compiler" ] || ! command -v "$name" >/dev/null 2>&1 || compiler=$name
done
[ -n "$compiler" ] || fail "a C++ compiler is needed to build fairseq: install g++ (Debian: apt install g++), or name one: CXX=/path/to/c++"
command -v "${compiler%% *}" >/dev/null 2>&1 || fail "CXX names $compiler, which is not there: install it, or unset CXX"
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "$headers/Python.h" ] || fail "building fairseq needs the headers of Python, and $headers/Python.h is missing (Debian: apt install python3-dev)"

# 4. pip, constrained both where it installs and where it builds (pip up to 25.2 reads the first there, later ones the second).
log=$prefix/hmtl-setup.log
: >"$log"
pip() { # TITLE ARGUMENTS...: one line of progress; the output goes to the log, its end is shown when pip fails
    local title=$1 start=$SECONDS job
    shift
    say "$title"
    "$python" -m pip --disable-pip-version-check --no-input "$@" >>"$log" 2>&1 </dev/null &
    job=$!
    if [ -t 2 ]; then
        while kill -0 "$job" 2>/dev/null; do
            printf '\r       %d s' $((SECONDS - start)) >&2
            sleep 0.5
        done
        printf '\r\033[K' >&2
    fi
    wait "$job" || { tail -n 15 "$log" >&2; fail "$title failed (above: the end of $log)"; }
}

# A torch that is there and new enough stays: everything else is then built and installed for exactly that one.
used=$(mktemp) # not in the environment: pip splits PIP_CONSTRAINT at blanks, which its path may have
trap 'rm -f "$used"' EXIT
torch=$("$python" - <<'PY' || true
import importlib.metadata as metadata

try:
    version = metadata.version("torch")
except metadata.PackageNotFoundError:
    raise SystemExit
if tuple(int(part) for part in version.split("+")[0].split(".")[:2]) >= (2, 8):
    print(version.split("+")[0])
PY
)
sed "s/^torch==.*/torch==${torch:-$(sed -n 's/^torch==//p' "$constraints")}/" "$constraints" >"$used"
export PIP_CONSTRAINT=$used PIP_BUILD_CONSTRAINT=$used
torch_index=()
if [ -n "$torch" ]; then
    say "keeping torch $torch"
elif [ -n "${HMTL_TORCH_INDEX:-}" ]; then
    torch_index=(--extra-index-url "$HMTL_TORCH_INDEX")
elif [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then
    say "no GPU seen; should pip start to download CUDA libraries, stop it and set HMTL_TORCH_INDEX=https://download.pytorch.org/whl/cpu"
fi
# fairseq requires torchaudio, which nothing here uses. Whether it came with us is noted before pip brings it (see 5).
torchaudio_is_ours=$prefix/.hmtl-torchaudio
"$python" -c 'import importlib.metadata as m; m.version("torchaudio")' 2>/dev/null || touch "$torchaudio_is_ours"

# fairseq is compiled against the torch and numpy that will run it. Its isolated build would fetch a torch of its own.
pip "installing torch and the build tools (1/2: a minute, more where torch is downloaded)" \
    install "torch>=2.8" numpy Cython "setuptools<81" wheel ${torch_index[@]+"${torch_index[@]}"}
links=() how="about three minutes, most of it compiling"
if [ -n "$wheels" ]; then
    fairseq=$(sed -n 's/.*"\(fairseq-fixed==[^"]*\)".*/\1/p' "$repo/setup.py")
    built=$wheels/$("$python" -c 'import platform, torch; print(f"torch-{torch.__version__}-{platform.machine()}")')
    tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    if ! compgen -G "$built/fairseq_fixed-${fairseq#*==}-$tag-*.whl" >/dev/null; then
        mkdir -p "$built" || fail "--wheel $wheels: cannot be written: name another folder"
        pip "compiling fairseq into $built (three minutes)" wheel --no-build-isolation --no-deps -w "$built" "$fairseq"
    fi
    links=(--find-links "$built") how="with $(basename "$built")'s fairseq of $wheels"
fi
pip "installing fairseq and the rest (2/2: $how)" \
    install --no-build-isolation ${links[@]+"${links[@]}"} -e "$repo[$extras]"

# 5. The torchaudio that pip finds is linked to CUDA: beside a CPU torch it cannot be imported, and takes other packages
# (transformers) down with it, which import whatever is installed. One that works stays, and so does one that was here before.
if ! "$python" -c 'import torchaudio' >/dev/null 2>&1; then
    if [ -f "$torchaudio_is_ours" ]; then
        pip "removing torchaudio, which does not fit this torch and is not used" uninstall --yes torchaudio
    else
        say "the torchaudio of this environment cannot be imported; it is left alone ('pip uninstall torchaudio' if transformers trips over it)"
    fi
fi

"$python" -c 'import fairseq, sentencepiece, torch' >>"$log" 2>&1 || {
    tail -n 5 "$log" >&2
    fail "installed, but importing fairseq fails (above: the end of $log)"
}
echo "$wanted" >"$stamp"
[ -n "$print_python" ] && echo "$python" || say "done in $SECONDS s ($prefix); its Python: $python"
