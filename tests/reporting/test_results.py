"""The results store: appended whole, by several processes, over a line that a kill left half-written."""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from hmtl_plugin.reporting.results import append_results, read_results


def write(arguments: tuple[str, int]) -> None:
    path, number = arguments
    for k in range(20):
        append_results(Path(path), [{"kind": "pretrain", "number": number, "k": k, "long": "x" * 5000}])


def test_processes_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(write, [(str(path), 0), (str(path), 1)]))
    results = read_results(path)
    assert sorted((r["number"], r["k"]) for r in results) == [(n, k) for n in (0, 1) for k in range(20)]
    assert {"schema", "versions", "commit", "command"} <= results[0].keys()


def test_half_a_line_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [{"a": 1}])
    with open(path, "a") as store:
        store.write(json.dumps({"b": 2})[:4])
    append_results(path, [{"c": 3}])
    assert [("a" in r, "c" in r) for r in read_results(path)] == [(True, False), (False, True)]
    assert read_results(tmp_path / "none.jsonl") == []
