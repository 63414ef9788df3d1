"""``fairseq-train`` as benchmarks compare it: a call is a step of its own trainer with its own iterator, so that loading,
logging, clipping and the optimizer count. Ours and fairseq's own tasks differ in the command line alone.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from machine import REPOSITORY

PLUGIN = str(REPOSITORY / "hmtl_plugin")
HIERARCHY = ("--hierarchy", "bigram_shift@50%,nsp@75%,mlm@100%", "--transfer", "nsp>mlm:concat")
VOCABULARY = 30522


def three_objectives(data: Path, size: str, device: str, options: str) -> list[str]:
    """Arguments of the plugin with three objectives and a transfer; ``options``: more of them."""
    return [
        *(str(data), "--user-dir", PLUGIN, *HIERARCHY, *"--task hmtl_pretraining --criterion hmtl".split()),
        *f"--arch hmtl_bert_{size} --optimizer hmtl_adamw --clip-norm 1.0 --no-save {options}".split(),
        *(["--cpu"] if device == "cpu" else []),
    ]


def configuration(arguments: Sequence[str]) -> Any:
    """What ``fairseq-train`` makes of these arguments."""
    from fairseq import options, utils
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), list(arguments)))
    utils.import_user_module(cfg.common)
    return cfg


class FairseqTraining:
    """``fairseq-train`` with these arguments, in this process; a call is a step."""

    def __init__(self, arguments: Sequence[str]) -> None:
        from fairseq import tasks, utils
        from fairseq.trainer import Trainer

        self.cfg = configuration(arguments)
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
