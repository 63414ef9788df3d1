"""A tiny checkpoint with a tokenizer, and small tasks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hmtl_plugin.models.config import EncoderConfig
from hmtl_plugin.models.encoder import Encoder
from hmtl_plugin.probing.encoders import About, TransformerEncoder
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.loading import tokenizer_from_bytes
from hmtl_plugin.tokenizers.training import train_tokenizer
from tests.probing.texts import sentences, write_task


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tokenizer_from_bytes("sentencepiece.bpe.model", train_tokenizer(sentences(500), 60))


@pytest.fixture
def encoder(tokenizer: Tokenizer) -> TransformerEncoder:
    config = EncoderConfig(len(tokenizer), hidden=16, layers=3, heads=2, ffn=32, max_positions=24, init_std=0.3)
    about = About("tiny", "checkpoint", "tiny")
    return TransformerEncoder(about, Encoder(config, 1), tokenizer, ("mean", "cls", "max"), "none", "cpu")


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """Whether a sentence tells of a cat: 200, 80 and 80 rows."""
    texts = sentences(360, seed=3)
    return write_task(tmp_path / "tasks" / "cats.txt", texts, ["cat" if "cat" in text else "none" for text in texts])


def blobs(seed: int, rows: int, layers: int, hidden: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features whose layers tell the class more and more, of unlike scales and off the origin; and the classes."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(classes, hidden))
    labels = random.integers(0, classes, rows).astype(np.int32)
    strength = np.linspace(0, 1.2, layers)[:, None]
    noise = random.normal(size=(rows, layers, hidden))
    features = (noise + centres[labels][:, None] * strength) * np.geomspace(0.05, 20, hidden) + np.arange(hidden)
    return features.astype(np.float32), labels
