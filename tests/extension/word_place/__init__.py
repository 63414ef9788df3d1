"""An objective whose answers are numbers, as docs/extending.md has it: how far into its sample does a token stand?"""

import numpy as np

import hmtl_plugin  # noqa: F401
from hmtl_plugin.objectives.base import Scoring, register_objective


@register_objective("place")
class WordPlace(Scoring):
    """A number for each token, in tens of tokens; none for special ones."""

    asks = "token"

    def corrupt(self, batch, random):
        special_N = batch.vocabulary.special_V[batch.tokens_N]
        batch.targets["place"] = np.where(special_N, np.nan, batch.position_N / 10)
