"""The loader's benchmark on a small corpus: every row is measured, and the targets are of rows that exist."""

from argparse import Namespace
from pathlib import Path

import loader
from record import Recorder
from targets import read_targets


def test_rows(tmp_path: Path) -> None:
    args = Namespace(seconds=0.01, repeats=1, sentences=2000)
    recorder = Recorder("loader", None)
    loader.measure(recorder, args, tmp_path, batch=4)
    rows = recorder.rows
    assert len(rows) == len(loader.OBJECTIVES) + 1
    assert all(row.value > 0 and row.peer_value for row in rows)
    for target in (target for target in read_targets() if target.benchmark == "loader"):
        assert any(target.concerns("loader", "cpu", row.what) for row in rows), target
