"""Shared by the tests of this folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder

from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.sentencepiece import SentencePieceTokenizer
from hmtl_plugin.tokenizers.training import train_tokenizer
from tests.training.runs import arguments, train

WORDS = "the cat sat on a mat and dogs sing while birds fly over old grey towns".split()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A tokenizer that knows the characters of `WORDS`."""
    random = np.random.default_rng(0)
    sentences = [" ".join(random.choice(WORDS, 8)) for _ in range(300)]
    return SentencePieceTokenizer(train_tokenizer(sentences, 40, character_coverage=1.0))


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A pre-training checkpoint with its tokenizer inside: two layers, 32 wide, 64 positions, two updates old."""
    folder, random = tmp_path_factory.mktemp("pretrained"), np.random.default_rng(0)
    tokenizer.dictionary().save(str(folder / "dict.txt"))
    (folder / tokenizer.file_name).write_bytes(tokenizer.to_bytes())
    for split, documents in (("train", 20), ("valid", 4)):
        builder = MMapIndexedDatasetBuilder(str(folder / f"{split}.bin"), dtype=np.uint16)
        for _ in range(documents):
            for _ in range(4):
                builder.add_item(torch.tensor([*tokenizer.encode(" ".join(random.choice(WORDS, 5))), 2]))
            builder.add_item(torch.tensor([2]))
        builder.finalize(str(folder / f"{split}.idx"))
    train(arguments(folder, folder / "run", "--max-update", "2", "--max-tokens", "2000"))
    return folder / "run" / "checkpoint_last.pt"
