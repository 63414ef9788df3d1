#!/usr/bin/env bash
# transformers 4.57.6 and 5.23.0: the same folder of a BERT is read as two tokenizers. Version 5 leaves out what its
# tokenizer.json says of splitting and of the longest word, and puts BERT's own in place, without a word.
#
# Guess before running: AutoTokenizer loads tokenizer.json as it stands, in both.
# Seen: with the pre-tokenizer WhitespaceSplit, "dogs." is one word for version 4 ([UNK]) and dogs . for version 5; with
# max_input_chars_per_word 5, "worlds" is [UNK] for version 4 and a known word for version 5. Both lower-case where
# tokenizer_config.json says nothing of case and tokenizer.json says that case stays.
# Why it matters: ids, and so results, of a model change with the version of the library.
#
#   bash findings/transformers_bert_splitting.sh      # exits 0 while it holds, 1 once it does not
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/4.57.6" && "$place/4.57.6/bin/pip" install -q transformers==4.57.6
python3 -m venv "$place/5.23.0" && "$place/5.23.0/bin/pip" install -q transformers==5.23.0
for version in 4.57.6 5.23.0; do
    "$place/$version/bin/python" - "$place/bert" 2>/dev/null <<'PYTHON'
import json
import sys
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
pieces = "[PAD] [UNK] [CLS] [SEP] [MASK] dogs worlds . Dogs".split()
model = models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]", max_input_chars_per_word=5)
tokenizer = Tokenizer(model)
tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
(folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
(folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
opened = transformers.AutoTokenizer.from_pretrained(folder)
found = {text: " ".join(opened.tokenize(text)) for text in ("dogs.", "worlds", "Dogs")}
print(f"transformers {transformers.__version__}: {found}")
expected = {"4": ("[UNK]", "[UNK]", "dogs"), "5": ("dogs .", "worlds", "dogs")}[transformers.__version__[0]]
sys.exit(tuple(found.values()) != expected)
PYTHON
done
echo "as described"
