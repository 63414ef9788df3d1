#!/usr/bin/env bash
# transformers 4.57.6 and 5.23.0: the tokenizers of XLM-R and CamemBERT put a blank behind the mask, so "the <mask>."
# asks for a word before pieces that no masked text of pre-training has.
#
# Guess before running: the ids are those of "the value." with the word's pieces replaced by the mask, as masking at
# pre-training gives them.
# Seen: "the value." is the pieces ▁the ▁value . and "the <mask>." is ▁the <mask> ▁ . (likewise "(<mask>)"): text is cut at
# the mask first, and what follows is encoded as a text of its own, which begins with a blank. The slow tokenizers of
# version 4 do the same, so nothing is lost in conversion.
# Why it matters: cloze prompts and probes of such models, whose blank stands before a full stop more often than not.
#
#   bash findings/transformers_blank_after_mask.sh      # exits 0 while it holds, 1 once it does not
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/4.57.6" && "$place/4.57.6/bin/pip" install -q transformers==4.57.6 sentencepiece==0.2.1 protobuf==6.33.1
python3 -m venv "$place/5.23.0" && "$place/5.23.0/bin/pip" install -q transformers==5.23.0 sentencepiece==0.2.1 protobuf==6.33.1
for version in 4.57.6 5.23.0; do
    (cd "$place" && "$place/$version/bin/python" - 2>"$place/errors" || { tail -n 3 "$place/errors"; exit 1; }) <<'PYTHON'
import sys
from pydoc_data.topics import topics

import sentencepiece
import transformers

lines = [line.strip() for text in topics.values() for line in text.split("\n") if line.strip()]
ids = {"unk_id": 0, "bos_id": 1, "eos_id": 2}
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines), model_prefix="sentencepiece.bpe", vocab_size=3000, minloglevel=2, **ids
)
holds = True
for name in ("XLMRobertaTokenizer", "XLMRobertaTokenizerFast", "CamembertTokenizer"):
    tokenizer = getattr(transformers, name).from_pretrained(".")
    word, masked = (tokenizer.tokenize(f"the ({text})") for text in ("value", tokenizer.mask_token))
    print(f"transformers {transformers.__version__}, {name}: {' '.join(masked)}   beside   {' '.join(word)}")
    holds &= masked[-2:] == ["▁", ")"] and "▁" not in word
sys.exit(not holds)
PYTHON
done
echo "as described"
