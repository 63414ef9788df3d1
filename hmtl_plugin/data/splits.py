"""From a folder of binarised data to the data set of a hierarchy: which pairs, which views, do the files belong
together.
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from hmtl_plugin.corruption.base import Corruption
from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.contract import check_repeats
from hmtl_plugin.corruption.corrupt import corrupt_batch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset, SampleSpec
from hmtl_plugin.data.manifest import check_manifest, words_in
from hmtl_plugin.data.pairing import RANDOM, PairingConfig, build_pairs
from hmtl_plugin.errors import UserError

logger = logging.getLogger(__name__)
_warned: set[Path] = set()

Objectives = Mapping[str, Corruption]


class SequenceOptions(Protocol):
    """The part of the task config that says how sequences are made."""

    tokens_per_sample: int
    short_seq_prob: float
    pairing: str


def pairing_kind(corpus: Corpus, objectives: Objectives, asked: str) -> str:
    """Of `pairing.KINDS`: what the hierarchy needs, or ``--pairing`` if that serves it.

    Raises:
        UserError: if the objectives need other pairs than asked for, or the corpus cannot give them.
    """
    needed = {objective.pairing for objective in objectives.values()} - {None}
    if needed and asked not in ("auto", *needed):
        names = ", ".join(name for name, objective in objectives.items() if objective.pairing)
        raise UserError(f"--pairing {asked} gives the objective {names} no pairs: leave --pairing out")
    kind = next(iter(needed)) if needed else "nsp" if asked == "auto" else asked
    if kind in RANDOM and len(corpus.document_start) < 2:
        if needed or asked in RANDOM:
            validation = Path(corpus.prefix).name.startswith("valid")
            more = "two or more documents, as --valid-documents 2 gives it" if validation else "more documents"
            leave = ", or train with --disable-validation" if validation else ""
            raise UserError(
                f"{corpus.prefix}: holds one document, and pairs of {kind} take random segments from others: "
                f"prepare again with {more} (a blank line ends one, but with --format documents a file is one)"
                f"{leave}, or place sop instead of {kind}"
            )
        kind = "single"
    assert kind is not None
    return kind


def without_order(corpus: Corpus, objectives: Objectives) -> str:
    """Objectives that ask for the order of sentences, where every document is one sentence, which gives them no target;
    empty where there are none.
    """
    asking = [name for name, objective in objectives.items() if objective.pairing == "sop"]
    return "" if (corpus.document_end - corpus.document_start > 1).any() else " and ".join(asking)


COMMON = "mlm"
"""The objective whose corruption the common view has."""
_MANY = 0.5  # sentences that stand alone, of all
_CHECKED_SAMPLES, _CHECKED_DOCUMENTS, _CHECKED_SENTENCES = 64, 8, 512


def training_view(objectives: Objectives, kind: str) -> SampleSpec:
    """One with everything."""
    everyone = tuple(objectives.values())
    return SampleSpec("train", kind, everyone, tuple(name for o in everyone for name in o.target_names))


def validation_views(objectives: Objectives, kind: str, documents: int, changing: Collection[str]) -> list[SampleSpec]:
    """Objectives that change no token share a view with the masked LM, which no hierarchy changes: same pairs, same
    masks, no shifts. One that changes tokens (is among ``changing``) or needs other pairs is measured in a view of its
    own, where everything is corrupted as in training.
    """
    everyone = tuple(objectives.values())
    common_kind = "single" if kind == "single" or documents < 2 else "nsp"
    common = tuple(
        o for o in everyone if (o.name == COMMON or o.name not in changing) and o.pairing in (None, common_kind)
    )
    result = []
    if common:
        targets = tuple(name for o in common for name in o.target_names)
        still = frozenset(o.name for o in common if o.name != COMMON)
        result.append(SampleSpec("common", common_kind, common, targets, still))
    result += [SampleSpec(o.name, kind, everyone, o.target_names) for o in everyone if o not in common]
    return result


def changing_tokens(
    objectives: Objectives, corpus: Corpus, vocabulary: Vocabulary, config: PairingConfig, seed: int
) -> frozenset[str]:
    """Names of those whose corruption changes some token of some 64 samples.

    Raises:
        UserError: if one does what the others cannot bear, see `corruption.contract`.
    """
    start, end = (places[:_CHECKED_DOCUMENTS] for places in corpus.documents)
    index = build_pairs(corpus.sizes, (start, np.minimum(end, start + _CHECKED_SENTENCES)), config, seed, 1)
    index_B = np.arange(min(_CHECKED_SAMPLES, len(index)))
    if not len(index_B):
        return frozenset()

    def corrupted(*asked: Corruption) -> FlatBatch:
        batch = index.batch(corpus, index_B, vocabulary)
        corrupt_batch(asked, batch, BatchRandom(seed, 1, index_B, batch.sample_N, batch.position_N), checked=True)
        return batch

    corrupted(*objectives.values())  # all at once, for what they do to each other
    clean_N, changing = corrupted().tokens_N, set()
    for name, objective in objectives.items():
        batch = corrupted(objective)
        check_repeats(objective, batch, corrupted(objective))
        if not np.array_equal(batch.tokens_N, clean_N):
            changing.add(name)
    return frozenset(changing)


def _warn_of_single_sentences(corpus: Corpus, config: PairingConfig) -> None:
    """In a line, if so many sentences stand alone, in a document or in a sequence, that pairs teach nothing: the second
    segment cannot follow.
    """
    start_D, end_D = corpus.documents
    documents = float((end_D - start_D == 1).mean())
    full = np.count_nonzero(np.asarray(corpus.sizes) > config.budget) / max(int((end_D - start_D).sum()), 1)
    if documents > _MANY:
        share, what = documents, "{} of the documents hold one sentence"
        fix = "prepare text with several sentences a document (--format paragraphs splits lines into them)"
    elif config.layout == "segments" and full > _MANY:
        share, what = full, f"{{}} of the sentences fill --tokens-per-sample {config.tokens_per_sample} alone"
        fix = "raise it, or prepare with --format paragraphs, which splits lines into sentences"
    else:
        return
    few = "no" if share == 1 else "few"
    pairs = f"{few} pairs for sop"
    if config.kind != "sop":
        pairs = f"{few} pairs for {config.kind} are of neighbours, and accuracy says nothing"
    share_of = "all" if share == 1 else f"{100 * share:.0f} %"
    logger.warning(f"{corpus.prefix}: {what.format(share_of)}: {pairs}; {fix}, or place other objectives")


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
    if idle := without_order(corpus, objectives):
        logger.warning(f"{corpus.prefix}: every document is one sentence: {idle} has no target there, and no value")
    if training and not vocabulary.has_words:
        why = "the dictionary marks no word boundaries"
        if manifest is not None and not words_in(manifest):
            why = f"{manifest['word_characters']:.0f} characters stand between blanks"
        logger.info(f"{why}: words are single pieces")
    config = PairingConfig(
        kind=kind,
        tokens_per_sample=options.tokens_per_sample,
        short_seq_prob=options.short_seq_prob,
        layout=manifest["layout"] if manifest else "segments",
    )
    if training and not idle and any(objective.pairing for objective in objectives.values()):
        _warn_of_single_sentences(corpus, config)
    if training:
        views = [training_view(objectives, kind)]
    else:
        changing = changing_tokens(objectives, corpus, vocabulary, config, seed)
        views = validation_views(objectives, kind, len(corpus.document_start), changing)
    return PretrainingDataset(
        corpus,
        vocabulary,
        views,
        config,
        seed=seed,
        fixed_epoch=None if training else 1,
        packed=packed,
    )
