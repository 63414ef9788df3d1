"""The part of the command line that all scripts which read text have in common."""

import argparse
from typing import Any

from hmtl_plugin.preparation.exclude import FORMATS


def add_exclusion(p: argparse.ArgumentParser, title: str) -> None:
    """Options that name text to keep out."""
    g = p.add_argument_group(title)
    g.add_argument(
        "--exclude",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="drop documents that share a sentence",
    )
    g.add_argument("--exclude-format", default="auto", choices=FORMATS)
    g.add_argument(
        "--exclude-min-words", type=int, default=1, metavar="N", help="sentences shorter than this do not count"
    )


def add_reading(p: argparse.ArgumentParser) -> None:
    """Options that say how files are read."""
    g = p.add_argument_group("reading")
    g.add_argument("--text-field", default="text", metavar="NAME", help="jsonl: field with the text; nested as a.b")
    g.add_argument(
        "--columns",
        metavar="A,B",
        help="pairs, nli-jsonl: the sentence columns, names or numbers from 1 (default: by header)",
    )
    g.add_argument("--with-questions", action="store_true", help="squad: questions too, after their paragraph")
    g.add_argument(
        "--blank-lines",
        default="documents",
        choices=("documents", "ignore"),
        help="sentences, paragraphs: what a blank line separates (ignore: only files are documents)",
    )
    g.add_argument("--language", default="en", help="of the sentence splitter (ISO 639, default en)")


def reading_options(args: argparse.Namespace) -> dict[str, Any]:
    """What both groups say, by the names that `PrepareOptions` and `ProbingOptions` give it."""
    return {
        "exclude": tuple(args.exclude),
        "exclude_format": args.exclude_format,
        "exclude_minimum_words": args.exclude_min_words,
        "text_field": args.text_field,
        "columns": args.columns,
        "with_questions": args.with_questions,
        "blank_line_ends_document": args.blank_lines == "documents",
        "language": args.language,
    }
