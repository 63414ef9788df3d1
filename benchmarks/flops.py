"""How much arithmetic training needs, and how much a GPU can do: together the model FLOPs utilisation (MFU)."""

import re

# Dense bf16 tensor-core TFLOP/s with fp32 accumulation, from NVIDIA's data sheets (where these give figures "with sparsity",
# half of them). The first pattern that is the GPU's whole name, less "NVIDIA" and memory sizes, counts: variants of one chip
# differ (PCIe and NVL cards run at lower clocks than SXM modules), so an unknown one gets no number.
_PEAK_TFLOPS = (
    (r"B200", 2250),
    (r"GH200( HBM3e?)?", 989),
    (r"H200 NVL", 836),
    (r"H200( SXM)?", 989),
    (r"H100 NVL", 836),
    (r"H100 PCIe", 756),
    (r"H100( SXM5?)?( HBM3)?", 989),
    (r"A100(-SXM4|-PCIE|-PCIe| PCIe|-SXM)?", 312),
    (r"A30", 165),
    (r"L40S", 362),
    (r"L40", 181),
    (r"L4", 121),
    (r"RTX 6000 Ada Generation", 364),
    (r"RTX A6000", 155),
    (r"GeForce RTX 5090", 210),
    (r"GeForce RTX 4090", 165),
    (r"GeForce RTX 3090", 71),
)


def model_flops_per_token(layers: int, hidden: int, vocabulary: int, masked: float, mean_length: float) -> float:
    """Floating-point operations of forward and backward for one token, padding and recomputing not counted.

    6 N_enc + 12 L d s + f 6 (d^2 + d V): each weight of the encoder's N_enc = 12 L d^2 takes a multiplication and an addition
    forward and twice that backward; attention's two products over s keys take 4 d s a layer forward; the masked-LM head (its
    d x d layer and the product with the embeddings) is needed for masked tokens only. Layer norms, activations and biases are
    left out, as is usual: Chowdhery et al. 2022 (PaLM), appendix B.

    Args:
        layers, hidden, vocabulary: L, d and V.
        masked: f, share of the tokens that the masked LM predicts.
        mean_length: s, mean over tokens of how many tokens each attends to (its sequence's length without padding).
    """
    encoder = 12 * layers * hidden**2
    head = hidden**2 + hidden * vocabulary
    return 6 * encoder + 12 * layers * hidden * mean_length + masked * 6 * head


def peak_tflops(gpu: str) -> float | None:
    """Dense bf16 TFLOP/s of a GPU by the name its driver gives; None for one not in the table (and for slices of one)."""
    name = re.sub(r"^NVIDIA\s+|[\s-]\d+\s?GB\b", "", gpu.strip()).strip()
    return next((peak for pattern, peak in _PEAK_TFLOPS if re.fullmatch(pattern, name)), None)


def utilisation(tokens_per_second: float, flops_per_token: float, gpu: str) -> float | None:
    """MFU, 0 to 1: the share of the GPU's peak that training at this speed takes; None where the peak is unknown."""
    peak = peak_tflops(gpu)
    return None if peak is None else tokens_per_second * flops_per_token / (peak * 1e12)
