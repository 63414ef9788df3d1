#!/usr/bin/env python3
"""Fetches GLUE, SNLI and SQuAD as they were published; called by download_glue.sh and download_squad.sh.

Every file is checked by the sha256 in checksums.tsv before anything reads it. Needs nothing but Python 3.9: it runs
before the project is installed. So not with pooch, which besides begins a download anew that broke off.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

TABLE = Path(__file__).resolve().with_name("checksums.tsv")
UNKNOWN = "unknown"
RECORD = "download.json"  # in a task's folder: what it was made of
ATTEMPTS = 4  # without a byte more
WAIT_SECONDS = 2.0  # before the second attempt; doubled for each further one
TIMEOUT_SECONDS = 60.0
_BLOCK = 1 << 20
_NO_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)  # the last: encrypted, or unknown compression

_SPLITS = ("train.tsv", "dev.tsv", "test.tsv")
_MNLI = ("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv", "test_matched.tsv", "test_mismatched.tsv")
_SNLI = ("snli_1.0_train.jsonl", "snli_1.0_dev.jsonl", "snli_1.0_test.jsonl")
ARCHIVES = {  # task: archive, the folder in it, files taken from there
    **{task: (f"{task}.zip", task, _SPLITS) for task in ("CoLA", "SST-2", "STS-B", "RTE", "WNLI")},
    "QQP": ("QQP-clean.zip", "QQP", _SPLITS),
    "MNLI": ("MNLI.zip", "MNLI", _MNLI),
    "QNLI": ("QNLIv2.zip", "QNLI", _SPLITS),
    "SNLI": ("snli_1.0.zip", "snli_1.0", _SNLI),
}
SOURCES = {  # task: the files it is made of
    **{task: (archive,) for task, (archive, _, _) in ARCHIVES.items()},
    "MRPC": ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "mrpc_dev_ids.tsv"),
    "AX": ("AX.tsv",),
}
FOLDERS = {task: "diagnostic" if task == "AX" else task for task in SOURCES}
GLUE = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI", "AX")
SQUAD = ("1.1", "2.0")

GLUE_HELP = f"""Fetch GLUE's tasks as they were published into DIR/TASK, each checked by its sha256 (checksums.tsv).

Tasks: {" ".join(GLUE)} (all of them by default) and SNLI. AX, the diagnostic set, comes with MNLI.
What is there and unchanged is kept; a download that was interrupted goes on where it stopped."""
SQUAD_HELP = """Fetch SQuAD's {train,dev}-vVERSION.json as they were published into DIR, checked by their sha256 (checksums.tsv).

Versions: 1.1 2.0 (both by default). What is there is kept; a download that was interrupted goes on where it stopped."""


class DownloadError(RuntimeError):
    """Something the user can fix; the message is one line and says how."""


@dataclass(frozen=True)
class Source:
    """A line of checksums.tsv; `sha256` is `UNKNOWN` and `size` None where none is recorded."""

    name: str
    sha256: str
    size: int | None
    url: str

    def accepts(self, digest: str) -> bool:
        """Whether a file with this sha256 may be the one."""
        return self.sha256 in (digest, UNKNOWN)


def read_table(path: Path) -> dict[str, Source]:
    """The sources by name."""
    sources = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            name, sha256, size, url = line.split("\t")
            sources[name] = Source(name, sha256, None if size == UNKNOWN else int(size), url)
        except ValueError as error:
            raise DownloadError(f"{path}: line {number} is not: name, sha256, bytes, address") from error
    return sources


def sha256_of(path: Path) -> str:
    """Of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def show_progress(name: str, have: int = 0, end: int | None = None) -> None:
    """On a terminal (or with HMTL_PROGRESS=1) a line that says how much of a file is there; empty with 0 bytes."""
    forced = os.environ.get("HMTL_PROGRESS")
    if forced == "1" or (forced != "0" and sys.stderr.isatty()):
        line = f"{name}: {have / 1e6:.0f}{f' of {end / 1e6:.0f}' if end else ''} MB" if have else ""
        print(f"\r{line}\033[K", end="", file=sys.stderr, flush=True)


def fetch(url: str, part: Path, size: int | None) -> None:
    """Download into ``part``, going on where it ends; `DownloadError` after `ATTEMPTS` that brought nothing."""
    failures, most = 0, size_of(part)
    while True:
        try:
            return _receive(url, part, size)
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code == 416:  # it has less than what is here
                part.unlink()
            elif error.code < 500 and error.code not in (408, 429):
                failures = ATTEMPTS
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        finally:
            show_progress(part.stem)
        failures, most = (0, size_of(part)) if size_of(part) > most else (failures + 1, most)
        if failures >= ATTEMPTS:
            raise DownloadError(
                f"{url}: cannot be fetched ({reason}); run again to go on, or fetch it by other means and give --from FOLDER"
            )
        time.sleep(WAIT_SECONDS * 2**failures / 2)


def _receive(url: str, part: Path, size: int | None) -> None:
    have = size_of(part)
    if size is not None and have >= size:
        return  # all is there, and not checked yet
    headers = {"User-Agent": "hmtl_plugin"} | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS) as response:
        goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if goes_on else 0
        length = response.headers.get("Content-Length", "")
        end = have + int(length) if length.isdigit() else None
        with part.open("ab" if goes_on else "wb") as file:
            while (block := response.read(_BLOCK)) and (size is None or have <= size):  # more: the check will refuse it
                have += file.write(block)
                show_progress(part.stem, have, end)
    if end is not None and have < end and (size is None or have <= size):
        raise ConnectionError(f"it broke off after {have} of {end} bytes")


class Store:
    """Hands out source files that were checked: from a folder given, or downloaded into ``folder/.download``.

    ``origin``: None for the table's addresses, else a folder or an address that has files of the same names.
    """

    def __init__(self, folder: Path, sources: dict[str, Source], origin: str | None, accept_unverified: bool) -> None:
        self.sources, self.accept_unverified = sources, accept_unverified
        self.work = folder / ".download"
        self.base = origin.rstrip("/") if origin and origin.startswith(("http://", "https://")) else None
        self.given = Path(origin) if origin and not self.base else None
        if self.given is not None and not self.given.is_dir():
            raise DownloadError(f"--from {origin}: no such folder; give one, or an address with http:// or https://")

    def get(self, name: str) -> tuple[Path, str]:
        """The file of a source and its sha256."""
        source = self.sources[name]
        path, digest = self._given(source, self.given) if self.given else self._downloaded(source)
        if source.sha256 == UNKNOWN and not self.accept_unverified:
            raise DownloadError(
                f"{path}: has the sha256 {digest}, and none is recorded in {TABLE.name}: compare it with a source "
                "that you trust, then give --accept-unverified"
            )
        return path, digest

    def release(self, names: Iterable[str]) -> None:
        """Sources are used up, or useless: what was downloaded goes."""
        for name in names:
            (self.work / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not there, or another file is under way
            self.work.rmdir()

    def _given(self, source: Source, folder: Path) -> tuple[Path, str]:
        path = folder / source.name
        if not path.is_file():
            raise DownloadError(f"--from {folder}: holds no {source.name}; it is published at {source.url}")
        digest = sha256_of(path)
        if not source.accepts(digest):
            raise DownloadError(
                f"{path}: is not the file that was published (sha256 {digest} instead of {source.sha256}); "
                f"fetch it again from {source.url}"
            )
        return path, digest

    def _downloaded(self, source: Source) -> tuple[Path, str]:
        path, part = self.work / source.name, self.work / f"{source.name}.part"
        if path.is_file() and source.accepts(digest := sha256_of(path)):  # of a run that was stopped after the check
            return path, digest
        self.work.mkdir(exist_ok=True)
        url = f"{self.base}/{source.name}" if self.base else source.url
        for _ in range(1 + part.exists()):  # what an earlier run had left is wrong, perhaps: once more from the start
            fetch(url, part, source.size)
            digest = sha256_of(part)
            if source.accepts(digest):
                return part.rename(path), digest
            part.unlink()
        self.release([])
        raise DownloadError(
            f"{url}: is not the file that was published (sha256 {digest} instead of {source.sha256}) and was removed; "
            "try later, or fetch it by other means and give --from FOLDER"
        )


def unpack(archive: Path, folder: str, names: tuple[str, ...], out: Path) -> None:
    """Write the files ``names`` of a zip's ``folder`` into ``out``, and its notices; nothing else."""
    try:
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
                    raise DownloadError(f"{archive}: its member '{name}' leads out of the folder; fetch it again")
            for member in file.infolist():
                path = PurePosixPath(member.filename)
                if str(path.parent) == folder and (path.name in names or path.stem.lower() in ("readme", "license")):
                    with file.open(member) as source, (out / path.name).open("wb") as target:
                        shutil.copyfileobj(source, target, _BLOCK)
    except _NO_ZIP as error:
        raise DownloadError(f"{archive}: is no zip file that can be read ({error}); fetch it again") from error
    for name in names:
        if not (out / name).is_file():
            raise DownloadError(f"{archive}: holds no {folder}/{name}; fetch it again")


def split_mrpc(train: Path, test: Path, dev_ids: Path, out: Path) -> None:
    """GLUE's MRPC of Microsoft's corpus: the pairs listed in ``dev_ids`` become dev.tsv, labels of the test set go."""
    ids = {tuple(line.split(b"\t")) for line in dev_ids.read_bytes().splitlines() if line}
    header, *rows = train.read_bytes().splitlines()
    in_dev = [tuple(row.split(b"\t")[1:3]) in ids for row in rows]
    if not ids or sum(in_dev) != len(ids):
        raise DownloadError(f"{dev_ids}: {sum(in_dev)} of its {len(ids)} pairs are in {train}; fetch both again")
    for name, wanted in (("train.tsv", False), ("dev.tsv", True)):
        _write_lines(out / name, [header, *(row for row, dev in zip(rows, in_dev) if dev == wanted)])
    unlabelled = (b"%d\t%s" % (i, row.partition(b"\t")[2]) for i, row in enumerate(test.read_bytes().splitlines()[1:]))
    _write_lines(out / "test.tsv", [b"index\t#1 ID\t#2 ID\t#1 String\t#2 String", *unlabelled])


def _write_lines(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def find_tasks(names: list[str]) -> list[str]:
    """Tasks by name, upper or lower case, with or without the hyphen; all of GLUE for none."""
    known = {name.replace("-", "").lower(): name for name in SOURCES} | {"diagnostic": "AX"}
    found: dict[str, None] = {}
    for name in names or GLUE:
        task = known.get(name.replace("-", "").lower())
        if task is None:
            raise DownloadError(f"'{name}' is no task: choose from {', '.join(GLUE)}, SNLI")
        found |= {task: None} | ({"AX": None} if task == "MNLI" else {})
    return list(found)


def make_files(task: str, sources: list[Path], out: Path) -> None:
    """A task's files, of its sources."""
    if task == "AX":
        shutil.copyfile(sources[0], out / "diagnostic.tsv")
    elif task == "MRPC":
        split_mrpc(sources[0], sources[1], sources[2], out)
    else:
        _, folder, names = ARCHIVES[task]
        unpack(sources[0], folder, names, out)


def is_there(task: str, folder: Path, sources: dict[str, Source]) -> bool:
    """Whether ``folder`` holds the task as it was made of these sources; `DownloadError` if it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    fix = "move it away and run again, or give another DIR"
    if not (folder / RECORD).is_file():
        raise DownloadError(f"{folder}: holds something that this script did not fetch; {fix}")
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        made_of, files = dict(record["sources"]), dict(record["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise DownloadError(f"{folder / RECORD}: is damaged; {fix}") from error
    if set(made_of) != set(SOURCES[task]) or not all(sources[name].accepts(made_of[name]) for name in made_of):
        raise DownloadError(f"{folder}: was made of other files than {TABLE.name} lists; {fix}")
    for name, digest in files.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise DownloadError(f"{folder / name}: is missing or was changed since it was fetched; {fix}")
    return True


def fetch_task(task: str, folder: Path, store: Store) -> None:
    """Make the task's folder; it appears whole, with a record of what it was made of."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    found = {name: store.get(name) for name in SOURCES[task]}
    part.mkdir()
    try:
        make_files(task, [path for path, _ in found.values()], part)
        record = {
            "sources": {name: digest for name, (_, digest) in found.items()},
            "files": {path.name: sha256_of(path) for path in sorted(part.iterdir())},
        }
        (part / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        part.rename(folder)
        store.release(found)
    except DownloadError:
        store.release(found)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def glue(folder: Path, tasks: list[str], store: Store) -> None:
    """Fetch GLUE's tasks; what cannot be done is refused before anything is fetched."""
    there = {task: is_there(task, folder / FOLDERS[task], store.sources) for task in tasks}
    for task in tasks:
        if not there[task]:
            fetch_task(task, folder / FOLDERS[task], store)
        _say(folder / FOLDERS[task], there[task], [store.sources[name] for name in SOURCES[task]])


def squad(folder: Path, versions: list[str], store: Store) -> None:
    """Fetch SQuAD's files."""
    names = [f"{split}-v{version}.json" for version in versions for split in ("train", "dev")]
    there = {name: (folder / name).exists() for name in names}
    for name in names:
        if there[name] and not ((folder / name).is_file() and store.sources[name].accepts(sha256_of(folder / name))):
            raise DownloadError(f"{folder / name}: is not the file that was published; move it away and run again")
    for name in names:
        if not there[name]:
            path, _ = store.get(name)
            if path.parent != store.work:
                path = Path(shutil.copyfile(path, folder / f"{name}.part"))
            path.rename(folder / name)
            store.release([name])
        _say(folder / name, there[name], [store.sources[name]])


def _say(path: Path, there: bool, sources: list[Source]) -> None:
    unknown = any(source.sha256 == UNKNOWN for source in sources)
    print(f"{path}: {'already there' if there else 'fetched'}{', NOT verified' if unknown else ''}", flush=True)


def parser(kind: str) -> argparse.ArgumentParser:
    """The command line of ``download_KIND.sh``."""
    description, raw = GLUE_HELP if kind == "glue" else SQUAD_HELP, argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog=f"download_{kind}.sh", description=description, formatter_class=raw)
    p.add_argument("folder", type=Path, metavar="DIR")
    p.add_argument("names", nargs="*", metavar="TASK" if kind == "glue" else "VERSION")
    p.add_argument("--from", dest="origin", metavar="PLACE", help="a folder or web address that has the same files")
    p.add_argument("--accept-unverified", action="store_true", help=f"also files whose sha256 is {UNKNOWN}")
    return p


def main(arguments: list[str]) -> None:
    """``glue`` or ``squad``, then what the shell script was given."""
    kind = arguments[0] if arguments else ""
    if kind not in ("glue", "squad"):
        raise DownloadError("scripts/download.py: run download_glue.sh or download_squad.sh instead")
    args = parser(kind).parse_intermixed_args(arguments[1:])
    names = find_tasks(args.names) if kind == "glue" else list(dict.fromkeys(args.names or SQUAD))
    if kind == "squad" and (wrong := [name for name in names if name not in SQUAD]):
        raise DownloadError(f"'{wrong[0]}' is no version of SQuAD: choose from {', '.join(SQUAD)}")
    store = Store(args.folder, read_table(TABLE), args.origin, args.accept_unverified)
    args.folder.mkdir(parents=True, exist_ok=True)
    (glue if kind == "glue" else squad)(args.folder, names, store)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except DownloadError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'cannot go on'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
