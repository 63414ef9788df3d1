"""Model FLOPs and peaks."""

import pytest
from flops import model_flops_per_token, peak_tflops, utilisation


def test_bert_base() -> None:
    encoder = 12 * (
        4 * 768 * 768 + 2 * 768 * 3072
    )  # queries, keys, values, output; two layers of the feed-forward part
    attention = (
        12 * 2 * 128 * 768 * 2
    )  # a multiplication and an addition for each of 128 keys, twice: scores and values
    head = 768 * 768 + 768 * 30522
    by_hand = 3 * (2 * encoder + attention + 0.15 * 2 * head)  # backward is twice forward
    assert model_flops_per_token(12, 768, 30522, 0.15, 128) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.545e9, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H200", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),  # another chip
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),  # a slice
        ("Tesla V100-SXM2-32GB", None),  # no bfloat16
    ],
)
def test_peaks(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak


def test_utilisation() -> None:
    flops = model_flops_per_token(12, 768, 30522, 0.15, 128)
    assert utilisation(725e3, flops, "NVIDIA H100 80GB HBM3") == pytest.approx(0.3998, abs=1e-3)
    assert utilisation(725e3, flops, "a GPU of the future") is None
