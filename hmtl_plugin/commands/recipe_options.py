"""The options with which a recipe calls fairseq-train, on one line, quoted for a shell: SIZE RUN [options].

    quoted=$(python scripts/recipe_options.py small runs/books --max-update 500)    # stops a script under 'set -e'
    eval "options=($quoted)"

They are those of SIZE in recipes/defaults.toml, those of RUN's last checkpoint where it was begun with others (a line
on stderr says so), and the options given here, which win. --no-NAME takes a flag of the table back, as in
--no-encoder-normalize-before; --options-of RUN begins with the options of another run.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from hmtl_plugin.recipe.arguments import recipe_arguments
from hmtl_plugin.recipe.table import read_table
from hmtl_plugin.user_dir import OPTION, VARIABLE


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("size", help="a part of recipes/defaults.toml")
    p.add_argument("run", type=Path, help="folder for checkpoints")
    p.add_argument("options", nargs=argparse.REMAINDER, help="of fairseq-train")
    args = p.parse_args()
    found = recipe_arguments(args.size, args.run, args.options, read_table())
    if found.note:
        print(found.note, file=sys.stderr)
    own = [OPTION, os.environ[VARIABLE]] if VARIABLE in os.environ else []  # taken out of the options by now
    print(shlex.join([*own, *found.arguments]))
