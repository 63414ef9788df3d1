"""What `--autocast` switches on."""

import pytest
import torch

from hmtl_plugin import precision


@pytest.mark.parametrize(
    ("choice", "native", "enabled"),
    [("none", True, False), ("bf16", False, True), ("auto", True, True), ("auto", False, False)],
)
def test_products_are_bf16_only_where_asked(
    monkeypatch: pytest.MonkeyPatch, choice: str, native: bool, enabled: bool
) -> None:
    monkeypatch.setattr(precision, "computes_in_bf16", lambda device: native)
    weight = torch.ones(4, 4, requires_grad=True)
    with precision.autocast(choice, "cpu"):
        assert (weight @ weight).dtype == (torch.bfloat16 if enabled else torch.float32)
    assert weight.dtype == torch.float32


def test_no_gpu_computes_in_bf16_where_there_is_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert not precision.computes_in_bf16("cuda")
    assert isinstance(precision.computes_in_bf16("cpu"), bool)
