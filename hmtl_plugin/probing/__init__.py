"""Probing: what the frozen layers of an encoder know, by classifiers trained on them.

from hmtl_plugin.probing import probe
"""

from hmtl_plugin.probing.api import probe
from hmtl_plugin.probing.encoders import GivenEncoder

__all__ = ["GivenEncoder", "probe"]
