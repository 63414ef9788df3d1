#!/usr/bin/env python3
"""Time of one epoch of fine-tuning on RTE against Hugging Face's Trainer, on the same token ids.

    python benchmarks/finetune.py --glue-dir DIR [--size small] [--batch-size 32] [--repeats 3] [--autocast none]

Both train BERT of the same sizes from random weights, dropout 0.1, AdamW with linear decay, fp32 (or bf16 with
--autocast bf16), padding each batch to its longest row, and measure the validation set once. Each runs as a process of its
own, in turns; the time is that of training as each of them reports it, with the validation after it; start-up is
not in it.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from record import Recorder, Row
from turns import interleaved, output

import hmtl_plugin
from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.errors import UserError
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
    command = [
        *(sys.executable, "-m", "fairseq_cli.train", str(data), "--user-dir", str(Path(hmtl_plugin.__file__).parent)),
        *("--task", "glue", "--criterion", "glue", "--arch", f"hmtl_bert_{args.size}", "--tokens-per-sample", "128"),
        *(
            "--optimizer",
            "hmtl_adamw",
            "--lr",
            LEARNING_RATE,
            "--lr-scheduler",
            "polynomial_decay",
            "--clip-norm",
            "1.0",
        ),
        *(
            "--total-num-update",
            str(updates),
            "--max-epoch",
            "1",
            "--batch-size",
            str(args.batch_size),
            "--num-workers",
            "0",
        ),
        *("--required-batch-size-multiple", "1", "--no-save", "--save-dir", str(folder), "--autocast", args.autocast),
    ]
    return float(re.findall(r"done training in ([\d.]+) seconds", "\n".join(output(command)))[-1])


def theirs(data: Path, folder: Path, args: argparse.Namespace) -> float:
    """Seconds of an epoch by Hugging Face's Trainer: `trainer.train()`, evaluation after the epoch included."""
    command = [sys.executable, __file__, "--peer", str(data), "--out", str(folder), "--size", args.size]
    command += ["--batch-size", str(args.batch_size), "--autocast", args.autocast]
    return float(json.loads(output(command)[0].strip().splitlines()[-1])["seconds"])


def _rows(data: Path, split: str) -> list[dict[str, Any]]:
    """The same rows as ours, in Hugging Face's form."""
    columns = [Corpus(str(data / f"input{i}" / split)) for i in range(2)]
    items = np.arange(len(columns[0]))
    first, second = (column.lengths(items) for column in columns)
    kept = cut_pair(first, second, MAX_TOKENS - 3)
    rows = []
    for row, label in enumerate(read_labels(data, RTE, split).tolist()):
        one, two = (c.gather(np.array([row]), np.array([1]))[0][: k[row]].tolist() for c, k in zip(columns, kept))
        rows.append(
            {
                "input_ids": [0, *one, 2, *two, 2],
                "token_type_ids": [0] * (len(one) + 2) + [1] * (len(two) + 1),
                "attention_mask": [1] * (len(one) + len(two) + 3),
                "labels": label,
            }
        )
    return rows


def peer(args: argparse.Namespace) -> None:
    """In a process of its own: train, print the seconds."""
    sys.modules.setdefault("torchaudio", None)  # type: ignore[arg-type]  # where installed for CUDA it breaks transformers
    import transformers

    vocabulary = len(load_tokenizer(args.peer / "sentencepiece.bpe.model"))
    layers, hidden = ARCHITECTURES[args.size]
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        pad_token_id=1,
        num_labels=2,
    )

    def collate(
        rows: list[dict[str, Any]],
    ) -> dict[str, torch.Tensor]:  # as DataCollatorWithPadding, without a tokenizer
        longest = max(len(row["input_ids"]) for row in rows)
        pads = {"input_ids": 1, "token_type_ids": 0, "attention_mask": 0}
        batch = {
            name: torch.tensor([row[name] + [pad] * (longest - len(row[name])) for row in rows])
            for name, pad in pads.items()
        }
        return batch | {"labels": torch.tensor([row["labels"] for row in rows])}

    trainer = transformers.Trainer(
        transformers.BertForSequenceClassification(config),
        transformers.TrainingArguments(
            output_dir=str(args.out),
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
        train_dataset=_rows(args.peer, "train"),
        eval_dataset=_rows(args.peer, "valid"),
        data_collator=collate,
    )
    started = time.perf_counter()
    trainer.train()
    print(json.dumps({"seconds": time.perf_counter() - started}))


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--glue-dir", type=Path, metavar="DIR", help="holds RTE")
    p.add_argument("--size", choices=list(ARCHITECTURES), default="small")
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--autocast", choices=("none", "bf16"), default="none")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--json", type=Path, metavar="FILE")
    p.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    p.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.peer:
        return peer(args)
    if not args.glue_dir:
        raise UserError("--glue-dir DIR: give the folder that holds RTE")
    with tempfile.TemporaryDirectory() as name, Recorder("finetune", args.json) as recorder:
        folder = Path(name)
        data = prepare(args.glue_dir, folder / "glue")
        runs = {
            "ours": lambda: ours(data, folder / "ours", args),
            "peer": lambda: theirs(data, folder / "theirs", args),
        }
        seconds = interleaved(runs, args.repeats)
        precision = "fp32" if args.autocast == "none" else args.autocast
        what = f"one epoch of RTE with validation, {args.size}, batch {args.batch_size}, {precision}"
        peer_name = "Hugging Face Trainer, dynamic padding"
        device: Literal["cpu", "gpu"] = "gpu" if torch.cuda.is_available() else "cpu"
        recorder.add(Row(what, "s", seconds["ours"], "lower", seconds["peer"], peer_name, device))


if __name__ == "__main__":
    run_cli(main)
