"""The benchmark of growing corpora gives what it says, from corpora small enough for a test."""

from pathlib import Path

import index_parts
import pytest
from synthetic import write_corpus


def test_growth_takes_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_parts, "_SECONDS", 0.01)
    prefixes = []
    for sentences in (3000, 6000):
        prefixes.append(tmp_path / f"{sentences}" / "train")
        prefixes[-1].parent.mkdir()
        write_corpus(prefixes[-1], index_parts.VOCABULARY, sentences, sentences // 20)
    smaller, larger = index_parts.growth(3, prefixes)
    kinds = ["samples, order and batches of an epoch", "corruption and collation", "both, as a whole epoch takes"]
    for found in (smaller, larger):
        assert len(found) == 3
        for rates in found:
            assert [*rates] == [*kinds, "words read at random and nothing else"]
            assert min(rates.values()) > 0
            epoch, collating, both = (rates[kind] for kind in kinds)
            assert 1 / both == pytest.approx(1 / epoch + 1 / collating)
