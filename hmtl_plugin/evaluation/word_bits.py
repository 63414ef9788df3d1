"""Masked words in bits a character: a measure of masked LMs that compares across vocabularies.

Every model is asked for the same words in the same contexts. Both are drawn from the text that the tokenizer makes of
the held-out ids: contexts are consecutive whole sentences of one document, up to 200 characters; a word is what
stands between blanks; and 15 % of the words are drawn by a hash of the sentence's text and of the character at which
the word begins. So two vocabularies, each with a data folder made from the same text, ask the same as long as both
tokenizers give the same text back (the same case and normalisation).

All pieces of a drawn word become ``<mask>``. The value is the sum of -log2 p over these pieces divided by the
characters of the drawn words, blanks not counted. What it is not: the probability of the word alone. The number of
masks tells a model into how many pieces its own vocabulary cuts the word, which helps more where words are cut finer;
and the pieces of a word are predicted without sight of one another, which costs more where words are cut finer. The
two work against each other and do not cancel exactly, so small differences between vocabularies of very different
size mean little.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hmtl_plugin.corruption.random import uniform
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus, Int64Array
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from hmtl_plugin.precision import autocast
from hmtl_plugin.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)

WORDS = "mlm_words"
"""Name of the target in tables and results."""
SHARE = 0.15
CHARACTERS = 200
_SENTENCES = 3  # of a context, for drawing where in a document contexts begin


@dataclass(frozen=True)
class Sentence:
    """A sentence of W words.

    Attributes:
        words: its text between blanks.
        ids: (N,) its pieces.
        begin_W: place of each word's first piece.
        chosen_W: bool, the word is asked for.
    """

    words: list[str]
    ids: Int64Array
    begin_W: Int64Array
    chosen_W: npt.NDArray[np.bool_]

    @property
    def characters(self) -> int:
        """Of the text, blanks between words included."""
        return sum(map(len, self.words)) + len(self.words) - 1

    def cut(self, characters: int) -> "Sentence":
        """As many of its first words as fit so many characters, one at least."""
        ends = np.cumsum([len(word) + 1 for word in self.words]) - 1
        kept = max(1, int((ends <= characters).sum()))
        end = self.begin_W[kept] if kept < len(self.words) else len(self.ids)
        return Sentence(self.words[:kept], self.ids[:end], self.begin_W[:kept], self.chosen_W[:kept])


@dataclass(frozen=True)
class MaskedContext:
    """``<s> text </s>`` with words to predict.

    Attributes:
        ids: (T,) with ``<mask>`` in place of their pieces.
        positions, labels: (M,) where the masks stand, and what stood there.
        words: the words asked for.
    """

    ids: Int64Array
    positions: Int64Array
    labels: Int64Array
    words: tuple[str, ...]

    @property
    def characters(self) -> int:
        """Of the words asked for."""
        return sum(map(len, self.words))


def masked_words(
    corpus: Corpus, vocabulary: Vocabulary, tokenizer: Tokenizer | None, positions: int, samples: int
) -> list[MaskedContext] | str:
    """Up to ``samples`` contexts of a corpus, or why there are none.

    Each document gives the same number, from a random sentence on. Words beyond a model's ``positions`` are not asked
    for, nor are words with a piece that the vocabulary does not know.
    """
    if tokenizer is None:
        return "the checkpoint has no tokenizer: copy the data folder's (sentencepiece.bpe.model or tokenizer.json) beside it"
    if not vocabulary.has_words:
        return "the vocabulary does not mark where words begin"
    start, end = corpus.documents
    random = np.random.default_rng(0)
    order = random.permutation(len(start))
    each = -(-samples // len(start))
    first = start + random.integers(np.maximum(end - start - _SENTENCES * each, 0) + 1)
    found: list[MaskedContext] = []
    drawn = 0
    for document in order.tolist():
        items = range(int(first[document]), int(end[document]))
        contexts = _contexts(_sentences(corpus, items, vocabulary, tokenizer))
        for context, _ in zip(contexts, range(min(each, samples - len(found))), strict=False):
            masked = _masked(context, vocabulary, positions)
            if masked is not None:
                found.append(masked)
            drawn += sum(int(sentence.chosen_W.sum()) for sentence in context)
        if len(found) == samples:
            break
    beyond = drawn - sum(len(context.words) for context in found)
    if beyond:
        logger.warning(
            f"{WORDS}: {beyond} of {drawn} words stand beyond the model's {positions} positions and are not asked for, "
            "so that values compare only with those of models that are asked for the same words"
        )
    return found or "no word was drawn: the held-out text is too short"


def sentence_of(ids_N: Int64Array, vocabulary: Vocabulary, tokenizer: Tokenizer) -> Sentence | None:
    """A sentence and the words drawn in it; None where its pieces do not tell where the words of its text begin."""
    text = tokenizer.decode(ids_N)
    words = text.split(" ")
    starts_N = vocabulary.word_start_V.take(ids_N)
    starts_N[:1] = True
    begin_W = np.flatnonzero(starts_N)
    if len(begin_W) != len(words) or not all(words):
        return None
    key = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8).digest(), dtype="<u8")[0]
    character_W = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
    known_W = ~np.logical_or.reduceat(vocabulary.special_V.take(ids_N), begin_W)
    return Sentence(words, ids_N, begin_W, known_W & (uniform(key, character_W) < SHARE))


def word_bits(
    model: HierarchicalBertModel,
    contexts: list[MaskedContext],
    vocabulary: Vocabulary,
    unigram_V: Tensor,
    max_tokens: int = 8192,
    precision: str = "none",
    device: str = "cpu",
) -> npt.NDArray[np.float64]:
    """(contexts, 3) bits of the drawn words, their characters, and their bits by unigrams.

    Args:
        unigram_V: (V,) log-probabilities, nats.
    """
    sums = np.zeros((len(contexts), 3))
    for numbers in _batches(contexts, max_tokens):
        chosen = [contexts[number] for number in numbers]
        width = max(len(context.ids) for context in chosen)
        tokens_BT = np.full((len(chosen), width), vocabulary.pad)
        for row, context in enumerate(chosen):
            tokens_BT[row, : len(context.ids)] = context.ids
        row_M = np.repeat(np.arange(len(chosen)), [len(context.labels) for context in chosen])
        labels = torch.from_numpy(np.concatenate([context.labels for context in chosen]))
        positions = np.concatenate([context.positions for context in chosen]) + width * row_M
        target = {"positions": torch.from_numpy(positions).to(device), "labels": labels.to(device)}
        with torch.inference_mode(), autocast(precision, torch.device(device).type):
            logits, _ = model(torch.from_numpy(tokens_BT).to(device), targets={"mlm": target})
        nats_M = torch.nn.functional.cross_entropy(logits["mlm"].float().cpu(), labels, reduction="none")
        numbers_M = np.array(numbers)[row_M]
        np.add.at(sums[:, 0], numbers_M, nats_M.double().numpy() / np.log(2))
        np.add.at(sums[:, 2], numbers_M, -unigram_V[labels].numpy() / np.log(2))
    sums[:, 1] = [context.characters for context in contexts]
    return sums


def _sentences(corpus: Corpus, items: range, vocabulary: Vocabulary, tokenizer: Tokenizer) -> Iterator[Sentence]:
    """One after the other: of a long document few are needed."""
    for item in items:
        ids_N, _ = corpus.gather(np.array([item]), np.array([1]))
        sentence = sentence_of(ids_N, vocabulary, tokenizer) if len(ids_N) else None
        if sentence is not None:
            yield sentence


def _contexts(sentences: Iterator[Sentence]) -> Iterator[list[Sentence]]:
    """Runs of whole sentences of up to `CHARACTERS` characters, blanks between them included.

    A longer sentence stands alone, cut at a word.
    """
    run: list[Sentence] = []
    length = 0
    for sentence in sentences:
        if run and length + 1 + sentence.characters > CHARACTERS:
            yield run
            run, length = [], 0
        if sentence.characters > CHARACTERS:
            sentence = sentence.cut(CHARACTERS)
        length += bool(run) + sentence.characters
        run.append(sentence)
    if run:
        yield run


def _masked(context: list[Sentence], vocabulary: Vocabulary, positions: int) -> MaskedContext | None:
    """None where no word was drawn."""
    text_N = np.concatenate([sentence.ids for sentence in context])[: positions - 2]
    ids = np.concatenate([[vocabulary.bos], text_N, [vocabulary.eos]]).astype(np.int64)
    asked: list[Int64Array] = []
    words: list[str] = []
    base = 1
    for sentence in context:
        ends_W = np.append(sentence.begin_W[1:], len(sentence.ids))
        for word in np.flatnonzero(sentence.chosen_W & (base + ends_W <= len(ids) - 1)).tolist():
            asked.append(np.arange(base + sentence.begin_W[word], base + ends_W[word]))
            words.append(sentence.words[word])
        base += len(sentence.ids)
    if not asked:
        return None
    places = np.concatenate(asked)
    labels = ids[places]
    ids[places] = vocabulary.mask
    return MaskedContext(ids, places, labels, tuple(words))


def _batches(contexts: list[MaskedContext], max_tokens: int) -> Iterator[list[int]]:
    """Numbers of contexts of similar length, padded to at most ``max_tokens`` tokens (one at least)."""
    batch: list[int] = []
    for number in sorted(range(len(contexts)), key=lambda number: len(contexts[number].ids)):
        if batch and (len(batch) + 1) * len(contexts[number].ids) > max_tokens:
            yield batch
            batch = []
        batch.append(number)
    yield batch
