#!/usr/bin/env python
"""Speed from a SQuAD file to features, against the way of transformers' ``run_qa``, interleaved, on the same file.

    python benchmarks/squad_features.py dev-v1.1.json [--max-tokens 384] [--stride 128] [--repeats 5] [--json FILE]

Ours: what `prepare_squad` and the task do. Read and check the file, tokenise every context once and every question, in
as many processes as there are processors, write them with the offsets of their tokens, open them, make windows and the
positions of the answers, and collate all of it into padded arrays.

Peer: read the file; the fast tokenizer on batches of 1,000 pairs of question and context (it uses all processors) with
``truncation="only_second"``, ``return_overflowing_tokens``, ``return_offsets_mapping`` and ``padding="max_length"``; for
each feature a loop over its offsets that finds the answer; arrays of all. Once with a WordPiece tokenizer, as BERT's is,
once with a Unigram one, as ours is; all tokenizers are trained on the file's contexts, with the same number of pieces.

Here the stride is the step between two windows, there their overlap. Every run has a process of its own; imports and the
loading of tokenizers are not counted.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hugging_face import library
from own_process import alone
from record import Recorder, Row, command_line
from turns import interleaved

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.errors import UserError
from hmtl_plugin.parallel import cpu_count
from hmtl_plugin.squad.dataset import SquadDataset, SquadSplit
from hmtl_plugin.squad.files import read_squad
from hmtl_plugin.squad.prepare import prepare_squad
from hmtl_plugin.squad.windows import answer_positions
from hmtl_plugin.tokenizers.loading import load_tokenizer
from hmtl_plugin.tokenizers.training import train_tokenizer

PEERS = ("WordPiece", "Unigram")
_BATCH = 32  # of ours
_MAP_BATCH = 1000  # of the peer's, datasets' default
Result = dict[str, float]


def ours(path: Path, model: Path, folder: Path, max_tokens: int, stride: int) -> Result:
    """Seconds, features, and features that hold an answer."""
    tokenizer = load_tokenizer(model)
    dictionary = tokenizer.dictionary()
    started = time.perf_counter()
    prepare_squad(None, path, None, folder / "ours", dictionary, tokenizer, cpu_count(), overwrite=True)
    split = SquadSplit(folder / "ours" / "valid")
    windows = split.windows(max_tokens, stride, 64)
    labels = answer_positions(windows, split.table["begin"], split.table["end"])
    dataset = SquadDataset(split, windows, labels)
    order = dataset.ordered_indices()
    for begin in range(0, len(order), _BATCH):
        dataset.collater(order[begin : begin + _BATCH].tolist())
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "features": len(windows), "with_answer": int((labels.start > 0).sum())}


def train_peer(path: Path, kind: str, size: int, target: Path) -> None:
    """A tokenizer of the library's own."""
    import tokenizers as t

    trainer: Any
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if kind == "WordPiece":
        tokenizer = t.Tokenizer(t.models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = t.normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = t.pre_tokenizers.BertPreTokenizer()
        trainer = t.trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    else:
        tokenizer = t.Tokenizer(t.models.Unigram())
        tokenizer.normalizer = t.normalizers.NFKC()
        tokenizer.pre_tokenizer = t.pre_tokenizers.Metaspace()
        trainer = t.trainers.UnigramTrainer(
            vocab_size=size, special_tokens=special, unk_token="[UNK]", show_progress=False
        )
    tokenizer.train_from_iterator(read_squad(path).contexts, trainer)
    ids = [(piece, tokenizer.token_to_id(piece)) for piece in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = t.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer.save(str(target))


def peer(path: Path, tokenizer_file: Path, max_tokens: int, stride: int) -> Result:
    """Seconds, features, and features that hold an answer."""
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = library().PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file), **special)
    tokenizer("a", "b")
    started = time.perf_counter()
    columns: dict[str, list[list[int]]] = {}
    starts: list[int] = []
    ends: list[int] = []
    for rows in _batches(path):
        encoded = tokenizer(
            [question.lstrip() for question, _, _, _ in rows],
            [context for _, context, _, _ in rows],
            truncation="only_second",
            max_length=max_tokens,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding="max_length",
        )
        of_feature = encoded.pop("overflow_to_sample_mapping")
        for feature, offsets in enumerate(encoded.pop("offset_mapping")):
            _, _, start, text = rows[of_feature[feature]]
            first, last = _positions(encoded.sequence_ids(feature), offsets, start, start + len(text))
            starts.append(first)
            ends.append(last)
        for name, values in encoded.items():
            columns.setdefault(name, []).extend(values)
    arrays = [np.array(values) for values in (*columns.values(), starts, ends)]
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "features": len(arrays[0]), "with_answer": int((arrays[-1] > 0).sum())}


def _batches(path: Path) -> Iterator[list[tuple[str, str, int, str]]]:
    """Question, context, first answer's place and text."""
    rows: list[tuple[str, str, int, str]] = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answer: dict[str, Any] = qa["answers"][0] if qa["answers"] else {"answer_start": -1, "text": ""}
                rows.append((qa["question"], paragraph["context"], answer["answer_start"], answer["text"]))
    for begin in range(0, len(rows), _MAP_BATCH):
        yield rows[begin : begin + _MAP_BATCH]


def _positions(sequence: list[int | None], offsets: list[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The answer's first and last token, found token by token from both ends of the context; 0 for none."""
    if start < 0:
        return 0, 0
    first, last = 0, len(sequence) - 1
    while sequence[first] != 1:
        first += 1
    while sequence[last] != 1:
        last -= 1
    if offsets[first][0] > start or offsets[last][1] < end:
        return 0, 0
    while first < len(offsets) and offsets[first][0] <= start:
        first += 1
    while offsets[last][1] >= end:
        last -= 1
    return first - 1, last + 1


def measure(recorder: Recorder, path: Path, folder: Path, args: argparse.Namespace) -> None:
    """A row a peer."""
    model = folder / "model"
    contexts = read_squad(path).contexts
    model.write_bytes(train_tokenizer((part for context in contexts for part in context.split(". ")), args.vocab_size))
    size = len(load_tokenizer(model))
    counts: dict[str, Result] = {}
    for kind in PEERS:
        train_peer(path, kind, size, folder / kind)

    def run(name: str, function: Callable[..., Result], *arguments: Any) -> float:
        counts[name] = alone(function, path, *arguments, args.max_tokens, args.stride)
        return counts[name]["seconds"]

    runs = {kind: partial(run, kind, peer, folder / kind) for kind in PEERS}
    seconds = interleaved({"ours": partial(run, "ours", ours, model, folder), **runs}, args.repeats)
    for kind in PEERS:
        details = {
            "pieces in the vocabulary": size,
            "features": counts["ours"]["features"],
            "of them with an answer": counts["ours"]["with_answer"],
            "features of the peer": counts[kind]["features"],
            "longest feature (tokens)": args.max_tokens,
            "processes": cpu_count(),
        }
        peer_name = f"run_qa's map, fast {kind} tokenizer"
        what = f"SQuAD file to features, against {kind}"
        recorder.add(Row(what, "s", seconds["ours"], "lower", seconds[kind], peer_name, details=details))


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__)
    parser.add_argument("file", type=Path, help="a SQuAD file with answers, for example dev-v1.1.json")
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--max-tokens", type=int, default=384)
    parser.add_argument("--stride", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise UserError("the peer is not installed; pip install 'hmtl-plugin[hf]'") from error
    with tempfile.TemporaryDirectory() as name, Recorder("squad_features", args.json) as recorder:
        measure(recorder, args.file, Path(name), args)


if __name__ == "__main__":
    run_cli(main)
