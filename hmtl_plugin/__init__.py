"""Hierarchical multitask pre-training for BERT as a fairseq plugin: ``fairseq-train --user-dir hmtl_plugin``.

Importing the package alone is cheap, and each part of it imports what it needs. Where fairseq is loaded already, as in
``fairseq-train`` and its like, also by a module of one's own that imports this one, everything is registered at once.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hmtl_plugin.hub import HierarchicalBert

__version__ = "0.1.0"
__all__ = ["HierarchicalBert", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "HierarchicalBert":
        from hmtl_plugin.hub import HierarchicalBert

        return HierarchicalBert
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if "fairseq.tasks" in sys.modules:
    from hmtl_plugin import fairseq_hooks  # noqa: F401
