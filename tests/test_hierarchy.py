"""Parsing, round trip and every refusal of a hierarchy."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmtl_plugin.hierarchy import Hierarchy, HierarchyError, Placement, Transfer


class Kind(NamedTuple):
    """Of an objective."""

    pairing: str | None
    num_labels: int | None


OBJECTIVES = {
    "mlm": Kind(None, None),
    "nsp": Kind("nsp", 2),
    "sop": Kind("sop", 2),
    "bigram_shift": Kind(None, 2),
    "follows": Kind("nsp", 3),
    "score": Kind(None, None),
}
OPERATORS = ("concat", "add", "gate", "label")

layers = st.one_of(
    st.integers(1, 12).map(str), st.integers(1, 12).map(lambda n: f"-{n}"), st.integers(1, 100).map(lambda n: f"{n}%")
)
placements = st.builds(Placement, st.sampled_from(list(OBJECTIVES)), layers, st.floats(0, 100, allow_nan=False))
edges = st.builds(
    Transfer,
    st.sampled_from(list(OBJECTIVES)),
    st.sampled_from(list(OBJECTIVES)),
    st.sampled_from(OPERATORS),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(placements, min_size=1, max_size=4), st.lists(edges, max_size=3))
def test_round_trip(placed: list[Placement], joined: list[Transfer]) -> None:
    hierarchy = Hierarchy(tuple(placed), tuple(joined))
    assert Hierarchy.parse(str(hierarchy), hierarchy.transfer) == hierarchy


def test_layers_resolve() -> None:
    hierarchy = Hierarchy.parse("bigram_shift@33%, nsp@-2*0.5 ,mlm@100%", "nsp>mlm:concat!")
    assert hierarchy.layers(12) == {"bigram_shift": 4, "nsp": 11, "mlm": 12}
    assert hierarchy.weights == {"bigram_shift": 1.0, "nsp": 0.5, "mlm": 1.0}
    assert hierarchy.transfers == (Transfer("nsp", "mlm", "concat", True),)
    assert Placement("mlm", "33.4%").resolve(3) == 2 and Placement("mlm", "1%").resolve(12) == 1


@pytest.mark.parametrize(
    ("marks", "stopped", "permuted"), [("", False, False), ("!", True, False), ("~", False, True), ("!~", True, True)]
)
def test_marks_of_a_transfer(marks: str, stopped: bool, permuted: bool) -> None:
    (edge,) = Hierarchy.parse("nsp@2,mlm@4", f"nsp>mlm:add{marks}").transfers
    assert edge == Transfer("nsp", "mlm", "add", stopped, permuted) and str(edge) == f"nsp>mlm:add{marks}"


def test_order_is_by_layer_then_sources_first() -> None:
    hierarchy = Hierarchy.parse("mlm@4,nsp@4,bigram_shift@2", "nsp>mlm:add")
    assert hierarchy.order(4) == ["bigram_shift", "nsp", "mlm"]


@pytest.mark.parametrize(
    ("hierarchy", "transfer", "message"),
    [
        ("", "", "no objective"),
        ("mlm", "", "cannot read 'mlm'"),
        ("mlm@4*x", "", "not a number"),
        ("mlm@4*-1", "", "'mlm@4*-1.0' has a weight"),
        ("mlm@4*inf", "", "weight"),
        ("mlm@4*0", "", "every weight is 0"),
        ("mlm@0", "", "'mlm@0' names no layer"),
        ("mlm@5", "", "use 1..4"),
        ("mlm@-5", "", "names no layer"),
        ("mlm@0%", "", "names no layer"),
        ("mlm@101%", "", "names no layer"),
        ("electra@4", "", "'electra@4' names an unknown objective: use one of bigram_shift"),
        ("mlm@4,mlm@2", "", "second time"),
        ("nsp@4,sop@4", "", "'nsp' and 'sop' cannot be placed together"),
        ("sop@4,mlm@4,follows@4", "", "'follows' and 'sop' cannot be placed together"),
        ("mlm@4,nsp@2", "nsp-mlm", "cannot read 'nsp-mlm'"),
        ("mlm@4,nsp@2", "nsp>mlm:add~!", "cannot read 'nsp>mlm:add~!'"),
        ("mlm@4,nsp@2", "nsp>mlm:add~~", "cannot read 'nsp>mlm:add~~'"),
        ("mlm@2,nsp@4", "nsp>mlm:add~", "'nsp>mlm:add~' runs downwards"),
        ("mlm@4,nsp@4", "nsp>mlm:add,nsp>mlm:add~", "joined already"),
        ("mlm@4", "nsp>mlm:add", "names 'nsp', which is not in the hierarchy"),
        ("mlm@4,nsp@2", "nsp>mlm:multiply", "unknown operator"),
        ("mlm@2,nsp@4", "nsp>mlm:add", "runs downwards"),
        ("mlm@4,nsp@4", "nsp>mlm:add,mlm>nsp:add", "cycle"),
        ("mlm@4", "mlm>mlm:add", "cycle of one"),
        ("mlm@4,nsp@4", "mlm>nsp:label", "no small label set"),
        ("score@2,mlm@4", "score>mlm:label", "'score>mlm:label': score has no small label set"),
        ("mlm@4,nsp@4", "nsp>mlm:add,nsp>mlm:gate", "joined already"),
    ],
)
def test_refusals_are_one_line(hierarchy: str, transfer: str, message: str) -> None:
    with pytest.raises(HierarchyError) as caught:
        Hierarchy.parse(hierarchy, transfer).validate(4, OBJECTIVES, OPERATORS)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_objectives_of_one_kind_of_pairs_share_them() -> None:
    Hierarchy.parse("nsp@2,follows@3,mlm@4", "follows>mlm:label").validate(4, OBJECTIVES, OPERATORS)
