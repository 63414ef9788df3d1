"""An objective outside of the project, as docs/extending.md has it: how long is the sample?"""

from dataclasses import dataclass, field

import numpy as np

import hmtl_plugin  # noqa: F401  the task, the model and all that belongs to them
from hmtl_plugin.errors import UserError
from hmtl_plugin.objectives.base import Labelling, ObjectiveOptions, register_objective


@dataclass(frozen=True)
class LengthOptions(ObjectiveOptions):
    """``--length-step`` of fairseq-train."""

    length_step: int = field(default=12, metadata={"help": "length: tokens by which its classes differ"})

    def check(self) -> None:
        if self.length_step < 1:
            raise UserError(f"--length-step {self.length_step}: use 1 or more")


@register_objective("length")
class SampleLength(Labelling):
    """A label for each sample, out of four."""

    asks = "sentence"
    num_labels = 4
    labels = ("short", "middle", "long", "very long")
    Options = LengthOptions

    def corrupt(self, batch, random):
        batch.targets["length"] = np.minimum((batch.lengths_B - 1) // self.options.length_step, 3)
