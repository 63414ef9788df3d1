"""A study that never ran: records with known values, written as the runner writes them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmtl_plugin.probing.run import pack
from hmtl_plugin.study.records import Records

STAGES = ("pretrain", "evaluate", "RTE", "SQuAD", "probe")
HIERARCHIES: dict[str, tuple[str, str]] = {
    "random": ("", ""),
    "flat": ("nsp@100%,mlm@100%", ""),
    "shift-lowest": ("bigram_shift@33.3%,nsp@66.6%,mlm@100%", ""),
    "hierarchy": ("bigram_shift@33.3%,nsp@66.6%,mlm@100%", "nsp>mlm:concat"),
    "never-run": ("nsp@66.6%,mlm@100%", ""),
}
REFERENCE = "published"  # a row only where it has an effect; its encoder was pre-trained on bigram shift
PROBES = ("bigram_shift", "past_present")
LAYERS = 3
ROWS = 200


def write_study(
    folder: Path,
    effects: Mapping[str, float],
    seeds: Sequence[int] = (1, 2, 3),
    skip: Sequence[tuple[str, int, str]] = (),
    noise: float = 0.2,
) -> Path:
    """Records of variants (by name, with what they add to RTE) times seeds; ``skip``: (variant, seed, stage) not
    recorded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = [
        {"variant": name, "seed": seed, "stages": {stage: f"{name}-{seed}-{stage}" for stage in _stages(name)}}
        for seed in seeds
        for name in effects
    ]
    (folder / "study.json").write_text(json.dumps(_about(plan, REFERENCE in effects)), encoding="utf-8")
    records = Records(folder)
    for entry in plan:
        for stage, fingerprint in entry["stages"].items():
            name, seed = entry["variant"], entry["seed"]
            if (name, seed, stage) not in skip:
                lines = [
                    {"variant": name, "seed": seed, **line} for line in _lines(name, seed, stage, effects[name], noise)
                ]
                records.add(f"{name}-seed{seed}", fingerprint, lines, _closing(name, seed, stage))
    return folder


def rte(name: str, seed: int, effect: float, noise: float = 0.2) -> float:
    """The mean of the two fine-tunings that `write_study` records."""
    return 50.0 + 3 * seed + effect + noise * _random(name, seed).normal()


def _stages(name: str) -> Sequence[str]:
    return STAGES[2:] if name == REFERENCE else STAGES


def _hierarchy(name: str) -> tuple[str, str]:
    return HIERARCHIES["shift-lowest" if name == REFERENCE else name]


def change(study: Path, what: Callable[[dict[str, Any]], object]) -> Path:
    """Every recorded line as a function left it."""
    for path in (study / "records").glob("*.jsonl"):
        lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            what(line)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return study


def _random(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, *name.encode()])


def _lines(name: str, seed: int, stage: str, effect: float, noise: float) -> list[dict[str, Any]]:
    hierarchy = _hierarchy(name)[0] or HIERARCHIES["flat"][0]
    if stage == "evaluate":
        metrics = {"mlm": ("loss", 6.0 - 0.01 * effect + 0.001 * seed, 6.8), "nsp": ("accuracy", 80.0 + seed, 55.0)}
        if "bigram_shift" in hierarchy:
            metrics["bigram_shift"] = ("auc", 0.6, 0.5)
        return [
            {
                "kind": "pretrain",
                "task": task,
                "metrics": {"metric": m, "value": v, "low": v - 0.05, "high": v + 0.05, "baseline": baseline},
                "checkpoint_sha256": f"{name}{seed}",
            }
            for task, (m, v, baseline) in metrics.items()
        ]
    if stage == "RTE":
        mean = rte(name, seed, effect, noise)
        return [
            {"kind": "glue", "task": "RTE", "metrics": {"score": mean + d, "baseline": 52.7}, "own_seed": own}
            for d, own in ((-1.0, 100 * seed), (1.0, 100 * seed + 1))
        ]
    if stage == "SQuAD":
        return [
            {
                "kind": "squad",
                "task": "SQuAD 1.1",
                "metrics": {"f1": 12.0 + effect, "exact": 4.0, "baseline": 4.3, "random_exact": 0.4},
            }
        ]
    return _probe_lines(name, seed, hierarchy) if stage == "probe" else []


def _probe_lines(name: str, seed: int, hierarchy: str) -> list[dict[str, Any]]:
    placements = [[part.split("@")[0], number + 1] for number, part in enumerate(hierarchy.split(","))]
    random, lines = _random(name, seed), []
    for task in PROBES:
        data = {"rows": [400, 100, ROWS], "classes": 2, "sha256": task, "file": f"{task}.txt"}
        shared = {"kind": "probe", "task": task, "data": data, "pooling": "mean"}
        for layer in range(LAYERS + 1):
            right = random.random(ROWS) < 0.55 + 0.05 * layer
            accuracy = 100.0 * float(right.mean())
            lines.append(
                {
                    **shared,
                    "role": "probe",
                    "layer": layer,
                    "layers": LAYERS,
                    "items": pack(right),
                    "encoder": "checkpoint",
                    "metrics": {"accuracy": accuracy, "valid_accuracy": 50.0 + layer, "majority": 50.0},
                    "hyper": {"probe": "logistic", "l2": 0.1},
                    "placements": placements,
                    "transfer": _hierarchy(name)[1],
                    "checkpoint": f"{name}.pt",
                    "fingerprint": f"{name}{seed}",
                }
            )
        baseline = {"role": "baseline", "variant": "majority", "metrics": {"accuracy": 50.0}, "seed": 0, "layer": None}
        lines.append({**shared, **baseline})
        lines.append({**shared, **baseline, "variant": "bag of words", "metrics": {"accuracy": 61.5}})
    return lines


def _closing(name: str, seed: int, stage: str) -> dict[str, Any]:
    closing: dict[str, Any] = {"variant": name, "seed": seed, "stage": stage, "seconds": 60.0, "device": "cpu"}
    closing |= {"commit": "0123456789ab", "versions": {"python": "3.11"}, "precision": "bf16"}
    if stage == "pretrain":
        closing["cost"] = {"parameters": 1e6, "tokens_per_second": 1e4, "training_seconds": 50.0}
        if HIERARCHIES[name][0]:
            curve = {
                "updates": [10.0, 20.0, 30.0],
                "mlm_loss": [7.0, 6.5, 6.0 + 0.1 * seed],
                "nsp_accuracy": [50.0, 60.0, 80.0],
            }
            closing["curve"] = curve
    return closing


def _about(plan: list[dict[str, Any]], with_reference: bool) -> dict[str, Any]:
    profile = {
        "name": "made-up",
        "why": "a test",
        "differs": "nothing ran",
        "autocast": "auto",
        "text": {"exclude_min_words": 4},
        "pretraining": {"updates": 30, "batches": 1, "options": {"arch": "hmtl_bert_tiny"}},
        "finetuning": [
            {"task": "RTE", "grid": ["lr=1e-3"], "seeds": 2, "tokens": 64, "train_rows": 100},
            {"task": "SNLI", "grid": ["lr=1e-3"], "seeds": 1, "tokens": 64, "train_rows": 0},
        ],
        "probing": {"probe": "logistic", "pooling": "mean"},
    }
    gathered = {
        "files": ["train.tsv"],
        "format": "pairs",
        "documents": 10,
        "sentences": 30,
        "excluded": 7,
        "duplicates": 0,
    }
    splits = {"train": {"documents": 9, "sentences": 27, "tokens": 300}}
    text = {"gathered": [gathered], "excluded_files": ["dev.tsv"], "splits": splits}
    variants = [
        {
            "name": name,
            "hierarchy": h,
            "transfer": t,
            "weighting": "fixed",
            "options": [],
            "why": f"why {name}",
            "checkpoint": "",
            "against": {"hierarchy": "shift-lowest", "shift-lowest": "never-run"}.get(name, ""),
        }
        for name, (h, t) in HIERARCHIES.items()
    ]
    if with_reference:
        unknown = {"name": REFERENCE, "hierarchy": "", "transfer": "", "weighting": "", "checkpoint": "published.pt"}
        variants.append(unknown | {"options": [], "why": "published checkpoint"})
    return {
        "profile": profile,
        "variants": variants,
        "prepared": {"text": text, "missing": ["SNLI"]},
        "plan": plan,
        "command": "python scripts/study.py",
        "commit": "0123456789ab",
        "versions": {"python": "3.11"},
    }
