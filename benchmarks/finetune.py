#!/usr/bin/env python3
"""Time of one epoch of fine-tuning on RTE against Hugging Face's Trainer, on the same token ids.

    python benchmarks/finetune.py --glue-dir DIR [--size small] [--batch-size 32] [--repeats 3] [--autocast none]

Both train BERT of the same sizes from random weights, dropout 0.1, AdamW with linear decay, fp32 (or bf16 with
--autocast bf16), padding each batch to its longest row, and measure the validation set once. Each runs as a process of
its own, in turns; the time is that of training as each of them reports it, with the validation after it; start-up is not
in it.
"""

import argparse
import re
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hugging_face import library, shape_of
from own_process import alone
from record import Recorder, Row, command_line
from systems import PLUGIN
from turns import interleaved, output, seconds_of

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.glue.dataset import cut_pair, read_labels
from hmtl_plugin.glue.files import find_files, read_rows
from hmtl_plugin.glue.prepare import prepare_glue
from hmtl_plugin.glue.tasks import TASKS
from hmtl_plugin.models.hierarchical_bert import ARCHITECTURES
from hmtl_plugin.parallel import cpu_count
from hmtl_plugin.tokenizers.loading import load_tokenizer
from hmtl_plugin.tokenizers.sentencepiece import SentencePieceTokenizer
from hmtl_plugin.tokenizers.training import train_tokenizer

RTE, MAX_TOKENS, LEARNING_RATE, PIECES = TASKS["RTE"], 128, "1e-4", 8000
Rows = list[dict[str, Any]]


def prepare(glue_dir: Path, folder: Path) -> Path:
    """RTE binarised with a tokenizer of its own text."""
    train = next(file for file in find_files(RTE, glue_dir) if file.split == "train")
    texts = [text for span in train.spans() for column in read_rows(RTE, train, span).texts for text in column]
    tokenizer = SentencePieceTokenizer(train_tokenizer(texts, PIECES))
    prepared = prepare_glue([RTE], glue_dir, folder, tokenizer.dictionary(), tokenizer, cpu_count())
    return next(prepared).folder


def ours(data: Path, folder: Path, args: argparse.Namespace) -> float:
    """Seconds of an epoch by `fairseq-train`, as it logs them."""
    updates = -(-len(Corpus(str(data / "input0" / "train"))) // args.batch_size)
    options = (
        f"--task glue --criterion glue --arch hmtl_bert_{args.size} --tokens-per-sample {MAX_TOKENS} "
        f"--optimizer hmtl_adamw --lr {LEARNING_RATE} --lr-scheduler polynomial_decay --clip-norm 1.0 "
        f"--total-num-update {updates} --max-epoch 1 --batch-size {args.batch_size} --num-workers 0 "
        f"--required-batch-size-multiple 1 --no-save --autocast {args.autocast}"
    )
    places = [str(data), "--user-dir", PLUGIN, "--save-dir", str(folder)]
    logged = output([sys.executable, "-m", "fairseq_cli.train", *places, *options.split()])
    return float(re.findall(r"done training in ([\d.]+) seconds", "\n".join(logged))[-1])


def peer(data: Path, folder: Path, args: argparse.Namespace) -> float:
    """Seconds of an epoch by Hugging Face's Trainer: `trainer.train()`, evaluation after the epoch included."""
    transformers = library()
    shape = shape_of(*ARCHITECTURES[args.size], len(load_tokenizer(data / "sentencepiece.bpe.model")))
    trainer = transformers.Trainer(
        transformers.BertForSequenceClassification(transformers.BertConfig(**shape, pad_token_id=1, num_labels=2)),
        transformers.TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=64,
            num_train_epochs=1,
            learning_rate=float(LEARNING_RATE),
            bf16=args.autocast == "bf16",
            use_cpu=not torch.cuda.is_available(),
            eval_strategy="epoch",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_steps=50,
        ),
        train_dataset=_rows(data, "train"),
        eval_dataset=_rows(data, "valid"),
        data_collator=_collate,
    )
    return seconds_of(trainer.train)


def _rows(data: Path, split: str) -> Rows:
    """The same rows as ours, in Hugging Face's form."""
    columns = [Corpus(str(data / f"input{i}" / split)) for i in range(2)]
    items = np.arange(len(columns[0]))
    first, second = (column.lengths(items) for column in columns)
    kept = cut_pair(first, second, MAX_TOKENS - 3)
    rows = []
    for row, label in enumerate(read_labels(data, RTE, split).tolist()):
        one, two = (c.gather(np.array([row]), np.array([1]))[0][: k[row]].tolist() for c, k in zip(columns, kept))
        segments = [0] * (len(one) + 2) + [1] * (len(two) + 1)
        ids = [0, *one, 2, *two, 2]
        rows.append({"input_ids": ids, "token_type_ids": segments, "attention_mask": [1] * len(ids), "labels": label})
    return rows


def _collate(rows: Rows) -> dict[str, torch.Tensor]:
    """As DataCollatorWithPadding, without a tokenizer."""
    longest = max(len(row["input_ids"]) for row in rows)
    pads = {"input_ids": 1, "token_type_ids": 0, "attention_mask": 0}
    batch = {
        name: torch.tensor([row[name] + [pad] * (longest - len(row[name])) for row in rows])
        for name, pad in pads.items()
    }
    return batch | {"labels": torch.tensor([row["labels"] for row in rows])}


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__)
    parser.add_argument("--glue-dir", type=Path, required=True, metavar="DIR", help="holds RTE")
    parser.add_argument("--size", choices=list(ARCHITECTURES), default="small")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--autocast", choices=("none", "bf16"), default="none")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Recorder("finetune", args.json) as recorder:
        folder = Path(name)
        data = prepare(args.glue_dir, folder / "glue")
        runs = {
            "ours": partial(ours, data, folder / "ours", args),
            "peer": partial(alone, peer, data, folder / "peer", args),
        }
        seconds = interleaved(runs, args.repeats)
        precision = args.autocast.replace("none", "fp32")
        what = f"one epoch of RTE with validation, {args.size}, batch {args.batch_size}, {precision}"
        peer_name = "Hugging Face Trainer, dynamic padding"
        device = "gpu" if torch.cuda.is_available() else "cpu"
        recorder.add(Row(what, "s", seconds["ours"], "lower", seconds["peer"], peer_name, device))


if __name__ == "__main__":
    run_cli(main)
