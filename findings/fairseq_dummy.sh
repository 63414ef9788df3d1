#!/usr/bin/env bash
# fairseq-fixed 0.12.3.1 (fairseq's own code of 2018 on): fairseq-train removes a file named "dummy" from --save-dir.
#
# Guess before running: it looks whether the folder can be written to, by os.access or a temporary file.
# Seen: verify_checkpoint_directory opens SAVE_DIR/dummy for writing, which empties it, and then removes it, whoever's it is.
# Two trainings that begin in one folder at once can remove it for each other, too.
# Why it matters: data loss without a word, for instance with --save-dir . in a folder of experiments.
#
#   bash findings/fairseq_dummy.sh      # compiles fairseq, some minutes; exits 0 while it holds, 1 once it does not
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
pip() { "$place/venv/bin/pip" install -q "$@"; }
pip numpy==2.4.6 Cython==3.3.1 "setuptools<81" wheel
pip torch==2.13.0 --index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" \
    --extra-index-url "${PIP_INDEX_URL:-https://pypi.org/simple}"
pip --no-build-isolation fairseq-fixed==0.12.3.1 hydra-core==1.3.2 omegaconf==2.3.0
"$place/venv/bin/pip" uninstall -q -y torchaudio # linked to another torch
cd "$place"
mkdir run data
echo "notes of mine" >run/dummy
for word in the cat sees a dog; do echo "$word 1"; done >data/dict.txt
for n in 1 2 3 4 5 6 7 8; do echo "the cat sees a dog"; done >data/text
venv/bin/fairseq-preprocess --only-source --srcdict data/dict.txt --trainpref data/text --validpref data/text --destdir bin >log 2>&1
venv/bin/fairseq-train bin --task language_modeling --arch transformer_lm --decoder-layers 1 --decoder-embed-dim 8 \
    --decoder-ffn-embed-dim 8 --decoder-attention-heads 1 --optimizer adam --lr 0.001 --batch-size 2 --tokens-per-sample 8 \
    --max-update 1 --no-save --save-dir run --cpu >>log 2>&1 || { tail -n 5 log; exit 1; }
if [ -e run/dummy ]; then echo "no longer as described: it is there"; exit 1; fi
echo "fairseq-fixed $(venv/bin/python -c 'import importlib.metadata as m; print(m.version("fairseq-fixed"))'): run/dummy is gone"
echo "as described"
