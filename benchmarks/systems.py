"""The systems that training benchmarks compare: calling one trains a step and says on how many tokens.

`FairseqTraining` is fairseq's own trainer with its own iterator, so that loading, logging, clipping and the optimizer count; ours
and fairseq's masked_lm differ in the command line alone. `TransformersTraining` is the loop that its users write, its batches made
beforehand.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, cycle
from typing import Any

import torch

from hmtl_plugin.corruption.vocabulary import Vocabulary

UNLABELLED = -100  # to Hugging Face's losses


class FairseqTraining:
    """``fairseq-train`` with these arguments, in this process; a call is a step."""

    def __init__(self, arguments: Sequence[str]) -> None:
        from fairseq import options, tasks, utils
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf
        from fairseq.trainer import Trainer

        parser = options.get_training_parser()
        self.cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, list(arguments)))
        utils.import_user_module(self.cfg.common)
        utils.set_torch_seed(self.cfg.common.seed)
        self.task = tasks.setup_task(self.cfg.task)
        model = self.task.build_model(self.cfg.model)
        self.trainer: Any = Trainer(self.cfg, self.task, model, self.task.build_criterion(self.cfg.criterion), None)
        self.updates = self._updates()

    def _updates(self) -> Iterator[list[dict[str, Any]]]:
        from fairseq.data.iterators import GroupedIterator

        for epoch in count(1):
            iterator = self.trainer.get_train_iterator(epoch=epoch, load_dataset=epoch == 1)
            self.trainer.begin_epoch(epoch)
            yield from GroupedIterator(iterator.next_epoch_itr(shuffle=True), 1)

    def __call__(self) -> int:
        """Train a step; 0 tokens if it changed no weight because half precision overflowed.

        Raises:
            RuntimeError: if there was too little memory, which fairseq would skip.
        """
        from fairseq.logging import metrics

        update, before = next(self.updates), self.trainer.get_num_updates()
        with metrics.aggregate("train_inner"):
            self.trainer.train_step(update, raise_oom=True)
        if self.trainer.get_num_updates() == before:
            return 0
        if self.trainer.get_num_updates() % self.cfg.common.log_interval == 0:
            metrics.get_smoothed_values("train_inner")
            metrics.reset_meters("train_inner")
        return sum(int(batch["ntokens"]) for batch in update)


def bert_batch(sample: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """A padded batch of our loader as Hugging Face's BertForPreTraining takes it: the same ids, masks and labels.

    Returns:
        ``input_ids``, ``token_type_ids``, ``attention_mask`` and ``labels``, all (B, T); ``next_sentence_label`` (B,) where
        the sample has labels of nsp; ``tokens``, how many are no padding.
    """
    tokens_BT = sample["net_input"]["src_tokens"]
    is_end_BT = tokens_BT.eq(vocabulary.eos).long()
    labels = torch.full((tokens_BT.numel(),), UNLABELLED)
    labels[sample["targets"]["mlm"]["positions"]] = sample["targets"]["mlm"]["labels"]
    batch = {
        "input_ids": tokens_BT,
        "token_type_ids": (is_end_BT.cumsum(1) - is_end_BT).clamp(max=1),
        "attention_mask": tokens_BT.ne(vocabulary.pad).long(),
        "labels": labels.view_as(tokens_BT),
        "tokens": sample["ntokens"],
    }
    if "nsp" in sample["targets"]:
        batch["next_sentence_label"] = torch.full((len(tokens_BT),), UNLABELLED)
        batch["next_sentence_label"][sample["targets"]["nsp"]["positions"]] = sample["targets"]["nsp"]["labels"]
    return batch


class TransformersTraining:
    """Training of BertForPreTraining (sdpa) with the AdamW of its Trainer, on ``batches`` in turn; a call is a step."""

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        batches: Sequence[Any],
        device: str,
        bf16: bool = False,
        compiled: bool = False,
    ) -> None:
        """
        Args:
            shape: layers, hidden width, vocabulary, positions.
            batches: with ``input_ids``, ``token_type_ids``, ``attention_mask``, ``labels``, ``next_sentence_label`` and ``tokens``.
            bf16: under autocast.
            compiled: by torch.compile, as a whole.
        """
        sys.modules.setdefault("torchaudio", None)  # type: ignore[arg-type]  # transformers imports any, also one of another torch
        import transformers

        torch.manual_seed(1)
        layers, hidden, vocabulary, positions = shape
        config = transformers.BertConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=max(1, hidden // 64),
            intermediate_size=4 * hidden,
            max_position_embeddings=positions,
            attn_implementation="sdpa",
        )
        model: Any = transformers.BertForPreTraining(config).to(device).train()
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
