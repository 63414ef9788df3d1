"""Records: what is measured comes back, what follows is worked out, nothing private gets in."""

import json
import re
import socket
import sys
from pathlib import Path

import pytest
import record
from machine import Machine, public
from quantities import measured, quantity
from record import Record, Recorder, Row
from targets import Target, read_targets

from tests.conftest import REPOSITORY

SPEED = Row(
    "speed", "tokens/s", (3e6, 1e6, 2e6), peer=(1e6, 5e5), peer_name="other", details={"batch": 8, "same": True}
)
TIME = Row("time", "s", (0.2, 0.4), "lower", peer=(0.6,), peer_name="other", device="gpu")
MEMORY = Row("memory", "bytes", (440e6,), "lower", peer=(400e6,), peer_name="itself on a tenth")
ABSOLUTE = re.compile(r'(?<![\w.)])~?/\w[^"\s]*/')


@pytest.fixture(autouse=True)
def _no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "commit", lambda: "0123456789ab+")  # the real one imports fairseq


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "x.json"
    with Recorder("made up", path) as recorder:
        for row in (SPEED, TIME, MEMORY):
            assert recorder.add(row) is row
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]
    read = Record.read(path)
    assert read == recorder.record
    assert read.rows == (SPEED, TIME, MEMORY)
    assert read.machine == Machine.here()
    assert read.finished
    assert read.versions["python"] == sys.version.split()[0]


def test_what_follows_from_the_numbers() -> None:
    values = SPEED.to_json([])
    assert values["ours"] == 2e6
    assert values["spread"] == [1e6, 3e6]
    assert values["repeats"] == 3
    assert (values["peer"], values["peer_spread"]) == (7.5e5, [5e5, 1e6])
    assert (values["target"], values["met"]) == (None, None)
    assert SPEED.ratio == pytest.approx(8 / 3)
    assert TIME.ratio == pytest.approx(2)  # half the time is twice as good
    assert MEMORY.overhead == pytest.approx(0.1)
    assert Row("alone", "s", (1.0,)).ratio is None
    with pytest.raises(ValueError, match="nothing measured"):
        Row("empty", "s", ())


def test_a_benchmark_that_is_stopped_leaves_its_rows(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Recorder("made up", tmp_path / "x.json") as recorder:  # noqa: PT012
        recorder.add(SPEED)
        assert not Record.read(tmp_path / "x.json").finished
        raise KeyboardInterrupt
    read = Record.read(tmp_path / "x.json")
    assert read.rows == (SPEED,)
    assert not read.finished


def test_nothing_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, text = REPOSITORY / "benchmarks" / "loader.py", REPOSITORY / "docs" / "contracts.md"
    arguments = [
        "--text",
        str(text),
        "/home/ann/my books/a.txt",
        "--json=/home/ann/x.json",
        "~/data",
        "/home/ann/a:/home/b",
    ]
    monkeypatch.setattr(sys, "argv", [str(script), *arguments, "../../home/ann/c", f"--out={tmp_path}"])
    with Recorder("made up", tmp_path / "x.json") as recorder:
        recorder.add(Row("reading /home/ann/books", "tokens/s", (1.0,), details={"file": str(tmp_path / "corpus.txt")}))
    content = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(content)["command"] == (
        "python benchmarks/loader.py --text docs/contracts.md a.txt --json=x.json data a:b c "
        + f"--out={tmp_path.name}"
    )
    assert not ABSOLUTE.search(content)
    assert "ann" not in content
    assert str(Path.home()) not in content
    assert socket.gethostname() not in content
    assert json.loads(content)["rows"][0]["details"]["file"] == "corpus.txt"


@pytest.mark.parametrize("text", ["12 tokens/s", "5 / 3", "masks and/or shifts", "16x128", "docs/benchmarks.md", "1/2"])
def test_what_is_no_path_stays(text: str) -> None:
    assert public(text) == text


def test_targets() -> None:
    speed = Target("b", "any", "speed*", "value", "at least", 2e6)
    twice = Target("b", "cpu", "speed", "ratio", "at least", 3)
    growth = Target("b", "cpu", "memory", "overhead", "at most", 0.1001)
    assert SPEED.met([speed])
    assert not SPEED.met([speed, twice])
    assert MEMORY.met([growth])
    assert not Row("speed", "tokens/s", (9e9,)).met([twice])  # without a peer there is no ratio
    assert SPEED.met([]) is None
    assert [target.text("tokens/s") for target in (speed, twice, growth)] == [
        "at least 2 M tokens/s",
        "at least 3x",
        "at most +10 %",
    ]
    assert speed.concerns("b", "gpu", "speed of all")
    assert not twice.concerns("b", "gpu", "speed")
    with pytest.raises(ValueError, match="measure"):
        Target("b", "any", "speed", "seconds", "at least", 1)


def test_table_of_targets() -> None:
    table = read_targets()
    assert len({(t.benchmark, t.device, t.what, t.measure, t.bound) for t in table}) == len(table)
    assert {target.device for target in table} <= {"cpu", "gpu", "any"}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.21e6, "tokens/s", "3.21 M tokens/s"),
        (0.0512, "s", "51.2 ms"),
        (84.7, "s", "84.7 s"),
        (0, "s", "0 us"),
        (8.2, "bytes", "8.2 bytes"),
        (4.3e8, "bytes", "430 MB"),
        (1.61e7, "bytes/s", "16.1 MB/s"),
        (41.25, "%", "41.2 %"),
        (12345678901234567, "tokens", "12,346 T tokens"),
    ],
)
def test_quantities(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_range_of_repeats_has_the_scale_of_its_median() -> None:
    assert measured((0.9e6, 3e6, 2e6), "tokens/s") == "2 M tokens/s (0.9 to 3, 3 runs)"
    assert measured((0.5,), "s") == "500 ms (one run)"
