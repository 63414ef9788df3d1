"""Task ``hmtl_pretraining``: pairs of segments, corrupted and labelled as the model's hierarchy asks."""

import logging
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq import utils
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.configs import FairseqConfig
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.optim.fp16_optimizer import FP16Optimizer
from fairseq.tasks import TASK_DATACLASS_REGISTRY, register_task
from hydra.core.config_store import ConfigStore
from omegaconf import II, MISSING

from hmtl_plugin.corruption.vocabulary import MASK
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.manifest import read_manifest, words_in
from hmtl_plugin.data.pairing import KINDS
from hmtl_plugin.data.splits import open_split, pairing_kind, without_order
from hmtl_plugin.errors import UserError
from hmtl_plugin.hierarchy import Hierarchy, HierarchyError
from hmtl_plugin.models.config import hold_sequences
from hmtl_plugin.models.transfer import OPERATORS
from hmtl_plugin.objectives.base import (
    Objective,
    build_objectives,
    known_objectives,
    objective_names,
    option_fields,
    when_registered,
)
from hmtl_plugin.optim.base import own_options
from hmtl_plugin.precision import AUTOCAST, computes_in_bf16
from hmtl_plugin.tasks.steps import AutocastTask, Step
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.loading import find_tokenizer, load_tokenizer
from hmtl_plugin.tokenizers.vocabulary_state import (
    check_dictionary,
    check_folder,
    read_dictionary,
    vocabulary_of,
    vocabulary_state,
)


@dataclass
class SequenceConfig(FairseqDataclass):
    """Options of the data side that are no objective's. The hierarchy is the model's."""

    data: str = field(
        default=MISSING, metadata={"help": "folder of binarised data, or a:b:c of shards: one an epoch, in turn"}
    )
    tokens_per_sample: int = field(default=128, metadata={"help": "longest sequence, special tokens included"})
    pairing: ChoiceEnum(["auto", *KINDS]) = field(  # type: ignore[valid-type]
        default="auto",
        metadata={
            "help": "nsp: second segment random half of the time; distance: half of these from the same document; "
            "sop: swapped half of the time; single: one segment; "
            "auto: what the hierarchy needs, else nsp pairs so that results compare (single if there is one document)"
        },
    )
    short_seq_prob: float = field(
        default=0.1, metadata={"help": "share of samples that aim at a random shorter length"}
    )
    pack: bool = field(
        default=False,
        metadata={
            "help": "lay the sequences of a batch end to end: no work is done on padding, and --max-tokens counts none"
        },
    )
    valid_seed: int = field(default=0, metadata={"help": "seed of the validation samples, whatever the training seed"})
    autocast: ChoiceEnum(list(AUTOCAST)) = field(  # type: ignore[valid-type]
        default="none",
        metadata={
            "help": "bf16: run forward passes in bfloat16, weights stay fp32; auto: if CPU or GPU computes in it"
        },
    )
    seed: int = II("common.seed")


def task_config() -> type[SequenceConfig]:
    """`SequenceConfig` and the options of all objectives that are known."""
    options = [(each.name, each.type, each) for each in option_fields()]
    doc = {"__doc__": "Options of the data side.", "__module__": __name__}
    return make_dataclass("HmtlPretrainingConfig", options, bases=(SequenceConfig,), namespace=doc)


HmtlPretrainingConfig = task_config()
logger = logging.getLogger(__name__)


class NonFiniteLoss(UserError):
    """A loss that is not finite: training on would only spoil the weights."""


@register_task("hmtl_pretraining", dataclass=HmtlPretrainingConfig)
class HmtlPretrainingTask(AutocastTask):
    """Pre-training by a hierarchy of objectives on fairseq's binarised data.

    Attributes:
        hierarchy, objectives, layers: set by `build_model`: the hierarchy, and for each placed objective, in the
            order written, the objective itself and its layer.
    """

    cfg: SequenceConfig
    hierarchy: Hierarchy
    objectives: dict[str, Objective]
    layers: dict[str, int]

    def __init__(
        self, cfg: SequenceConfig, dictionary: Dictionary, tokenizer: Optional[Tokenizer] = None, words: bool = True
    ) -> None:
        super().__init__(cfg)
        _check_config(cfg)
        if MASK not in dictionary.indices:
            dictionary.add_symbol(MASK)
        self.dictionary = dictionary
        self.tokenizer = tokenizer
        self.words = words
        self.vocabulary = vocabulary_of(dictionary, {"words": words})
        # (update, first sample) -> ids and log of the micro-batches of this update and the one before
        self._recent: dict[tuple[int, int], tuple[torch.Tensor, dict[str, Any]]] = {}

    @classmethod
    def setup_task(cls, cfg: SequenceConfig, **kwargs: Any) -> "HmtlPretrainingTask":
        """Load the dictionary and, where there is one, the tokenizer of the first data folder, whose text also decides
        whether what the dictionary marks are words.
        """
        folder = Path(utils.split_paths(cfg.data)[0])
        path = folder / "dict.txt"
        if not path.is_file():
            raise UserError(
                f"{path}: no dictionary: give the folder that scripts/prepare_corpus.py or fairseq-preprocess wrote"
            )
        found = find_tokenizer(folder)
        return cls(
            cfg, read_dictionary(path), load_tokenizer(found) if found else None, words_in(read_manifest(folder))
        )

    @property
    def source_dictionary(self) -> Dictionary:
        """Symbols of the text, ``<mask>`` included."""
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        """The same: the masked LM predicts what it reads."""
        return self.dictionary

    def max_positions(self) -> int:
        """Longest sequence a sample may have."""
        return self.cfg.tokens_per_sample

    # ---- model ----

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> torch.nn.Module:
        """Take the hierarchy from the model's config, check it and that the data can serve it, build the model."""
        self.place(cfg)
        hold_sequences(cfg, self.cfg.tokens_per_sample)
        self._check_data()
        if str(self.cfg.autocast) == "bf16" and not torch.cuda.is_available() and not computes_in_bf16("cpu"):
            logger.warning(
                "--autocast bf16: emulated on this CPU, slower than fp32; --autocast auto would use fp32 here"
            )
        return super().build_model(cfg, from_checkpoint)

    def place(self, cfg: Any) -> None:
        """Set `hierarchy`, `objectives` and `layers` from a model config.

        Raises:
            UserError: for a hierarchy that cannot be.
        """
        try:
            hierarchy = Hierarchy.parse(cfg.hierarchy, cfg.transfer)
            hierarchy.validate(cfg.encoder_layers, known_objectives(), OPERATORS)
        except HierarchyError as error:
            raise UserError(str(error)) from None
        self.hierarchy = hierarchy
        self.objectives = build_objectives(hierarchy.objectives, self.cfg)
        self.layers = hierarchy.layers(cfg.encoder_layers)

    def _check_data(self) -> None:
        """Before any training: can the training data serve the hierarchy?"""
        prefix = Path(utils.split_paths(self.cfg.data)[0]) / "train"
        if prefix.with_suffix(".idx").is_file():
            corpus = Corpus(str(prefix), eos=self.dictionary.eos())
            pairing_kind(corpus, self.objectives, str(self.cfg.pairing))
            if idle := without_order(corpus, self.objectives):
                raise UserError(
                    f"{prefix}: every document is one sentence, of which {idle} learns nothing: prepare text with longer "
                    "documents (a blank line ends one, but with --format documents a file is one), or leave "
                    f"{idle} out of --hierarchy"
                )

    # ---- data ----

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Open a split: training reads shard (epoch - 1) modulo their number, others the first.

        Raises:
            UserError: if files are missing, truncated, or do not belong together.
        """
        paths = utils.split_paths(self.cfg.data)
        training = split == "train"
        folder = Path(paths[(epoch - 1) % len(paths)] if training else paths[0])
        check_folder(folder, self.dictionary)
        self.datasets[split] = open_split(
            folder,
            split,
            self.objectives,
            self.vocabulary,
            self.cfg,
            training=training,
            seed=self.cfg.seed if training else self.cfg.valid_seed,
            packed=self.cfg.pack,
        )

    def get_batch_iterator(self, *args: Any, **kwargs: Any) -> Any:
        """fairseq's, but workers end with their epoch: those of the next must be forked with its pairs in memory."""
        iterator = super().get_batch_iterator(*args, **kwargs)
        iterator.persistent_workers = iterator.reuse_dataloader = False
        return iterator

    # ---- steps ----

    def train_step(
        self,
        sample: dict[str, Any],
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Step:
        """`AutocastTask`'s; the criterion is told the update, for its warm-up."""
        criterion.set_num_updates(update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def check_step(self, sample: dict[str, Any], optimizer: Any, update: int, logging_output: dict[str, Any]) -> None:
        """End the run at a loss that is not finite, and say whose it is; fp16 skips such a step itself.

        On a CPU look at once. On a GPU that would be a device synchronisation a step: fairseq itself finds that a
        gradient was not finite, of this update or of the one before (`HmtlOptimizer.defer_check`), and runs the
        micro-batches of the update again, and that is when we look.
        """
        if isinstance(optimizer, FP16Optimizer):
            return
        batch = (update, sample["first_id"])
        if logging_output["objective"].is_cpu:
            check_finite(sample["id"], update, logging_output)
        elif batch in self._recent:
            for (earlier, _), (id_B, log) in self._recent.items():
                check_finite(id_B, earlier, log)
        self._recent = {key: seen for key, seen in self._recent.items() if key[0] >= update - 1}
        self._recent[batch] = (sample["id"], logging_output)

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """Besides, dictionary and tokenizer as bytes: a checkpoint needs nothing beside it."""
        return super().state_dict() | vocabulary_state(self.dictionary, self.tokenizer, self.words)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that the checkpoint's dictionary is this one's."""
        check_dictionary(state, self.dictionary, self.cfg.data)


def check_finite(id_B: torch.Tensor, update: int, logging_output: dict[str, Any]) -> None:
    """Refuse to train on a loss that is not finite.

    Raises:
        NonFiniteLoss: naming the objectives, the update and the samples.
    """
    if torch.isfinite(logging_output["objective"]):
        return
    losses = {key.partition("/")[0] for key, v in logging_output.items() if "/" in key and not torch.isfinite(v).all()}
    ids = id_B.tolist()
    shown = ", ".join(map(str, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    raise NonFiniteLoss(
        f"the loss of {' and '.join(sorted(losses)) or 'the weighting'} is not finite at update {update} (samples {shown}): "
        "lower --lr, warm up longer or set --clip-norm"
    )


def _follow_objectives() -> None:
    """An objective that is registered later, as one outside of the project is, brings its options along.

    Raises:
        ValueError: if one of them has the name of another option of a pre-training; fairseq would set both.
    """
    global HmtlPretrainingConfig
    configs = [*(group.type for group in fields(FairseqConfig)), SequenceConfig, *own_options().values()]
    configs += [MODEL_DATACLASS_REGISTRY.get("hmtl_bert"), CRITERION_DATACLASS_REGISTRY.get("hmtl")]
    taken = {each.name for config in configs if is_dataclass(config) for each in fields(config)}
    for option in option_fields():
        if option.name in taken:
            raise ValueError(f"the option '{option.name}' of an objective is one of a pre-training already: rename it")
    HmtlPretrainingConfig = task_config()
    name = "hmtl_pretraining"
    setattr(HmtlPretrainingTask, "__dataclass", HmtlPretrainingConfig)  # where fairseq looks for it
    TASK_DATACLASS_REGISTRY[name] = HmtlPretrainingConfig
    node: Any = HmtlPretrainingConfig()
    node._name = name
    ConfigStore.instance().store(name=name, group="task", node=node, provider="fairseq")


when_registered(_follow_objectives)


def _check_config(cfg: SequenceConfig) -> None:
    build_objectives(objective_names(), cfg)  # each looks at its options, placed or not
    if not 0 <= cfg.short_seq_prob <= 1:
        raise UserError(f"--short-seq-prob {cfg.short_seq_prob}: use a share from 0 to 1")
    if cfg.tokens_per_sample < 8:
        raise UserError(f"--tokens-per-sample {cfg.tokens_per_sample}: use 8 or more")
