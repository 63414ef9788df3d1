"""Damaged and odd input at every door: a sane result, or one line. `scripts/fuzz.py` tries for longer."""

from pathlib import Path

import pytest

from tests.fuzzing.doors import DOORS
from tests.fuzzing.engine import Door, run

TRIALS = 60


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_damaged_and_odd_input_is_one_line(door: Door, tmp_path: Path) -> None:
    trials = range(int(TRIALS * door.weight))
    faults, tried = run(door, tmp_path / "door", 1, trials, lambda: False)
    assert tried == len(trials)
    assert not faults, f"{len(faults)} faults, first in trial {faults[0].trial}:\n{faults[0].what}"
