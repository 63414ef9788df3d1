"""Learning curve and cost are read from a log as fairseq writes it, resumed parts included."""

import json
import math
from pathlib import Path

from hmtl_plugin.study.curve import cost, learning_curve

BEGIN = """2026-11-25 08:41:24 | INFO | fairseq_cli.train | {'_name': None, 'common': {'no_progress_bar': False, 'seed': 1}}
2026-11-25 08:41:27 | INFO | fairseq_cli.train | HierarchicalBertModel(
  (encoder): Encoder(
2026-11-25 08:41:27 | INFO | fairseq_cli.train | num. shared model params: 1,634,932 (num. trained: 1,634,164)
2026-11-25 08:41:28 | INFO | fairseq_cli.train | Start iterating over samples
"""
END = "2026-11-25 08:59:00 | INFO | fairseq_cli.train | done training in 99.0 seconds\n"


def line(kind: str, **values: object) -> str:
    content = {"epoch": 1} | {key: value if isinstance(value, float) else str(value) for key, value in values.items()}
    return f"2026-11-25 08:42:05 | INFO | {kind} | {json.dumps(content)}\n"


def inner(updates: int, wps: float = 1000, wall: int = 10) -> str:
    more = {"loss": "8.5", "mlm_loss": "7.9", "ups": "2.68", "num_updates": updates, "train_wall": wall, "wall": 37}
    return line("train_inner", update=0.25, wps=wps, **more)


def valid(updates: int, mlm: float, nsp: float | None = None) -> str:
    values: dict[str, object] = {"valid_loss": mlm + 1, "valid_mlm_loss": mlm, "valid_mlm_ppl": 2**mlm}
    values |= {} if nsp is None else {"valid_nsp_accuracy": nsp}
    return line("valid", **values, valid_wps="46365.4", valid_num_updates=updates, valid_best_mlm_loss=mlm - 1)


def written(tmp_path: Path, *parts: str) -> Path:
    path = tmp_path / "log.txt"
    path.write_text("".join(parts))
    return path


def test_values_by_update(tmp_path: Path) -> None:
    epoch = line("train", train_loss="7.6", train_wps="10226", train_num_updates=20, train_train_wall=22, train_wall=23)
    log = written(tmp_path, BEGIN, inner(10), valid(10, 6.5, 60), epoch, inner(20), valid(20, 6, 70), END)
    assert learning_curve(log) == {"updates": [10, 20], "mlm_loss": [6.5, 6], "nsp_accuracy": [60, 70]}


def test_what_a_resumed_run_logged_again_counts_once(tmp_path: Path) -> None:
    first = [
        BEGIN,
        valid(10, 6.5),
        inner(20),
        valid(20, 6.25),
        '2026-11-25 08:42:05 | INFO | valid | {"epoch": 1, "va\n',
    ]
    log = written(tmp_path, *first, BEGIN, inner(20), valid(20, 6.0), valid(30, 5.5), END)
    assert learning_curve(log) == {"updates": [10, 20, 30], "mlm_loss": [6.5, 6, 5.5]}


def test_a_value_that_is_missing_at_some_updates(tmp_path: Path) -> None:
    curve = learning_curve(written(tmp_path, valid(20, 6, 70), valid(10, 6.5)))
    assert curve["updates"] == [10, 20] and curve["mlm_loss"] == [6.5, 6]
    assert math.isnan(curve["nsp_accuracy"][0]) and curve["nsp_accuracy"][1] == 70


def test_cost(tmp_path: Path) -> None:
    """The interval of the evaluation or of a start is slow: the median. Seconds are those of all parts."""
    log = written(tmp_path, BEGIN, inner(10, 10, 12), inner(20, 1000), BEGIN, inner(20, 0, 8), inner(30, 1200), END)
    assert cost(log) == {"parameters": 1634932, "tokens_per_second": 1000, "training_seconds": 40}


def test_seconds_of_an_epoch_s_line_are_not_added(tmp_path: Path) -> None:
    """It repeats its intervals' seconds, and has the whole process's under the name that an interval's have."""
    epoch = line("train", train_loss="7.6", train_wps="10226", train_num_updates=20, train_train_wall=22, train_wall=33)
    log = written(tmp_path, BEGIN, inner(10, wall=12), inner(20, wall=10), epoch, inner(30, wall=8), END)
    assert cost(log)["training_seconds"] == 30


def test_a_log_without_anything(tmp_path: Path) -> None:
    log = written(tmp_path, "killed before the first line\n")
    assert learning_curve(log) == {"updates": []}
    assert cost(log) == {"parameters": None, "tokens_per_second": None, "training_seconds": None}
    log.write_bytes(b"\xff\xfe{\n" + valid(10, 6.5).encode())
    assert learning_curve(log) == {"updates": [10], "mlm_loss": [6.5]}
