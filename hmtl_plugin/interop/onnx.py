"""A checkpoint's encoder (and fine-tuned head) as an ONNX model with dynamic batch and length, checked in onnxruntime.

Inputs are those that the tokenizer of `exporting.export_hf` gives: ``input_ids`` and ``attention_mask``, (B, T).
Segments are read off the ends of sentences, as everywhere here. Outputs: ``last_hidden_state`` (B, T, H); with all
layers ``hidden_states`` (L+1, B, T, H), embeddings first; of a fine-tuned checkpoint ``logits``.
"""

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hmtl_plugin.checkpoints import LoadedCheckpoint, load_checkpoint
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import write_whole
from hmtl_plugin.interop.output import explained_out, refuse_existing
from hmtl_plugin.interop.tokenizer_files import id_order
from hmtl_plugin.special_tokens import PAD

TOLERANCE = 1e-4
_LENGTHS = ((7, 3, 12), (1,), (20, 20))  # of the batches that it is checked on


@dataclass(frozen=True)
class OnnxSummary:
    """What was written, and by how much its outputs differ from ours at most."""

    out: Path
    outputs: list[str]
    layers: int
    size: int
    difference: float

    def __str__(self) -> str:
        return (
            f"{self.out}: {', '.join(self.outputs)} of {self.layers} layers, {self.size / 1e6:.1f} MB; "
            f"in onnxruntime within {self.difference:.1e} of ours"
        )


class _Served(nn.Module):
    """Ids of the export in, states out."""

    our_id_V: Tensor

    def __init__(self, loaded: LoadedCheckpoint, order: list[int], layers: int, all_layers: bool) -> None:
        super().__init__()
        self.model, self.layers, self.all_layers = loaded.model, layers, all_layers
        self.register_buffer("our_id_V", torch.tensor(order))

    @property
    def outputs(self) -> list[str]:
        """Their names, in order."""
        head = ["logits"] if self.model.task_head is not None else []
        return ["last_hidden_state", *(["hidden_states"] if self.all_layers else []), *head]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        tokens_BT = torch.where(attention_mask.bool(), self.our_id_V[input_ids], PAD)
        wanted = range(self.layers + 1) if self.all_layers else (self.layers,)
        states = self.model.encoder(tokens_BT, wanted)
        found = [states[self.layers]]
        if self.all_layers:
            found.append(torch.stack([states[number] for number in wanted]))
        if self.model.task_head is not None:
            found.append(self.model.task_head(states[self.layers], tokens_BT))
        return tuple(found)


def export_onnx(run: str | Path, out: Path, all_layers: bool = False) -> OnnxSummary:
    """Export a checkpoint to the file ``out``, written beside and renamed once it is checked.

    Raises:
        UserError: without the packages, without a tokenizer, for a file that is there, or if onnxruntime computes
            something else.
    """
    refuse_existing(out)
    _need_packages()
    loaded = load_checkpoint(run)
    if loaded.tokenizer is None:
        raise UserError(f"{loaded.path}: no tokenizer inside or beside it: copy the data folder's there")
    layers = loaded.model.task_layer if loaded.head else loaded.model.plan.top  # type: ignore[union-attr]
    order = id_order(loaded.tokenizer, loaded.dictionary.symbols)
    served = _Served(loaded, order, layers, all_layers).eval()
    with explained_out(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(out) as part:  # at once: what cannot be written is known before the work
            refuse_existing(out)  # again, under the lock: another export may have come first
            part.write_bytes(_converted(served, loaded))
            difference = _check(served, part, out)
    return OnnxSummary(out, served.outputs, layers, out.stat().st_size, difference)


def _need_packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            raise UserError(
                f"exporting to ONNX needs the package {name}: pip install onnx onnxscript onnxruntime"
            ) from None


def _converted(served: _Served, loaded: LoadedCheckpoint) -> bytes:
    """The model as a file's content."""
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=loaded.model.config.max_positions)
    ids, mask = _batch(served, _LENGTHS[0])
    shape = {0: batch, 1: length}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet():  # it tells of its steps
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            served,
            (ids, mask),
            dynamo=True,
            input_names=["input_ids", "attention_mask"],
            output_names=served.outputs,
            dynamic_shapes={"input_ids": shape, "attention_mask": shape},
            verbose=False,
        )
    model = program.model_proto
    described = {"producer": "hmtl_plugin", "updates": str(loaded.updates), "head": loaded.head}
    if not loaded.head:
        described |= {"hierarchy": str(loaded.hierarchy), "transfer": loaded.hierarchy.transfer}
    for key, value in described.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    content: bytes = model.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet() -> Any:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _batch(served: _Served, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Random ids of the export, padded, no longer than the model's positions."""
    lengths = tuple(min(length, served.model.config.max_positions) for length in lengths)
    width, vocabulary = max(lengths), len(served.our_id_V)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (len(lengths), width), generator=generator)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return ids, mask


def _check(served: _Served, file: Path, out: Path) -> float:
    """The largest difference to ours, over positions that are no padding."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    largest = 0.0
    for lengths in _LENGTHS:
        ids, mask = _batch(served, lengths)
        with torch.no_grad():
            ours = served(ids, mask)
        theirs = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        for name, expected, found in zip(served.outputs, ours, theirs, strict=True):
            difference = np.abs(expected.numpy() - found)
            if difference.ndim >= 3:
                difference = difference[..., mask.numpy().astype(bool), :]
            found_difference = float(difference.max())
            if not found_difference < TOLERANCE:  # nor is a number
                raise UserError(
                    f"--out {out}: onnxruntime's {name} differs by {found_difference:.1e} from ours; nothing was kept"
                )
            largest = max(largest, found_difference)
    return largest
