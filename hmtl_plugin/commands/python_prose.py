"""Gather English prose out of the documentation that Python and its packages carry. No download.

python scripts/python_prose.py --out prose.txt
"""

import argparse

from hmtl_plugin.preparation.python_prose import gather_python_prose


def main() -> None:
    """Parse the command line and gather."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument(
        "--out", required=True, metavar="FILE", help="paragraphs, one a line, a blank line between documents"
    )
    p.add_argument("--max-megabytes", type=float, default=8.0, metavar="MB", help="stop there (default 8)")
    p.add_argument("--min-megabytes", type=float, default=3.0, metavar="MB", help="fail below (default 3)")
    p.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a processor)")
    p.add_argument("--overwrite", action="store_true", help="gather again when FILE is there")
    args = p.parse_args()
    print(gather_python_prose(args.out, args.max_megabytes, args.min_megabytes, args.workers, args.overwrite))
