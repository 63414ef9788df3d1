#!/usr/bin/env bash
# fairseq-fixed 0.12.3.1 (fairseq's checkpoint_utils.torch_persistent_save, unchanged since 0.10), torch 2.13.0: where
# writing a checkpoint fails and works again two seconds later, as on a disk that somebody makes room on, the training
# goes on as if it had been saved, and the file under the checkpoint's final name cannot be loaded.
#
# Guess before running: it is tried three times, 2.5 s apart, so the second try writes the file anew.
# Seen: every try goes on behind what the one before it had written, as the file is opened once. No error, no warning; the
# file holds the start of a zip archive before the whole one. Python's zipfile opens it all the same; torch.load says
# "failed reading zip archive: invalid header or archive is corrupted".
# Why it matters: it stands under its final name, and the checkpoint of before has been removed for it.
#
#   bash findings/fairseq_save_again.sh      # compiles fairseq, some minutes; exits 0 while it holds, 1 once it does not
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
"$place/venv/bin/python" - "$place/checkpoint.pt" 2>/dev/null <<'PYTHON'
import importlib.metadata
import os
import resource
import sys
import threading
import zipfile

import torch
from fairseq.checkpoint_utils import torch_persistent_save

path, unlimited = sys.argv[1], resource.RLIM_INFINITY
state = {"model": {f"weight{i}": torch.full((1000, 100), float(i)) for i in range(10)}}
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, unlimited))  # the first try fails after 1.5 of 4 MB ...
threading.Timer(1.0, resource.setrlimit, (resource.RLIMIT_FSIZE, (unlimited, unlimited))).start()  # ... no later one does
torch_persistent_save(state, path)
try:
    torch.load(path)
    loads = "yes"
except RuntimeError as error:
    loads = str(error).split(".")[0]
print(f"fairseq-fixed {importlib.metadata.version('fairseq-fixed')}, torch {torch.__version__}")
print(f"saved without an error: {os.path.getsize(path):,} bytes; zipfile opens it: {zipfile.is_zipfile(path)}")
print(f"torch.load: {loads}")
sys.exit(loads == "yes" or not zipfile.is_zipfile(path))
PYTHON
echo "as described"
