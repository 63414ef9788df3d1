"""A folder that appears whole or not at all."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from hmtl_plugin.errors import UserError, no_room
from hmtl_plugin.files.publishing import locked

OURS = {
    "dict.txt",
    "corpus.json",
    "held_out.txt",
    "sentencepiece.bpe.model",
    "tokenizer.json",
    "glue.json",
    "squad.json",
    "input0",
    "input1",
    "label",
}
OURS |= {"probing.json", "sentence_length.txt", "word_content.txt", "bigram_shift.txt", "odd_man_out.txt"}
_DATA_SUFFIXES = (".bin", ".idx")
_SQUAD_SOURCE = "source.json"  # in the folder of every split


def _is_ours(path: Path) -> bool:
    return path.name in OURS or (path.suffix in _DATA_SUFFIXES and path.is_file()) or (path / _SQUAD_SOURCE).is_file()


def finish_publishing(folder: Path) -> None:
    """Finish what a run that was killed while it published has left in ``folder.old``, and remove what one that was
    killed before has left beside the folder; what another run is preparing is left to that.

    Raises:
        UserError: if there are files in it that are not of this project and have no place in the folder.
    """
    output = OutputFolder(folder, overwrite=True)
    if output.part.exists() or _old(output.folder).is_dir():
        with contextlib.suppress(_Locked), output:
            pass


def _old(folder: Path) -> Path:
    """Where the folder that gives way stands until the user's own files in it are carried over."""
    return folder.with_name(folder.name + ".old")


class _Locked(UserError):
    """Another run prepares the folder."""


class OutputFolder:
    """Builds ``folder`` as ``folder.part`` beside it; `publish` renames. Leaving without it removes what was
    built.

    A ``.part`` that a killed run left is removed; one that another run is writing (it holds a lock) is
    refused. Files in `folder` that are not of a corpus are carried over, and first those that a killed run did not
    come to carry over.

    Args:
        folder: where the result goes; may exist when it is empty or when `overwrite` is given.

    Raises:
        UserError: the folder holds data already, is a file, or is being prepared by another run.
    """

    def __init__(self, folder: Path, overwrite: bool) -> None:
        self.folder, self.overwrite = folder.absolute(), overwrite
        self.part = self.folder.with_name(self.folder.name + ".part")
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> "OutputFolder":
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder}: is a file; --out names a folder")
        parent = self.folder.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # which says nothing of what is wrong
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(parent)) from None
        lock_path = self.folder.with_name(self.folder.name + ".lock")
        try:
            self._lock.enter_context(locked(lock_path, wait=False))
        except BlockingIOError as error:
            raise _Locked(
                f"{self.folder}: is being prepared by another run; wait for it or choose another --out"
            ) from error
        self._lock.callback(lock_path.unlink, missing_ok=True)
        try:
            self._carry_over()
            if not self.overwrite and self.folder.is_dir() and any(map(_is_ours, self.folder.iterdir())):
                raise UserError(f"{self.folder}: holds data already; --overwrite replaces it, or choose another --out")
            self._remove_part()
            self.part.mkdir()
        except BaseException:
            self._lock.close()
            raise
        return self

    def _remove_part(self) -> None:
        if self.part.exists():
            shutil.rmtree(self.part)

    def publish(self) -> None:
        """Make the folder appear: one rename when it was not there, else two, the old one moved aside in
        between.
        """
        for path in filter(Path.is_file, self.part.rglob("*")):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if self.folder.is_dir():
            self.folder.rename(_old(self.folder))
        self.part.rename(self.folder)
        self._carry_over()

    def _carry_over(self) -> None:
        """Bring the user's own files from the folder that gave way, and remove the rest of it.

        Raises:
            UserError: if a file of the same name is there by now. Nothing is removed then.
        """
        old = _old(self.folder)
        if not old.is_dir():
            return
        if not self.folder.exists():  # killed between the two renames: what was there is there again
            old.rename(self.folder)
            return
        for path in [path for path in old.iterdir() if not _is_ours(path)]:
            place = self.folder / path.name
            if os.path.lexists(place):
                raise UserError(
                    f"{path}: is yours, from before {self.folder} was prepared anew, and {place} is there: move one of them"
                )
            path.rename(place)
        shutil.rmtree(old)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with contextlib.suppress(OSError):
            self._remove_part()
        self._lock.close()
        if error is not None and (reason := no_room(error)):
            raise UserError(
                f"{self.folder}: cannot be written ({reason}); nothing new was kept: make room there, or "
                "choose another --out"
            ) from error
