"""Pre-training goes on from an imported BERT at that model's own loss."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("transformers")
from hmtl_plugin.checkpoints import load_checkpoint
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.splits import open_split
from hmtl_plugin.interop.importing import import_bert
from hmtl_plugin.preparation.options import PrepareOptions
from hmtl_plugin.preparation.prepare import prepare_corpus
from tests.conftest import REPOSITORY
from tests.interop.berts import save_bert
from tests.interop.test_importing import their_ids
from tests.preparation.texts import documents, write_sentences

pytestmark = pytest.mark.slow
SIZES = ["--encoder-layers", "3", "--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "48"]
SIZES += ["--encoder-attention-heads", "4", "--max-positions", "40", "--tokens-per-sample", "40"]


def test_continuing_begins_at_the_imported_model_s_own_loss(tmp_path: Path) -> None:
    theirs = save_bert(tmp_path / "hf")
    import_bert(tmp_path / "hf", tmp_path / "run")
    text = write_sentences(tmp_path / "text", documents(60))
    options = PrepareOptions("sentences", tokenizer=str(tmp_path / "run"), valid_fraction=0.3)
    prepare_corpus([str(text)], tmp_path / "data", options)
    assert (tmp_path / "data" / "dict.txt").read_bytes() == (tmp_path / "run" / "dict.txt").read_bytes()
    command = [
        sys.executable,
        "-m",
        "fairseq_cli.train",
        str(tmp_path / "data"),
        "--user-dir",
        str(REPOSITORY / "hmtl_plugin"),
    ]
    command += ["--task", "hmtl_pretraining", "--arch", "hmtl_bert_base", "--criterion", "hmtl", *SIZES, "--cpu"]
    command += ["--hierarchy", "bigram_shift@1,nsp@2,mlm@3", "--transfer", "nsp>mlm:concat", "--log-format", "json"]
    command += ["--finetune-from-model", str(tmp_path / "run" / "model.pt"), "--save-dir", str(tmp_path / "continued")]
    command += [
        "--optimizer",
        "hmtl_adamw",
        "--lr",
        "0",
        "--lr-scheduler",
        "fixed",
        "--max-update",
        "1",
        "--max-tokens",
        "512",
    ]
    done = subprocess.run([*command, "--num-workers", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    log = done.stdout + done.stderr
    logged = json.loads(re.findall(r"\{[^\n]*valid_mlm_loss[^\n]*\}", log)[-1])
    assert float(logged["valid_mlm_loss"]) == pytest.approx(_their_loss(theirs, tmp_path), abs=1e-3)


def _their_loss(theirs: torch.nn.Module, folder: Path) -> float:
    """Mean loss of transformers' model on the masked tokens of the same validation view."""
    loaded = load_checkpoint(folder / "continued")
    order = torch.tensor(their_ids(loaded))
    vocabulary = Vocabulary.from_dictionary(loaded.dictionary)
    options = SimpleNamespace(**loaded.config["task"])
    data = open_split(folder / "data", "valid", loaded.objectives, vocabulary, options, training=False, seed=0)
    data.set_epoch(1)
    total, count = 0.0, 0
    for batch in data.batch_by_size(data.ordered_indices(), max_tokens=512):
        sample = data.collater(list(batch))
        target = sample["targets"].get("mlm")
        if target is None or not len(target["labels"]):
            continue
        tokens_BT = sample["net_input"]["src_tokens"]
        ends = tokens_BT.eq(2).long()
        with torch.no_grad():
            found = theirs(
                input_ids=order[tokens_BT],
                attention_mask=tokens_BT.ne(1).long(),
                token_type_ids=(ends.cumsum(1) - ends).clamp(max=1),
            )
        rows = found.prediction_logits[..., order].flatten(0, 1)[target["positions"]]
        total += float(F.cross_entropy(rows, target["labels"], reduction="sum"))
        count += len(target["labels"])
    return total / count
