"""From text to checkpoint to answers: preparation, training, the hub interface, evaluation, refusals."""

import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq import hub_utils
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder

from hmtl_plugin import HierarchicalBert
from hmtl_plugin.checkpoints import find_checkpoint, load_checkpoint
from hmtl_plugin.errors import UserError
from hmtl_plugin.evaluation.held_out import evaluate
from hmtl_plugin.fairseq_hub import from_hub_utils
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from tests.training.runs import PLUGIN, ROOT, arguments, make_data, run, train

SUBJECTS = "the old cat|a young dog|my friend|the black horse|her little brother|the tall man".split("|")
VERBS = "sees|likes|follows|finds|calls|remembers".split("|")
OBJECTS = "the red house|a green apple|the long road|this small river|that blue door|an open window".split("|")


def write_text(path: Path, documents: int = 120) -> Path:
    """Documents about one subject each, a paragraph of sentences a line, a blank line between documents."""
    draw = random.Random(0)
    lines = []
    for _ in range(documents):
        subject = draw.choice(SUBJECTS)
        sentences = [
            f"{subject} {draw.choice(VERBS)} {draw.choice(OBJECTS)} on day {draw.randint(1, 99)}." for _ in range(6)
        ]
        lines += [" ".join(s[0].upper() + s[1:] for s in sentences[k : k + 3]) for k in (0, 3)] + [""]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` prepared from raw text by the script, ``run`` trained on it."""
    folder = tmp_path_factory.mktemp("end_to_end")
    text = write_text(folder / "text.txt")
    prepared = run(
        [sys.executable, str(ROOT / "scripts/prepare_corpus.py"), str(text), "--format", "paragraphs", "--vocab-size", "80",
         "--valid-fraction", "0.2", "--out", str(folder / "data"), "--workers", "1"]
    )  # fmt: skip
    assert prepared.returncode == 0, prepared.stderr
    train(arguments(folder / "data", folder / "run", "--max-update", "60", "--tokens-per-sample", "60"))
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> HierarchicalBert:
    return HierarchicalBert.from_pretrained(folder / "run")


def test_encode_and_decode(model: HierarchicalBert) -> None:
    ids = model.encode("The old cat sees.", "A young dog.")
    v = model.vocabulary
    assert ids[0] == v.bos and ids[-1] == v.eos and int((ids == v.eos).sum()) == 2
    assert model.decode(ids) == "The old cat sees. A young dog."
    assert int((model.encode("The <mask> cat <mask>") == v.mask).sum()) == 2
    assert v.bos not in model.encode("a <s> b </s>")[1:-1].tolist(), "text never makes special tokens"
    with pytest.raises(UserError, match="positions"):
        model.encode("the old cat " * 100)


def test_features(model: HierarchicalBert) -> None:
    ids = model.encode("The old cat sees the red house.")
    layers = model.extract_features(ids, return_all_hiddens=True)
    assert len(layers) == 3 and all(layer.shape == (1, len(ids), 32) for layer in layers)
    assert torch.equal(layers[-1], model.extract_features(ids))
    texts = ["The old cat sees the red house.", "My friend.", "A young dog likes a green apple on day 7."]
    for pooling in ("mean", "max", "cls"):
        for layer in (-1, 0, 1):
            together = model.sentence_embedding(texts, layer=layer, pooling=pooling)
            alone = torch.stack([model.sentence_embedding(text, layer=layer, pooling=pooling) for text in texts])
            assert together.shape == (3, 32) and torch.allclose(together, alone, atol=1e-5)
    expected = layers[1][0, 1:-1].mean(0)
    assert torch.allclose(model.sentence_embedding(texts[0], layer=1), expected, atol=1e-5)
    with pytest.raises(UserError):
        model.sentence_embedding(texts, layer=3)


def test_answers(model: HierarchicalBert) -> None:
    filled = model.fill_mask("The old <mask> sees the red house.", topk=3)
    assert len(filled) == 3 and filled[0].probability >= filled[1].probability
    assert "<mask>" not in filled[0].text and filled[0].piece not in ("<s>", "</s>", "<mask>", "<unk>")
    listed = model.fill_mask(["The old <mask> sees.", "A <mask>."], topk=2)
    assert listed[0][0].probability == pytest.approx(
        model.fill_mask("The old <mask> sees.", topk=2)[0].probability, abs=1e-5
    )
    follows = model.next_sentence(["The old cat sees."] * 2, ["The old cat likes.", "A dog."])
    assert len(follows) == 2 and 0 < follows[0] < 1
    order = model.word_order("The old cat sees the red house.")
    assert [word.word for word in order] == "The old cat sees the red house.".split()
    assert all(0 <= word.moved <= 1 for word in order)
    with pytest.raises(UserError, match="<mask>"):
        model.fill_mask("nothing to fill")


def test_torch_hub(folder: Path, model: HierarchicalBert) -> None:
    loaded = torch.hub.load(str(ROOT), "hmtl_bert", str(folder / "run"), source="local")
    assert torch.equal(
        loaded.extract_features(loaded.encode("The cat.")), model.extract_features(model.encode("The cat."))
    )


def test_as_fairseqs_users_load_a_model(folder: Path, model: HierarchicalBert) -> None:
    """The same interface, whether data are named or not, and over what fairseq's own function gives."""
    asked = "The old <mask> sees the red house."
    expected = model.fill_mask(asked)
    data = str(folder / "data")
    for loaded in (
        HierarchicalBertModel.from_pretrained(str(folder / "run")),
        HierarchicalBertModel.from_pretrained(
            str(folder / "run"), checkpoint_file="checkpoint_best.pt", data_name_or_path=data, user_dir=PLUGIN
        ),
        HierarchicalBertModel.from_pretrained(folder / "run", "checkpoint_best.pt", "../data", dropout=0.0),
        from_hub_utils(hub_utils.from_pretrained(str(folder / "run"), "checkpoint_best.pt", data)),
    ):
        assert isinstance(loaded, HierarchicalBert) and not loaded.training
        assert loaded.encode("The old cat.").tolist() == model.encode("The old cat.").tolist()
        assert loaded.fill_mask(asked) == expected
    assert loaded.next_sentence("The cat.", "A dog.") == model.next_sentence("The cat.", "A dog.")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bpe": "gpt2"}, "^bpe='gpt2': is settled by this checkpoint.*leave it out .what can be given is dropout, "),
        ({"encoder_layers": 3}, "^encoder_layers=3: is settled by this checkpoint"),
        ({"doc_stride": 3}, "^doc_stride=3: is settled by this checkpoint"),
        ({"tokens_per_sample": "many"}, "^tokens_per_sample='many': give a value such as the checkpoint's, 60"),
        ({"checkpoint_file": "a.pt:b.pt"}, "^checkpoint_file='a.pt:b.pt': several, an ensemble: give one"),
        ({"checkpoint_file": "a.pt"}, "a.pt: no such checkpoint"),
        ({"data_name_or_path": "nowhere"}, "^data_name_or_path='nowhere': nowhere is no folder"),
        ({"data_name_or_path": "./other"}, "the dictionary is not the one that the checkpoint was trained with"),
    ],
)
def test_what_fairseq_would_override_is_refused_by_name(folder: Path, given: dict[str, Any], message: str) -> None:
    (folder / "run" / "other").mkdir(exist_ok=True)
    (folder / "run" / "other" / "dict.txt").write_text("other 1\n")
    with pytest.raises(UserError, match=message) as error:
        HierarchicalBertModel.from_pretrained(str(folder / "run"), **given)
    assert "\n" not in str(error.value)


def test_one_file_is_enough_and_files_beside_it_win(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "run" / "checkpoint_best.pt", tmp_path / "model.pt")
    assert HierarchicalBert.from_pretrained(tmp_path).fill_mask("The <mask>.")
    (tmp_path / "dict.txt").write_text("▁other 1\n")
    with pytest.raises(UserError):
        load_checkpoint(tmp_path)


def test_refusals_are_one_line(folder: Path, tmp_path: Path) -> None:
    model = HierarchicalBert.from_pretrained(folder / "run")
    with pytest.raises(UserError, match="holds no <mask>: write it"):
        model.fill_mask("The [MASK] sat.")
    with pytest.raises(UserError, match=r"^device gpu: .*: use cpu"):
        HierarchicalBert.from_pretrained(folder / "run", device="gpu")
    with pytest.raises(UserError, match="no such checkpoint"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds none of"):
        find_checkpoint(tmp_path)
    content = (folder / "run" / "checkpoint_best.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="truncated"):
        load_checkpoint(tmp_path / "cut.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="not a checkpoint of fairseq-train"):
        load_checkpoint(tmp_path / "other.pt")


def test_evaluation_agrees_with_validation(folder: Path) -> None:
    """The value on all samples is the trainer's; the interval holds it; the unigram baseline is that of the text."""
    checkpoint = load_checkpoint(folder / "run" / "checkpoint_last.pt")
    estimates = {e.target: e for e in evaluate(checkpoint, folder / "data", samples=10**6, view="training")}
    lines = train(arguments(folder / "data", folder / "again", "--max-update", "60", "--tokens-per-sample", "60"))
    valid = [line for line in lines if "valid_loss" in line][-1]
    assert estimates["mlm"].value == pytest.approx(valid["valid_mlm_loss"], abs=2e-3)
    assert estimates["nsp"].value == pytest.approx(valid["valid_nsp_accuracy"], abs=0.1)
    assert estimates["bigram_shift"].value == pytest.approx(valid["valid_bigram_shift_auc"], abs=0.01)
    for estimate in estimates.values():
        assert estimate.low <= estimate.value <= estimate.high
    assert 2 < estimates["mlm"].baseline < np.log(80)
    assert estimates["nsp"].baseline >= 50 and estimates["bigram_shift"].baseline == 0.5
    assert set(estimates) == {"mlm", "nsp", "bigram_shift"}
    assert 40 < estimates["nsp"].counts < 100 and 40 < estimates["nsp"].sizes < 100
    assert 0 < estimates["mlm"].counts < np.log(80) and 0 < estimates["bigram_shift"].counts < 1


def test_bigram_counts_find_moved_words_where_order_is_all(tmp_path: Path) -> None:
    """Every sentence counts upwards: pairs of neighbours tell nearly all. The mask of one tells nothing of the next
    piece.
    """
    data = tmp_path / "data"
    make_data(data, documents=60)
    for split in ("train", "valid"):
        builder = MMapIndexedDatasetBuilder(str(data / f"{split}.bin"), dtype=np.uint16)
        for number in range(600):
            builder.add_item(torch.tensor([*range(6, 46), 2] if number % 6 else [2]))
        builder.finalize(str(data / f"{split}.idx"))
    train(arguments(data, tmp_path / "run", "--max-update", "1", "--tokens-per-sample", "60"))
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint_last.pt")
    found = {e.target: e for e in evaluate(checkpoint, data, samples=200)}
    assert found["bigram_shift"].counts > 0.9 > found["bigram_shift"].value
    assert found["mlm"].counts < 0.5 * found["mlm"].baseline


@pytest.mark.slow
def test_evaluate_script_reuses_what_is_known(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/evaluate.py"), str(folder / "run"), "--data", str(folder / "data"),
               "--samples", "50", "--results", str(tmp_path / "results.jsonl")]  # fmt: skip
    first, second = run(command), run(command)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout and "unigram" in first.stdout
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 4
    assert "mlm_words" in first.stdout and "bits a character" in first.stdout
    assert "give a whole number from 1" in run([*command, "--samples", "0"]).stderr
    (tmp_path / "file").touch()
    unwritable = run([*command[:-1], str(tmp_path / "file" / "results.jsonl")])
    assert unwritable.returncode == 1 and "Traceback" not in unwritable.stderr
    *notes, error = unwritable.stderr.splitlines()
    assert error.startswith("error: ") and all(note.startswith("mlm_words: ") for note in notes)
    wrong = run([*command[:3], "--data", str(tmp_path)])
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: ") and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("call", ["encode", "fill_mask", "sentence_embedding"])
def test_half_a_surrogate_pair_is_one_line(model: HierarchicalBert, call: str) -> None:
    """As Python holds bytes on a command line that are no UTF-8; a tokenizer's library said what it thought of it."""
    with pytest.raises(
        UserError, match=r"^text: half of a surrogate pair \(\\udcff\) at character 2; write characters"
    ):
        getattr(model, call)("a \udcff <mask>")
