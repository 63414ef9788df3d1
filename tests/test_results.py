"""The results store: appended whole, by several processes, over a line that a kill left half-written."""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.results import append_results, read_results
from tests.commands.running import run_script


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: 3, "it is an int, not a mapping"),
        (lambda line: [line], "it is a list, not a mapping"),
        (lambda line: line | {"metrics": "x"}, "'metrics' is a str, not a mapping"),
        (lambda line: line | {"seed": "1"}, "'seed' is a str, not an int"),
        (lambda line: line | {"metrics": {"score": [1]}}, "'metrics.score' is not a number"),
        (lambda line: line | {"kind": 7}, "'kind' is an int, not a str"),
    ],
)
def test_a_foreign_line(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    line = {"kind": "glue", "variant": "v", "task": "RTE", "seed": 1, "hyper": {}}
    line["metrics"] = {"score": 50.0, "low": 40.0, "high": 60.0}
    store = tmp_path / "results.jsonl"
    store.write_text("".join(json.dumps(each) + "\n" for each in (line, {"kind": "somebody's own", "seed": []}, line)))
    run_script("results", store)
    with store.open("a") as file:
        file.write(json.dumps(change(line)) + "\n")
    with pytest.raises(UserError) as caught:
        run_script("results", store)
    assert str(caught.value).startswith(f"{store}: line 4 is no result of this project ({message}): remove the line")
    store.write_text(json.dumps({key: value for key, value in line.items() if key != "hyper"}) + "\n")
    with pytest.raises(UserError, match=r"a result \(glue v RTE\) is not whole, it lacks 'hyper': remove the line"):
        run_script("results", store)
