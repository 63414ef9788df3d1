"""A recipe's arguments: what the user gives wins, then what the run was begun with, then the table."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hmtl_plugin.errors import UserError
from hmtl_plugin.recipe.given import Given
from tests.recipe.configurations import TABLE, arguments_of, begin, configuration

OLD = (
    "--positions learned --no-encoder-normalize-before --no-zero-init-outputs --sentence-pooling first "
    "--mask-prob 0.15 --init-std 0.02 --optimizer hmtl_adamw --lr 1e-3"
).split()
"""What recipes/pretrain.sh gave to mini before there was a table."""
OPTIMIZERS = [
    "",
    "--optimizer hmtl_adamw --adam-eps 1e-7",
    "--optimizer hmtl_muon --matrix-lr 0.03 --muon-momentum 0.9",
    "--optimizer adam --adam-betas (0.8,0.9)",
]
SCHEDULERS = [
    "",
    "--lr-scheduler inverse_sqrt --warmup-updates 7 --warmup-init-lr 1e-5",
    "--lr-scheduler polynomial_decay --power 2 --total-num-update 900",
    "--warmup-updates 3",
]
OTHERS = [
    *("--positions learned", "--no-encoder-normalize-before", "--zero-init-outputs", "--sentence-pooling mean"),
    *("--mask-prob=0.2", "--init-std 0.01", "--dropout 0", "--max-positions 256", "--tokens-per-sample 64"),
    *("--weight-decay 0.1", "--clip-norm 0.5", "--lr 1e-3,5e-4", "--max-update 500", "--max-update=30000"),
    *("--max-tokens 512", "--update-freq 3", "--seed 7", "--autocast none"),
    # of which the table says nothing
    *("--mask-scheme word", "--bigram-rate 0.3", "--valid-seed 3", "--task-weighting uncertainty", "--pack"),
    *("--norm rms", "--feed-forward gated", "--activation-dropout 0.1", "--untied-output", "--encoder-layers 3"),
]
CHOICES = st.tuples(
    st.sampled_from(OPTIMIZERS), st.sampled_from(SCHEDULERS), st.lists(st.sampled_from(OTHERS), unique=True, max_size=5)
)


def of(size: str, run: Path, *given: str) -> dict[str, Any]:
    """The configuration that a recipe's command leads to."""
    return configuration(arguments_of(size, run, *given).arguments)


@given(CHOICES, st.sampled_from(["quickstart", "base"]))
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_goes_on_as_it_was_begun_and_says_what_is_not_todays(
    tmp_path: Path, chosen: tuple[str, str, list[str]], size: str
) -> None:
    optimizer, scheduler, others = chosen
    (tmp_path / "checkpoint_last.pt").unlink(missing_ok=True)
    today = of(size, tmp_path)
    first = of(size, tmp_path, *" ".join([optimizer, scheduler, *others]).split())
    begin(tmp_path, first)
    found = arguments_of(size, tmp_path)
    assert configuration(found.arguments) == first
    assert bool(found.note) == (first != today) and "\n" not in found.note


def test_the_note_names_what_differs_and_was_not_given(tmp_path: Path) -> None:
    assert not arguments_of("mini", tmp_path).note
    begin(tmp_path, of("mini", tmp_path, *OLD))
    named = {
        *("--positions learned", "no --encoder-normalize-before", "no --zero-init-outputs", "--sentence-pooling first"),
        *("--mask-prob 0.15", "--init-std 0.02", "--optimizer hmtl_adamw", "--lr 0.001"),
    }
    for mine in ([], ["--lr", "1", "--positions=learned", "--zero-init-outputs"]):
        before, _, after = arguments_of("mini", tmp_path, *mine).note.partition(" was begun with ")
        assert before == str(tmp_path)
        assert set(after.removesuffix(": goes on with them").split(", ")) == named
        named -= {"--lr 0.001", "--positions learned", "no --zero-init-outputs"}


def test_what_a_checkpoint_does_not_record_is_as_it_was_then(tmp_path: Path) -> None:
    """Of before an option existed: BERT's choice, and not what the table says now."""
    config = of("tiny", tmp_path, *OLD)
    for name in ("positions", "zero_init_outputs", "sentence_pooling"):
        del config["model"][name]
    begin(tmp_path, config)
    model = of("tiny", tmp_path)["model"]
    assert (model["positions"], model["zero_init_outputs"], model["sentence_pooling"]) == ("learned", False, "first")


def test_options_given_win_over_the_run_and_the_table(tmp_path: Path) -> None:
    mine = (
        "--positions rotary --encoder-normalize-before --optimizer adam --lr 3e-4 --dropout=0.3 --max-tokens 9".split()
    )
    for begun in ([], OLD):
        begin(tmp_path, of("mini", tmp_path / "none", *begun))
        config = of("mini", tmp_path, *mine)
        assert (config["model"]["positions"], config["model"]["encoder_normalize_before"]) == ("rotary", True)
        assert (config["optimizer"]["_name"], config["optimization"]["lr"]) == ("adam", [3e-4])
        assert (config["model"]["dropout"], config["dataset"]["max_tokens"]) == (0.3, 9)
    other = tmp_path / "other"
    begin(other, of("mini", tmp_path / "none"))
    assert of("mini", tmp_path, "--save-dir", str(other))["model"]["positions"] == "rotary"  # the run that it saves to


class TestSchedule:
    @pytest.mark.parametrize("size", TABLE)
    def test_it_follows_the_updates(self, size: str, tmp_path: Path) -> None:
        part = TABLE[size]
        for updates in (None, 1, 20, 21, 500, 20000, 50000):
            mine = [] if updates is None else ["--max-update", str(updates)]
            found = Given(arguments_of(size, tmp_path, *mine).arguments, [])
            length = updates or part["max-update"]
            assert found.value("max-update") == found.value("total-num-update") == str(length)
            assert found.value("warmup-updates") == str(part["warmup-updates"] * length // part["max-update"])
            interval = str(1000 if length > 20000 else max(min(length, 20), length // 20))
            assert found.value("validate-interval-updates") == found.value("save-interval-updates") == interval

    def test_one_of_ones_own_has_its_own_length(self, tmp_path: Path) -> None:
        begin(tmp_path / "begun", of("small", tmp_path))
        for mine in (["--lr-scheduler", "inverse_sqrt"], ["--lr-scheduler=inverse_sqrt"]):
            for run in ("new", "begun"):
                schedule = of("small", tmp_path / run, *mine, "--warmup-updates", "7")["lr_scheduler"]
                assert (schedule["_name"], schedule["warmup_updates"]) == ("inverse_sqrt", 7)

    def test_a_run_that_is_made_longer_has_a_longer_one(self, tmp_path: Path) -> None:
        begin(tmp_path, of("small", tmp_path, "--max-update", "400", "--warmup-updates", "7"))
        same, longer = (of("small", tmp_path, "--max-update", updates)["lr_scheduler"] for updates in ("400", "800"))
        assert (same["warmup_updates"], same["total_num_update"]) == (7, 400)
        assert (longer["warmup_updates"], longer["total_num_update"]) == (80, 800)

    @pytest.mark.parametrize("updates", ["many", "0", "1.5", "-3"])
    def test_a_length_that_is_none_is_refused(self, updates: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"^--max-update {updates}: give a whole number"):
            arguments_of("small", tmp_path, f"--max-update={updates}")


class TestOtherCheckpoints:
    """Those that a run starts from, or takes its options from."""

    def test_a_model_that_is_trained_on_keeps_its_parts_and_nothing_else(self, tmp_path: Path) -> None:
        model = begin(tmp_path / "bert", of("base", tmp_path, *OLD, "--seed", "9"), "model.pt")
        found = arguments_of("base", tmp_path / "run", "--finetune-from-model", str(model))
        config, today = configuration(found.arguments), of("base", tmp_path)
        assert (config["model"]["positions"], config["model"]["encoder_normalize_before"]) == ("learned", False)
        assert not config["model"]["resize_positions"]
        for group in ("task", "optimizer", "lr_scheduler", "optimization", "common", "dataset"):
            assert config[group] == today[group]
        assert found.note == (
            f"{model} was trained with --positions learned, no --encoder-normalize-before: the model keeps them"
        )
        begin(tmp_path / "run", today)  # fairseq then takes that one
        assert of("base", tmp_path / "run", "--finetune-from-model", str(model))["model"]["positions"] == "rotary"

    @pytest.mark.parametrize(
        ("theirs", "mine", "resized"),
        [
            ("learned", "512", True),
            ("learned", "128", False),
            ("learned", "", False),
            ("rotary", "512", False),
        ],
    )
    def test_a_table_of_positions_is_resized_when_asked(
        self, theirs: str, mine: str, resized: bool, tmp_path: Path
    ) -> None:
        begun = of("tiny", tmp_path, "--positions", theirs, "--max-positions", "128")
        model = begin(tmp_path / "phase1", begun)
        given = ["--finetune-from-model", str(model), *(["--max-positions", mine] if mine else [])]
        config = of("tiny", tmp_path / "phase2", *given)["model"]
        assert (config["positions"], config["max_positions"]) == (theirs, int(mine or 128))
        assert config["resize_positions"] == resized

    def test_a_model_keeps_parts_that_the_table_does_not_name(self, tmp_path: Path) -> None:
        parts = "--norm rms --feed-forward gated --encoder-embed-dim 384 --encoder-layers 3 --untied-output".split()
        model = begin(tmp_path / "one", of("mini", tmp_path, *parts, "--mask-scheme", "word"), "model.pt")
        config = of("mini", tmp_path / "run", "--finetune-from-model", str(model))
        assert config["model"] == of("mini", tmp_path, *parts, "--finetune-from-model", str(model))["model"]
        assert config["task"]["mask_scheme"] == "token"

    def test_an_imported_model_is_a_start_and_no_run(self, tmp_path: Path) -> None:
        """It records no training."""
        config = of("base", tmp_path, *OLD)
        imported = {group: config[group] for group in ("common", "model", "task")}
        model = begin(tmp_path / "bert", imported, "model.pt")
        given = ["--lr", "5e-5", "--max-update", "100"]
        found = of("base", tmp_path / "run", "--finetune-from-model", str(model), *given)
        assert (found["model"]["positions"], found["optimization"]["max_update"]) == ("learned", 100)
        with pytest.raises(UserError, match=r"model\.pt: holds a model and no training: start from it with --finetune"):
            arguments_of("base", tmp_path / "run", "--options-of", str(model), *given)

    def test_another_size_on_a_begun_run_is_said_to_be_left(self, tmp_path: Path) -> None:
        begin(tmp_path, of("tiny", tmp_path))
        assert arguments_of("mini", tmp_path).note.endswith(": goes on with them, whatever SIZE says")
        assert "SIZE" not in arguments_of("tiny", tmp_path, "--lr", "1").note

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ("--positions rotery", "--positions: 'rotery': use learned, rotary"),
            ("--sentence-pooling=maximum", "--sentence-pooling: 'maximum': use first, mean, pair, aligned"),
            ("--feed-forward none", "--feed-forward: 'none': use plain, gated"),
            ("--ddp-backend x", "--ddp-backend: 'x': use c10d"),
            ("--optimizer hmtl_mouon", "--optimizer: 'hmtl_mouon': use "),
            ("--lr-scheduler x", "--lr-scheduler: 'x': use "),
            ("--arch hmtl_bert_tyni", "--arch: 'hmtl_bert_tyni': use hmtl_bert"),
        ],
    )
    def test_a_wrong_name_is_told_in_a_line(self, tmp_path: Path, wrong: str, message: str) -> None:
        with pytest.raises(UserError) as error:
            arguments_of("tiny", tmp_path, *wrong.split())
        assert str(error.value).startswith(message) and "\n" not in str(error.value)

    def test_options_of_another_run(self, tmp_path: Path) -> None:
        begun = of("mini", tmp_path, *OLD, "--seed", "9")
        begin(tmp_path / "one", begun)
        for form in (["--options-of", str(tmp_path / "one")], [f"--options-of={tmp_path / 'one'}"]):
            found = arguments_of("mini", tmp_path / "new", *form, "--hierarchy", "mlm@-1")
            assert configuration(found.arguments) == {**begun, "model": begun["model"] | {"hierarchy": "mlm@-1"}}
            assert found.note.startswith(f"{tmp_path / 'one'} was begun with ")
        with pytest.raises(UserError, match="--options-of: give the folder of a run"):
            arguments_of("mini", tmp_path, "--options-of", "--lr", "1")

    def test_a_restored_file_goes_on_unless_its_optimizer_is_reset(self, tmp_path: Path) -> None:
        file = begin(tmp_path, of("mini", tmp_path, *OLD), "checkpoint_1_10.pt")
        given = ["--restore-file", str(file)]
        goes_on, anew = (of("mini", tmp_path, *given, *more) for more in ([], ["--reset-optimizer"]))
        assert goes_on["model"]["positions"] == anew["model"]["positions"] == "learned"
        assert (goes_on["optimizer"]["_name"], anew["optimizer"]["_name"]) == ("hmtl_adamw", "hmtl_muon")
        assert (goes_on["task"]["mask_prob"], anew["task"]["mask_prob"]) == (0.15, 0.4)

    def test_a_checkpoint_that_cannot_be_read_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoint_last.pt").write_bytes(b"half")
        with pytest.raises(UserError, match=r"checkpoint_last\.pt: "):
            arguments_of("mini", tmp_path)
        torch.save({"model": {}, "cfg": {"model": {"_name": "roberta"}}}, tmp_path / "checkpoint_last.pt")
        with pytest.raises(UserError, match=r"checkpoint_last\.pt: holds a model 'roberta'"):
            arguments_of("mini", tmp_path)
