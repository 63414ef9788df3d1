"""A checkpoint with a WordPiece vocabulary in use: hub, GLUE, SQuAD, probing; and the scripts that move in and out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
from hmtl_plugin import HierarchicalBert
from hmtl_plugin.interop.importing import import_bert
from hmtl_plugin.study.toy import write_toy_data
from hmtl_plugin.tokenizers.base import SENTENCEPIECE
from hmtl_plugin.tokenizers.loading import tokenizer_from_bytes
from hmtl_plugin.tokenizers.training import train_tokenizer, train_wordpiece
from tests.conftest import REPOSITORY
from tests.interop.berts import save_bert
from tests.interop.checkpoints import save_checkpoint


def _script(name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(REPOSITORY / "scripts" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_hub_answers_from_an_imported_bert(tmp_path: Path) -> None:
    save_bert(tmp_path / "hf")
    import_bert(tmp_path / "hf", tmp_path / "run")
    model = HierarchicalBert.from_pretrained(tmp_path / "run")
    filled = model.fill_mask("The cats <mask>, unwanted!", topk=3)
    assert len(filled) == 3 and filled[0].text.startswith("the cats")
    assert not any(f.piece.startswith("[unused") for f in model.fill_mask("the <mask>", topk=1000))
    assert 0 < model.next_sentence("The cat sat.", "It ran.") < 1
    assert model.sentence_embedding(["the cat", "unwanted"], layer=2).shape == (2, 32)
    assert model.decode(model.encode("The cats sat", "the cat")) == "the cats sat the cat"


def test_words_are_moved_whole(tmp_path: Path) -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##want", "##ed", "cat", "##s", "sat", "."]
    from hmtl_plugin.tokenizers.wordpiece import wordpiece_file

    tokenizer = tokenizer_from_bytes("tokenizer.json", wordpiece_file(vocabulary, lowercase=True))
    run = save_checkpoint(tmp_path / "run", tokenizer, "bigram_shift@1,mlm@2")
    words = HierarchicalBert.from_pretrained(run).word_order("Unwanted cats sat.")
    assert [word.word for word in words] == ["unwanted", "cats", "sat", "."]


@pytest.mark.slow
def test_finetuning_and_probing(tmp_path: Path) -> None:
    data = write_toy_data(tmp_path / "toy")
    sentences = (data / "text.txt").read_text(encoding="utf-8").split("\n")
    tokenizer = tokenizer_from_bytes("tokenizer.json", train_wordpiece(filter(None, sentences), 600, lowercase=False))
    run = save_checkpoint(
        tmp_path / "run", tokenizer, "bigram_shift@1,nsp@2,mlm@3", "nsp>mlm:concat", max_positions=128
    )
    grid = ["--cpu", "--workers", "1", "--grid", "epochs=1", "batch-size=32"]
    glue = _script(
        "finetune_glue.py",
        run,
        "RTE",
        "--glue-dir",
        data / "glue",
        "--out",
        tmp_path / "glue",
        "--results",
        tmp_path / "r.jsonl",
        *grid,
    )
    assert glue.returncode == 0, glue.stderr
    squad = [
        "--train",
        data / "squad" / "train-v1.1.json",
        "--dev",
        data / "squad" / "dev-v1.1.json",
        "--out",
        tmp_path / "squad",
    ]
    windows = ["--tokens-per-sample", "96", "--doc-stride", "32", "--max-question-tokens", "32"]
    done = _script("finetune_squad.py", run, *squad, *windows, "--results", tmp_path / "r.jsonl", *grid)
    assert done.returncode == 0, done.stderr
    predictions = json.loads((tmp_path / "squad" / "predictions.json").read_text(encoding="utf-8"))
    contexts = (data / "squad" / "dev-v1.1.json").read_text(encoding="utf-8")
    assert predictions and all(
        json.dumps(text)[1:-1] in contexts for text in predictions.values()
    )  # read off the text itself
    probing = _script(
        "probe.py", run, "--tasks", data / "probing", "--out", tmp_path / "probing", "--pooling", "mean", "--no-plots"
    )
    assert probing.returncode == 0, probing.stderr
    assert "Sentence length" in probing.stdout
    exported = _script("export_hf.py", tmp_path / "glue" / "RTE", "--out", tmp_path / "hf")
    assert "BertForSequenceClassification" in exported.stdout, exported.stderr


@pytest.mark.slow
def test_scripts_in_and_out(tmp_path: Path) -> None:
    """As the documentation has them; a second time, and with bad input, one line and status 1."""
    save_bert(tmp_path / "hf")
    (tmp_path / "my.txt").write_text(
        "The cats sat. Unwanted cats.\n\n" * 9 + "The mask sat.\n\nA cat runs.\n", encoding="utf-8"
    )
    imported = _script("import_hf.py", tmp_path / "hf", "--out", tmp_path / "bert")
    assert imported.returncode == 0 and "3 layers of width 32" in imported.stdout, imported.stderr
    again = _script("import_hf.py", tmp_path / "hf", "--out", tmp_path / "bert")
    assert again.returncode == 1 and again.stderr.startswith("error: --out") and again.stderr.count("\n") == 1
    options = [
        "--tokenizer",
        tmp_path / "bert",
        "--valid-documents",
        "1",
        "--out",
        tmp_path / "data",
    ]
    prepared = _script("prepare_corpus.py", tmp_path / "my.txt", *options)
    assert prepared.returncode == 0, prepared.stderr
    assert (tmp_path / "data" / "tokenizer.json").read_bytes() == (tmp_path / "bert" / "tokenizer.json").read_bytes()
    (tmp_path / "bare").mkdir()
    shutil.copy(tmp_path / "bert" / "model.pt", tmp_path / "bare")  # the tokenizer that travels in a checkpoint
    options[options.index(tmp_path / "bert")] = tmp_path / "bare"
    same = _script("prepare_corpus.py", tmp_path / "my.txt", *options)
    assert same.returncode == 0 and "already prepared" in same.stdout, same.stderr
    exported = _script("export_hf.py", tmp_path / "bert", "--out", tmp_path / "again")
    assert exported.returncode == 0 and "BertForPreTraining" in exported.stdout, exported.stderr
    pytest.importorskip("onnxscript")
    onnx = _script("export_onnx.py", tmp_path / "bert", "--out", tmp_path / "my.onnx")
    assert onnx.returncode == 0 and "last_hidden_state of 3 layers" in onnx.stdout, onnx.stderr
    assert onnx.stderr == ""
    without = (
        "import sys; sys.modules['transformers'] = sys.modules['tokenizers'] = None; "  # what exporting does without
    )
    code = f"{without}from hmtl_plugin.interop.exporting import export_hf; from pathlib import Path; "
    plain = save_checkpoint(
        tmp_path / "plain", tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(["a b c d"] * 20, 11))
    )
    code += f"export_hf({str(plain)!r}, Path({str(tmp_path / 'bare_hf')!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (tmp_path / "bare_hf" / "model.safetensors").is_file(), done.stderr
    lost = _script("export_hf.py", tmp_path / "nowhere", "--out", tmp_path / "x")
    assert lost.returncode == 1 and lost.stderr.startswith("error: ") and lost.stderr.count("\n") == 1
