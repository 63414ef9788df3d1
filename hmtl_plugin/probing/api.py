"""Probing from Python: checkpoints and functions side by side, with the same probes."""

import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import write_json
from hmtl_plugin.probing.encoders import (
    GivenEncoder,
    GivenFeatures,
    LayerEncoder,
    TransformerEncoder,
)
from hmtl_plugin.probing.loading import checkpoint_encoder, shape_of, untrained_encoder
from hmtl_plugin.probing.probes import PROBES, ProbeOptions
from hmtl_plugin.probing.results import ProbingResults
from hmtl_plugin.probing.run import Line, Settings, run_all
from hmtl_plugin.probing.summary import summarise
from hmtl_plugin.probing.tasks import find_tasks
from hmtl_plugin.results import commit, versions
from hmtl_plugin.statistics import RESAMPLES

Encoders = Mapping[str, Path | str | GivenFeatures | GivenEncoder] | Sequence[Path | str] | Path | str
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
) -> ProbingResults:
    """Probe every layer of encoders on tasks in SentEval's layout.

        study = probe({"ours": "runs/books", "theirs": lambda sentences: array}, "senteval/data/probing")
        study.probed["theirs", "past_present", "given"].accuracy  # (L+1,), percent

    Args:
        encoders: checkpoints (files or run folders), or by name: checkpoints, or functions from a list of sentences to
            features (sentences, layers, width) or a mapping from names of poolings to such. Wrap a function as
            ``GivenEncoder(name, function, version)`` to keep its results for the next call.
        tasks: files, or folders of ``.txt`` files.
        out: folder of results, which are not computed again (``results.jsonl``; what was asked for last:
            ``results.json``); None keeps nothing.
        poolings: of checkpoints: ``mean``, ``cls``, ``max``.
        probe: ``logistic`` or ``mlp``.
        seeds: of MLPs, control labels and untrained weights.
        untrained: add an encoder of the first checkpoint's shape (and of every other shape) with fresh weights.
        baseline: name of the encoder that differences are taken to; default: the last one that has a pooling in common
            with another, of those that were trained if there are several, else the untrained one.
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
    for encoder, _ in chosen:
        if isinstance(encoder, GivenEncoder):
            encoder.look(found[0].sentences([0, 1]))
    reference = _baseline([encoder for encoder, _ in chosen], baseline)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(out) if out is not None else Path(temporary)
        _writable(folder, "--out")
        settings = Settings(
            store=folder / STORE,
            cache=Path(cache) if cache is not None else folder / FEATURES,
            scratch=Path(temporary) / FEATURES,
            options=ProbeOptions(probe),
            seeds=tuple(seeds),
            controls=controls,
            bag_of_words=bag_of_words,
            keep_features=keep_features,
            device=device,
        )
        lines = run_all(chosen, found, settings)
        described = _describe(chosen, settings, lines)
        write_json(folder / RESULT, {"settings": described, "baseline": reference, "lines": lines}, indent=None)
    return summarise(lines, reference, described)


def _baseline(encoders: Sequence[LayerEncoder], wanted: str | None) -> str | None:
    """The encoder that others are compared with: the wanted one, else the last that was trained and shares a pooling
    with another.
    """
    names = list(dict.fromkeys(encoder.about.name for encoder in encoders))
    if wanted is not None:
        if wanted.rstrip("/") not in names:
            raise UserError(f"--baseline {wanted}: probed are {', '.join(names)}: name one of these")
        return wanted.rstrip("/")
    poolings = {encoder.about.name: set(encoder.poolings) for encoder in encoders}
    trained = [encoder.about.name for encoder in encoders if encoder.about.kind != UNTRAINED]
    for among in (trained, names):
        for name in reversed(among):
            if any(poolings[name] & poolings[other] for other in among if other != name):
                return name
    return None


def _writable(folder: Path, option: str) -> None:
    """`UserError` before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".{os.getpid()}").touch()
        (folder / f".{os.getpid()}").unlink()
    except OSError as error:
        raise UserError(f"{option} {folder}: cannot be written ({error.strerror}): name a folder of yours") from None


def _encoders(
    encoders: Encoders, poolings: Sequence[str], seeds: Sequence[int], untrained: bool, precision: str, device: str
) -> list[tuple[LayerEncoder, int]]:
    """Encoders and seeds of their weights: checkpoints have 0; one untrained twin for every shape and seed."""
    if isinstance(encoders, (str, Path)):
        encoders = [encoders]
    named = encoders if isinstance(encoders, Mapping) else {str(path).rstrip("/"): path for path in encoders}
    if not named or len(named) < len(encoders):
        raise UserError("no encoder to probe: give a checkpoint" if not named else "the same checkpoint is named twice")
    chosen: list[tuple[LayerEncoder, int]] = []
    shapes: dict[str, Path | str] = {}
    for name, what in named.items():
        if isinstance(what, (str, Path)):
            encoder = checkpoint_encoder(what, poolings, precision, device, name)
            shapes.setdefault(shape_of(encoder), what)
            chosen.append((encoder, 0))
        else:
            given = what if isinstance(what, GivenEncoder) else GivenEncoder(name, what)
            given.about = replace(given.about, name=name)
            chosen.append((given, 0))
    _check_distinct([encoder for encoder, _ in chosen])
    for path in shapes.values() if untrained else ():
        name = UNTRAINED if len(shapes) == 1 and UNTRAINED not in named else f"{UNTRAINED} (as {path})"
        chosen += [(untrained_encoder(path, seed, poolings, precision, device, name), seed) for seed in seeds]
    return chosen


def _check_distinct(encoders: Sequence[LayerEncoder]) -> None:
    """`UserError` if two are the same by content: one's results would be taken for the other's."""
    name_of: dict[str, str] = {}
    for encoder in encoders:
        about = encoder.about
        if about.fingerprint in name_of:
            raise UserError(
                f"{name_of[about.fingerprint]} and {about.name} are the same encoder (same weights, or same name and version): "
                "name it once"
            )
        name_of[about.fingerprint] = about.name


def _describe(chosen: Sequence[tuple[LayerEncoder, int]], settings: Settings, lines: Sequence[Line]) -> dict[str, Any]:
    """What was run, for a report."""
    cut = {(line["variant"], line["task"]): line["cut"] for line in lines if line.get("cut")}
    by_name = {
        name: sum(n for (other, _), n in cut.items() if other == name) for name in dict.fromkeys(k[0] for k in cut)
    }
    precisions = {"none": "fp32", "bf16": "bf16"}
    precision = {e.about.name: precisions[e.precision] for e, _ in chosen if isinstance(e, TransformerEncoder)}
    return {
        "probe": settings.options.record(False),
        "features": "frozen; standardised by their mean and deviation on tr; layer 0 is the embeddings",
        "poolings": list(dict.fromkeys(pooling for encoder, _ in chosen for pooling in encoder.poolings)),
        "chosen on va": "penalty (logistic regression); width, dropout, epoch (MLP); best layer",
        "seeds": list(settings.seeds),
        "what seeds vary": "MLPs, control labels, untrained weights; logistic regression of a checkpoint has no randomness",
        "precision of features": ", ".join(dict.fromkeys(precision.values())) or "the function's",
        "bootstrap samples": RESAMPLES,
        "sentences cut to the position table": by_name or "none",
        "versions": versions(),
        "commit": commit() or "unknown",
        "command": shlex.join(["python", *sys.argv]),
    }
