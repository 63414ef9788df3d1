"""What a user adds to a recipe: options of ``fairseq-train``, and the few that are the recipe's own."""

from collections.abc import Collection, Sequence

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.shape import whole

OPTIONS_OF = "options-of"
"""Begin with the options of another run: ``--options-of RUN``."""


class Given:
    """Options as they stand on a command line; the last of several wins.

    Attributes:
        arguments: those for ``fairseq-train``, as given.
    """

    def __init__(self, arguments: Sequence[str], flags: Collection[str]) -> None:
        """``flags``: names of those that ``--no-NAME`` takes back, which ``fairseq-train`` cannot."""
        self.arguments: list[str] = []
        self._values: dict[str, str | None] = {}
        rest = list(arguments)
        while rest:
            argument = rest.pop(0)
            if not argument.startswith("--"):
                self.arguments.append(argument)
                continue
            name, equals, text = argument[2:].partition("=")
            follows = bool(rest) and not rest[0].startswith("--")
            value = text if equals else rest[0] if follows else None
            if name.removeprefix("no-") in flags and name.startswith("no-"):
                self._values[name.removeprefix("no-")] = None
            elif name == OPTIONS_OF:
                if not value:
                    raise UserError(f"--{OPTIONS_OF}: give the folder of a run, or a checkpoint")
                self._values[name] = value
                del rest[: not equals]
            else:
                self._values[name] = value
                self.arguments.append(argument)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def value(self, name: str) -> str | None:
        """What follows an option; None if it is not given, or nothing follows."""
        return self._values.get(name)

    def updates(self) -> int | None:
        """``--max-update``, if given.

        Raises:
            UserError: if it is no whole number above 0.
        """
        text = self.value("max-update")
        if text is None:
            return None
        if not (number := whole(text)):
            raise UserError(f"--max-update {text}: give a whole number of 1 or more")
        return number
