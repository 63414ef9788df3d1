"""Checkpoint keys: the architecture record, positions of another length, heads of another hierarchy.

fairseq loads strictly and takes the *new* run's model config, so what tensor shapes do not show (heads, pre-
or post-norm, activation, epsilon, segment scheme) must travel with the weights: as JSON in a uint8 buffer of
fixed size, which `weights_only` loading and fp16 leave as it is. EMA averages every entry but those with
"version" in their name; hence the buffer's name.
"""

import json
import logging
from typing import Any

import torch
from torch import Tensor

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.shape import COUNT, misfit
from hmtl_plugin.models.config import RECORDED, EncoderConfig, flag

logger = logging.getLogger(__name__)

RECORD_KEY = "architecture_version"
TOKEN_KEY, LAYER_PREFIX = "encoder.embeddings.token.weight", "encoder.layers."
POSITION_KEY = "encoder.embeddings.position.weight"
WEIGHTS_KEY = "task_weights"
_RECORD_BYTES = 2048
_UNTIED_KEY, _MLM_KEY = "heads.mlm.decoder.weight", "heads.mlm.bias"
_SHIFT_HIDDEN_KEY, _SHIFT_LINEAR_KEY, _SHIFT_KEY = (
    f"heads.bigram_shift.{part}.weight" for part in ("dense", "linear", "out")
)
_HEAD_PREFIXES = ("heads.", "poolings.", "transfers.", "mixes.", "task_head.")
_SEGMENTS = "eos2"  # how segments are derived: min(1, number of </s> before)
_RECORD = {"version?": COUNT, "objectives?": [str], "head?": str}
_VERSION = 2  # of the record; 1 had no version and fewer options, which then were as their defaults are


def encode_record(config: EncoderConfig, objectives: tuple[str, ...], head: str = "") -> Tensor:
    """The record of a model as a uint8 vector: its architecture, the order of its ``task_weights``, its task's head."""
    record: dict[str, Any] = {"version": _VERSION}
    record |= {option.name: getattr(config, option.name) for option in EncoderConfig.options(RECORDED)}
    record |= {"segments": _SEGMENTS, "vocabulary": config.vocabulary, "objectives": list(objectives), "head": head}
    content = json.dumps(record, separators=(",", ":")).encode()
    if len(content) > _RECORD_BYTES:
        raise ValueError(f"the architecture record takes {len(content)} bytes, more than {_RECORD_BYTES}")
    return torch.tensor(list(content.ljust(_RECORD_BYTES)), dtype=torch.uint8)


def decode_record(record: Tensor) -> dict[str, Any]:
    """The dictionary in a record; it can serve to build the model a checkpoint asks for."""
    try:
        decoded = json.loads(bytes(record.to(torch.uint8).flatten().tolist()))
    except (ValueError, RecursionError):
        decoded = None
    if misfit(decoded, _RECORD) is not None:
        raise UserError("the checkpoint's architecture record is damaged: use another checkpoint")
    assert isinstance(decoded, dict)
    return decoded


def upgrade(
    state: dict[str, Tensor],
    own: dict[str, Tensor],
    config: EncoderConfig,
    objectives: tuple[str, ...],
    resize_positions: bool,
    head: str = "",
    fresh_layers: tuple[int, ...] = (),
) -> None:
    """Make a checkpoint's weights fit a model, in place; without a change for a checkpoint of the same run.

    Args:
        state: the checkpoint's weights, keys relative to the model.
        own: the model's own ``state_dict``; these weights stay where the checkpoint lacks a head or transfer.
        head: name of the model's task head; one that was trained on another task is dropped.
        fresh_layers: layers, from 1, whose own weights stay unless the checkpoint's head is the same.

    Raises:
        UserError: naming the option in which the architectures differ.
    """
    stored: tuple[str, ...] | None = None
    if RECORD_KEY in state:  # absent in the partial states that EMA restores after every update
        record = decode_record(state[RECORD_KEY])
        _refuse_other_architecture(record, config)
        stored = tuple(record.get("objectives", ()))
        if WEIGHTS_KEY in state and state[WEIGHTS_KEY].shape != (len(stored),):
            raise UserError(f"the checkpoint's {WEIGHTS_KEY} are not those of its objectives: use another checkpoint")
        state[RECORD_KEY] = own[RECORD_KEY].clone()
        same_head = record.get("head", "") == head
        if fresh_layers and not same_head:
            _begin_anew(state, own, fresh_layers)
        elif fresh_layers:
            logger.info(
                "--reinit-layers: the checkpoint has this task's head already, as a resumed run has: no layer begins anew"
            )
    _refuse_other_dimensions(state, own)
    _fit_positions(state, config, resize_positions)
    _refuse_other_shapes(state, own)
    if stored is not None:
        _refuse_other_output(state, own)
        _refuse_other_bigram_head(state, own)
        _refuse_other_parts(state, own)
        _refuse_other_pooling(state, own)
        _fit_heads(state, own, same_head)
        _fit_task_weights(state, own, stored, objectives)


def _refuse_other_architecture(record: dict[str, Any], config: EncoderConfig) -> None:
    if record.get("version", 1) > _VERSION:
        raise UserError(
            "the checkpoint was written by a newer version of this project: use that version, or a newer one"
        )
    if record.get("segments") != _SEGMENTS:
        raise UserError(
            f"the checkpoint numbers segments by scheme '{record.get('segments')}', this version by '{_SEGMENTS}': "
            "use the version that wrote it"
        )
    for option in EncoderConfig.options(RECORDED):
        theirs, ours = record.get(option.name, option.default), getattr(config, option.name)
        if theirs == ours:
            continue
        if isinstance(ours, bool):
            raise UserError(
                f"the checkpoint was trained {'with' if theirs else 'without'} {flag(option)}: "
                f"{'add it' if theirs else 'leave it out'}"
            )
        raise UserError(
            f"the checkpoint was trained with {flag(option)} {theirs}, this model has {ours}: "
            f"give {flag(option)} {theirs}"
        )
    if record.get("vocabulary") != config.vocabulary:
        raise UserError(
            f"the checkpoint has a vocabulary of {record.get('vocabulary')}, "
            f"this run's dictionary one of {config.vocabulary}: "
            "use data prepared with the checkpoint's dictionary (dict.txt)"
        )


def _fit_positions(state: dict[str, Tensor], config: EncoderConfig, resize: bool) -> None:
    table = state.get(POSITION_KEY)
    wanted = config.max_positions
    if table is None or len(table) == wanted:
        return
    if not resize:
        raise UserError(
            f"the checkpoint has {len(table)} positions, this model {wanted}: "
            f"give --max-positions {len(table)}, or --resize-positions to continue with another number"
        )
    state[POSITION_KEY] = table.repeat(-(-wanted // len(table)), 1)[:wanted].clone()
    how = "new rows repeat the old table" if wanted > len(table) else "the last rows are dropped"
    logger.info(f"positions resized from {len(table)} to {wanted}: {how}")


def _begin_anew(state: dict[str, Tensor], own: dict[str, Tensor], layers: tuple[int, ...]) -> None:
    """Give these layers the model's own weights."""
    prefixes = tuple(f"encoder.{part}.{layer - 1}." for layer in layers for part in ("layers", "output_norms"))
    for key in filter(lambda key: key.startswith(prefixes), state):
        state[key] = own[key].clone()
    logger.info(f"layers {layers[0]} to {layers[-1]} start from fresh weights (--reinit-layers)")


def _refuse_other_shapes(state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    for key, value in state.items():
        if key.startswith("encoder.") and key in own and own[key].shape != value.shape:
            raise UserError(
                f"the checkpoint's {key} has shape {tuple(value.shape)}, "
                f"this model's {tuple(own[key].shape)}: "
                "give the --encoder-* options (--arch) and the dictionary the checkpoint was trained with"
            )


def _refuse_other_dimensions(state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """A vector where the model has a table is of no run of any options."""
    for key, value in state.items():
        if key in own and own[key].dim() != value.dim():
            raise UserError(
                f"the checkpoint's {key} has {value.dim()} dimensions, not {own[key].dim()}: use another one"
            )


def _refuse_other_output(state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """A masked-LM head whose output matrix is dropped, or drawn anew, would begin far from what the checkpoint reached."""
    if _MLM_KEY in state and _MLM_KEY in own and (_UNTIED_KEY in state) != (_UNTIED_KEY in own):
        untied = _UNTIED_KEY in state
        raise UserError(
            f"the checkpoint was trained {'with' if untied else 'without'} --untied-output: "
            f"{'add it' if untied else 'leave it out'}"
        )


def _refuse_other_bigram_head(state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Scores read off states that they were not trained on would begin as noise."""
    if _SHIFT_KEY in state and _SHIFT_KEY in own and _bigram_head(state) != _bigram_head(own):
        raise UserError(f"the checkpoint was trained with --bigram-head {_bigram_head(state)}: give that")


def _bigram_head(state: dict[str, Tensor]) -> str:
    return "both" if _SHIFT_LINEAR_KEY in state else "hidden" if _SHIFT_HIDDEN_KEY in state else "linear"


def _refuse_other_parts(state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """A head of other classes, or an operator whose code has changed, would answer from fresh weights, in part at
    least.
    """
    theirs, ours = _shapes(state), _shapes(own)
    for (kind, name), weights in theirs.items():
        current = ours.get((kind, name), weights)
        if (
            kind == "heads" and name == "bigram_shift"
        ):  # has an option that adds to it; what else differs is refused above
            weights, current = (
                {key: each[key] for key in weights.keys() & current.keys()} for each in (weights, current)
            )
        for key in sorted(weights.keys() | current.keys()):
            if weights.get(key) != current.get(key):
                part = f"objective '{name}'" if kind == "heads" else f"transfer '{name}'"
                raise UserError(
                    f"{part}: the checkpoint has {_described(key, weights.get(key))}, as it is now {_described(key, current.get(key))}: "
                    "give back its num_labels, or the code, that it was trained with, or use another name"
                )


def _shapes(state: dict[str, Tensor]) -> dict[tuple[str, str], dict[str, tuple[int, ...]]]:
    """(``heads`` or ``transfers``, name) -> weight -> its shape."""
    found: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}
    for key, value in state.items():
        kind, _, rest = key.partition(".")
        if kind in ("heads", "transfers"):
            name, _, weight = rest.partition(".")
            found.setdefault((kind, name), {})[weight] = tuple(value.shape)
    return found


def _described(key: str, shape: tuple[int, ...] | None) -> str:
    return f"no {key}" if shape is None else f"{key} {' x '.join(map(str, shape))}"


def _refuse_other_pooling(state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """An objective's head reads noise where its pooling is half loaded, or of an older version."""
    for name in sorted({key.split(".")[1] for key in state if key.startswith("poolings.")}):
        theirs, ours = (
            {key: value.shape for key, value in each.items() if key.startswith(f"poolings.{name}.")}
            for each in (state, own)
        )
        if ours and theirs != ours:
            raise UserError(
                f"the checkpoint's pooling of {name} has other weights than this model's: give the --sentence-pooling "
                "that it was trained with, or use the version that wrote it"
            )


def _fit_heads(state: dict[str, Tensor], own: dict[str, Tensor], same_head: bool) -> None:
    """Drop heads and transfers that the model lacks and a task's head that is of another task or has other weights,
    keep fresh ones in their place, and say so.
    """
    theirs = {key for key in state if key.startswith(_HEAD_PREFIXES)}
    ours = {key for key in own if key.startswith(_HEAD_PREFIXES)}
    fitting = {key for key in theirs & ours if state[key].shape == own[key].shape}
    task_head = {key for key in theirs | ours if key.startswith("task_head.")}
    if not (same_head and task_head <= fitting):  # a pooling with weights is another than one without
        fitting -= task_head
    for key in theirs - ours:
        del state[key]
    for key in ours - fitting:
        state[key] = own[key].clone()
    if theirs != ours or fitting != ours:
        logger.info(
            f"another hierarchy or task than the checkpoint's: loaded the encoder and {_parts(fitting)}; "
            f"dropped {_parts(theirs - fitting)}; new, with fresh weights {_parts(ours - fitting)}"
        )


def _parts(keys: set[str]) -> str:
    return ", ".join(sorted({_part(*key.split(".")[:2]) for key in keys})) or "nothing"


def _part(kind: str, name: str) -> str:
    return kind if kind == "task_head" else {"poolings": "the pooling of ", "mixes": "the mix of "}.get(kind, "") + name


def _fit_task_weights(
    state: dict[str, Tensor], own: dict[str, Tensor], stored: tuple[str, ...], objectives: tuple[str, ...]
) -> None:
    """The learned log-variances go by the objectives' names."""
    theirs = state.get(WEIGHTS_KEY)
    if stored == objectives:
        return
    if not objectives:
        state.pop(WEIGHTS_KEY, None)
        return
    fitted = own[WEIGHTS_KEY].clone()
    for index, name in enumerate(objectives):
        if theirs is not None and name in stored:
            fitted[index] = theirs[stored.index(name)]
    state[WEIGHTS_KEY] = fitted
