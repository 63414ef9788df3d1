"""Prepare text for pre-training: clean, split, deduplicate, tokenise, binarise."""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hmtl_plugin.commands.reading import add_exclusion, add_reading, reading_options
from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.options import MODEL_TYPES
from hmtl_plugin.preparation.prepare import FORMATS, PrepareOptions, prepare_corpus
from hmtl_plugin.tokenizers.loading import find_tokenizer

_FORMATS = """formats:
  sentences   one sentence a line, a blank line (and the end of a file) between documents
  paragraphs  one paragraph a line, likewise; split into sentences
  documents   one document a file: blank lines between paragraphs, hard-wrapped or one a line
  jsonl       one JSON object a line, a document in its text field
  squad       SQuAD JSON: a document is an article, each paragraph once
  pairs       TSV of sentence pairs (GLUE): a document is a group of rows joined by an identical sentence
  nli-jsonl   the same from the jsonl files of SNLI and MNLI

All text is UTF-8. DIR gets what fairseq-preprocess --only-source would write, and beside it the tokenizer
and corpus.json. The same command again does nothing."""

_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "squad", ".tsv": "pairs"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__, epilog=_FORMATS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("files", nargs="+", metavar="FILE")
    p.add_argument("--format", choices=FORMATS, help="default: by the files' endings, and paragraphs for any other")
    p.add_argument("--out", required=True, metavar="DIR")
    p.add_argument("--overwrite", action="store_true", help="replace a corpus in DIR (other files there stay)")
    p.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a processor)")
    p.add_argument("--seed", type=int, default=1, help="of the split and the tokenizer's sample (default 1)")

    g = p.add_argument_group("tokenizer")
    g.add_argument("--vocab-size", type=int, metavar="N", help="pieces to train, the five specials included")
    g.add_argument("--model-type", default="unigram", choices=MODEL_TYPES, help="default: %(default)s")
    g.add_argument("--lowercase", action="store_true", help="wordpiece: fold case and strip accents (BERT uncased)")
    g.add_argument(
        "--tokenizer",
        metavar="PLACE",
        help="use this instead of training one: .model, tokenizer.json, vocab.txt, or a folder with one (also inside a checkpoint)",
    )
    g.add_argument(
        "--character-coverage",
        type=float,
        default=0.9995,
        metavar="SHARE",
        help="of characters that get a piece (default 0.9995)",
    )
    g.add_argument("--allow-unknown", action="store_true", help="go on where more than half of the pieces are <unk>")
    g.add_argument(
        "--tokenizer-sentences", type=int, default=500_000, metavar="N", help="train on a sample of at most N (500000)"
    )

    g = p.add_argument_group("validation split")
    g.add_argument(
        "--valid-fraction", type=float, default=0.01, metavar="SHARE", help="of documents, at least two (default 0.01)"
    )
    g.add_argument("--valid-documents", type=int, metavar="N", help="exactly N documents instead")
    g.add_argument(
        "--write-valid",
        action="store_true",
        help="also write these documents as text, to DIR/held_out.txt: sentences as they were read, before any "
        "normalisation by the tokenizer (for make_probing.py --format sentences); a corpus that is there gets it "
        "added, for which it is prepared once more beside, to see that these are its documents (as much time and disk "
        "again)",
    )

    add_exclusion(p, "exclusion of evaluation text")
    add_reading(p)
    return p


def main() -> None:
    """Parse the command line and prepare."""
    args = parser().parse_args()
    with _tokenizer_file(args.tokenizer) as tokenizer:
        options = _options(args, tokenizer)
        print(prepare_corpus(args.files, args.out, options, overwrite=args.overwrite))


@contextlib.contextmanager
def _tokenizer_file(place: str | None) -> Iterator[str | None]:
    """The file of a tokenizer that may be within a checkpoint."""
    if place is None or not Path(place).is_dir() or find_tokenizer(place):
        yield place
        return
    import hmtl_plugin  # noqa: F401 - torch and fairseq are wanted here only
    from hmtl_plugin.checkpoints import load_vocabulary

    _, tokenizer = load_vocabulary(place)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / tokenizer.file_name
        path.write_bytes(tokenizer.to_bytes())
        yield str(path)


def _format(files: list[str]) -> str:
    """What the files' endings say; `UserError` if they say different things."""
    found = {_ENDINGS.get(Path(file).suffix.lower(), "paragraphs") for file in files}
    if len(found) > 1:
        raise UserError(f"the files look like {' and '.join(sorted(found))}: name their --format, one at a time")
    return found.pop()


def _options(args: argparse.Namespace, tokenizer: str | None) -> PrepareOptions:
    return PrepareOptions(
        format=args.format or _format(args.files),
        vocab_size=args.vocab_size,
        model_type=args.model_type,
        lowercase=args.lowercase,
        tokenizer=tokenizer,
        character_coverage=args.character_coverage,
        tokenizer_sentences=args.tokenizer_sentences,
        allow_unknown=args.allow_unknown,
        valid_fraction=args.valid_fraction,
        valid_documents=args.valid_documents,
        write_valid=args.write_valid,
        **reading_options(args),
        seed=args.seed,
        workers=args.workers,
    )
