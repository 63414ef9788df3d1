"""Probing from Python: checkpoints and functions side by side, with the same probes."""

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.probing.encoders import (
    GivenEncoder,
    GivenFeatures,
    LayerEncoder,
    TransformerEncoder,
    checkpoint_encoder,
    shape_of,
    untrained_encoder,
)
from hmtl_plugin.probing.probes import PROBES, ProbeOptions
from hmtl_plugin.probing.run import Settings, run_all
from hmtl_plugin.probing.statistics import RESAMPLES
from hmtl_plugin.probing.tasks import find_tasks
from hmtl_plugin.reporting.probing.study import Study
from hmtl_plugin.reporting.probing.summary import summarise
from hmtl_plugin.reporting.results import commit, versions

Encoders = Mapping[str, Path | str | GivenFeatures | GivenEncoder] | Sequence[Path | str]
STORE, RESULT, FEATURES = "results.jsonl", "results.json", "features"
UNTRAINED = "untrained"


def probe(
    encoders: Encoders,
    tasks: Path | str | Sequence[Path | str],
    out: Path | str | None = None,
    *,
    poolings: Sequence[str] = ("mean", "cls"),
    probe: str = "logistic",
    seeds: Sequence[int] = (1,),
    untrained: bool = True,
    controls: bool = True,
    bag_of_words: bool = True,
    baseline: str | None = None,
    precision: str = "none",
    device: str = "cpu",
    cache: Path | str | None = None,
    keep_features: bool = True,
) -> Study:
    """Probe every layer of encoders on tasks in SentEval's layout.

        study = probe({"ours": "runs/books", "theirs": lambda sentences: array}, "senteval/data/probing")
        study.probed["theirs", "tense", "given"].accuracy  # (L+1,), percent

    Args:
        encoders: checkpoints (files or run folders), or by name: checkpoints, or functions from a list of sentences to features
            (sentences, layers, width) or a mapping from names of poolings to such. Wrap a function as
            ``GivenEncoder(name, function, fingerprint)`` to keep its results for the next call.
        tasks: files, or folders of ``.txt`` files.
        out: folder of results, which are not computed again (``results.jsonl``; what was asked for last: ``results.json``); None
            keeps nothing.
        poolings: of checkpoints: ``mean``, ``cls``, ``max``.
        probe: ``logistic`` or ``mlp``.
        seeds: of MLPs, control labels and untrained weights.
        untrained: add an encoder of the first checkpoint's shape (and of every other shape) with fresh weights.
        baseline: name of the encoder that differences are taken to; default: the last checkpoint, if there are several, else
            the untrained one.
        cache: folder of features; default: ``out/features``.

    Raises:
        UserError: in one line, for what cannot be used.
    """
    if probe not in PROBES:
        raise UserError(f"probe '{probe}': use one of {', '.join(PROBES)}")
    if not seeds or min(seeds) < 1 or len(set(seeds)) != len(seeds):
        raise UserError(f"seeds {list(seeds)}: give different numbers from 1")
    found = find_tasks([tasks] if isinstance(tasks, (str, Path)) else tasks)
    chosen = _encoders(encoders, poolings, seeds, untrained, precision, device)
    reference = _baseline([encoder.about.name for encoder, _ in chosen], baseline)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(out) if out is not None else Path(temporary)
        settings = Settings(
            store=folder / STORE,
            cache=Path(cache) if cache is not None else folder / FEATURES,
            options=ProbeOptions(probe),
            seeds=tuple(seeds),
            controls=controls,
            bag_of_words=bag_of_words,
            keep_features=keep_features,
            device=device,
        )
        lines = run_all(chosen, found, settings)
        described = _describe(chosen, settings, poolings, precision)
        _write_json(folder / RESULT, {"settings": described, "baseline": reference, "lines": lines})
    return summarise(lines, reference, described)


def _baseline(names: Sequence[str], wanted: str | None) -> str | None:
    """The encoder that others are compared with; `UserError` if none has the wanted name."""
    if wanted is not None:
        if wanted.rstrip("/") not in names:
            raise UserError(f"--baseline {wanted}: probed are {', '.join(dict.fromkeys(names))}: name one of these")
        return wanted.rstrip("/")
    trained = [name for name in names if not name.startswith(UNTRAINED)]
    if len(trained) > 1:  # checkpoints and functions, each once
        return trained[-1]
    return names[-1] if len(set(names)) > 1 else None


def _encoders(
    encoders: Encoders, poolings: Sequence[str], seeds: Sequence[int], untrained: bool, precision: str, device: str
) -> list[tuple[LayerEncoder, int]]:
    """Encoders and seeds of their weights: checkpoints have 0; one untrained twin for every shape and seed."""
    named = encoders if isinstance(encoders, Mapping) else {str(path).rstrip("/"): path for path in encoders}
    if not named or len(named) < len(encoders):
        raise UserError("no encoder to probe: give a checkpoint" if not named else "the same checkpoint is named twice")
    chosen: list[tuple[LayerEncoder, int]] = []
    shapes: dict[str, Path | str] = {}
    for name, what in named.items():
        if isinstance(what, GivenEncoder):
            chosen.append((what, 0))
        elif isinstance(what, (str, Path)):
            encoder = checkpoint_encoder(what, poolings, precision, device, name)
            shapes.setdefault(shape_of(encoder), what)
            chosen.append((encoder, 0))
        else:
            chosen.append((GivenEncoder(name, what), 0))
    if untrained:
        for path in shapes.values():
            name = UNTRAINED if len(shapes) == 1 else f"{UNTRAINED} (as {path})"
            chosen += [(untrained_encoder(path, seed, poolings, precision, device, name), seed) for seed in seeds]
    return chosen


def _describe(
    chosen: Sequence[tuple[LayerEncoder, int]], settings: Settings, poolings: Sequence[str], precision: str
) -> dict[str, Any]:
    cut = {e.about.name: e.truncated for e, _ in chosen if isinstance(e, TransformerEncoder) and e.truncated}
    return {
        "probe": settings.options.record(False),
        "features": "frozen; standardised by their mean and deviation on tr; layer 0 is the embeddings",
        "poolings": list(poolings),
        "chosen on va": "penalty (logistic regression); width, dropout, epoch (MLP); best layer",
        "seeds": list(settings.seeds),
        "what seeds vary": "MLPs, control labels, untrained weights; logistic regression of a checkpoint has no randomness",
        "precision of features": precision,
        "bootstrap samples": RESAMPLES,
        "sentences cut to the position table": cut or "none",
        "versions": versions(),
        "commit": commit() or "unknown",
        "command": shlex.join(["python", *sys.argv]),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
