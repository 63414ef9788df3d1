#!/usr/bin/env bash
# tokenizers 0.22.1 and 0.23.3: a WordPiece vocabulary trained on the same text has other ids in every process, though the
# pieces are the same; a BPE vocabulary does not.
#
# Guess before running: training is deterministic, or the pieces differ in ties.
# Seen: the trainer numbers the single characters that stand within words (##a) in the order of a hash table, which Rust
# seeds anew in each process; RAYON_NUM_THREADS=1 changes nothing. Where pairs are equally frequent the numbers decide, so
# that on some texts the pieces differ, too.
# Why it matters: a tokenizer trained "again" for lost data loads beside a checkpoint without an error, and reads wrong ids.
# What helps: all characters as special_tokens, in an order of one's own.
#
#   bash findings/tokenizers_wordpiece_ids.sh      # exits 0 while it holds, 1 once it does not
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/0.22.1" && "$place/0.22.1/bin/pip" install -q tokenizers==0.22.1
python3 -m venv "$place/0.23.3" && "$place/0.23.3/bin/pip" install -q tokenizers==0.23.3
for version in 0.22.1 0.23.3; do
    for kind in BPE WordPiece; do
        for process in 1 2 3 4; do
            "$place/$version/bin/python" - "$kind" <<'PYTHON'
import hashlib
import sys
from pydoc_data.topics import topics

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

kind = sys.argv[1]
tokenizer = Tokenizer(getattr(models, kind)(unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
trainer = getattr(trainers, {"BPE": "BpeTrainer"}.get(kind, f"{kind}Trainer"))(vocab_size=3000, show_progress=False)
tokenizer.train_from_iterator([line for text in topics.values() for line in text.split("\n")], trainer)
ids = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
print(hashlib.sha256(str(ids).encode()).hexdigest()[:12])
PYTHON
        done >"$place/$kind"
        echo "tokenizers $version, $kind: $(sort -u "$place/$kind" | wc -l) vocabularies in 4 processes"
    done
    [ "$(sort -u "$place/BPE" | wc -l)" = 1 ] && [ "$(sort -u "$place/WordPiece" | wc -l)" -gt 1 ]
done
echo "as described"
