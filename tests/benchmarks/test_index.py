"""The benchmark of growing corpora gives what it says, from corpora small enough for a test."""

from pathlib import Path

import index_parts
import pytest
from simulated import write_corpus


def test_growth_takes_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_parts, "_SECONDS", 0.01)
    prefixes = []
    for sentences in (3000, 6000):
        prefixes.append(tmp_path / f"{sentences}" / "train")
        prefixes[-1].parent.mkdir()
        write_corpus(prefixes[-1], sentences, sentences // 20)
    smaller, larger = index_parts.growth("1", "3", *map(str, prefixes))
    kinds = ["samples, order and batches of an epoch", "corruption and collation", "both, as a whole epoch takes"]
    assert [*smaller] == [*larger] == [*kinds, "words read at random and nothing else"]
    for found in (smaller, larger):
        assert all(len(rates) == 3 and min(rates) > 0 for rates in found.values())
        for epoch, collating, both in zip(*(found[kind] for kind in kinds), strict=True):
            assert 1 / both == pytest.approx(1 / epoch + 1 / collating)
