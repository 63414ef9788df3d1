"""Marks say which parameters are layers' matrices and how fast each learns; one never loses another."""

import pytest
from torch import nn

from hmtl_plugin.models.adaptation import Adaptation, adapt
from hmtl_plugin.models.finetuned_heads import SentenceHead
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from hmtl_plugin.optim.marks import LR_SCALE, lr_scale, mark, mark_layers, mark_matrix, matrix_blocks
from tests.models.test_adaptation import config
from tests.models.test_hierarchical_bert import build


@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_matrices_of_hidden_layers_and_nothing_else(pre_norm: bool) -> None:
    """Also after fine-tuning's marks, whose rates stand beside."""
    model = HierarchicalBertModel(config(pre_norm), seed=1)
    model.attach_head(SentenceHead(16, 2, "cls", 0.0), "RTE", 4, 1)
    for decay in (1.0, 0.5):
        adapt(model, Adaptation(layer_decay=decay))
        for name, p in model.named_parameters():
            is_matrix = (".layers." in name and p.ndim == 2) or name == "task_head.dense.weight"
            assert matrix_blocks(p) == is_matrix * (3 if "qkv" in name else 1), name
        assert lr_scale(model.get_parameter("encoder.layers.1.fc1.weight")) == decay**3


def test_of_objectives_the_hidden_layers_and_neither_classifiers_nor_transfers() -> None:
    model = build(
        "bigram_shift@1,nsp@2,mlm@3",
        "nsp>mlm:concat",
        sentence_pooling="aligned",
        granularity="both",
        untied_output=True,
    )
    parts = (model.heads, model.poolings, model.transfers)
    marked = {name for part in parts for name, p in part.named_parameters() if matrix_blocks(p)}
    dense = {"bigram_shift.dense", "bigram_shift.sentence.dense", "nsp.dense", "mlm.dense"}
    assert marked == {f"{name}.weight" for name in (*dense, "nsp.match", "nsp.compare")}


def test_marks_stand_beside_each_other_in_any_order() -> None:
    one, other = nn.Linear(4, 8).weight, nn.Linear(4, 8).weight
    mark(one, **{LR_SCALE: 0.5})
    mark_matrix(one, 2)
    mark_matrix(other, 2)
    mark(other, **{LR_SCALE: 0.5})
    for weight in (one, other):
        assert (lr_scale(weight), matrix_blocks(weight)) == (0.5, 2)
    plain = nn.Linear(4, 8).weight
    assert (lr_scale(plain), matrix_blocks(plain)) == (1.0, 0)


def test_a_copied_mark_does_not_change_with_the_first() -> None:
    """fairseq gives the fp32 copy of a parameter the same dictionary."""
    weight, copied = nn.Linear(4, 8).weight, nn.Linear(4, 8).weight
    mark_matrix(weight)
    copied.optim_overrides = weight.optim_overrides  # type: ignore[attr-defined]
    mark(weight, **{LR_SCALE: 0.5})
    assert lr_scale(copied) == 1.0


def test_a_module_says_of_how_many_blocks_it_is() -> None:
    layer = nn.ModuleDict({"qkv": nn.Linear(4, 12), "fc1": nn.Linear(4, 8), "norm": nn.LayerNorm(4)})
    layer["fc1"].blocks = 2  # type: ignore[assignment]
    mark_layers(layer)
    assert matrix_blocks(layer["qkv"].weight) == 3  # type: ignore[arg-type]
    assert matrix_blocks(layer["fc1"].weight) == 2  # type: ignore[arg-type]
    assert matrix_blocks(layer["norm"].weight) == matrix_blocks(layer["fc1"].bias) == 0  # type: ignore[arg-type]


def test_what_does_not_divide_is_refused() -> None:
    for weight, blocks in ((nn.Linear(4, 8).weight, 3), (nn.Linear(4, 8).bias, 1), (nn.Linear(4, 8).weight, 0)):
        with pytest.raises(ValueError, match="one below the other"):
            mark_matrix(weight, blocks)
