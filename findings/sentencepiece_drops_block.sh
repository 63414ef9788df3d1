#!/usr/bin/env bash
# sentencepiece 0.2.3: training leaves out every sentence that holds U+2585 (a block of text-mode graphics), without an
# error; characters that stand in such sentences alone have no piece afterwards.
#
# Guess before running: a rare character becomes <unk>, or is dropped from its sentence.
# Seen: of 200 lines without and 200 with the character, the second half is not trained on: with character_coverage=1.0 its
# five characters are one unknown piece. With a blank in its place all five are known.
# Why it matters: progress bars and tables in scraped text; the share of <unk> is the only sign.
#
#   bash findings/sentencepiece_drops_block.sh      # exits 0 while it holds, 1 once it does not
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q sentencepiece==0.2.3
"$place/venv/bin/python" - <<'PYTHON'
import io
import sys

import sentencepiece

found = {}
for name, mark in (("with U+2585", "\u2585"), ("with a blank", " ")):
    lines = [f"the cat sees a dog {n}" for n in range(200)] + [f"猫狗吃米饭 {mark} {n}" for n in range(200)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=40, character_coverage=1.0, minloglevel=2
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    found[name] = sum(i == processor.unk_id() for i in processor.encode("猫狗吃米饭"))
    print(f"sentencepiece {sentencepiece.__version__}, {name}: {processor.encode('猫狗吃米饭', out_type=str)}")
sys.exit(found != {"with U+2585": 1, "with a blank": 0})
PYTHON
echo "as described"
