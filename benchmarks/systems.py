"""The systems that training benchmarks compare: calling one trains a step and says on how many tokens.

`FairseqTraining` is fairseq's own trainer with its own iterator, so that loading, logging, clipping and the optimizer count; ours
and fairseq's masked_lm differ in the command line alone. `transformers_step` is the loop that its users write, its batches made
beforehand.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle
from typing import Any

import torch

Step = Callable[[], int]
"""Trains once; tokens of the batch that are no padding."""


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
        from fairseq.logging import metrics

        update = next(self.updates)
        with metrics.aggregate("train_inner"):
            self.trainer.train_step(update)
        if self.trainer.get_num_updates() % self.cfg.common.log_interval == 0:
            metrics.get_smoothed_values("train_inner")
            metrics.reset_meters("train_inner")
        return sum(int(batch["ntokens"]) for batch in update)


def transformers_step(
    layers: int, hidden: int, vocabulary: int, positions: int, batches: Sequence[Any], device: str, **how: bool
) -> Step:
    """A step of BertForPreTraining (sdpa) with the AdamW of its Trainer, on ``batches`` in turn.

    Args:
        batches: with ``input_ids``, ``token_type_ids``, ``attention_mask``, ``labels``, ``next_sentence_label`` and ``tokens``.
        how: ``bf16`` for autocast, ``compiled`` for torch.compile.
    """
    import transformers

    torch.manual_seed(1)
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
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    forward = torch.compile(model) if how.get("compiled") else model
    turns = cycle(batches)

    def step() -> int:
        batch = dict(next(turns))
        tokens: int = batch.pop("tokens")
        inputs = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=how.get("bf16", False)):
            loss = forward(**inputs).loss
        loss.backward()
        optimizer.step()
        return tokens

    return step
