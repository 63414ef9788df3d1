"""The options of corpus preparation."""

from dataclasses import dataclass

from hmtl_plugin.errors import UserError

TEXT_FORMATS = ("sentences", "paragraphs", "documents", "jsonl", "squad")
ROW_FORMATS = ("pairs", "nli-jsonl")
FORMATS = TEXT_FORMATS + ROW_FORMATS
MODEL_TYPES = ("unigram", "bpe", "wordpiece")


@dataclass(frozen=True)
class PrepareOptions:
    """Everything that decides what is written, and `workers`, which does not.

    Attributes:
        format: one of `FORMATS`.
        vocab_size: pieces of the tokenizer to train; None with a given `tokenizer`.
        model_type: ``unigram``, ``bpe`` or ``wordpiece``.
        lowercase: of wordpiece: fold case and strip accents, as BERT's uncased models do.
        tokenizer: an existing one: a sentencepiece model, tokenizer.json or vocab.txt, or a folder that holds one.
        tokenizer_sentences: sentences, at most, that the tokenizer is trained on.
        valid_fraction, valid_documents: size of the validation split; the number wins.
        write_valid: write the validation split as text too; changes nothing else.
        allow_unknown: go on where most pieces are ``<unk>``.
        exclude, exclude_format, exclude_minimum_words: evaluation files, see `exclude.read_excluded`.
        text_field: of jsonl.   columns: of pairs and nli-jsonl.   with_questions: of squad.
        blank_line_ends_document: of sentences and paragraphs.
        language: of the sentence splitter.
        seed: of the split and the tokenizer's sample.
    """

    format: str
    vocab_size: int | None = None
    model_type: str = "unigram"
    lowercase: bool = False
    tokenizer: str | None = None
    character_coverage: float = 0.9995
    tokenizer_sentences: int = 500_000
    valid_fraction: float = 0.01
    valid_documents: int | None = None
    write_valid: bool = False
    allow_unknown: bool = False
    exclude: tuple[str, ...] = ()
    exclude_format: str = "auto"
    exclude_minimum_words: int = 1
    text_field: str = "text"
    columns: str | None = None
    with_questions: bool = False
    blank_line_ends_document: bool = True
    language: str = "en"
    seed: int = 1
    workers: int = 0

    @property
    def rows(self) -> bool:
        """Whether the corpus consists of sentence pairs."""
        return self.format in ROW_FORMATS

    def check(self) -> None:
        """`UserError` for options that cannot be."""
        if self.format not in FORMATS:
            raise UserError(f"--format {self.format}: choose one of {', '.join(FORMATS)}")
        if self.vocab_size is None and self.tokenizer is None:
            raise UserError("give --vocab-size N to train a tokenizer, or --tokenizer FILE to use one")
        if self.tokenizer is not None:
            for name in ("lowercase", "character_coverage", "model_type"):
                if getattr(self, name) != getattr(PrepareOptions, name):
                    raise UserError(
                        f"--{name.replace('_', '-')}: --tokenizer {self.tokenizer} is used as it is: leave out one of the two"
                    )
        if self.vocab_size is not None and self.vocab_size < 6:
            raise UserError(f"--vocab-size {self.vocab_size}: five pieces are special; give far more")
        if not 0 <= self.valid_fraction < 1:
            raise UserError(f"--valid-fraction {self.valid_fraction}: give a share from 0 to below 1")
        if self.valid_documents is not None and self.valid_documents < 0:
            raise UserError(f"--valid-documents {self.valid_documents}: give 0 or more")
        if self.write_valid and not (self.valid_fraction if self.valid_documents is None else self.valid_documents):
            raise UserError("--write-valid: no document is held out; give a --valid-fraction above 0, or leave it out")
        if self.model_type not in MODEL_TYPES:
            raise UserError(f"--model-type {self.model_type}: choose one of {', '.join(MODEL_TYPES)}")
        if self.lowercase and self.model_type != "wordpiece":
            raise UserError("--lowercase is for --model-type wordpiece: sentencepiece keeps case")
        if self.workers < 0:
            raise UserError(f"--workers {self.workers}: give 1 or more, or 0 for one a processor")
