"""The options of making probing sets."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.options import FORMATS, PrepareOptions

SHARES = (60.0, 20.0, 20.0)
SPLIT_UNITS = ("document", "sentence")
_SMALLEST_SIZE = 12


@dataclass(frozen=True)
class ProbingOptions:
    """Everything that decides what is written, and `workers`, which does not.

    Attributes:
        format: one of `FORMATS`, as in corpus preparation; so are `text_field`, `columns`, `with_questions`,
            `blank_line_ends_document`, `language`, `exclude`, `exclude_format`, `exclude_minimum_words`.
        train, valid, test: rows, at most, of tr, va and te of each task.
        words: target words, at most, of word_content.
        max_sentences: sentences, at most, that are sampled from the text.
        shares: of the text that tr, va and te get, in any unit.
        split_by: what goes to one of tr, va, te as a whole: ``document`` or ``sentence``.
        seed: of the split, the sample and every choice.
    """

    format: str
    train: int = 10_000
    valid: int = 2_500
    test: int = 2_500
    words: int = 1_000
    max_sentences: int = 300_000
    shares: tuple[float, ...] = SHARES
    split_by: str = "document"
    seed: int = 1
    workers: int = 0
    exclude: tuple[str, ...] = ()
    exclude_format: str = "auto"
    exclude_minimum_words: int = 1
    text_field: str = "text"
    columns: str | None = None
    with_questions: bool = False
    blank_line_ends_document: bool = True
    language: str = "en"

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Rows asked for of tr, va, te."""
        return self.train, self.valid, self.test

    def check(self) -> None:
        """`UserError` for options that cannot be."""
        if self.format not in FORMATS:
            raise UserError(f"--format {self.format}: choose one of {', '.join(FORMATS)}")
        for name, size in zip(("train", "valid", "test"), self.sizes):
            if size < _SMALLEST_SIZE:
                raise UserError(f"--{name} {size}: give {_SMALLEST_SIZE} rows or more")
        if self.words < 2:
            raise UserError(f"--words {self.words}: give 2 target words or more")
        if self.max_sentences < sum(self.sizes):
            raise UserError(
                f"--max-sentences {self.max_sentences}: less than the {sum(self.sizes)} rows of a task; "
                "give more, or smaller --train, --valid and --test"
            )
        if len(self.shares) != 3 or not all(0 < share < math.inf for share in self.shares):
            given = ",".join(f"{share:g}" for share in self.shares)
            raise UserError(f"--shares {given}: give three numbers above 0, for tr, va and te, such as 60,20,20")
        if self.split_by not in SPLIT_UNITS:
            raise UserError(f"--split-by {self.split_by}: choose document or sentence")
        if self.workers < 0:
            raise UserError(f"--workers {self.workers}: give 1 or more, or 0 for one a processor")

    def reading(self) -> PrepareOptions:
        """What the readers of corpus preparation need."""
        return PrepareOptions(
            format=self.format,
            exclude=self.exclude,
            exclude_format=self.exclude_format,
            exclude_minimum_words=self.exclude_minimum_words,
            text_field=self.text_field,
            columns=self.columns,
            with_questions=self.with_questions,
            blank_line_ends_document=self.blank_line_ends_document,
            language=self.language,
        )

    def described(self) -> dict[str, Any]:
        """As probing.json records them: nothing that does not matter; the excluded files stand among the inputs."""
        return {name: value for name, value in asdict(self).items() if name not in ("workers", "exclude")}
