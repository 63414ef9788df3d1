"""Export: what Hugging Face's classes compute from it is what ours compute; what they cannot hold is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hmtl_plugin.errors import UserError
from hmtl_plugin.tokenizers.loading import tokenizer_from_bytes

transformers = pytest.importorskip("transformers")
from hmtl_plugin.checkpoints import LoadedCheckpoint, load_checkpoint  # noqa: E402
from hmtl_plugin.interop.exporting import export_hf  # noqa: E402
from hmtl_plugin.interop.importing import import_bert  # noqa: E402
from hmtl_plugin.interop.tokenizer_files import id_order  # noqa: E402
from hmtl_plugin.tokenizers.base import SENTENCEPIECE, Tokenizer  # noqa: E402
from hmtl_plugin.tokenizers.training import train_tokenizer, train_wordpiece  # noqa: E402
from tests.interop.berts import batch, save_bert  # noqa: E402
from tests.interop.checkpoints import save_checkpoint  # noqa: E402
from tests.preparation.texts import documents  # noqa: E402

TOLERANCE = 1e-5
SENTENCES = [s for doc in documents(100) for s in doc]
PAIRS = [("The cat sees the dog.", "It ran."), ("A dog", "sleeps in the old house and dreams of the cat"), ("x", "y")]


@pytest.fixture(scope="module", params=["wordpiece", "unigram", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "wordpiece":
        return tokenizer_from_bytes("tokenizer.json", train_wordpiece(SENTENCES, 140, lowercase=True))
    return tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(SENTENCES, 140, request.param, 1.0))


def _open(folder: Path, kind: str = "AutoModel") -> tuple[Any, Any]:
    """Model and tokenizer as a user opens them; every weight must be there and have a place."""
    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    missing = {name for name in info["missing_keys"] if "pooler" not in name}
    assert not missing and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def _inputs(loaded: LoadedCheckpoint, theirs: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The pairs in our ids, padded, and as their tokenizer gives them."""
    assert loaded.tokenizer is not None
    rows = [[0, *loaded.tokenizer.encode(a), 2, *loaded.tokenizer.encode(b), 2] for a, b in PAIRS]
    width = max(map(len, rows))
    firsts, seconds = map(list, zip(*PAIRS))
    found = dict(theirs(firsts, seconds, padding=True, return_tensors="pt"))
    return torch.tensor([row + [1] * (width - len(row)) for row in rows]), found


@pytest.mark.parametrize("pre_norm", [False, True])
def test_states_are_the_same_from_text_on(tmp_path: Path, tokenizer: Tokenizer, pre_norm: bool) -> None:
    run = save_checkpoint(
        tmp_path / "run", tokenizer, "bigram_shift@1,nsp@2,mlm@3", "nsp>mlm:concat", encoder_normalize_before=pre_norm
    )
    exported = export_hf(run, tmp_path / "hf")
    assert exported.architecture == ("RobertaPreLayerNormModel" if pre_norm else "BertModel")
    assert len(exported.left_out) == 3
    model, theirs = _open(tmp_path / "hf")
    loaded = load_checkpoint(run)
    ours_BT, inputs = _inputs(loaded, theirs)
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True)
        top, extra = loaded.model(ours_BT, features_only=True, return_all_hiddens=True)
    real = ours_BT.ne(1)
    assert inputs["attention_mask"].bool().equal(real)
    assert torch.allclose(found.last_hidden_state[real], top[real], atol=TOLERANCE)
    if not pre_norm:  # between layers theirs are not normalised
        for ours, wanted in zip(extra["hidden_states"], found.hidden_states, strict=True):
            assert torch.allclose(ours[real], wanted[real], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("hierarchy", "options", "architecture"),
    [
        ("nsp@-1,mlm@-1", {}, "BertForPreTraining"),
        ("nsp@-1,mlm@-1", {"untied_output": True, "activation_fn": "gelu_tanh"}, "BertForPreTraining"),
        ("nsp@1,mlm@-1", {}, "BertForMaskedLM"),
        ("mlm@2", {}, "BertForMaskedLM"),
        ("mlm@-1", {"encoder_normalize_before": True}, "RobertaPreLayerNormForMaskedLM"),
        ("mlm@-1", {"encoder_normalize_before": True, "untied_output": True}, "RobertaPreLayerNormForMaskedLM"),
    ],
)
def test_pretraining_heads_are_the_same(
    tmp_path: Path, tokenizer: Tokenizer, hierarchy: str, options: dict[str, Any], architecture: str
) -> None:
    run = save_checkpoint(tmp_path / "run", tokenizer, hierarchy, **options)
    assert export_hf(run, tmp_path / "hf").architecture == architecture
    model, theirs = _open(tmp_path / "hf", architecture)
    loaded = load_checkpoint(run)
    ours_BT, inputs = _inputs(loaded, theirs)
    target = {"positions": torch.arange(ours_BT.numel()), "labels": ours_BT.flatten()}
    with torch.no_grad():
        found = model(**inputs)
        logits, _ = loaded.model(ours_BT, targets={"mlm": target})
    real = ours_BT.ne(1)
    order = torch.tensor(
        [theirs.convert_tokens_to_ids(_their_name(symbol, theirs)) for symbol in loaded.dictionary.symbols]
    )
    scores = found.prediction_logits if architecture == "BertForPreTraining" else found.logits
    assert torch.allclose(scores[..., order][real], logits["mlm"].view(*ours_BT.shape, -1)[real], atol=TOLERANCE)
    if architecture == "BertForPreTraining":
        assert torch.allclose(found.seq_relationship_logits[:, [1, 0]], logits["nsp"], atol=TOLERANCE)


def _their_name(symbol: str, theirs: Any) -> str:
    roles = {
        "<s>": "cls_token",
        "<pad>": "pad_token",
        "</s>": "sep_token",
        "<unk>": "unk_token",
        "<mask>": "mask_token",
    }
    return str(getattr(theirs, roles[symbol])) if symbol in roles else symbol


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize(("head", "layer"), [("RTE", -1), ("MNLI", 2), ("STS-B", -1), ("squad", -1), ("squad", 2)])
def test_finetuned_heads_are_the_same(
    tmp_path: Path, tokenizer: Tokenizer, pre_norm: bool, head: str, layer: int
) -> None:
    run = save_checkpoint(
        tmp_path / "run", tokenizer, head=head, task={"head_layer": layer}, encoder_normalize_before=pre_norm
    )
    exported = export_hf(run, tmp_path / "hf")
    kind = "QuestionAnswering" if head == "squad" else "SequenceClassification"
    assert exported.architecture == ("RobertaPreLayerNormFor" if pre_norm else "BertFor") + kind
    assert exported.layers == (3 if layer == -1 else layer)
    model, theirs = _open(tmp_path / "hf", f"AutoModelFor{kind}")
    loaded = load_checkpoint(run)
    ours_BT, inputs = _inputs(loaded, theirs)
    with torch.no_grad():
        found = model(**inputs)
        logits, _ = loaded.model(ours_BT, task_head=True)
    if head == "squad":
        real = ours_BT.ne(1)
        assert torch.allclose(found.start_logits[real], logits[..., 0][real], atol=TOLERANCE)
        assert torch.allclose(found.end_logits[real], logits[..., 1][real], atol=TOLERANCE)
    else:
        assert torch.allclose(found.logits, logits, atol=TOLERANCE)
    if head == "MNLI":
        assert model.config.id2label == {0: "contradiction", 1: "neutral", 2: "entailment"}


def test_what_is_left_out_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    run = save_checkpoint(tmp_path / "run", tokenizer, "bigram_shift@1,nsp@1,mlm@2", "nsp>mlm:gate!")
    exported = export_hf(run, tmp_path / "hf")
    said = "\n".join(exported.left_out)
    for part in (
        "layers 3 to 3",
        "the head of bigram_shift",
        "the head of nsp: it reads layer 1",
        "the head of mlm: it reads nsp",
    ):
        assert part in said
    card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    assert all(what in card for what in exported.left_out)
    assert "bigram_shift@1,nsp@1,mlm@2" in card and "nsp>mlm:gate!" in card
    assert "no pooler here" in card
    assert exported.layers == 2


@pytest.mark.parametrize("config", [{}, {"tie_word_embeddings": False}, {"hidden_act": "relu"}], ids=str)
def test_there_and_back_again(tmp_path: Path, config: dict[str, Any]) -> None:
    first = save_bert(tmp_path / "hf", **config)
    import_bert(tmp_path / "hf", tmp_path / "run")
    export_hf(tmp_path / "run", tmp_path / "again")
    second, theirs = _open(tmp_path / "again", "BertForPreTraining")
    original = transformers.BertTokenizer(str(tmp_path / "hf" / "vocab.txt"), do_lower_case=True)
    texts = ["The cats sat, unwanted!", "中国 [MASK] it", ""]
    assert [theirs(text).input_ids for text in texts] == [original(text).input_ids for text in texts]
    inputs = batch(len(theirs), list(range(len(theirs))))
    inputs.pop("ours")
    with torch.no_grad():
        expected, found = first(**inputs), second(**inputs)
    assert torch.allclose(found.prediction_logits, expected.prediction_logits, atol=TOLERANCE)
    assert torch.allclose(found.seq_relationship_logits, expected.seq_relationship_logits, atol=TOLERANCE)


@pytest.mark.parametrize("pooling", ["mean", "pair"])
def test_a_head_that_theirs_cannot_be_is_refused(tmp_path: Path, tokenizer: Tokenizer, pooling: str) -> None:
    run = save_checkpoint(tmp_path / "run", tokenizer, head="RTE", task={"head_pooling": pooling})
    with pytest.raises(UserError, match=rf"pools by {pooling} \(--head-pooling\), .*: give --encoder-only$"):
        export_hf(run, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
    assert export_hf(run, tmp_path / "hf", encoder_only=True).architecture == "BertModel"
    with pytest.raises(UserError, match="is there already"):
        export_hf(run, tmp_path / "hf")


def test_a_head_that_reads_the_first_position_is_theirs_by_either_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for pooling in ("cls", "first"):
        run = save_checkpoint(tmp_path / pooling, tokenizer, head="RTE", task={"head_pooling": pooling})
        assert export_hf(run, tmp_path / f"hf-{pooling}").architecture == "BertForSequenceClassification"


HARD = [
    *(
        "",
        " ",
        "  a  b ",
        "The\tcat\nsat",
        "\u00e9 e\u0301 \ufb01 \u00bd",
        "\u200b\u200dx\u00ad",
        "日本語 中文 한국어",
        "\x00\x07 bell",
    ),
    *(
        "🙂👍🏽 family 👨‍👩‍👧",
        "ﷺ ①②",
        "İstanbul ſ",
        "a\u00a0b",
        "…—–",
        "กำ नमस्ते",
        "don't",
        "A.B.C.",
        "x" * 30,
        "1/2 3,000.50",
    ),
]


def test_ids_are_the_same(tmp_path: Path, tokenizer: Tokenizer) -> None:
    export_hf(save_checkpoint(tmp_path / "run", tokenizer), tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    loaded = load_checkpoint(tmp_path / "run")
    index = {symbol: theirs.convert_tokens_to_ids(_their_name(symbol, theirs)) for symbol in loaded.dictionary.symbols}
    for text in [*SENTENCES[:200], *HARD]:
        expected = [index[loaded.dictionary[i]] for i in tokenizer.encode(text)]
        assert theirs(text, add_special_tokens=False).input_ids == expected, text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe"])
def test_ids_of_real_sentences_are_the_same(tmp_path: Path, real_data: Callable[[str], Path], kind: str) -> None:
    """Ten thousand. (In other text sentencepiece's rounding may decide between ways to cut that are equally likely.)"""
    files = sorted(real_data("text/brown").rglob("*.txt"))
    sentences = [line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line.strip()][
        :10_000
    ]
    assert len(sentences) == 10_000
    if kind == "wordpiece":
        tokenizer = tokenizer_from_bytes("tokenizer.json", train_wordpiece(sentences[:4000], 3000, lowercase=False))
    else:
        tokenizer = tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(sentences[:4000], 3000, kind))
    export_hf(save_checkpoint(tmp_path / "run", tokenizer), tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    order = id_order(tokenizer, tokenizer.symbols)
    ours = tokenizer.encode_batch(sentences)
    found = [[order[i] for i in ids] for ids in theirs(sentences, add_special_tokens=False).input_ids]
    assert found == ours
