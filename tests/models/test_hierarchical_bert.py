import logging
from types import SimpleNamespace

import pytest
import torch

import hmtl_plugin.objectives  # noqa: F401  registers the objectives
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.hierarchical_bert import ARCHITECTURES, HierarchicalBertConfig, HierarchicalBertModel
from hmtl_plugin.models.sequences import Sequences
from hmtl_plugin.models.state import RECORD_KEY, decode_record
from hmtl_plugin.objectives.base import build_objectives

VOCABULARY = 60
NAMES = ("bigram_shift", "mlm", "nsp", "sop")
TOKENS_BT = torch.tensor([[0, 9, 8, 2, 7, 2, 1, 1], [0, 9, 8, 6, 2, 1, 1, 1], [0, 9, 2, 6, 5, 7, 8, 2]])
TARGETS = {
    "mlm": {"positions": torch.tensor([2, 9, 20]), "labels": torch.tensor([7, 8, 30])},
    "nsp": {"positions": torch.arange(3), "labels": torch.tensor([0, 1, 1])},
    "sop": {"positions": torch.arange(3), "labels": torch.tensor([0, 1, 1])},
    "bigram_shift": {"positions": torch.tensor([1, 4, 11, 19]), "labels": torch.tensor([0, 1, 1, 0])},
    "bigram_shift_sentence": {"positions": torch.arange(3), "labels": torch.tensor([1, 0, 1])},
}


def build(
    hierarchy="nsp@-1,mlm@-1",
    transfer="",
    seed=1,
    granularity="token",
    tokens=VOCABULARY,
    objectives=True,
    **options,
):
    options = {
        "encoder_layers": 3,
        "encoder_embed_dim": 32,
        "encoder_attention_heads": 2,
        "max_positions": 16,
    } | options
    config = HierarchicalBertConfig(hierarchy=hierarchy, transfer=transfer, **options)
    task = SimpleNamespace(source_dictionary=["<s>", "<pad>", "</s>", "<unk>", "<mask>", *range(tokens - 5)])
    if objectives:
        names = [item.split("@")[0] for item in hierarchy.split(",")]
        names = [name for name in names if name in NAMES]
        task.objectives = build_objectives(names, SimpleNamespace(bigram_granularity=granularity))
    torch.manual_seed(seed)
    model = HierarchicalBertModel.build_model(config, task)
    model.objectives = getattr(task, "objectives", {})
    return model


def loss_of(model, name, targets=TARGETS):
    logits, _ = model(TOKENS_BT, targets)
    return model.objectives[name].loss(logits, targets, 6.0).scaled_sum


def learned(model):
    """Move all weights that start at zero, as training would."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def touched(parameters):
    return sum(float(p.grad.abs().sum()) for p in parameters if p.grad is not None)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("name", ["bigram_shift", "nsp", "mlm"])
def test_a_loss_reaches_no_layer_above_its_own(name, pre_norm):
    layers = {"bigram_shift": 1, "nsp": 2, "mlm": 3}
    model = build("bigram_shift@1,nsp@2,mlm@3", "nsp>mlm:concat", encoder_normalize_before=pre_norm)
    loss_of(learned(model), name).backward()
    for number, layer in enumerate(model.encoder.layers, start=1):
        assert (touched(layer.parameters()) > 0) == (number <= layers[name])
    assert touched(model.encoder.embeddings.parameters()) > 0
    assert touched(model.heads["bigram_shift"].parameters()) == 0 or name == "bigram_shift"
    assert (touched(model.heads["nsp"].parameters()) > 0) == (name in ("nsp", "mlm"))  # mlm's through the transfer


def test_stop_gradient_cuts_the_edge_only():
    model = learned(build("bigram_shift@1,nsp@2,mlm@3", "nsp>mlm:concat!,bigram_shift>mlm:label!"))
    loss_of(model, "mlm").backward()
    assert touched(model.heads["nsp"].parameters()) == touched(model.heads["bigram_shift"].parameters()) == 0
    assert touched(model.transfers.parameters()) > 0


def test_transfers_change_nothing_at_the_start_and_something_later():
    plain = build("bigram_shift@1,nsp@2,mlm@3").eval()
    edges = "bigram_shift>nsp:gate,bigram_shift>mlm:label,nsp>mlm:concat"
    joined = build("bigram_shift@1,nsp@2,mlm@3", edges).eval()
    with torch.no_grad():
        before, after = plain(TOKENS_BT, TARGETS)[0], joined(TOKENS_BT, TARGETS)[0]
        assert all(torch.equal(before[name], after[name]) for name in before)
        changed = learned(joined)(TOKENS_BT, TARGETS)[0]
        for transfer in joined.transfers.values():
            torch.nn.init.zeros_(transfer.last().weight)
        assert not torch.allclose(changed["mlm"], joined(TOKENS_BT, TARGETS)[0]["mlm"], atol=1e-4)


@pytest.mark.parametrize("granularity", ["token", "sentence", "both"])
@pytest.mark.parametrize("edge", ["concat", "add", "gate", "label!"])
def test_every_combination_runs_and_trains_every_weight(granularity, edge):
    transfer = f"bigram_shift>sop:{edge},bigram_shift>mlm:{edge},sop>mlm:{edge}"
    model = learned(build("mlm@3,sop@3,bigram_shift@3", transfer, granularity=granularity))
    logits, extra = model(TOKENS_BT, TARGETS)
    losses = [objective.loss(logits, TARGETS, 6.0).scaled_sum for objective in model.objectives.values()]
    torch.stack(losses).sum().backward()
    assert logits["mlm"].shape == (3, VOCABULARY)
    assert set(extra["taps"]) == {"mlm", "sop", "bigram_shift"}
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == ["task_weights"]


def test_sparse_mlm_is_the_dense_one():
    """As a transfer source mlm transforms every token; otherwise, and at the top, the masked ones only."""
    sparse, dense = build("mlm@2,nsp@3").eval(), build("mlm@2,nsp@3", "mlm>nsp:add").eval()
    top = build("mlm@2,nsp@2", encoder_layers=2).eval()
    with torch.no_grad():
        expected = dense(TOKENS_BT, TARGETS)[0]["mlm"]
        torch.testing.assert_close(sparse(TOKENS_BT, TARGETS)[0]["mlm"], expected)
        torch.testing.assert_close(top(TOKENS_BT, TARGETS)[0]["mlm"], expected)
        head = sparse.heads["mlm"]
        features = sparse(TOKENS_BT, layer=2)[0]
        embedding_VH = sparse.encoder.embeddings.token.weight
        everywhere = head.classify(head.transform(features), embedding_VH, torch.zeros(0).long())["mlm"]
        torch.testing.assert_close(everywhere.flatten(0, 1)[TARGETS["mlm"]["positions"]], expected)


@pytest.mark.parametrize("hierarchy", ["nsp@2,mlm@3", "nsp@3,mlm@3"])
def test_sentence_heads_read_the_first_token(hierarchy):
    model = learned(build(hierarchy)).eval()
    with torch.no_grad():
        first_BH = model(TOKENS_BT, layer=model.plan.layers["nsp"])[0][:, 0]
        head = model.heads["nsp"]
        embedding_VH = model.encoder.embeddings.token.weight
        expected = head.classify(head.transform(first_BH), embedding_VH, torch.zeros(0).long())["nsp"]
        torch.testing.assert_close(model(TOKENS_BT, TARGETS)[0]["nsp"], expected)


def test_heads_without_targets_stay_in_the_graph():
    model = build("bigram_shift@1,nsp@2,mlm@3", "nsp>mlm:concat")
    logits, _ = model(TOKENS_BT, {})
    assert logits["mlm"].shape == (0, VOCABULARY)
    sum(objective.loss(logits, {}, 6.0).scaled_sum for objective in model.objectives.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None and p.requires_grad] == ["task_weights"]


def test_padding_hint_and_features():
    model = build().eval()
    with torch.no_grad():
        top, extra = model(TOKENS_BT, return_all_hiddens=True)
        assert len(extra["hidden_states"]) == 4
        assert torch.equal(extra["hidden_states"][3], top)
        assert torch.equal(extra["hidden_states"][1], model(TOKENS_BT, layer=1, padded=True)[0])
        assert torch.equal(model(TOKENS_BT, TARGETS, features_only=True)[0], top)
    assert model.max_positions() == 16


def test_encoder_weights_are_the_same_whatever_the_heads():
    flat, more = (
        build("nsp@-1,mlm@-1"),
        build("bigram_shift@1,nsp@2,mlm@3", "nsp>mlm:gate,bigram_shift>mlm:add"),
    )
    bare, other = build(objectives=False), build(seed=2)
    ours, theirs = more.state_dict(), flat.state_dict()
    shared = [key for key in theirs if key.startswith(("encoder.", "heads."))]
    assert any(key.startswith("heads.mlm") for key in shared)
    assert all(torch.equal(theirs[key], ours[key]) for key in shared)
    assert all(torch.equal(value, ours[key]) for key, value in bare.encoder.state_dict(prefix="encoder.").items())
    key = "heads.mlm.dense.weight"
    assert not torch.equal(theirs[key], other.state_dict()[key])


def test_layers_above_the_highest_tap_are_frozen(caplog):
    caplog.set_level(logging.INFO)
    model = build("nsp@1,mlm@2")
    assert "layers 3 to 3 are not trained" in caplog.text
    assert not any(p.requires_grad for p in model.encoder.layers[2].parameters())
    assert all(p.requires_grad for p in model.encoder.layers[:2].parameters())
    assert all(p.requires_grad for p in build(objectives=False).parameters())


def test_impossible_hierarchies_are_user_errors():
    with pytest.raises(UserError, match="names no layer"):
        build("nsp@7,mlm@1")
    with pytest.raises(UserError, match="unknown operator"):
        build(transfer="nsp>mlm:glue")
    with pytest.raises(UserError, match="--encoder-attention-heads 3"):
        build(encoder_attention_heads=3)


def test_half_keeps_log_variances_in_fp32():
    model = build()
    weights = model.task_weights
    with torch.no_grad():
        weights += 0.1234567
    model.half()
    assert model.task_weights is weights
    assert weights.dtype == torch.float32
    assert weights[0].item() == pytest.approx(0.1234567, abs=1e-8)
    assert model.encoder.layers[0].fc1.weight.dtype == torch.float16
    assert decode_record(getattr(model, RECORD_KEY))["heads"] == 2


def test_state_dict_round_trip(tmp_path, caplog):
    model = learned(build("bigram_shift@1,nsp@2,mlm@3", "nsp>mlm:concat"))
    torch.save(model.half().state_dict(), tmp_path / "model.pt")
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    again = build("bigram_shift@1,nsp@2,mlm@3", "nsp>mlm:concat", seed=9).half()
    caplog.set_level(logging.INFO)
    again.load_state_dict(saved, strict=True)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert "hierarchy" not in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_attention_heads": 4}, "--encoder-attention-heads 2, this model has 4"),
        ({"encoder_normalize_before": True}, "without --encoder-normalize-before: leave it out"),
        ({"activation_fn": "relu"}, "--activation-fn gelu"),
        ({"layer_norm_eps": 1e-5}, "--layer-norm-eps 1e-12"),
        ({"encoder_layers": 4}, "--encoder-layers 3"),
        ({"encoder_layers": 2}, "--encoder-layers 3"),
        ({"encoder_embed_dim": 64}, "--encoder-embed-dim 32"),
        ({"encoder_ffn_embed_dim": 64}, "--encoder-ffn-embed-dim 128"),
        ({"tokens": 61}, "vocabulary of 60, .* of 61.*dict.txt"),
        ({"max_positions": 32}, "16 positions, this model 32: .*--resize-positions"),
    ],
)
def test_another_architecture_is_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        build(**options).load_state_dict(build().state_dict())


def test_positions_are_resized_on_request(caplog):
    old = learned(build())
    caplog.set_level(logging.INFO)
    longer = build(max_positions=40, resize_positions=True)
    longer.load_state_dict(old.state_dict())
    table, new = old.encoder.embeddings.position.weight, longer.encoder.embeddings.position.weight
    assert torch.equal(new, torch.cat([table, table, table[:8]]))
    assert "positions resized from 16 to 40" in caplog.text
    shorter = build(max_positions=8, resize_positions=True)
    shorter.load_state_dict(old.state_dict())
    assert torch.equal(shorter.encoder.embeddings.position.weight, table[:8])


def test_continuing_with_another_hierarchy_says_what_was_loaded(caplog):
    old = learned(build("bigram_shift@1,nsp@2,mlm@3", "nsp>mlm:concat,bigram_shift>mlm:add"))
    new = build("mlm@3,nsp@3,sop@1".replace(",nsp@3", ""), "sop>mlm:gate", seed=2)
    fresh = {key: value.clone() for key, value in new.state_dict().items()}
    caplog.set_level(logging.INFO)
    new.load_state_dict(old.state_dict(), strict=True)
    state = new.state_dict()
    assert torch.equal(state["heads.mlm.dense.weight"], old.state_dict()["heads.mlm.dense.weight"])
    assert torch.equal(state["heads.sop.dense.weight"], fresh["heads.sop.dense.weight"])
    assert torch.equal(new.task_weights, torch.stack([old.task_weights[2], torch.tensor(0.0)]))
    line = next(record.message for record in caplog.records if "hierarchy" in record.message)
    assert "loaded the encoder and mlm;" in line
    assert "dropped bigram_shift, bigram_shift>mlm:add, nsp, nsp>mlm:concat;" in line
    assert "fresh weights sop, sop>mlm:gate" in line
    build(objectives=False).load_state_dict(old.state_dict(), strict=True)


def test_other_missing_or_extra_weights_are_refused():
    state = build().state_dict()
    del state["encoder.layers.0.fc1.bias"]
    with pytest.raises(RuntimeError, match="Missing key"):
        build().load_state_dict(state)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        build().load_state_dict(build().state_dict() | {"surprise": torch.zeros(1)})


def test_moving_average_keeps_the_record():
    from fairseq.models.ema.ema import EMA

    model = build()
    config = SimpleNamespace(ema_decay=0.5, ema_fp32=True, ema_seed_model=None, ema_start_update=0, ema_update_freq=1)
    average = EMA(model, config)
    learned(model)
    average.step(model, 1)
    build().load_state_dict(average.get_model().state_dict(), strict=True)


def test_sizes_are_those_of_the_bert_miniatures():
    assert ARCHITECTURES["small"] == (4, 512)
    model = build(encoder_layers=2, encoder_embed_dim=128, encoder_attention_heads=0)
    assert (model.config.heads, model.config.ffn) == (2, 512)


def test_labels_are_handed_on_as_the_mean_of_probabilities() -> None:
    """Of logits the mean would let one sure word outvote two that are not."""
    model = build("bigram_shift@1,nsp@2", "bigram_shift>nsp:label").eval()
    given: list[torch.Tensor] = []
    model.transfers["bigram_shift>nsp:label"].register_forward_pre_hook(lambda module, inputs: given.append(inputs[1]))
    with torch.no_grad():
        model.heads["bigram_shift"].out.weight.normal_(0, 3.0)  # words that differ in how sure they are
        logits, _ = model(TOKENS_BT, TARGETS)
    probabilities = logits["bigram_shift"].softmax(-1)
    expected = Sequences(TOKENS_BT).mean_of_words(probabilities)
    torch.testing.assert_close(given[0], expected)
    assert not torch.allclose(
        expected, Sequences(TOKENS_BT).mean_of_words(logits["bigram_shift"]).softmax(-1), atol=1e-2
    )
