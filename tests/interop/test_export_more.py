"""Export of sentencepiece models trained elsewhere, and what the card says of a fine-tuned checkpoint."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hmtl_plugin.errors import UserError
from hmtl_plugin.tokenizers.loading import tokenizer_from_bytes

transformers = pytest.importorskip("transformers")
from hmtl_plugin.checkpoints import load_checkpoint  # noqa: E402
from hmtl_plugin.interop.exporting import export_hf  # noqa: E402
from hmtl_plugin.tokenizers.base import SENTENCEPIECE, Tokenizer  # noqa: E402
from tests.interop.checkpoints import save_checkpoint  # noqa: E402
from tests.preparation.texts import documents  # noqa: E402

SENTENCES = [s for doc in documents(100) for s in doc]
TEXTS = [
    "",
    " ",
    "  a  b ",
    "\u65e5\u672c the cat",
    "\u00a0a\u3000b\u00a0",
    "a\tb\n",
    "the cat, xq",
    "\U0001f642 \u00fcber",
]


def _model(**options: Any) -> Tokenizer:
    import sentencepiece

    content = io.BytesIO()
    settings = {"vocab_size": 140, "model_type": "unigram", "minloglevel": 2, **options}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES), model_writer=content, **settings)
    return tokenizer_from_bytes(SENTENCEPIECE, content.getvalue())


@pytest.mark.parametrize(
    "options",
    [
        {"vocab_size": 400, "byte_fallback": True},
        {"vocab_size": 400, "byte_fallback": True, "model_type": "bpe"},
        {},
        {"normalization_rule_name": "identity"},
        {"remove_extra_whitespaces": False},
        {"add_dummy_prefix": False},
        {"vocab_size": 200, "split_by_whitespace": False},
        {"user_defined_symbols": ["<sep>", "(", ")", "-", *"0123456789"], "vocab_size": 80},
        {"user_defined_symbols": [*"0123456789"], "model_type": "bpe"},
    ],
    ids=str,
)
def test_ids_are_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    tokenizer = _model(**options)
    export_hf(save_checkpoint(tmp_path / "run", tokenizer), tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    marked = [s.replace(" the ", "<sep>").replace("s ", "s(-old) <sep>, ") for s in SENTENCES[:50]]
    for text in [*SENTENCES[:100], *marked, *TEXTS]:
        assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode(text), text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"treat_whitespace_as_suffix": True}, "puts spaces at the ends of words"),
        ({"user_defined_symbols": ["<sep>"], "model_type": "bpe"}, "user_defined_symbols, '<sep>' among them"),
        ({"user_defined_symbols": ["-", "ed", "d"]}, "user_defined_symbols, 'ed' among them.*: use it through"),
        ({"user_defined_symbols": ["he", "ing"]}, "user_defined_symbols, 'he' among them"),
        ({"user_defined_symbols": ["\u2581("]}, "user_defined_symbols, '\u2581\\(' among them"),
        ({"user_defined_symbols": ["\uff08"]}, "user_defined_symbols, '\uff08' among them"),
    ],
)
def test_what_the_fast_tokenizers_have_not_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    run = save_checkpoint(tmp_path / "run", _model(**options))
    with pytest.raises(UserError, match=message):
        export_hf(run, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("pooling", ["mean", "pair"])
def test_a_head_that_reads_more_than_the_first_position_is_left_out_by_name(tmp_path: Path, pooling: str) -> None:
    exported = export_hf(save_checkpoint(tmp_path / "run", _model(), sentence_pooling=pooling), tmp_path / "hf")
    assert exported.architecture == "BertForMaskedLM"
    assert exported.left_out == [f"the head of nsp: it pools by {pooling}, theirs read the first position"]


def test_the_threshold_and_layers_above_the_head_are_named(tmp_path: Path) -> None:
    run = save_checkpoint(tmp_path / "run", _model(), head="squad", task={"head_layer": 2})
    assert export_hf(run, tmp_path / "one").left_out == ["layers 3 to 3: the head reads layer 2"]
    state = torch.load(run / "model.pt", weights_only=True)
    torch.save({**state, "finetuning": {"no_answer_threshold": -1.25}}, run / "model.pt")
    assert "the threshold of SQuAD 2.0, -1.25" in export_hf(run, tmp_path / "two").left_out[1]
    assert "-1.25" in (tmp_path / "two" / "README.md").read_text(encoding="utf-8")


def test_the_card_knows_where_a_finetuned_checkpoint_comes_from(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    task = save_checkpoint(tmp_path / "run" / "glue" / "RTE", _model(), head="RTE")
    identity = {"checkpoint": "c" * 64, "data": "d" * 64, "cell": {"lr": "1e-4", "epochs": "3"}, "seed": 2}
    (task / "published.json").write_text(json.dumps(identity))
    (task / "lr=1e-4,epochs=3" / "seed2").mkdir(parents=True)
    outcome = {"identity": identity, "metrics": {"accuracy": 61.5, "score": 61.5}}
    (task / "lr=1e-4,epochs=3" / "seed2" / "outcome.json").write_text(json.dumps(outcome))
    record = {"checkpoint_sha256": "c" * 64, "hierarchy": "nsp@1,mlm@2", "transfer": "nsp>mlm:gate", "kind": "glue"}
    (tmp_path / "run" / "results.jsonl").write_text(json.dumps(record) + "\n")
    export_hf(task, tmp_path / "hf")
    card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    for part in ("nsp@1,mlm@2", "nsp>mlm:gate", "c" * 64, "d" * 64, "lr 1e-4", "| RTE | accuracy | 61.500 | valid |"):
        assert part in card


def test_next_sentence_prediction_without_a_masked_lm(tmp_path: Path) -> None:
    run = save_checkpoint(tmp_path / "run", _model(), "mlm@2,nsp@3")
    exported = export_hf(run, tmp_path / "hf")
    assert exported.architecture == "BertForNextSentencePrediction"
    assert exported.left_out == ["the head of mlm: it reads layer 2, theirs read the last"]
    model = transformers.BertForNextSentencePrediction.from_pretrained(tmp_path / "hf").eval()
    ours_BT = torch.tensor([[0, 9, 8, 2, 6, 5, 2], [0, 7, 2, 11, 2, 1, 1]])
    segments_BT = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0]])
    nothing = {"positions": torch.zeros(0, dtype=torch.long), "labels": torch.zeros(0, dtype=torch.long)}
    with torch.no_grad():
        found = model(ours_BT, attention_mask=ours_BT.ne(1).long(), token_type_ids=segments_BT).logits
        expected, _ = load_checkpoint(run).model(ours_BT, targets={"mlm": nothing})
    assert torch.allclose(found[:, [1, 0]], expected["nsp"], atol=1e-5)


def test_the_card_names_every_shard_of_the_data(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        manifest = {"schema": 1, "layout": "segments", "splits": {}, "data_sha256": {"train": name * 64}}
        manifest |= {"dictionary_sha256": "", "tokenizer_sha256": "", "options": {}, "inputs": []}
        (tmp_path / name / "corpus.json").write_text(json.dumps(manifest))
    run = save_checkpoint(tmp_path / "run", _model(), task={"data": f"{tmp_path / 'a'}:{tmp_path / 'b'}"})
    export_hf(run, tmp_path / "hf")
    card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    assert f"`a` (sha256 `{'a' * 64}`), `b` (sha256 `{'b' * 64}`)" in card
