"""From the spool of corpus preparation to a sample of sentences with their words, split into tr, va and te.

Kept are sentences of 5 to 28 words (SentEval's) of which at least half is letters, each text once: case, blanks and
punctuation apart, the first of equal ones stays. Of more than `max_sentences` those with the smallest seeded hash of
their text are taken, whatever document they stand in. Held in memory: the sample, and 8 bytes (16 for moments) for
every different sentence of the text, so that no made sentence is one that somebody wrote.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.deduplication import SeenKeys, Uint64Array, key, split_keys
from hmtl_plugin.preparation.gather import Spool
from hmtl_plugin.probing.generation.options import ProbingOptions
from hmtl_plugin.probing.generation.split import split_sentences
from hmtl_plugin.probing.generation.vocabulary import BoolArray, IntArray, Vocabulary, number_words

MINIMUM_WORDS, MAXIMUM_WORDS = 5, 28
FREQUENT_WORDS = 100  # the most frequent ones are no content words
_BATCH = 1 << 15  # lines looked at together
_LONGEST_WORD = 15  # characters between blanks, on the average, in no language that sets blanks between words
_NO_LETTER = bytes(code for code in range(128) if not chr(code).isalpha())


@dataclass(frozen=True)
class Sample:
    """S sentences with their N words, in random order.

    Attributes:
        sentences: as they stand in the text, words separated by single blanks.
        split_S: 0 tr, 1 va, 2 te.
        document_S: number of the document in the text.
        vocabulary: V different words.
        word_N: numbers of all words.
        start_S1: where each sentence starts in `word_N`, and the end.
        seen: keys of all sentences of the text; made sentences are added.
        counts: what was read and what was left out.
    """

    sentences: list[str]
    split_S: IntArray
    document_S: IntArray
    vocabulary: Vocabulary
    word_N: npt.NDArray[np.int32]
    start_S1: IntArray
    seen: SeenKeys
    counts: dict[str, int]

    @cached_property
    def length_S(self) -> IntArray:
        """Words of each sentence."""
        return np.diff(self.start_S1)

    @cached_property
    def sentence_N(self) -> IntArray:
        """The sentence of each word."""
        return np.repeat(np.arange(len(self.sentences)), self.length_S)

    @cached_property
    def train_count_V(self) -> IntArray:
        """How often each word occurs in tr."""
        return np.bincount(self.word_N[self.split_S[self.sentence_N] == 0], minlength=len(self.vocabulary))

    @cached_property
    def rare_V(self) -> BoolArray:
        """Not among the 100 most frequent words of tr."""
        rare = np.ones(len(self.vocabulary), dtype=np.bool_)
        rare[np.argsort(-self.train_count_V, kind="stable")[:FREQUENT_WORDS]] = False
        return rare

    def unseen(self, made: list[str]) -> BoolArray:
        """For each made sentence whether neither the text has it nor it was made before."""
        return self.seen.add(np.fromiter(map(key, made), dtype=np.uint64, count=len(made)))


@dataclass
class _Smallest:
    """The sentences with the `limit` smallest draws of those that were offered."""

    limit: int
    draw: Uint64Array = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    document: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    sentences: list[str] = field(default_factory=list)

    def offer(self, draw: Uint64Array, document: IntArray, sentences: list[str]) -> None:
        self.draw = np.concatenate([self.draw, draw])
        self.document = np.concatenate([self.document, document])
        self.sentences += sentences
        if len(self.draw) > self.limit + self.limit // 4:  # a little more than needed, so that it is seldom done
            self.cut()

    def cut(self) -> None:
        """Sort, and drop what is too many."""
        order = np.argsort(self.draw, kind="stable")[: self.limit]
        self.draw, self.document = self.draw[order], self.document[order]
        self.sentences = [self.sentences[place] for place in order.tolist()]


def draw_sample(spool: Spool, options: ProbingOptions, advance: Callable[[int], object]) -> Sample:
    """Read the spool once; `advance` is told the characters read.

    Raises:
        UserError: no usable sentence, words without blanks between them, too few documents.
    """
    counts = dict.fromkeys(("sentences", "too_short_or_long", "mostly_no_letters", "duplicate", "not_sampled"), 0)
    smallest, seen = _Smallest(options.max_sentences), SeenKeys()
    characters = blanks = 0
    for document, lines in _batches(spool):
        advance(sum(map(len, lines)))
        counts["sentences"] += len(lines)
        characters += sum(map(len, lines))
        blanks += sum(line.count(" ") for line in lines)
        usable = _usable(lines, counts)
        keys = np.fromiter((key(lines[place]) for place in usable), dtype=np.uint64, count=len(usable))
        fresh = seen.add(keys)
        counts["duplicate"] += int((~fresh).sum())
        places = np.array(usable, dtype=np.int64)[fresh]
        kept = [lines[place] for place in places.tolist()]
        smallest.offer(split_keys(keys[fresh], options.seed), document[places], kept)
        counts["not_sampled"] += len(kept)
    smallest.cut()
    counts["not_sampled"] -= len(smallest.sentences)
    _refuse(counts, characters, blanks, len(smallest.sentences))
    return _sample(spool, options, smallest, seen, counts | {"sampled": len(smallest.sentences)})


def _batches(spool: Spool) -> Iterator[tuple[IntArray, list[str]]]:
    """The documents and the text of the spool's sentences, many at a time; a row of a pair is two sentences."""
    document = 0
    with spool.text.open(encoding="utf-8", newline="\n") as file:
        while lines := list(islice(file, _BATCH)):
            documents: list[int] = []
            sentences: list[str] = []
            for line in lines:
                if line == "\n":
                    document += 1
                    continue
                row = line.rstrip("\n").split("\t")
                sentences += row
                documents += [document] * len(row)
            yield np.array(documents, dtype=np.int64), sentences


def _usable(lines: list[str], counts: dict[str, int]) -> list[int]:
    """Places of the lines of the right length that consist of letters for the most part."""
    fitting = [i for i, line in enumerate(lines) if MINIMUM_WORDS <= line.count(" ") + 1 <= MAXIMUM_WORDS]
    usable = [i for i in fitting if 2 * _letters(lines[i]) >= len(lines[i]) - lines[i].count(" ")]
    counts["too_short_or_long"] += len(lines) - len(fitting)
    counts["mostly_no_letters"] += len(fitting) - len(usable)
    return usable


def _letters(text: str) -> int:
    if text.isascii():
        return len(text.encode().translate(None, _NO_LETTER))
    return sum(map(str.isalpha, text))


def _refuse(counts: dict[str, int], characters: int, blanks: int, kept: int) -> None:
    if not counts["sentences"]:
        raise UserError("the files hold no text in this --format")
    words = blanks + counts["sentences"]
    if characters - blanks > _LONGEST_WORD * words:
        raise UserError(
            f"the text has {(characters - blanks) / words:.0f} characters between blanks on the average: probing tasks "
            "need words separated by blanks; run a word segmenter over text that has none (Chinese, Japanese, Thai)"
        )
    if not kept:
        raise UserError(
            f"none of the {counts['sentences']} sentences has {MINIMUM_WORDS} to {MAXIMUM_WORDS} words (separated by "
            "blanks) and is letters for the most part; check --format"
        )


def _sample(spool: Spool, options: ProbingOptions, chosen: _Smallest, seen: SeenKeys, counts: dict[str, int]) -> Sample:
    if options.split_by == "sentence":
        split_S = split_sentences(np.arange(len(chosen.draw)), chosen.draw, options.shares, "sentence")
    else:
        draw_D = split_keys(np.fromfile(spool.keys, dtype="<u8"), options.seed)
        what = "group of rows" if options.reading().rows else "document"
        split_S = split_sentences(chosen.document, draw_D, options.shares, what)
    return Sample(chosen.sentences, split_S, chosen.document, *number_words(chosen.sentences), seen=seen, counts=counts)
