"""Shared by all tests: small corpora in fairseq's format, and real text where there is some."""

import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile(
    "untimed", deadline=None
)  # what a test finds must not depend on how busy the machine is
hypothesis.settings.load_profile("untimed")

os.environ["HMTL_CHECK_OBJECTIVES"] = "1"  # of this process and of those that it starts: see corruption/contract.py

# Installed beside a CPU torch it cannot be imported, and transformers imports it when it is installed.
sys.modules["torchaudio"] = None  # type: ignore[assignment]

REPOSITORY = Path(__file__).resolve().parents[1]
Documents = Sequence[Sequence[Sequence[int]]]

FIRST_WORD = 5  # <s> <pad> </s> <unk> <mask> come before
EOS = 2


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Sets how many bytes a file may have (-1: any number): a longer one fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size < 0 else size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def random_documents(
    seed: int,
    documents: int,
    sentences: tuple[int, int] = (2, 8),
    words: tuple[int, int] = (3, 12),
    vocabulary: int = 60,
) -> list[list[list[int]]]:
    """Documents of sentences of word ids, without ``</s>``; bounds are inclusive, ``vocabulary``: words."""
    random = np.random.default_rng(seed)

    def sentence() -> list[int]:
        length = random.integers(*words, endpoint=True)
        return random.integers(FIRST_WORD, FIRST_WORD + vocabulary, length).tolist()

    return [[sentence() for _ in range(random.integers(*sentences, endpoint=True))] for _ in range(documents)]


def write_split(prefix: Path, documents: Documents, vocabulary: int = 60) -> None:
    """Write ``prefix.bin`` and ``.idx`` with fairseq's writer: an item a sentence, ``</s>`` between texts."""
    import torch
    from fairseq.data import indexed_dataset

    builder = indexed_dataset.make_builder(f"{prefix}.bin", impl="mmap", vocab_size=FIRST_WORD + vocabulary)
    for number, document in enumerate(documents):
        if number:
            builder.add_item(torch.tensor([EOS]))
        for sentence in document:
            builder.add_item(torch.tensor([*sentence, EOS]))
    builder.finalize(f"{prefix}.idx")


@pytest.fixture
def make_corpus() -> Callable[..., Path]:
    """``make_corpus(folder, train=documents, valid=documents, vocabulary=60)`` writes a data folder.

    Words are ``▁w0``, ``▁w1`` ...: each is a word of one piece. Returns the folder. See `random_documents`.
    """

    def make(folder: Path, vocabulary: int = 60, **splits: Documents) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        symbols = ["<mask>", *(f"▁w{number}" for number in range(vocabulary))]
        (folder / "dict.txt").write_text("".join(f"{symbol} 1\n" for symbol in symbols), encoding="utf-8")
        for split, documents in splits.items():
            write_split(folder / split, documents, vocabulary)
        return folder

    return make


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """``real_data("text/brown")`` is that file or folder of real data; without it the test is skipped.

    Looked for in the folder that the environment variable HMTL_DATA_DIR names, else unpacked once from
    ``../shared/data`` (script ``unpack.sh DEST ARCHIVE``).
    """

    def find(name: str) -> Path:
        top = name.split("/")[0]
        archive = "squad" if "squad" in top or "xquad" in top else top
        given = os.environ.get("HMTL_DATA_DIR")
        folder = Path(given) if given else _unpacked(archive, os.environ)
        if not (folder / name).exists():
            pytest.skip(f"no {name} in {folder}" if given else f"no real data ({name}): set HMTL_DATA_DIR")
        return folder / name

    return find


def _unpacked(archive: str, environ: Mapping[str, str]) -> Path:
    """Folder of unpacked data, filled with ``archive`` if that is there; one process at a time unpacks."""
    cache = REPOSITORY / ".cache" / "data"
    script = REPOSITORY.parent / "shared" / "data" / "unpack.sh"
    if not (script.parent / f"{archive}.tar.xz").is_file():
        return cache
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        whole = cache / f".{archive}"
        if not whole.exists():
            subprocess.run(["bash", str(script), str(cache), archive], check=True, env=dict(environ))
            whole.touch()
    return cache
