"""Hugging Face's BERT as a peer: its configuration, its batches, and the loop in which its users train it."""

import sys
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import torch

from hmtl_plugin.corruption.vocabulary import Vocabulary

UNLABELLED = -100  # to its losses


def library() -> Any:
    """`transformers`; it imports any torchaudio, also one of another torch, which fails."""
    sys.modules.setdefault("torchaudio", None)  # type: ignore[arg-type]
    import transformers

    return transformers


def shape_of(layers: int, hidden: int, vocabulary: int) -> dict[str, Any]:
    """Of a configuration: that of our model of this size, on torch's fused attention."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": 4 * hidden,
        "attn_implementation": "sdpa",
    }


def bert_batch(sample: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """A padded batch of our loader as BertForPreTraining takes it: the same ids, masks and labels.

    Returns:
        ``input_ids``, ``token_type_ids``, ``attention_mask`` and ``labels``, all (B, T); ``next_sentence_label`` (B,) where
        the sample has labels of nsp; ``tokens``, how many are no padding.
    """
    tokens_BT = sample["net_input"]["src_tokens"]
    is_end_BT = tokens_BT.eq(vocabulary.eos).long()
    batch = {
        "input_ids": tokens_BT,
        "token_type_ids": (is_end_BT.cumsum(1) - is_end_BT).clamp(max=1),
        "attention_mask": tokens_BT.ne(vocabulary.pad).long(),
        "labels": _labels(sample["targets"]["mlm"], tokens_BT.numel()).view_as(tokens_BT),
        "tokens": sample["ntokens"],
    }
    if "nsp" in sample["targets"]:
        batch["next_sentence_label"] = _labels(sample["targets"]["nsp"], len(tokens_BT))
    return batch


def _labels(target: Mapping[str, torch.Tensor], number: int) -> torch.Tensor:
    labels = torch.full((number,), UNLABELLED)
    labels[target["positions"]] = target["labels"]
    return labels


class BertTraining:
    """Training of BertForPreTraining with the AdamW of its Trainer, on ``batches`` in turn; a call is a step."""

    def __init__(
        self,
        shape: Mapping[str, Any],
        batches: Sequence[Mapping[str, Any]],
        device: str,
        bf16: bool,
        compiled: bool = False,
    ) -> None:
        """
        Args:
            shape: of `transformers.BertConfig`.
            batches: its inputs and labels, and ``tokens``.
            bf16: under autocast.
            compiled: by torch.compile, as a whole.
        """
        torch.manual_seed(1)
        model: Any = library().BertForPreTraining(library().BertConfig(**shape)).to(device).train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        self.model = torch.compile(model) if compiled else model
        self.turns, self.device, self.bf16 = cycle(batches), device, bf16
        self.loss = torch.zeros(())

    def __call__(self) -> int:
        batch = dict(next(self.turns))
        tokens: int = batch.pop("tokens")
        inputs = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            loss = self.model(**inputs).loss
        loss.backward()
        self.optimizer.step()
        self.loss = loss.detach()
        return tokens

    def check(self) -> None:
        """Raise ValueError if what it computes are no numbers, which would not say how long numbers take."""
        if not torch.isfinite(self.loss):
            raise ValueError("the loss is not finite")
