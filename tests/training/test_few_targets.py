"""Documents of one sentence give objectives of pairs no target, or one label alone; what is said of it, and what is
logged.
"""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder

from tests.commands.running import run_script
from tests.training.runs import arguments, make_data, train


def corpus(folder: Path, sentences: list[int]) -> Path:
    """Documents of so many sentences, with the dictionary of `make_data`."""
    make_data(folder, documents=4)
    for split in ("train", "valid"):
        builder = MMapIndexedDatasetBuilder(str(folder / f"{split}.bin"), dtype=np.uint16)
        for number, count in enumerate(sentences):
            for _ in range(count):
                builder.add_item(torch.tensor([*range(6 + number % 5, 16), 2]))
            builder.add_item(torch.tensor([2]))
        builder.finalize(str(folder / f"{split}.idx"))
    return folder


def warned(data: Path, save_dir: Path, hierarchy: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.WARNING):
        train(arguments(data, save_dir, "--hierarchy", hierarchy, "--transfer", "", "--max-update", "1"))
    found = [record.getMessage() for record in caplog.records]
    return [message for message in found if "one sentence" in message or "of the sentences" in message]


@pytest.mark.parametrize(
    ("hierarchy", "sentences", "said"),
    [
        (
            "nsp@1,mlm@2",
            [1] * 12,
            "all of the documents hold one sentence: no pairs for nsp are of neighbours, and accuracy says",
        ),
        (
            "sop@1,mlm@2",
            [1] * 11 + [3],
            "92 % of the documents hold one sentence: few pairs for sop; prepare text with",
        ),
        ("nsp@1,mlm@2", [1, 3] * 6, ""),
        ("mlm@2", [1] * 12, ""),
    ],
)
def test_pairs_that_teach_nothing_are_named(
    hierarchy: str, sentences: list[int], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = warned(corpus(tmp_path / "data", sentences), tmp_path / "run", hierarchy, caplog)
    assert len(found) == bool(said) and (not said or f"{tmp_path}/data/train: {said}" in found[0])


@pytest.mark.parametrize("objective", ["nsp", "distance", "sop"])
def test_sentences_that_fill_a_sample_are_named(
    objective: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines that are paragraphs, prepared as sentences: each was a sample's first segment, the second always random."""
    data = corpus(tmp_path / "data", [4] * 12)
    with caplog.at_level(logging.WARNING):
        hierarchy = ["--hierarchy", f"{objective}@1,mlm@2", "--transfer", "", "--max-update", "1"]
        train(arguments(data, tmp_path / "run", *hierarchy, "--tokens-per-sample", "9"))
    (said,) = (message for message in caplog.messages if "of the sentences" in message)
    assert "all of the sentences fill --tokens-per-sample 9 alone: no pairs for" in said
    assert "--format paragraphs" in said


def test_preparation_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t").write_text("\n\n".join(f"The cat number {n} sees a dog." for n in range(40)))
    options = ["--format", "sentences", "--vocab-size", "34", "--workers", "1", "--valid-fraction", "0.1"]
    run_script("prepare_corpus", tmp_path / "t", "--out", tmp_path / "d", *options)
    assert "train and valid: one sentence a document, no pairs for next-sentence prediction" in capsys.readouterr().out


def test_neighbouring_losses_compare(tmp_path: Path) -> None:
    """An objective that had no target since the last line counts with what it last was: without, lines jump by its
    loss.
    """
    data = corpus(tmp_path / "data", [1, 1, 1, 4] * 12)
    more = [
        "--hierarchy",
        "sop@1*2,mlm@2",
        "--transfer",
        "",
        "--max-tokens",
        "60",
        "--batch-size",
        "1",
        "--log-interval",
        "1",
    ]
    lines = train(arguments(data, tmp_path / "run", *more, "--max-update", "30", "--disable-validation"))
    intervals = [line for line in lines if "loss" in line]
    last: dict[str, float] = {}
    without = 0
    for line in intervals:
        found = {name: line[f"{name}_loss"] for name in ("sop", "mlm") if not math.isnan(line[f"{name}_loss"])}
        without += bool(last.keys() - found.keys())
        last |= found
        assert line["loss"] == pytest.approx(last.get("mlm", 0) + 2 * last.get("sop", 0), abs=2e-3)
    assert without > 3, "no interval lacked a target: nothing was tested"
