"""How a pre-trained encoder is fine-tuned: what is frozen, what begins anew, how fast each layer learns.

Layers are counted from the embeddings, 0, to the layer that the head reads, t; what lies above t is not run.
"""

from dataclasses import dataclass

from torch import nn

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from hmtl_plugin.optim.marks import LR_SCALE, mark


@dataclass(frozen=True)
class Adaptation:
    """Choices of one fine-tuning run.

    Attributes:
        freeze_up_to: highest frozen layer, counted from 0, the embeddings, or from the top, -1 being L; None freezes
            nothing.
        reinit_layers: how many of the layers that end at the head's start from fresh weights (Zhang et al. 2021).
        layer_decay: factor from the learning rate of a layer to that of the one below; the head has the full rate
            (Howard and Ruder 2018; layer l has ``decay ** (t + 1 - l)``).
    """

    freeze_up_to: int | None = None
    reinit_layers: int = 0
    layer_decay: float = 1.0


def adapt(model: HierarchicalBertModel, choices: Adaptation) -> None:
    """Apply the choices to a model whose head is attached.

    Raises:
        UserError: naming the option that does not fit the model.
    """
    top = model.task_layer
    if not 0 <= choices.reinit_layers <= top:
        raise UserError(f"--reinit-layers {choices.reinit_layers}: use 0 to {top}, the layers below the head")
    if not 0 < choices.layer_decay <= 1:
        raise UserError(f"--layer-decay {choices.layer_decay}: use a number above 0 and up to 1")
    frozen = _frozen_layer(model, choices)
    if frozen > top - choices.reinit_layers and choices.reinit_layers:
        raise UserError(
            f"--freeze-up-to {choices.freeze_up_to} would freeze fresh weights: "
            f"--reinit-layers {choices.reinit_layers} begins layer {top - choices.reinit_layers + 1} anew"
        )
    parts = _parts(model)
    for part in parts[: frozen + 1]:
        part.requires_grad_(False)
    for layer, part in enumerate(parts[: top + 1]):
        for parameter in part.parameters():
            mark(parameter, **{LR_SCALE: choices.layer_decay ** (top + 1 - layer)})
    model.fresh_layers = tuple(range(top - choices.reinit_layers + 1, top + 1))


def _frozen_layer(model: HierarchicalBertModel, choices: Adaptation) -> int:
    """The highest frozen layer, -1 for none."""
    if choices.freeze_up_to is None:
        return -1
    layers = model.config.layers
    layer = choices.freeze_up_to + layers + 1 if choices.freeze_up_to < 0 else choices.freeze_up_to
    if not -layers <= choices.freeze_up_to <= layers:
        raise UserError(f"--freeze-up-to {choices.freeze_up_to}: use 0 to {layers}, or -1 to -{layers} from the top")
    return min(layer, model.task_layer)


def _parts(model: HierarchicalBertModel) -> list[nn.Module]:
    """Embeddings, then the layers, each with its output norm where there is one."""
    norms = list(model.encoder.output_norms)
    layers = [nn.ModuleList([layer, *norms[i : i + 1]]) for i, layer in enumerate(model.encoder.layers)]
    return [model.encoder.embeddings, *layers]
