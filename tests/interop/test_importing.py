"""Import of BERT: the same hidden states, the same logits; what cannot be imported is refused in a line."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hmtl_plugin.errors import UserError

pytest.importorskip("transformers")
import transformers

from hmtl_plugin.checkpoints import LoadedCheckpoint, load_checkpoint
from hmtl_plugin.interop.exporting import export_hf
from hmtl_plugin.interop.importing import import_bert
from hmtl_plugin.tokenizers.wordpiece import wordpiece_file
from tests.commands.running import run_script
from tests.interop.berts import batch, save_bert
from tests.tokenizers.test_wordpiece import VOCABULARY

TOLERANCE = 1e-5


def their_ids(loaded: LoadedCheckpoint, rows: int = len(VOCABULARY)) -> list[int]:
    """For each of our ids theirs."""
    names = {"<s>": "[CLS]", "<pad>": "[PAD]", "</s>": "[SEP]", "<unk>": "[UNK]", "<mask>": "[MASK]"}
    index = {piece: number for number, piece in enumerate(VOCABULARY)}
    index |= {f"madeupword{number:04d}": len(VOCABULARY) + number for number in range(rows - len(VOCABULARY))}
    return [index[names.get(symbol, symbol)] for symbol in loaded.dictionary.symbols]


def assert_parity(theirs: Any, loaded: LoadedCheckpoint, rows: int = len(VOCABULARY)) -> None:
    """Hidden states of every layer, MLM and NSP logits of every position that is no padding."""
    order = their_ids(loaded, rows)
    inputs = batch(rows, order)
    ours_BT = inputs.pop("ours")
    with torch.no_grad():
        expected = theirs(**inputs, output_hidden_states=True)
        _, extra = loaded.model(ours_BT, features_only=True, return_all_hiddens=True)
        positions = torch.arange(ours_BT.numel())
        target = {"positions": positions, "labels": ours_BT.flatten()}
        logits, _ = loaded.model(ours_BT, targets={"mlm": target})
    real = ours_BT.ne(1)
    for layer, (ours, wanted) in enumerate(zip(extra["hidden_states"], expected.hidden_states, strict=True)):
        assert torch.allclose(ours[real], wanted[real], atol=TOLERANCE), layer
    mlm = logits["mlm"].view(*ours_BT.shape, -1)
    assert torch.allclose(mlm[real], expected.prediction_logits[..., order][real], atol=TOLERANCE)
    assert torch.allclose(logits["nsp"], expected.seq_relationship_logits[:, [1, 0]], atol=TOLERANCE)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"hidden_act": "gelu_new", "layer_norm_eps": 1e-6},
        {"num_hidden_layers": 1, "hidden_size": 24, "num_attention_heads": 2},
        {"tie_word_embeddings": False},
        {"vocab_size": len(VOCABULARY) + 5},  # rows beyond the vocabulary
    ],
    ids=lambda config: ",".join(config) or "plain",
)
def test_hidden_states_and_logits_are_the_same(tmp_path: Path, config: dict[str, Any]) -> None:
    theirs = save_bert(tmp_path / "hf", **config)
    imported = import_bert(tmp_path / "hf", tmp_path / "run")
    assert imported.fresh == imported.left_out == []
    assert imported.fillers == config.get("vocab_size", len(VOCABULARY)) - len(VOCABULARY)
    assert imported.untied == (config.get("tie_word_embeddings") is False)
    loaded = load_checkpoint(tmp_path / "run")
    assert loaded.model.untied_output == imported.untied
    assert_parity(theirs, loaded, config.get("vocab_size", len(VOCABULARY)))


def test_a_pickle_of_plain_weights_is_as_good(tmp_path: Path) -> None:
    theirs = save_bert(tmp_path / "hf", pickled=True)
    import_bert(tmp_path / "hf", tmp_path / "run")
    assert_parity(theirs, load_checkpoint(tmp_path / "run"))


def test_weights_in_several_files(tmp_path: Path) -> None:
    theirs = save_bert(tmp_path / "hf", num_hidden_layers=4)
    theirs.save_pretrained(tmp_path / "hf", max_shard_size="20kB")
    (tmp_path / "hf" / "model.safetensors").unlink()
    shards = sorted((tmp_path / "hf").glob("model-*.safetensors"))
    assert len(shards) > 1
    import_bert(tmp_path / "hf", tmp_path / "run")
    assert_parity(theirs, load_checkpoint(tmp_path / "run"))
    shards[0].unlink()
    with pytest.raises(UserError, match="is named in the index of weights and not there"):
        import_bert(tmp_path / "hf", tmp_path / "other")


def test_old_names_of_layer_norms_and_buffers(tmp_path: Path) -> None:
    theirs = save_bert(tmp_path / "hf", pickled=True)
    path = tmp_path / "hf" / "pytorch_model.bin"
    weights = torch.load(path, weights_only=True)
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in weights.items()
    }
    torch.save({**old, "bert.embeddings.position_ids": torch.arange(40)[None]}, path)
    import_bert(tmp_path / "hf", tmp_path / "run")
    assert_parity(theirs, load_checkpoint(tmp_path / "run"))


@pytest.mark.parametrize(
    ("model_class", "fresh", "left_out"),
    [
        ("BertModel", ["NSP head", "MLM head"], []),
        ("BertForMaskedLM", ["pooler", "NSP head"], []),
        ("BertForSequenceClassification", ["NSP head", "MLM head"], ["classifier"]),
        ("BertForQuestionAnswering", ["pooler", "NSP head", "MLM head"], ["qa_outputs"]),
    ],
)
def test_what_is_missing_or_left_out_is_named(
    tmp_path: Path, model_class: str, fresh: list[str], left_out: list[str]
) -> None:
    theirs = save_bert(tmp_path / "hf", model_class)
    imported = import_bert(tmp_path / "hf", tmp_path / "run")
    assert (imported.fresh, imported.left_out) == (fresh, left_out)
    assert all(name in str(imported) for name in (*fresh, *left_out))
    loaded = load_checkpoint(tmp_path / "run")
    order = their_ids(loaded)
    inputs = batch(len(VOCABULARY), order)
    ours_BT = inputs.pop("ours")
    with torch.no_grad():
        states = getattr(theirs, "bert", theirs)(**inputs).last_hidden_state
        ours, _ = loaded.model(ours_BT, features_only=True)
    assert torch.allclose(ours[ours_BT.ne(1)], states[ours_BT.ne(1)], atol=TOLERANCE)


def test_text_has_the_same_ids(tmp_path: Path) -> None:
    save_bert(tmp_path / "hf")
    import_bert(tmp_path / "hf", tmp_path / "run")
    loaded = load_checkpoint(tmp_path / "run")
    assert loaded.tokenizer is not None
    assert [loaded.dictionary[i] for i in loaded.tokenizer.encode("The cats sat!")] == ["the", "cat", "##s", "sat", "!"]


def _edit_config(file: str = "config.json", **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return edit


def _edit_tokenizer(**changes: Any) -> Callable[[Path], None]:
    return _edit_config("tokenizer_config.json", **changes)


def _edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "pytorch_model.bin"
        weights = dict(torch.load(path, weights_only=True))
        change(weights)
        torch.save(weights, path)

    return edit


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm"),))


BAD: list[tuple[Callable[[Path], object], str]] = [
    (_edit_config(model_type="roberta"), "model_type is 'roberta': only BERT"),
    (_edit_config(model_type="albert"), "model_type is 'albert': only BERT"),
    (_edit_config(model_type="distilbert"), "model_type is 'distilbert': only BERT"),
    (_edit_config(hidden_act="swish"), "hidden_act is 'swish'"),
    (_edit_config(position_embedding_type="relative_key"), "position_embedding_type is 'relative_key'"),
    (_edit_config(layer_norm_eps="small"), "layer_norm_eps is 'small', not a number above 0 and below 1"),
    (_edit_config(layer_norm_eps=-1), "layer_norm_eps is -1, not a number above 0"),
    (_edit_config(layer_norm_eps=float("nan")), "layer_norm_eps is nan, not a number above 0"),
    (_edit_config(initializer_range=float("inf")), "initializer_range is inf, not a number above 0 and below 1"),
    (_edit_config(hidden_dropout_prob=5), "hidden_dropout_prob is 5, not a number from 0 and below 1"),
    (_edit_config(attention_probs_dropout_prob=False), "attention_probs_dropout_prob is False"),
    (_edit_config(num_hidden_layers=True), "num_hidden_layers is True, not a whole number above 0"),
    (_edit_config(hidden_size=32.0), "hidden_size is 32.0, not a whole number above 0"),
    (_edit_config(architectures=["\ud800"], vocab_size=10**12), r"word_embeddings\.weight has shape"),
    (
        _edit_config(tokenizer_class="BertJapaneseTokenizer"),
        r"config\.json: tokenizer_class is 'BertJapaneseTokenizer'",
    ),
    (_edit_tokenizer(tokenizer_class="BertJapaneseTokenizer"), r"tokenizer_config\.json: tokenizer_class is 'BertJap"),
    (_edit_tokenizer(word_tokenizer_type="mecab"), r"tokenizer_config\.json: word_tokenizer_type is 'mecab'"),
    (_edit_tokenizer(do_basic_tokenize=False), "do_basic_tokenize is False: it splits words otherwise than BERT's"),
    (_edit_tokenizer(auto_map={"AutoTokenizer": ["own.Tokenizer", None]}), "auto_map is"),
    (_edit_tokenizer(do_lower_case="yes"), r"tokenizer_config\.json: do_lower_case is 'yes': write true or false"),
    (_edit_config(hidden_act=["gelu"]), r"hidden_act is \['gelu'\]"),
    (_edit_config(type_vocab_size=3), "type_vocab_size is 3"),
    (_edit_config(num_hidden_layers=4), r"lacks bert\.encoder\.layer\.3"),
    (_edit_config(num_hidden_layers=2), r"holds weights that a BERT has not: bert\.encoder\.layer\.2"),
    (_edit_config(intermediate_size=50), "has shape"),
    (
        _edit_weights(lambda w: w.pop("bert.encoder.layer.1.output.dense.bias")),
        r"lacks bert\.encoder\.layer\.1\.output\.dense\.bias",
    ),
    (
        _edit_weights(lambda w: w.update({"cls.predictions.decoder.bias": torch.zeros(3)})),
        r"cls\.predictions\.bias has shape \(3,\)",
    ),
    (
        _edit_weights(lambda w: w.update({"bert.encoder.layer.2.output.dense.weight": torch.zeros(32, 32)})),
        r"layer\.2\.output\.dense\.weight has shape",
    ),
    (
        lambda folder: (folder / "model.safetensors.index.json").write_text("{}"),
        r"model\.safetensors\.index\.json: no index of weights",
    ),
    (
        lambda folder: (folder / "tokenizer_config.json").write_text("[]"),
        r"tokenizer_config\.json: is no JSON object",
    ),
    (
        lambda folder: (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n\n"),
        rf"vocab\.txt: line {len(VOCABULARY) + 1} is empty",
    ),
    (_edit_weights(lambda w: w.update(extra=torch.zeros(1))), "holds weights that a BERT has not: extra"),
    (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"half"), "is not plain weights"),
    (
        lambda folder: torch.save({"weights": _Harmful()}, folder / "pytorch_model.bin"),
        "is not plain weights, and is not opened",
    ),
    (lambda folder: torch.save([1], folder / "pytorch_model.bin"), "is not a table of tensors"),
    (lambda folder: (folder / "pytorch_model.bin").unlink(), r"holds no model\.safetensors or pytorch_model\.bin"),
    (lambda folder: (folder / "config.json").unlink(), r"config\.json: No such file"),
    (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: no JSON"),
    (lambda folder: (folder / "vocab.txt").unlink(), r"holds no tokenizer\.json or vocab\.txt"),
    (
        lambda folder: (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, "more"]) + "\n"),
        "they are not of one model",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_folders_are_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_bert(tmp_path / "hf", pickled=True)
    spoil(tmp_path / "hf")
    with pytest.raises(UserError, match=message) as error:
        import_bert(tmp_path / "hf", tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "harm").exists()


def test_a_million_layers_are_refused_at_once(tmp_path: Path) -> None:
    """By what the weights hold: no list of a million names is made, nor a model."""
    save_bert(tmp_path / "hf")
    _edit_config(num_hidden_layers=10**9)(tmp_path / "hf")
    tracemalloc.start()
    with pytest.raises(UserError, match=r"lacks bert\.encoder\.layer\.3\."):
        run_script("import_hf", tmp_path / "hf", "--out", tmp_path / "run")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_a_folder_that_is_there_is_kept(tmp_path: Path) -> None:
    save_bert(tmp_path / "hf")
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="is there already"):
        import_bert(tmp_path / "hf", tmp_path / "run")


def test_places_that_cannot_be_written_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_bert(tmp_path / "hf")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .*run: cannot be written \(Not a directory\); nothing was kept"):
        import_bert(tmp_path / "hf", tmp_path / "file" / "run")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is there already"):
        import_bert(tmp_path / "hf", tmp_path / "link")

    def full(*_: object) -> None:  # as torch tells of a full disk
        raise RuntimeError("[enforce fail at inline_container.cc] PytorchStreamWriter failed writing file data/3")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"run: cannot be written \(disk full.*nothing new was kept"):
        import_bert(tmp_path / "hf", tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "hf", "link"]


DISAGREEMENTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"normalizer": {"lowercase": True}},
        {"do_lower_case": False},
        "do_lower_case False of tokenizer_config.json, not lowercase True of tokenizer.json",
    ),
    (
        {"normalizer": {"lowercase": True}},
        {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"},
        "lowercase True of tokenizer.json, not do_lower_case False of tokenizer_config.json",
    ),
    (
        {"normalizer": {"lowercase": False}},
        {},
        "lowercase False of tokenizer.json; tokenizer_config.json has no do_lower_case: for transformers it is True",
    ),
    (
        {"pre_tokenizer": {"type": "WhitespaceSplit"}},
        {"do_lower_case": True},
        "pre_tokenizer WhitespaceSplit of tokenizer.json, as for transformers 4; for 5 it is BertPreTokenizer",
    ),
    (
        {"model": {"max_input_chars_per_word": 3}},
        {"do_lower_case": True},
        "max_input_chars_per_word 3 of tokenizer.json, as for transformers 4; for 5 it is 100",
    ),
    ({}, {"do_lower_case": True}, ""),
]


@pytest.mark.parametrize(("changes", "config", "said"), DISAGREEMENTS, ids=[d[2][:30] for d in DISAGREEMENTS])
def test_the_summary_says_which_file_of_a_tokenizer_was_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], config: dict[str, Any], said: str
) -> None:
    save_bert(tmp_path / "hf")
    settings = json.loads(wordpiece_file(VOCABULARY, True))
    for part, values in changes.items():
        settings[part] |= values
    (tmp_path / "hf" / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    (tmp_path / "hf" / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    run_script("import_hf", tmp_path / "hf", "--out", tmp_path / "run")
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tokenizer: followed ")]
    assert told == ([f"tokenizer: followed {said}"] if said else [])
    tokenizer = load_checkpoint(tmp_path / "run").tokenizer
    assert tokenizer is not None
    pieces = [tokenizer.symbols[i] for i in tokenizer.encode("THE cat. runn")]
    lowered = not said.startswith(("do_lower_case False", "lowercase False"))
    expected = [
        "the" if lowered else "<unk>",
        *(["<unk>"] if "WhitespaceSplit" in said else ["cat", "."]),
        "<unk>" if "characters" in said or "max_input" in said else "runn",
    ]
    assert pieces == expected


def test_pieces_of_white_space_are_fillers_and_come_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As Google's Chinese vocabulary has them: no text reaches them."""
    vocabulary = [*VOCABULARY[:9], "\u2028", *VOCABULARY[9:], "##\u2028"]
    theirs = save_bert(tmp_path / "hf", vocabulary=vocabulary, vocab_size=len(vocabulary) + 2)
    run_script("import_hf", tmp_path / "hf", "--out", tmp_path / "run")
    said = capsys.readouterr().out
    assert r"never used: '\u2028', '##\u2028'" in said and "without a piece, kept and never used: 2" in said
    loaded = load_checkpoint(tmp_path / "run")
    assert [s for s in loaded.dictionary.symbols if s.startswith("madeup")] == [f"madeupword000{n}" for n in range(4)]
    assert loaded.tokenizer is not None
    text = "the\u2028cats \u2028 sat"
    original = transformers.BertTokenizer(str(tmp_path / "hf" / "vocab.txt"), do_lower_case=True)
    assert [loaded.dictionary[i] for i in loaded.tokenizer.encode(text)] == original.tokenize(text)
    export_hf(tmp_path / "run", tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert again.convert_ids_to_tokens(range(len(vocabulary))) == vocabulary
    weights = transformers.BertForPreTraining.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in theirs.state_dict().items())


def test_added_tokens_are_named(tmp_path: Path) -> None:
    save_bert(tmp_path / "hf", vocab_size=len(VOCABULARY) + 1)
    settings = json.loads(wordpiece_file(VOCABULARY, True))
    added = [("[MASK]", 6), ("covid", len(VOCABULARY))]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    settings["added_tokens"] = [{"id": number, "content": content, **flags} for content, number in added]
    (tmp_path / "hf" / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    imported = import_bert(tmp_path / "hf", tmp_path / "run")
    assert imported.added == ["covid"] and imported.fillers == 1
    assert "added to the tokenizer, plain text here: covid" in str(imported)
