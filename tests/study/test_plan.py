"""The plan: order of runs, and what does and does not change the fingerprint of a stage."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.study.plan import Run, make_plan, narrowed, plan_content
from hmtl_plugin.study.profile import Block, Finetuning, Pretraining, Probing, Profile, Text
from hmtl_plugin.study.variants import Variant, reference
from tests.study.studies import PREPARED, PROFILE, STAGES, VARIANTS, plan_of, tiny


def stages(run: Run) -> dict[str, str]:
    return {stage.name: stage.fingerprint for stage in run.stages}


def changed(profile: Profile, prepared: dict[str, Any] = PREPARED) -> list[str]:
    """Stages of the first run that are done again with another profile or data."""
    before, after = stages(plan_of()[0]), stages(plan_of(profile, prepared)[0])
    assert list(after) == STAGES
    return [name for name in STAGES if before[name] != after[name]]


def pretraining(**changes: Any) -> Profile:
    return tiny(pretraining=replace(PROFILE.pretraining, **changes))


def rte(**changes: Any) -> Profile:
    return tiny(finetuning=[replace(PROFILE.finetuning[0], **changes), PROFILE.finetuning[1]])


def test_fingerprints_are_those_of_studies_that_were_run() -> None:
    """Were they others, weeks of recorded stages would be done again: raise the version in plan.py only on purpose."""
    profile = Profile(
        "x",
        "y",
        [Block(["a"], [3])],
        Text(50),
        Pretraining(20, 5, {"lr": "2e-3", "dropout": 0.1}, batches=2),
        [
            Finetuning("RTE", ["lr=1e-3", "epochs=3"], seeds=3),
            Finetuning("SNLI", ["lr=1"], train_rows=9, optional=True),
        ],
        Probing(),
    )
    variants = {"a": Variant("a", "nsp@66.6%,mlm@100%", "nsp>mlm:concat!~", "fixed", ("--bigram-rate", "0.2"), "why")}
    prepared = {"corpus_sha256": "1", "tasks_sha256": {"RTE": "2", "SNLI": "3"}, "probing_sha256": "4"}
    (run,) = make_plan(profile, variants, prepared)
    assert stages(run) == {
        "pretrain": "b354acb79425263b",
        "evaluate": "67aa3d27352bb476",
        "RTE": "6fae45a7fdbdf358",
        "SNLI": "b098b8f65a612a90",
        "probe": "34e4612c764aea6c",
    }


def test_stages_in_order_and_all_unlike() -> None:
    plan = plan_of()
    assert all(list(stages(run)) == STAGES for run in plan)
    fingerprints = [stage.fingerprint for run in plan for stage in run.stages]
    assert len(set(fingerprints)) == len(fingerprints) and all(len(f) == 16 for f in fingerprints)
    assert plan == plan_of()


@pytest.mark.parametrize(
    "profile",
    [
        pretraining(updates=11),
        pretraining(warmup=3),
        pretraining(batches=2),
        pretraining(curve_points=3),
        pretraining(options={**PROFILE.pretraining.options, "dropout": 0}),
        tiny(autocast="none"),
    ],
)
def test_an_option_of_pretraining_does_all_again(profile: Profile) -> None:
    assert changed(profile) == STAGES


@pytest.mark.parametrize(
    "profile",
    [
        rte(grid=["lr=2e-3"]),
        rte(seeds=2),
        rte(tokens=64),
        rte(train_rows=5),
        rte(valid_rows=5),
        rte(options=["--freeze-layers", "1"]),
    ],
)
def test_an_option_of_a_task_does_that_task_again(profile: Profile) -> None:
    assert changed(profile) == ["RTE"]


def test_an_option_of_evaluation_and_of_probing() -> None:
    assert changed(pretraining(valid_samples=50)) == ["evaluate"]
    assert changed(tiny(probing=Probing(pooling="cls"))) == ["probe"]


@pytest.mark.parametrize(
    "profile",
    [
        tiny(name="other", why="another", differs="much", jobs=3, workers=2, toy=True, keep_checkpoints=False),
        tiny(text=Text(99, 0.2, 9)),  # what the text became is what counts
        tiny(plan=[Block(["flat"], [1]), Block(["random"], [7])]),
        rte(optional=True),
        tiny(finetuning=list(reversed(PROFILE.finetuning))),
        pretraining(options=dict(reversed(PROFILE.pretraining.options.items()))),
        pretraining(batches=1, curve_points=12),  # the defaults, written out
        pretraining(recipe="tiny"),  # what it stands for is among the options
    ],
)
def test_what_changes_no_fingerprint(profile: Profile) -> None:
    before, after = stages(plan_of()[0]), stages(plan_of(profile)[0])
    assert before == after


def test_data_that_changed() -> None:
    assert changed(PROFILE, PREPARED | {"corpus_sha256": "other"}) == STAGES
    assert changed(PROFILE, PREPARED | {"tasks_sha256": {"RTE": "r", "SQuAD": "other"}}) == ["SQuAD"]
    assert changed(PROFILE, PREPARED | {"probing_sha256": "other"}) == ["probe"]
    assert changed(PROFILE, PREPARED | {"missing": ["SNLI"], "text": {"more": 1}}) == []


def test_a_task_without_files_is_no_stage() -> None:
    (run, *_) = plan_of(prepared=PREPARED | {"tasks_sha256": {"SQuAD": "s"}})
    assert list(stages(run)) == ["pretrain", "evaluate", "SQuAD", "probe"]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: replace(v, hierarchy="nsp@25%,mlm@100%"),
        lambda v: replace(v, transfer="nsp>mlm:add!"),
        lambda v: replace(v, transfer="nsp>mlm:add~"),
        lambda v: replace(v, weighting="uncertainty"),
        lambda v: replace(v, options=("--bigram-rate", "0.2")),
    ],
)
def test_a_variant_that_changed(change: Callable[[Variant], Variant]) -> None:
    plan = make_plan(PROFILE, VARIANTS | {"lower": change(VARIANTS["lower"])}, PREPARED)
    for before, after in zip(plan_of(), plan):
        same = [a == b for a, b in zip(before.stages, after.stages)]
        assert not any(same) if before.variant.name == "lower" else all(same)


def test_name_and_reason_of_a_variant_change_nothing() -> None:
    renamed = {"bert": replace(VARIANTS["flat"], name="bert", why="new")}
    (run,) = make_plan(tiny(plan=[Block(["bert"], [1])]), renamed, PREPARED)
    assert run.name == "bert-seed1" and run.stages == plan_of()[0].stages


def test_all_variants_of_a_seed_before_the_next_seed_block_by_block() -> None:
    plan = plan_of(tiny(plan=[Block(["lower", "flat"], [2, 1]), Block(["flat", "random"], [1, 3])]))
    assert [run.name for run in plan] == [
        *("lower-seed2", "flat-seed2", "lower-seed1", "flat-seed1"),
        *("random-seed1", "flat-seed3", "random-seed3"),  # flat-seed1 is there already
    ]


def test_a_block_with_an_unknown_variant() -> None:
    with pytest.raises(UserError, match=r"plan\[1\].variants: no variant 'flt'"):
        plan_of(tiny(plan=[Block(["flat"], [1]), Block(["flt"], [1])]))


def test_references_come_last_and_are_not_pretrained(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.pt" for name in ("bert", "other")}
    for name, file in files.items():
        file.write_bytes(name.encode())
    references = [reference(name, str(file)) for name, file in files.items()]
    plan = make_plan(PROFILE, VARIANTS, PREPARED, references)
    assert [run.name for run in plan][4:] == ["bert-seed1", "other-seed1", "bert-seed2", "other-seed2"]
    assert list(stages(plan[4])) == ["RTE", "SQuAD", "probe"]
    assert not set(stages(plan[4]).values()) & set(stages(plan[5]).values())
    with pytest.raises(UserError, match="--reference flat: a variant has this name"):
        make_plan(PROFILE, VARIANTS, PREPARED, [reference("flat", str(files["bert"]))])
    before = stages(plan[4])
    files["bert"].write_bytes(b"another model at the same place")
    assert not set(before.values()) & set(stages(make_plan(PROFILE, VARIANTS, PREPARED, references)[4]).values())


def test_narrowed_plans() -> None:
    blocks = [Block(["flat", "lower"], [1]), Block(["flat", "random"], [2, 1])]
    assert narrowed(blocks, [], []) == blocks
    assert narrowed(blocks, ["flat"], []) == [Block(["flat"], [1, 2])]
    assert narrowed(blocks, [], [5]) == [Block(["flat", "lower", "random"], [5])]
    assert narrowed(blocks, ["random"], [9]) == [Block(["random"], [9])]


def test_content_for_the_report() -> None:
    run = plan_of()[0]
    assert plan_content([run]) == [{"variant": "flat", "seed": 1, "stages": stages(run)}]
