#!/usr/bin/env bash
# torch 2.13.0: torch.nn.utils.skip_init, which exists to save the time of initial values, imports the compiler for an
# embedding and the symbolic-shape machinery (sympy, mpmath) for a linear layer: seconds in a process that does neither.
#
# Guess before running: microseconds and no import, as it builds the module on the meta device and allocates it empty.
# Seen (AMD EPYC, one thread): an embedding of 60 x 8 takes 1.0 s and imports 823 modules, torch._dynamo among them, as
# normal_ on a meta tensor is a decorated reference implementation; a linear layer of 3 x 4 takes 0.3 s for
# Module.to_empty and 487 modules. nn.Embedding.from_pretrained(torch.empty(60, 8), freeze=False): 0.3 ms and none.
# Why it matters: every command that opens a model pays it, of however small a model.
#
#   bash findings/torch_skip_init_imports.sh      # exits 0 while it holds, 1 once it does not
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q numpy==2.4.6
"$place/venv/bin/pip" install -q torch==2.13.0 --index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" \
    --extra-index-url "${PIP_INDEX_URL:-https://pypi.org/simple}"
for what in embedding linear empty; do
    OMP_NUM_THREADS=1 "$place/venv/bin/python" - "$what" <<'PYTHON'
import sys
import time

import torch
from torch import nn

builds = {
    "embedding": lambda: nn.utils.skip_init(nn.Embedding, 60, 8),
    "linear": lambda: nn.utils.skip_init(nn.Linear, 3, 4),
    "empty": lambda: nn.Embedding.from_pretrained(torch.empty(60, 8), freeze=False),
}
what = sys.argv[1]
before, start = set(sys.modules), time.perf_counter()
builds[what]()
seconds, new = time.perf_counter() - start, set(sys.modules) - before
compiler = "torch._dynamo" in new
print(f"torch {torch.__version__}  {what:9}  {seconds:7.4f} s  {len(new):4} modules  torch._dynamo: {compiler}")
holds = {"embedding": compiler, "linear": len(new) > 100 and not compiler, "empty": not new}[what]
sys.exit(not holds)
PYTHON
done
echo "as described"
