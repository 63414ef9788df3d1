"""Hierarchical multitask pre-training for BERT as a fairseq plugin: ``fairseq-train --user-dir hmtl_plugin``."""

from hmtl_plugin import compat

compat.install()  # before anything that touches fairseq

from hmtl_plugin import launch  # noqa: E402

launch.install()

from hmtl_plugin import fairseq_hub, models, optim, tasks, user_dir  # noqa: E402, F401
from hmtl_plugin.criterions import hierarchical, sentence_score, span_qa  # noqa: E402, F401
from hmtl_plugin.hub import HierarchicalBert  # noqa: E402
from hmtl_plugin.tasks import glue, pretraining, squad  # noqa: E402, F401

fairseq_hub.install()
user_dir.import_outside()  # last, for it imports what stands above

__version__ = "0.1.0"
__all__ = ["HierarchicalBert", "__version__"]
