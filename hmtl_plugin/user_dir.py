"""Code of a user's own, as objectives outside of this project: in fairseq ``--user-dir DIR``, in our scripts the same.

A module that ``fairseq-train`` is given imports ours (``import hmtl_plugin``), which the scripts begin with. They take
``--user-dir DIR`` wherever they have other options; for recipes, and for every process that they start, the environment
says the same: ``HMTL_USER_DIR=DIR``.
"""

import os
from argparse import Namespace
from collections.abc import MutableMapping

from hmtl_plugin.errors import UserError

OPTION, VARIABLE = "--user-dir", "HMTL_USER_DIR"


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
    from fairseq.utils import import_user_module

    if not os.path.isdir(folder):
        raise UserError(f"{OPTION} {folder}: no such folder: give that of your own module")
    try:
        import_user_module(Namespace(user_dir=folder))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{OPTION} {folder}: cannot be imported: {type(error).__name__}: {error}") from error
