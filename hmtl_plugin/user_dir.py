"""Code of a user's own, as objectives outside of this project: in fairseq ``--user-dir DIR``, in our commands the same.
Packages that are installed name theirs as an entry point ``hmtl_plugin.objectives``.

A module that ``fairseq-train`` is given imports ours (``import hmtl_plugin``). Our commands take ``--user-dir DIR``
wherever they have other options; for recipes, and for every process that they start, the environment says the same:
``HMTL_USER_DIR=DIR``.
"""

import os
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, MutableMapping
from importlib.metadata import entry_points
from pathlib import Path

from hmtl_plugin.errors import UserError

OPTION, VARIABLE, GROUP = "--user-dir", "HMTL_USER_DIR", "hmtl_plugin.objectives"


def how_to_find(environ: Mapping[str, str] = os.environ) -> str:
    """What to do where a name is not known that code of a user's own may bring."""
    if folder := environ.get(VARIABLE):
        return f"{OPTION} {folder} does not register it"
    return f"give {OPTION} DIR (or set {VARIABLE}=DIR), the module that registers it"


def add_option(parser: ArgumentParser) -> None:
    """For ``--help``; where a script parses its arguments it is taken out already."""
    help = f"folder of a module of your own, as for fairseq-train; or set {VARIABLE} (docs/extending.md)"
    parser.add_argument(OPTION, metavar="DIR", help=help)


def take_option(arguments: list[str], environ: MutableMapping[str, str] = os.environ) -> None:
    """Take ``--user-dir DIR`` out of a script's arguments, import it, and tell the processes that it will start.

    Raises:
        UserError: if there is no such module, or it cannot be imported.
    """
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == OPTION:
            if not equals and at + 1 == len(arguments):
                raise UserError(f"{OPTION}: give the folder of your own module after it")
            folder = value if equals else arguments[at + 1]
            del arguments[at : at + (1 if equals else 2)]
            environ[VARIABLE] = os.path.abspath(folder)
            import_user_dir(environ)
            return


def import_user_dir(environ: MutableMapping[str, str] = os.environ) -> None:
    """Import the module that `VARIABLE` names, if it does.

    Raises:
        UserError: if there is no such module, or it cannot be imported.
    """
    folder = environ.get(VARIABLE)
    if not folder:
        return
    from hmtl_plugin import compat  # noqa: F401  before fairseq itself

    # isort: split
    from fairseq.utils import import_user_module

    if not os.path.isdir(folder):
        raise UserError(f"{OPTION} {folder}: no such folder: give that of your own module")
    try:
        import_user_module(Namespace(user_dir=folder))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{OPTION} {folder}: cannot be imported: {_said(error, Path(folder))}") from error


def import_outside() -> None:
    """What installed packages and the environment name. What is wrong with it ends the process with one line: whoever
    imports this package catches no error of ours yet.
    """
    try:
        _import_installed()
        import_user_dir()
    except UserError as error:
        sys.exit(f"error: {error}")


def _import_installed() -> None:
    """Entry points `GROUP` of installed packages."""
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            raise UserError(
                f"the objective '{point.name}' of the installed package {point.value} cannot be imported: "
                f"{type(error).__name__}: {error}: repair or uninstall it"
            ) from error


def _said(error: Exception, folder: Path) -> str:
    """Kind and text of an error, and the last line of the module that it passed; a `SyntaxError` says its own."""
    inside = [
        frame for frame in traceback.extract_tb(error.__traceback__) if folder.resolve() in Path(frame.filename).parents
    ]
    place = (
        f" ({inside[-1].filename}, line {inside[-1].lineno})" if inside and not isinstance(error, SyntaxError) else ""
    )
    return f"{type(error).__name__}: {error}{place}"
