#!/usr/bin/env bash
# sentencepiece 0.2.1 and 0.2.3: a unigram vocabulary depends on num_threads, 16 by default, so the same text and options
# give another model where they are given with another number of threads, and the number is in no log and not in the model.
#
# Guess before running: threads share the work of counting, and the result is that of one.
# Seen: several pieces differ and many change places, as sums of floats come out otherwise, so ids differ in a large share of
# all lines, the split into pieces in a few of a thousand. BPE models are equal to the byte.
# Why it matters: a corpus that is binarised anew on another machine, num_threads set to its cores, is another corpus, and a
# checkpoint reads wrong ids without an error: the size of the vocabulary is the same.
#
#   bash findings/sentencepiece_threads.sh      # exits 0 while it holds, 1 once it does not
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/0.2.1" && "$place/0.2.1/bin/pip" install -q sentencepiece==0.2.1
python3 -m venv "$place/0.2.3" && "$place/0.2.3/bin/pip" install -q sentencepiece==0.2.3
for version in 0.2.1 0.2.3; do
    "$place/$version/bin/python" - <<'PYTHON'
import importlib.metadata
import io
import sys
from pydoc_data.topics import topics  # the prose of Python's reference: the same text wherever this Python is

import sentencepiece

lines = [line.strip() for text in topics.values() for line in text.split("\n") if line.strip()]


def trained(kind, threads):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=3000, model_type=kind, num_threads=threads, minloglevel=2
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def compared(kind):
    one, other = trained(kind, 1), trained(kind, 4)
    pieces = [[model.id_to_piece(i) for i in range(len(model))] for model in (one, other)]
    ids = sum(one.encode(line) != other.encode(line) for line in lines)
    splits = sum(one.encode(line, out_type=str) != other.encode(line, out_type=str) for line in lines)
    print(
        f"sentencepiece {importlib.metadata.version('sentencepiece')}, {kind}, 1 thread and 4, {len(lines)} lines: "
        f"{len(set(pieces[0]) - set(pieces[1]))} pieces differ; other ids in {ids} lines, other pieces in {splits}"
    )
    return ids


sys.exit(not (compared("unigram") > len(lines) // 100 and compared("bpe") == 0))
PYTHON
done
echo "as described"
