"""Opening a checkpoint outside the trainer: which file a folder means, and the model, dictionary and tokenizer in it."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf

from hmtl_plugin.corruption.vocabulary import MASK, Vocabulary
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.checkpoint_file import EARLIER, read_checkpoint
from hmtl_plugin.files.publishing import write_whole
from hmtl_plugin.files.shape import COUNT, NUMBER, misfit, shape_of_options
from hmtl_plugin.hierarchy import Hierarchy, HierarchyError
from hmtl_plugin.models.finetuned_heads import HEADS
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertConfig, HierarchicalBertModel
from hmtl_plugin.models.state import LAYER_PREFIX, POSITION_KEY, RECORD_KEY, TOKEN_KEY
from hmtl_plugin.objectives.base import Objective, build_objectives
from hmtl_plugin.tasks import PRETRAINING, task_options
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.loading import find_tokenizer, load_tokenizer, tokenizer_from_bytes
from hmtl_plugin.tokenizers.vocabulary_state import check_dictionary, dictionary_in, read_dictionary, vocabulary_of

if TYPE_CHECKING:
    from fairseq.data import Dictionary

PREFERRED = ("model.pt", "checkpoint_best.pt", "checkpoint_last.pt")
OVERRIDES = {  # of a configuration's parts: what changes neither weights nor what they compute
    "model": ("dropout", "attention_dropout"),
    "task": ("tokens_per_sample", "doc_stride", "max_question_tokens", "max_answer_tokens"),
}
_SIZES = ("encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads", "max_positions")
_HEAD = ("tokens_per_sample", "head_layer", "head_dropout")
_NEEDED = {
    PRETRAINING: ("tokens_per_sample",),
    "glue": (*_HEAD, "head_pooling"),
    "squad": (*_HEAD, "doc_stride", "max_question_tokens", "max_answer_tokens", "version_2"),
}
"""Options that every checkpoint of a task has; others may be younger than it."""


@dataclass
class LoadedCheckpoint:
    """A checkpoint in use.

    Attributes:
        path: the file.
        config: everything the run was configured with, as plain dictionaries (``config["model"]`` ...).
        model: in evaluation mode, fp32, on the CPU.
        tokenizer: None if neither the checkpoint nor its folder has one.
        objectives: those of pre-training; none in a fine-tuned checkpoint, which has a head instead.
        head: name of the fine-tuned head, a GLUE task's or "squad"; empty in a pre-training checkpoint.
        updates: of the trainer.
        finetuning: what else a fine-tuned checkpoint knows (SQuAD's threshold).
        words: whether what the dictionary marks are words, see `vocabulary_state.vocabulary_of`.
    """

    path: Path
    config: dict[str, Any]
    model: HierarchicalBertModel
    dictionary: "Dictionary"
    tokenizer: Tokenizer | None
    objectives: dict[str, Objective]
    head: str
    updates: int
    finetuning: dict[str, Any]
    words: bool = True

    @property
    def vocabulary(self) -> Vocabulary:
        """Tables over the dictionary, with words as training had them."""
        return vocabulary_of(self.dictionary, {"words": self.words})

    @property
    def hierarchy(self) -> Hierarchy:
        """As the pre-training run was given it.

        Raises:
            UserError: in a fine-tuned checkpoint, which has none.
        """
        if self.head:
            raise UserError(
                f"{self.path}: was fine-tuned on {self.head}: give the pre-training checkpoint it began with"
            )
        return Hierarchy.parse(self.config["model"]["hierarchy"], self.config["model"]["transfer"])


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file that ``path`` means: itself, or in a folder the first of `PREFERRED`.

    Raises:
        UserError: if there is none.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"{path}: no such checkpoint or folder")
        return path
    for name in PREFERRED:
        if (path / name).is_file():
            return path / name
    raise UserError(
        f"{path}: holds none of {', '.join(PREFERRED)}: give a checkpoint file, or a folder that a run has saved into"
    )


def read_state(path: str | Path) -> dict[str, Any]:
    """The checkpoint's content, read with ``weights_only=True``: nothing in it can run code.

    Raises:
        UserError: if the file is missing, truncated, or needs more than plain data.
    """
    file = find_checkpoint(path)
    state = read_checkpoint(str(file))
    if state.get("cfg") is None:
        raise UserError(f"{file}: not a checkpoint of fairseq-train")
    return state


def plain_config(state: dict[str, Any], file: Path) -> dict[str, Any]:
    """The run's configuration as plain dictionaries.

    Raises:
        UserError: if the checkpoint is of another project.
    """
    config = state["cfg"]
    if not isinstance(config, dict):
        try:
            config = OmegaConf.to_container(config, resolve=True)
        except Exception as error:  # of half a configuration omegaconf raises whatever it stumbles over
            raise UserError(f"{file}: its configuration is damaged: use another checkpoint") from error
    if not isinstance(config, dict):
        raise UserError(f"{file}: its configuration is damaged: use another checkpoint")
    sections = (config.get(part) for part in ("model", "task"))
    model, task = (section.get("_name") if isinstance(section, dict) else None for section in sections)
    if not str(model).startswith("hmtl_bert"):
        raise UserError(f"{file}: holds a model '{model}', not hmtl_bert: give a checkpoint that this plugin trained")
    if task != PRETRAINING and task not in tuple(HEADS):
        raise UserError(
            f"{file}: was trained by the task '{task}': give a checkpoint of {', '.join([PRETRAINING, *HEADS])}"
        )
    if (found := misfit(config, _options(task))) is not None:
        raise UserError(f"{file}: its configuration is not one of this plugin ({found}): use another checkpoint")
    return dict(config)


def _options(task: str) -> dict[str, Any]:
    """What the configuration of a run of this plugin looks like; options may be younger than the checkpoint."""
    model = (
        shape_of_options(HierarchicalBertConfig) | dict.fromkeys(_SIZES, COUNT) | {"hierarchy": str, "transfer": str}
    )
    return {
        "model": model | {"init_std": NUMBER, "resize_positions": bool},
        "task": shape_of_options(task_options(task)) | dict.fromkeys(_NEEDED[task], object),
        "common": {"seed": int},
        "optimization?": (dict, type(None)),
    }


def _check_sizes(file: Path, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
    """Before a model is built: its configuration must say what its weights are.

    Raises:
        UserError: naming what differs.
    """
    model, task = config["model"], config["task"]
    layers = {name.split(".")[2] for name in weights if name.startswith(LAYER_PREFIX)}
    shapes = {name: tuple(weights[name].shape) if name in weights else () for name in (TOKEN_KEY, POSITION_KEY)}
    widest = max((size for weight in weights.values() for size in weight.shape), default=0)
    head_layer = task.get("head_layer", -1)
    rows = shapes[POSITION_KEY] or (model["max_positions"], model["encoder_embed_dim"])
    wrong = [
        name
        for name, holds in {
            "encoder_layers": model["encoder_layers"] == len(layers),
            "encoder_embed_dim": (*shapes[TOKEN_KEY][1:],) == (model["encoder_embed_dim"],),
            "encoder_ffn_embed_dim": model["encoder_ffn_embed_dim"] <= widest,
            "max_positions": rows == (model["max_positions"], model["encoder_embed_dim"]),
            "head_layer": 1 <= abs(head_layer) <= len(layers),
        }.items()
        if not holds
    ]
    wrong += [name for name, weight in weights.items() if name != RECORD_KEY and not weight.is_floating_point()]
    if wrong:
        raise UserError(f"{file}: its configuration and its weights disagree on {', '.join(wrong[:3])}: {EARLIER}")


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Errors of what is inside a checkpoint, or beside it, name it."""
    try:
        yield
    except UserError as error:
        if str(file.parent) in str(error):
            raise
        raise UserError(f"{file}: {error}") from None


def load_checkpoint(
    path: str | Path, data: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> LoadedCheckpoint:
    """Build the model that a checkpoint holds. Dictionary and tokenizer beside it win over those inside.

    Args:
        data: a folder of data, whose dictionary and tokenizer count instead of those beside the checkpoint.
        overrides: of its configuration, see `OVERRIDES`.

    Raises:
        UserError: in one line, for a checkpoint of another project, a damaged one, or one without a dictionary; for
            data with another dictionary, or an override that cannot be honoured.
    """
    file = find_checkpoint(path)
    state = read_state(file)
    config = plain_config(state, file)
    _override(config, overrides or {})
    inside = state.get("task_state") or {}
    dictionary = _dictionary(file, inside, data)
    if data is not None:
        check_dictionary(inside, dictionary, str(data))
    with _naming(file):
        tokenizer = _tokenizer(data or file.parent, inside)
        if tokenizer is not None:
            tokenizer.check(dictionary)
    _check_sizes(file, config, state["model"])
    with torch.random.fork_rng(devices=[]):
        model, objectives = build_model(config, dictionary, inside.get("head", ""))
    try:
        model.load_state_dict(state["model"], strict=True)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except RuntimeError as error:
        raise UserError(  # torch's, of other names or shapes
            f"{file}: its weights are not those of the model that its configuration describes: {EARLIER}"
        ) from error
    history = state.get("optimizer_history") or [{}]
    return LoadedCheckpoint(
        file,
        config,
        model.eval(),
        dictionary,
        tokenizer,
        objectives,
        head=model.task_head_name,
        updates=int(history[-1].get("num_updates", 0)),
        finetuning=state.get("finetuning") or {},
        words=bool(inside.get("words", True)),
    )


def _override(config: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    for name, value in overrides.items():
        part = next((part for part, names in OVERRIDES.items() if name in names and name in config[part]), None)
        if part is None:
            known = [each for part, names in OVERRIDES.items() for each in names if each in config[part]]
            raise UserError(
                f"{name}={value!r}: is settled by this checkpoint, its tokenizer and its weights: leave it out "
                f"(what can be given is {', '.join(known)})"
            )
        if type(value) is not type(config[part][name]):
            raise UserError(f"{name}={value!r}: give a value such as the checkpoint's, {config[part][name]!r}")
        config[part][name] = value


def build_model(
    config: dict[str, Any], dictionary: "Dictionary", head: str = ""
) -> tuple[HierarchicalBertModel, dict[str, Objective]]:
    """The model without weights, and its objectives."""
    model_config, task = OmegaConf.create(config["model"]), SimpleNamespace(**config["task"])
    objectives: dict[str, Objective] = {}
    if task._name == PRETRAINING:
        try:
            hierarchy = Hierarchy.parse(model_config.hierarchy, model_config.transfer)
        except HierarchyError as error:
            raise UserError(str(error)) from None
        objectives = build_objectives(hierarchy.objectives, task)
    model = HierarchicalBertModel.build_model(
        model_config, SimpleNamespace(objectives=objectives, source_dictionary=dictionary)
    )
    if task._name != PRETRAINING:
        layer = task.head_layer if task.head_layer > 0 else task.head_layer + model.config.layers + 1
        built = HEADS[task._name](head, model.config.hidden, task, dictionary.index(MASK))
        model.attach_head(built, head, layer, seed=1)
    return model, objectives


def save_for_use(source: Path, target: Path, finetuning: dict[str, Any]) -> None:
    """A trainer's checkpoint without what only training needs (two thirds of it)."""
    state = read_state(source)
    kept: dict[str, Any] = {
        key: state[key] for key in ("model", "task_state", "optimizer_history", "extra_state") if key in state
    }
    kept |= {"cfg": plain_config(state, source), "finetuning": finetuning}
    with write_whole(target) as part:
        torch.save(kept, part)


def load_vocabulary(path: str | Path) -> tuple["Dictionary", Tokenizer]:
    """Dictionary and tokenizer of a checkpoint, without building its model.

    Raises:
        UserError: if it has no tokenizer.
    """
    file = find_checkpoint(path)
    inside = read_state(file).get("task_state") or {}
    with _naming(file):
        dictionary, tokenizer = _dictionary(file, inside), _tokenizer(file.parent, inside)
    if tokenizer is None:
        raise UserError(
            f"{file}: no tokenizer inside or beside it: copy the data folder's (sentencepiece.bpe.model or tokenizer.json) there"
        )
    with _naming(file):
        tokenizer.check(dictionary)
    return dictionary, tokenizer


def _dictionary(file: Path, inside: dict[str, Any], data: Path | None = None) -> "Dictionary":
    places = [file.parent / "dict.txt"] if data is None else [data / "dict.txt", data / "input0" / "dict.txt"]  # GLUE's
    beside = next((place for place in places if place.is_file()), None)
    if beside is not None:
        dictionary = read_dictionary(beside)
    elif "dictionary" in inside:
        try:
            dictionary = dictionary_in(inside)
        except UnicodeDecodeError:
            raise UserError(f"{file}: the dictionary inside is damaged: {EARLIER}") from None
    else:
        raise UserError(
            f"{file}: no dictionary inside and no dict.txt beside it: copy the data folder's dict.txt there"
        )
    if MASK not in dictionary.indices:
        dictionary.add_symbol(MASK)
    return dictionary


def _tokenizer(folder: Path, inside: dict[str, Any]) -> Tokenizer | None:
    found = find_tokenizer(folder)
    if found is not None:
        return load_tokenizer(found)
    if "tokenizer" in inside:
        return tokenizer_from_bytes(inside["tokenizer_name"], inside["tokenizer"].numpy().tobytes())
    return None
