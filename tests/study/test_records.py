"""Records: a stage counts when its group is whole; packed, they are the same bytes wherever they were written."""

import json
import random
from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.study.records import PACKED, Records, pack

CLOSING = {"stage": "RTE", "seconds": 1.5}


def fill(study: Path, runs: list[str], stages: int = 3) -> set[str]:
    """Records of some runs; their fingerprints."""
    records, fingerprints = Records(study), set()
    for run in runs:
        for stage in range(stages):
            fingerprint = f"{run}{stage}"
            records.add(run, fingerprint, [{"kind": "glue", "run": run, "metrics": {"é": stage}}] * stage, CLOSING)
            fingerprints.add(fingerprint)
    return fingerprints


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert "f" not in records
    records.add("flat-seed1", "f", [{"kind": "glue", "n": 1}, {"kind": "glue", "n": 2}], CLOSING)
    assert "f" in records
    again = Records(tmp_path)
    assert "f" in again and "g" not in again
    *lines, closing = again.groups["f"]
    assert [line["n"] for line in lines] == [1, 2]
    assert (closing["kind"], closing["stage"], closing["seconds"]) == ("stage", "RTE", 1.5)
    assert [one["n"] for one in records.groups["f"][:-1]] == [1, 2] and records.groups["f"][-1]["stage"] == "RTE"


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.6, 0.95, 0.999])
def test_a_group_of_a_killed_writer_does_not_count(tmp_path: Path, share: float) -> None:
    """Wherever it was cut, and when the stage is done again, its lines are there once."""
    Records(tmp_path).add("run", "first", [{"n": 0}], CLOSING)
    path = tmp_path / "records" / "run.jsonl"
    whole = path.read_bytes()
    Records(tmp_path).add("run", "f", [{"n": 1}, {"n": 2}, {"n": 3}], CLOSING)
    group = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + group[: int(share * (len(group) - 1))])
    records = Records(tmp_path)
    assert "first" in records and "f" not in records
    records.add("run", "g", [{"n": 7}], CLOSING)
    records.add("run", "f", [{"n": 4}, {"n": 5}, {"n": 6}], CLOSING)
    groups = Records(tmp_path).groups
    assert {key: [line["n"] for line in group[:-1]] for key, group in groups.items()} == {
        "first": [0],
        "f": [4, 5, 6],
        "g": [7],
    }


def test_half_a_group_cut_at_a_line_end(tmp_path: Path) -> None:
    """Nothing in the file tells where the second try begins, but the closing line says how many lines are its own."""
    Records(tmp_path).add("run", "f", [{"n": 1}, {"n": 2}], CLOSING)
    path = tmp_path / "records" / "run.jsonl"
    first = path.read_text().splitlines(keepends=True)[0]
    path.write_text(first)
    Records(tmp_path).add("run", "f", [{"n": 3}, {"n": 4}], CLOSING)
    assert [line["n"] for line in Records(tmp_path).groups["f"][:-1]] == [3, 4]
    path.write_text(first)
    Records(tmp_path).add("run", "f", [], CLOSING)
    assert len(Records(tmp_path).groups["f"]) == 1


def test_groups_of_before_lines_were_counted_are_read(tmp_path: Path) -> None:
    """Half a group of another stage before one is told by its fingerprint."""
    Records(tmp_path).add("run", "g", [{"n": 0}], CLOSING)
    half = (tmp_path / "records" / "run.jsonl").read_text().splitlines()[0]
    (tmp_path / "records" / "run.jsonl").write_text(f"{half}\n")
    Records(tmp_path).add("run", "f", [{"n": 1}, {"n": 2}], CLOSING)
    path = tmp_path / "records" / "run.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "lines"}) + "\n" for line in lines))
    assert [line["n"] for line in Records(tmp_path).groups["f"][:-1]] == [1, 2]


def test_a_stage_done_again_replaces_the_first(tmp_path: Path) -> None:
    for number in (1, 2):
        Records(tmp_path).add("run", "f", [{"n": number}], CLOSING)
    assert [line.get("n") for line in Records(tmp_path).groups["f"]] == [2, None]


def test_what_another_process_recorded_is_seen(tmp_path: Path) -> None:
    records = Records(tmp_path)
    Records(tmp_path).add("run", "f", [], CLOSING)
    records.refresh("other")
    assert "f" not in records
    records.refresh("run")
    assert "f" in records


def test_packed_is_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    wanted = fill(tmp_path / "a", ["x", "y"])
    size = pack(tmp_path / "a", tmp_path / "a.gz", wanted)
    content = (tmp_path / "a.gz").read_bytes()
    assert content[4:8] == bytes(4)  # where gzip notes the time
    assert size == len(content) and [path.name for path in tmp_path.glob("*.part")] == []
    # the same lines, groups in another order, all in one file of another name
    groups = list(Records(tmp_path / "a").groups.values())
    random.Random(0).shuffle(groups)
    other = tmp_path / "b" / "records" / "all.jsonl"
    other.parent.mkdir(parents=True)
    other.write_text("".join(json.dumps(line) + "\n" for group in groups for line in group))
    pack(tmp_path / "b", tmp_path / "another name.gz", wanted)
    assert (tmp_path / "another name.gz").read_bytes() == content
    # and packed once more, from the packed file alone
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / PACKED).write_bytes(content)
    pack(tmp_path / "c", tmp_path / "c" / PACKED, wanted)
    assert (tmp_path / "c" / PACKED).read_bytes() == content


def test_packed_then_read_gives_the_same_groups(tmp_path: Path) -> None:
    wanted = fill(tmp_path / "a", ["x", "y"])
    (tmp_path / "b").mkdir()
    pack(tmp_path / "a", tmp_path / "b" / PACKED, wanted | {"never done"})
    assert Records(tmp_path / "b").groups == Records(tmp_path / "a").groups
    pack(tmp_path / "a", tmp_path / "b" / PACKED, {"x0", "y2"})  # stages of an older plan are left behind
    assert set(Records(tmp_path / "b").groups) == {"x0", "y2"}


def test_records_go_on_beside_packed_ones(tmp_path: Path) -> None:
    pack(tmp_path, tmp_path / PACKED, fill(tmp_path, ["x"]))
    (tmp_path / "records" / "x.jsonl").unlink()
    Records(tmp_path).add("x", "x1", [{"n": 9}], CLOSING)
    records = Records(tmp_path)
    assert set(records.groups) == {"x0", "x1", "x2"} and records.groups["x1"][0]["n"] == 9


def broken(content: bytes) -> list[bytes]:
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 0xFF])
    return [
        content[:middle],  # half of a download
        content[:middle] + flipped + content[middle + 1 :],
        content[:-6] + b"\0\0" + content[-4:],  # its checksum
        b"<html>not found</html>",
        content[:10] + b"\xff" * 40,
    ]


@pytest.mark.parametrize("kind", range(5))
def test_a_broken_pack_is_one_clear_error(tmp_path: Path, kind: int) -> None:
    pack(tmp_path, tmp_path / PACKED, fill(tmp_path, ["x"]))
    path = tmp_path / PACKED
    path.write_bytes(broken(path.read_bytes())[kind])
    with pytest.raises(UserError, match=r"records.jsonl.gz: cannot be read \(.*\): fetch it again, or remove it") as e:
        Records(tmp_path)
    assert "\n" not in str(e.value)
