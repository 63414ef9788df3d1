"""From a folder of binarised data to the data set of a hierarchy: which pairs, which views, do the files belong together."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset, View
from hmtl_plugin.data.manifest import check_manifest
from hmtl_plugin.data.pair_index import PairingConfig
from hmtl_plugin.errors import UserError
from hmtl_plugin.objectives.base import Objective

logger = logging.getLogger(__name__)
_warned: set[Path] = set()

Objectives = Mapping[str, Objective]


class SequenceOptions(Protocol):
    """The part of the task config that says how sequences are made."""

    tokens_per_sample: int
    short_seq_prob: float
    pairing: str


def pairing_kind(corpus: Corpus, objectives: Objectives, asked: str) -> str:
    """``nsp``, ``sop`` or ``single``: what the hierarchy needs, or ``--pairing`` if that serves it.

    Raises:
        UserError: if the objectives need other pairs than asked for, or the corpus cannot give them.
    """
    needed = {objective.pairing for objective in objectives.values()} - {None}
    if needed and asked not in ("auto", *needed):
        raise UserError(f"--pairing {asked} gives the objective {next(iter(needed))} no pairs: leave --pairing out")
    kind = next(iter(needed)) if needed else "nsp" if asked == "auto" else asked
    if kind == "nsp" and len(corpus.document_start) < 2:
        if needed or asked == "nsp":
            validation = Path(corpus.prefix).name.startswith("valid")
            more = "two or more documents, as --valid-documents 2 gives it" if validation else "more documents"
            leave = ", or train with --disable-validation" if validation else ""
            raise UserError(
                f"{corpus.prefix}: holds one document, and next-sentence prediction takes its random segments from others: "
                f"prepare again with {more} (a blank line ends one, but with --format documents a file is one)"
                f"{leave}, or place sop instead of nsp"
            )
        kind = "single"
    assert kind is not None
    return kind


def views(objectives: Objectives, kind: str, documents: int, training: bool) -> list[View]:
    """Training has one view with everything.

    In validation, objectives that corrupt nothing but by masks share a common view, which no hierarchy changes: same pairs,
    same masks, no shifts. One that needs its own corruption or pairs is measured in a view of its own.
    """
    everyone = tuple(objectives.values())
    if training:
        return [View("train", kind, everyone, tuple(name for o in everyone for name in o.target_names))]
    common = tuple(objective for objective in everyone if objective.view == "common")
    result = []
    if common:
        common_kind = kind if kind != "sop" else "nsp" if documents > 1 else "single"
        result.append(View("common", common_kind, common, tuple(name for o in common for name in o.target_names)))
    result += [View(o.name, kind, everyone, o.target_names) for o in everyone if o.view == "own"]
    return result


def open_split(
    folder: Path,
    split: str,
    objectives: Objectives,
    vocabulary: Vocabulary,
    options: SequenceOptions,
    *,
    training: bool,
    seed: int,
    packed: bool = False,
) -> PretrainingDataset:
    """The data set of ``folder/split``.

    Args:
        training: one view, new samples every epoch; otherwise validation: its views, epoch 1 whatever the trainer says.
        packed: batches without padding.

    Raises:
        UserError: if files are missing, truncated, do not belong together, or cannot serve the objectives.
    """
    corpus = Corpus(str(folder / split), eos=vocabulary.eos)
    manifest = check_manifest(folder, split)
    if manifest is None:
        corpus.check_vocabulary(vocabulary.size)
        if folder not in _warned:
            _warned.add(folder)
            logger.warning(f"{folder}: no corpus.json, so nothing vouches that dictionary and data belong together")
    kind = pairing_kind(corpus, objectives, str(options.pairing))
    if training and not vocabulary.has_words:
        logger.info("the dictionary marks no word boundaries: words are single pieces")
    return PretrainingDataset(
        corpus,
        vocabulary,
        views(objectives, kind, len(corpus.document_start), training),
        PairingConfig(
            tokens_per_sample=options.tokens_per_sample,
            short_seq_prob=options.short_seq_prob,
            layout=manifest["layout"] if manifest else "segments",
        ),
        seed=seed,
        fixed_epoch=None if training else 1,
        packed=packed,
    )
