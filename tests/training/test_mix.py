"""A run with an objective that reads a mix of layers: logged, resumed to the bit, measured layer by layer."""

from pathlib import Path

import pytest

from hmtl_plugin import HierarchicalBert
from hmtl_plugin.checkpoints import load_checkpoint
from hmtl_plugin.evaluation.held_out import evaluate
from hmtl_plugin.interop.card import model_card
from hmtl_plugin.models.mix import centre_of, in_words
from tests.training.runs import arguments, assert_same_weights, train, weights

MIXED = (
    "--hierarchy",
    "bigram_shift@mix:1-1,nsp@mix,mlm@2",
    "--transfer",
    "nsp>mlm:concat",
    "--encoder-normalize-before",
)


def test_it_trains_resumes_and_is_measured(data: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    log = train(arguments(data, whole, *MIXED, "--max-update", "16", "--log-interval", "1"))
    depths = [entry[key] for entry in log for key in entry if key.endswith("nsp_depth")]
    assert depths and all(1 <= depth <= 2 for depth in depths) and len(set(depths)) > 1, "the weights do not move"
    for updates in ("7", "16"):
        train(arguments(data, parts, *MIXED, "--max-update", updates))
    assert_same_weights(weights(parts), weights(whole))
    mixes = HierarchicalBert.from_pretrained(whole).mixes
    assert mixes["bigram_shift"] == {1: 1.0} and set(mixes["nsp"]) == {1, 2}
    assert sum(mixes["nsp"].values()) == pytest.approx(1)
    found = {estimate.target: estimate for estimate in evaluate(load_checkpoint(whole), data, samples=40)}
    assert {"nsp", "nsp@1", "nsp@2", "bigram_shift@1"} <= set(found) and "mlm@2" not in found
    assert found["bigram_shift@1"].value == found["bigram_shift"].value, "a mix of one layer is that layer"
    assert found["nsp@1"].counts == found["nsp"].counts
    assert load_checkpoint(whole).model.mixes["nsp"].alone is None
    learnt = {int(layer): share for layer, share in (found["nsp"].shares or {}).items()}
    assert learnt == pytest.approx(mixes["nsp"], abs=1e-4)
    assert found["mlm"].shares is None and found["nsp@1"].shares is None
    assert depths[-1] == pytest.approx(centre_of(mixes["nsp"]), abs=0.05)
    loaded = load_checkpoint(whole)
    card = model_card(loaded, "BertModel", 2, [])
    assert f"`nsp` reads a learnt mix of {in_words(mixes['nsp'])}" in card
