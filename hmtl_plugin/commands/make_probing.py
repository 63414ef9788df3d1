"""Make SentEval-style probing sets from your own text."""

import argparse

from hmtl_plugin.commands.reading import add_exclusion, add_reading, reading_options
from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.options import FORMATS
from hmtl_plugin.probing.generation.make import make_probing
from hmtl_plugin.probing.generation.options import SHARES, SPLIT_UNITS, ProbingOptions

_TASKS = """tasks, each a file of lines tr|va|te TAB label TAB sentence:
  sentence_length  which of six bins of 5 to 28 words
  word_content     which of up to --words target words the sentence contains
  bigram_shift     two neighbouring words changed places (I), or not (O)
  odd_man_out      one word gave way to another of like frequency, which the text has after the same left
                   and before the same right neighbour, but never between both (C), or not (O)

Formats are those of prepare_corpus.py. Words are what stands between blanks. A document goes to tr, va or te as a
whole; the same files, options and seed give the same bytes. probing.json records what was made of what.

Text that a model was pre-trained on is text it has seen. To probe on unseen text give files that were kept out of
pre-training (held_out.txt of prepare_corpus.py --write-valid), and name those that were not with --exclude: documents
that share a sentence with them are dropped."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__, epilog=_TASKS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("files", nargs="+", metavar="FILE")
    p.add_argument("--format", required=True, choices=FORMATS)
    p.add_argument("--out", required=True, metavar="DIR")
    p.add_argument("--overwrite", action="store_true", help="replace probing sets in DIR (other files there stay)")
    p.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a processor)")
    p.add_argument("--seed", type=int, default=1, help="of the split and of every choice (default 1)")

    g = p.add_argument_group("size")
    g.add_argument("--train", type=int, default=10_000, metavar="N", help="rows of tr of a task, at most (10000)")
    g.add_argument("--valid", type=int, default=2_500, metavar="N", help="rows of va (2500)")
    g.add_argument("--test", type=int, default=2_500, metavar="N", help="rows of te (2500)")
    g.add_argument("--words", type=int, default=1_000, metavar="N", help="word_content: target words, at most (1000)")
    g.add_argument(
        "--max-sentences", type=int, default=300_000, metavar="N", help="sample at most N sentences (300000)"
    )
    g.add_argument(
        "--shares",
        type=_shares,
        default=SHARES,
        metavar="TR,VA,TE",
        help="how the text is shared out (60,20,20); a larger last one gives more rows of te where the text is small",
    )
    g.add_argument(
        "--split-by",
        default="document",
        choices=SPLIT_UNITS,
        help="what goes to tr, va or te as a whole; sentence: for a text of one or two documents",
    )

    add_exclusion(p, "exclusion of pre-training text")
    add_reading(p)
    return p


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise UserError(f"--shares {text}: give three numbers above 0, for tr, va and te, such as 60,20,20") from error


def main() -> None:
    """Parse the command line and make the sets."""
    args = parser().parse_args()
    options = ProbingOptions(
        format=args.format,
        train=args.train,
        valid=args.valid,
        test=args.test,
        words=args.words,
        max_sentences=args.max_sentences,
        shares=args.shares,
        split_by=args.split_by,
        seed=args.seed,
        workers=args.workers,
        **reading_options(args),
    )
    print(make_probing(args.files, args.out, options, overwrite=args.overwrite))
