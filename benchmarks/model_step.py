"""A step of our model without fairseq's trainer, on one batch of random words: forward, loss, backward and optimizer."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

import hmtl_plugin.objectives  # noqa: F401  registers the objectives
from hmtl_plugin.models.hierarchical_bert import ARCHITECTURES, HierarchicalBertConfig, HierarchicalBertModel
from hmtl_plugin.objectives.base import build_objectives
from hmtl_plugin.optim import HmtlAdamW, HmtlAdamWConfig, HmtlMuon, HmtlMuonConfig
from hmtl_plugin.precision import autocast

FLAT = "nsp@-1,mlm@-1"
MASK, FIRST_WORD = 4, 5


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Attributes:
        name: of the size.
        rows, length: sequences of the batch and their tokens.
        precision: ``fp32`` or ``bf16``.
        pre_norm: norms stand before blocks.
        packed: the sequences lie end to end.
    """

    name: str
    layers: int
    hidden: int
    rows: int
    precision: str
    length: int = 128
    vocabulary: int = 30522
    hierarchy: str = FLAT
    transfer: str = ""
    positions: str = "learned"
    optimizer: str = "hmtl_adamw"
    pre_norm: bool = False
    packed: bool = False

    @classmethod
    def sized(cls, name: str, rows: int, precision: str, **others: Any) -> "Setting":
        """One of BERT's sizes."""
        return cls(name, *ARCHITECTURES[name], rows, precision, **others)

    def __str__(self) -> str:
        return f"{self.name}, {self.rows} x {self.length}, {self.precision}"


def make_batch(setting: Setting) -> SimpleNamespace:
    """Full pairs ``<s> A </s> B </s>`` of random words, 15 % of them masked, half of them shift targets."""
    rows, length, generator = setting.rows, setting.length, torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(FIRST_WORD, setting.vocabulary, (rows, length), generator=generator)
    ends_B = torch.randint(length // 4, 3 * length // 4, (rows,), generator=generator)
    tokens_BT[:, 0], tokens_BT[:, -1] = 0, 2
    tokens_BT[torch.arange(rows), ends_B] = 2
    draw_BT = torch.rand(rows, length, generator=generator)
    masked_BT = (draw_BT < 0.15) & (tokens_BT >= FIRST_WORD)
    masked_M = masked_BT.flatten().nonzero().squeeze(1)
    shift_N = ((draw_BT >= 0.5) & (tokens_BT >= FIRST_WORD)).flatten().nonzero().squeeze(1)

    def answers(number: int) -> torch.Tensor:
        return torch.randint(2, (number,), generator=generator)

    targets = {
        "mlm": {"positions": masked_M, "labels": tokens_BT.flatten()[masked_M]},
        "nsp": {"positions": torch.arange(rows), "labels": answers(rows)},
        "bigram_shift": {"positions": shift_N, "labels": answers(len(shift_N))},
    }
    tokens_BT[masked_BT] = MASK
    segments_BT = (torch.arange(length) > ends_B[:, None]).long()
    return SimpleNamespace(tokens_BT=tokens_BT, segments_BT=segments_BT, targets=targets)


class ModelStep:
    """Training with the objectives' own losses and our optimizer, always on the same batch; a call is a step."""

    def __init__(self, setting: Setting, device: str) -> None:
        self.setting, self.device, batch = setting, device, make_batch(setting)
        tokens_BT = batch.tokens_BT.to(device)
        self.targets = {
            name: {key: value.to(device) for key, value in target.items()} for name, target in batch.targets.items()
        }
        self.inputs: dict[str, Any] = {"src_tokens": tokens_BT, "padded": False}
        if setting.packed:
            starts = torch.arange(setting.rows + 1, dtype=torch.int32, device=device) * setting.length
            self.inputs = {"src_tokens": tokens_BT.flatten(), "starts": starts, "longest": setting.length}
        torch.manual_seed(1)
        self.objectives = build_objectives(item.split("@")[0] for item in setting.hierarchy.split(","))
        config = HierarchicalBertConfig(
            hierarchy=setting.hierarchy,
            transfer=setting.transfer,
            encoder_layers=setting.layers,
            encoder_embed_dim=setting.hidden,
            positions=setting.positions,
            encoder_normalize_before=setting.pre_norm,
        )
        dictionary = ["<mask>", *range(1, setting.vocabulary)]
        task = SimpleNamespace(objectives=self.objectives, source_dictionary=dictionary)
        self.model = HierarchicalBertModel.build_model(config, task).to(device).train()
        learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer: Any = (
            HmtlMuon(HmtlMuonConfig(lr=[1e-4]), learning)
            if setting.optimizer == "hmtl_muon"
            else HmtlAdamW(HmtlAdamWConfig(lr=[1e-4]), learning)
        )

    def passes(self) -> None:
        """Forward and backward."""
        self.optimizer.zero_grad()
        with autocast(self.setting.precision.replace("fp32", "none"), self.device):
            logits, _ = self.model(targets=self.targets, **self.inputs)
            losses = [each.loss(logits, self.targets, self.setting.length) for each in self.objectives.values()]
        torch.stack([loss.scaled_sum for loss in losses]).sum().div(self.tokens).backward()

    @property
    def tokens(self) -> int:
        """Of the batch."""
        return self.setting.rows * self.setting.length

    def __call__(self) -> int:
        self.passes()
        self.optimizer.step()
        return self.tokens
