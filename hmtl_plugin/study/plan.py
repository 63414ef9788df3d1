"""What a study consists of: runs (a variant with a seed) and their stages, each with a fingerprint of all it depends
on.

    pretrain -> evaluate, RTE, MNLI, SNLI, SQuAD, probe

A stage whose fingerprint stands in the records is done. Where it runs (device, threads, processes, folder) is no part
of it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from hmtl_plugin.checkpoints import find_checkpoint
from hmtl_plugin.data.manifest import file_sha256
from hmtl_plugin.errors import UserError
from hmtl_plugin.study.prepare import Prepared
from hmtl_plugin.study.profile import Block, Profile
from hmtl_plugin.study.variants import Variant, choose

PRETRAIN, EVALUATE, PROBE = "pretrain", "evaluate", "probe"
_VERSION = 2  # of what a stage does with the same inputs; 2: what is masked is drawn before anything moves


@dataclass(frozen=True)
class Stage:
    """The least that is done and recorded at a time. ``fingerprint``: 16 hexadecimal digits."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class Run:
    """One variant with one seed, its stages in the order in which they run."""

    variant: Variant
    seed: int
    stages: tuple[Stage, ...]

    @property
    def name(self) -> str:
        """For files, logs and messages."""
        return f"{self.variant.name}-seed{self.seed}"


def make_plan(
    profile: Profile, variants: dict[str, Variant], prepared: Prepared, references: Sequence[Variant] = ()
) -> list[Run]:
    """All runs of a profile, in the order in which they are worth having; references last."""
    runs: dict[str, Run] = {}
    for number, block in enumerate(profile.plan):
        chosen = choose(variants, block.variants, f"plan[{number}].variants")
        for seed in block.seeds:
            for variant in chosen:
                run = Run(variant, seed, _stages(profile, variant, seed, prepared))
                runs.setdefault(run.name, run)
    for seed in dict.fromkeys(seed for block in profile.plan for seed in block.seeds):
        for variant in references:
            if variant.name in variants:
                raise UserError(f"--reference {variant.name}: a variant has this name: choose another")
            run = Run(variant, seed, _stages(profile, variant, seed, prepared))
            runs.setdefault(run.name, run)
    return list(runs.values())


def narrowed(blocks: Sequence[Block], variants: Sequence[str], seeds: Sequence[int]) -> list[Block]:
    """The plan with other variants, seeds or both; empty: those of the profile."""
    if not variants and not seeds:
        return list(blocks)
    all_variants = list(dict.fromkeys(name for block in blocks for name in block.variants))
    all_seeds = list(dict.fromkeys(seed for block in blocks for seed in block.seeds))
    return [Block(list(variants) or all_variants, list(seeds) or all_seeds)]


def plan_content(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """The plan as a report needs it."""
    return [
        {
            "variant": run.variant.name,
            "seed": run.seed,
            "stages": {stage.name: stage.fingerprint for stage in run.stages},
        }
        for run in runs
    ]


def _stages(profile: Profile, variant: Variant, seed: int, prepared: Prepared) -> tuple[Stage, ...]:
    pretraining = _given(profile.pretraining)
    after = pretraining.pop("valid_samples", None)
    names = [variant.hierarchy, variant.transfer, variant.weighting, list(variant.options), _content(variant)]
    shared = {"autocast": profile.autocast, "corpus": prepared["corpus_sha256"], "variant": names, "seed": seed}
    pretrain = _fingerprint(PRETRAIN, [shared, pretraining])
    stages = (
        []
        if variant.checkpoint
        else [Stage(PRETRAIN, pretrain), Stage(EVALUATE, _fingerprint(EVALUATE, [pretrain, after]))]
    )
    for task in profile.finetuning:
        if task.task in prepared["tasks_sha256"]:
            depends = [pretrain, _given(task), prepared["tasks_sha256"][task.task]]
            stages.append(Stage(task.task, _fingerprint(task.task, depends)))
    stages.append(Stage(PROBE, _fingerprint(PROBE, [pretrain, _given(profile.probing), prepared["probing_sha256"]])))
    return tuple(stages)


def _content(variant: Variant) -> str:
    """Of a published checkpoint; empty for a variant that is trained here."""
    return file_sha256(find_checkpoint(variant.checkpoint)) if variant.checkpoint else ""


def _given(settings: Any) -> dict[str, Any]:
    """What differs from the defaults, so that a new option changes no fingerprint of studies without it."""
    given = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if value != default and f.name not in ("optional", "recipe"):  # the recipe's options are among the others
            given[f.name] = value
    return given


def _fingerprint(stage: str, depends: Any) -> str:
    text = json.dumps([_VERSION, stage, depends], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
