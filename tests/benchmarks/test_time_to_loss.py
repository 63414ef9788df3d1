"""Systems race to a held-out loss on equal terms: same batches, same measurements, clocks that run while they train."""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loss_race import Race, Rules, Run
from own_process import Here, Started, Turn

from hmtl_plugin.errors import UserError
from tests.benchmarks.test_training import record_of
from tests.conftest import FIRST_WORD

SYSTEMS = ("OurTraining", "BertTraining", "ModernBertTraining")
OWN = "--hierarchy nsp@-1,mlm@-1 --optimizer hmtl_adamw --lr 1e-2 --warmup-updates 100 --dropout 0.2"
WORDS = 60


@pytest.fixture
def data(make_corpus: Callable[..., Path], tmp_path: Path) -> Path:
    """Text of few words, each of which tells what comes next."""

    def documents(seed: int, number: int) -> list[list[list[int]]]:
        random = np.random.default_rng(seed)

        def sentence() -> list[int]:
            words: list[int] = ((random.integers(6) + np.arange(random.integers(4, 11))) % 6 + FIRST_WORD).tolist()
            return words

        return [[sentence() for _ in range(random.integers(2, 8))] for _ in range(number)]

    return make_corpus(tmp_path / "data", WORDS, train=documents(0, 80), valid=documents(1, 30))


def training(data: Path, name: str, own: str = OWN) -> Any:
    import loss_systems
    from time_to_loss import QUICK

    if name != "OurTraining":
        pytest.importorskip("transformers")
    plan = loss_systems.Plan(str(data), QUICK.arguments("none"), QUICK.samples, torch.get_num_threads())
    return getattr(loss_systems, name)(plan, own.split())


def test_all_systems_see_the_same_batches_and_masks(data: Path) -> None:
    ours, *peers = (training(data, name) for name in SYSTEMS)
    alone = training(data, "OurTraining", OWN.replace("nsp@-1,", ""))
    for _ in range(3):
        sample = next(ours.batches)
        target = sample["targets"]["mlm"]
        assert len(target["labels"]) > 0
        for other in (*peers, alone):
            same = next(other.batches)
            assert torch.equal(same["net_input"]["src_tokens"], sample["net_input"]["src_tokens"])
            assert torch.equal(same["targets"]["mlm"]["positions"], target["positions"])
            assert torch.equal(same["targets"]["mlm"]["labels"], target["labels"])
        for peer in peers:
            inputs = peer.inputs(sample)
            labels = inputs["labels"].flatten()
            assert torch.equal(inputs["input_ids"], sample["net_input"]["src_tokens"])
            assert torch.equal(labels.ne(-100).nonzero().squeeze(1), target["positions"])
            assert torch.equal(labels[target["positions"]], target["labels"])
        assert torch.equal(peers[0].inputs(sample)["next_sentence_label"], sample["targets"]["nsp"]["labels"])


def test_all_systems_are_measured_on_the_same_samples_whatever_their_own_options(data: Path) -> None:
    views = [training(data, name).held_out for name in SYSTEMS]
    views.append(training(data, "OurTraining", f"{OWN} --mask-prob 0.5 --tokens-per-sample 16 --seed 9").held_out)
    for view in views[1:]:
        assert len(view.batches) == len(views[0].batches)
        for mine, theirs in zip(view.batches, views[0].batches, strict=True):
            assert torch.equal(mine["net_input"]["src_tokens"], theirs["net_input"]["src_tokens"])
            assert torch.equal(mine["targets"]["mlm"]["labels"], theirs["targets"]["mlm"]["labels"])


def test_counts_are_measured_as_systems_are(data: Path) -> None:
    from hmtl_plugin.counting.training_text import TrainingText
    from hmtl_plugin.data.corpus import Corpus

    view = training(data, "OurTraining").held_out
    counts = TrainingText(Corpus(str(data / "train"), eos=view.vocabulary.eos), view.vocabulary)

    def logits(sample: Any) -> torch.Tensor:
        """As a model would give them that counts: of every piece the probability between its neighbours."""
        flat, at = sample["net_input"]["src_tokens"].flatten().numpy(), sample["targets"]["mlm"]["positions"].numpy()
        ids = np.arange(view.vocabulary.size)
        with np.errstate(divide="ignore"):
            rows = [
                np.log(counts.bigrams.between(flat[[p - 1]].repeat(len(ids)), ids, flat[[p + 1]].repeat(len(ids))))
                for p in at
            ]
        return torch.from_numpy(np.array(rows))

    assert view.loss_of_counts() == pytest.approx(view.loss(logits), rel=1e-3)
    assert view.loss_of_counts() < np.log(6)  # neighbours tell more than how frequent a word is


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_learn(name: str, data: Path) -> None:
    from loss_systems import rate

    system = training(data, name)
    before = system.measure()
    assert before == pytest.approx(np.log(WORDS + FIRST_WORD), rel=0.15)
    for _ in range(25):
        system()
    assert system.measure() < before - 1
    assert system.optimizer.param_groups[0]["lr"] == pytest.approx(rate(1e-2, 25, 100))


def test_measuring_changes_nothing(data: Path) -> None:
    losses = []
    for measured in (False, True):
        system = training(data, "OurTraining")
        for _ in range(4):
            system()
            if measured:
                system.measure()
        losses.append(system.measure())
    assert losses[0] == losses[1]


def test_rates_follow_one_rule() -> None:
    from loss_systems import HELD, rate

    for warm_up in (HELD // 5, HELD, 2 * HELD):
        falls = max(HELD, warm_up)
        assert rate(1.0, 1, warm_up) == 1 / warm_up
        assert rate(2.0, warm_up, warm_up) == rate(2.0, falls, warm_up) == 2.0
        assert rate(2.0, 4 * falls, warm_up) == 1.0
    assert rate(1.0, 1, 0) == 1.0


class Slow:
    """A step that takes no time, and a measurement that does."""

    def __call__(self) -> int:
        return 1

    def measure(self) -> float:
        time.sleep(0.05)
        return 3.0


def test_the_clock_stands_still_while_a_system_is_measured() -> None:
    turn = Here(Slow())(2)
    assert turn.measured == 3.0 and turn.tokens == 2
    assert turn.seconds < 0.05


class Scripted(Started):
    """A system whose loss is 10 less a share of its updates, each of which takes so many seconds."""

    def __init__(
        self, calls: list[str], name: str, seconds: float, slope: float, fails_after: float = float("inf")
    ) -> None:
        self.calls, self.name, self.step, self.slope = calls, name, seconds, slope
        self.updates, self.closed, self.fails_after = 0, False, fails_after

    def start(self, device: str) -> "Scripted":
        return self

    def __call__(self, updates: int) -> Turn:
        assert not self.closed
        self.calls.append(self.name)
        self.updates += updates
        loss = 10 - self.slope * self.updates if self.updates <= self.fails_after else float("nan")
        return Turn(self.step * updates, updates, loss)

    def close(self) -> None:
        self.closed = True


def race(rules: Rules, **systems: tuple[float, ...]) -> tuple[Race, list[str]]:
    """What comes of systems by ``name__rate``: seconds an update, loss an update."""
    calls: list[str] = []
    made: dict[tuple[str, str], Any] = {
        tuple(name.split("__")): Scripted(calls, name, *of) for name, of in systems.items()
    }  # type: ignore[misc]
    found = Race(rules)
    found.go(made, lambda: None)
    assert all(system.closed for system in made.values())
    return found, calls


RULES = Rules(goal=4.0, budget=5.0, cap=1000.0, factor=15.0, rivals={"peer": "ours"}, every=2)


def test_the_best_rate_counts_and_a_peer_is_stopped_at_fifteen_times() -> None:
    found, _ = race(RULES, ours__low=(1.0, 0.3), ours__high=(1.0, 0.6), peer__one=(2.0, 0.001))
    assert found.arrival("ours") == 10.0
    assert [run.spent for run in found.of("ours")] == [10.0, 10.0]  # the low rate can no longer be the first
    (peer,) = found.of("peer")
    assert found.arrival("peer") is None
    assert 150 <= peer.spent < 150 + 2 * 2.0


def test_every_run_has_its_budget_and_none_more_than_the_cap() -> None:
    found, _ = race(RULES, ours__one=(1.0, 3.0), peer__one=(1.0, 3.0))
    assert [run.arrival(4.0) for run in found.runs] == [2.0, 2.0]
    assert all(5 <= run.spent <= 7 for run in found.runs)
    capped, _ = race(Rules(4.0, 5.0, 20.0, every=2), ours__one=(1.0, 0.0), peer__one=(4.0, 0.0))
    assert [run.spent for run in capped.runs] == [20.0, 24.0]


def test_only_finalists_go_on() -> None:
    rules = Rules(4.0, 5.0, 40.0, finalists=1, every=1)
    found, _ = race(rules, peer__a=(1.0, 0.01), peer__b=(1.0, 0.03), peer__c=(1.0, 0.02))
    assert {run.rate: run.spent for run in found.runs} == {"a": 5.0, "b": 40.0, "c": 5.0}


def test_finalists_may_be_chosen_before_the_budget_is_spent() -> None:
    rules = Rules(4.0, 20.0, 40.0, rivals={"peer": "ours"}, finalists=1, screening=5.0, every=1)
    found, _ = race(rules, ours__a=(1.0, 0.01), ours__b=(1.0, 1.0), peer__a=(1.0, 0.02), peer__b=(1.0, 0.01))
    assert [run.spent for run in found.runs] == [5.0, 20.0, 40.0, 5.0]
    best = found.best_after("ours", 20.0)
    assert best is not None and best.rate == "b"


def test_a_screening_longer_than_the_budget_is_refused() -> None:
    with pytest.raises(
        UserError, match="--screen-seconds 40 is more than the 20 seconds that every run gets: lower it"
    ):
        Rules(4.0, 20.0, 40.0, finalists=1, screening=40.0)


def test_who_has_trained_least_goes_next() -> None:
    _, calls = race(Rules(4.0, 5.0, 12.0, every=2), fast__one=(1.0, 0.0), slow__one=(3.0, 0.0))
    fast, slow = "fast__one", "slow__one"
    assert calls == [fast, slow, fast, slow, fast, fast, fast, slow, fast, fast]


def test_a_rate_that_is_too_high_stops_no_other() -> None:
    found, _ = race(RULES, ours__one=(1.0, 0.3), ours__high=(1.0, 0.5, 3), peer__one=(1.0, 0.3))
    assert found.arrival("ours") == found.arrival("peer") == 20.0
    assert "not finite after 4 updates" in found.of("ours")[1].failed
    assert found.of("ours")[1].updates == [0, 2]


def test_loss_after_is_on_the_line_between_measurements() -> None:
    run = Run("ours", "", seconds=[0.0, 4.0, 8.0], updates=[0, 2, 4], losses=[9.0, 7.0, 6.0])
    assert run.loss_after(6.0) == 6.5
    assert run.loss_after(8.5) is None
    assert run.arrival(7.0) == 4.0 and run.arrival(5.9) is None


def run_of(system: str, rate: str, step: float, losses: list[float]) -> Run:
    places = range(len(losses))
    return Run(system, rate, [step * place for place in places], [20 * place for place in places], losses)


def test_rows_say_who_has_not_arrived() -> None:
    from time_to_loss import BERT, OURS_BOTH, rows_of

    found = Race(Rules(goal=5.0, budget=20.0, cap=1000.0))
    found.runs = [
        run_of(OURS_BOTH, "a", 10, [9, 6, 5.5, 4]),
        run_of(OURS_BOTH, "b", 10, [9, 6.5, 4.5]),
        run_of(BERT, "a", 100, [9, 8, 7, 6.25]),
    ]
    until, after = rows_of(found, [BERT], "the loss of counts", "bf16 on 2 threads")
    assert until.what == f"until the loss of counts, nsp and mlm, bf16 on 2 threads, against {BERT}"
    assert (until.ours, until.peer, until.ratio) == ([20], [300], 15)
    assert "stopped at 6.25" in until.peer_name and "lower bound" in until.peer_name
    assert until.details["rate"] == "b, tried: a (30 s), b (20 s)" and until.details["updates"] == 40
    assert (after.ours, after.peer, after.peer_name) == ([4.5], [8.8], BERT)
    found.runs[2] = run_of(BERT, "a", 100, [9, 8, 4.9, 4.0])
    assert rows_of(found, [BERT], "", "")[0].peer == [200] and rows_of(found, [BERT], "", "")[0].peer_name == BERT
    found.runs[:2] = [run_of(OURS_BOTH, "a", 10, [9, 6, 5.5])]
    late = rows_of(found, [BERT], "", "")[0]
    assert (late.ours, late.peer) == ([20], [200]) and "upper bound" in str(late.details["ours"])
    found.runs[1] = run_of(BERT, "a", 100, [9, 8])
    assert [row.unit for row in rows_of(found, [BERT], "", "")] == ["nats"]  # nobody has arrived
    found.runs[1] = Run(BERT, "a", failed="no such model")
    assert not rows_of(found, [BERT], "", "")


def test_targets_name_rows() -> None:
    from targets import read_targets
    from time_to_loss import RIVALS, rows_of

    targets = [target for target in read_targets() if target.benchmark == "time_to_loss"]
    for peer, ours in RIVALS.items():
        found = Race(Rules(goal=5.0, budget=10.0, cap=10.0))
        found.runs = [run_of(name, "a", 10, [9, 4]) for name in (ours, peer)]
        until, after = rows_of(found, [peer], "the loss of counts", "bf16 on 2 threads")
        assert sum(target.concerns("time_to_loss", "cpu", until.what) for target in targets) == 1
        assert not any(target.concerns("time_to_loss", "cpu", after.what) for target in targets)


def test_curves_and_their_numbers(tmp_path: Path) -> None:
    from loss_curves import write_curves

    found = Race(Rules(goal=5.0, budget=10.0, cap=10.0))
    found.runs = [
        run_of("ours", "--lr 1", 10, [9, 4]),
        run_of("ours", "--lr 2", 10, [9, 5]),
        Run("peer", "--lr 1", failed="no"),
    ]
    for _ in range(2):
        write_curves(found, {"counts": 4.8}, tmp_path / "new" / "a.svg")
    text = (tmp_path / "new" / "a.svg").read_text()
    assert "ours (--lr 1)" in text and "counts (4.80)" in text and "mathdefault" not in text
    with (tmp_path / "new" / "a.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["rate"], row["updates"], row["loss"]) for row in rows][:2] == [
        ("--lr 1", "0", "9.0000"),
        ("--lr 1", "20", "4.0000"),
    ]
    assert len(rows) == 4


@pytest.mark.slow
def test_everything_once(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    options = ("--quick", "--threads", "1", "--autocast", "none", "--curves", str(tmp_path / "a.svg"))
    rows = record_of(tmp_path, "time_to_loss", *options)["rows"]
    assert [row["peer_name"].split(",")[0] for row in rows if row["unit"] == "nats"] == [
        "ModernBertForMaskedLM",
        "BertForPreTraining",
        "the first defaults",
    ]
    assert all(0 < row["ours"] < np.log(300) + 0.5 for row in rows if row["unit"] == "nats")
    assert (tmp_path / "a.svg").stat().st_size and (tmp_path / "a.tsv").stat().st_size


def test_data_or_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    import time_to_loss

    from hmtl_plugin.errors import UserError

    for line, words in (
        ("", "give --data FOLDER"),
        ("--quick --data x", "give --data FOLDER"),
        ("--quick --peers gpt", "use some of"),
    ):
        monkeypatch.setattr("sys.argv", ["time_to_loss.py", *line.split()])
        with pytest.raises(UserError, match=words):
            time_to_loss.main()
